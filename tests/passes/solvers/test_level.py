"""The level of scores, against sums over every value and samples left out one by one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgec.passes.solvers.level import SHRINK, level, score_sums


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 999), samples=st.integers(2, 6), values=st.integers(1, 20))
def test_every_sample_is_judged_by_the_others(seed: int, samples: int, values: int) -> None:
    rng = np.random.default_rng(seed)
    wanted = rng.normal(-2, 2, (samples, values))
    made = wanted - rng.normal(0.2, 0.3, (samples, values))
    shift, gains = level(score_sums(wanted, made))
    slope = np.exp(-wanted) / np.square(1 + np.exp(-wanted))
    assert shift == pytest.approx(_alone(slope**2, wanted - made), rel=1e-9)
    for one in range(samples):
        others = np.arange(samples) != one
        left = _alone(slope[others] ** 2, (wanted - made)[others])
        lost = slope[one] ** 2 * (np.square(wanted - made)[one] - np.square(wanted - made - left)[one])
        assert gains[one] == pytest.approx(lost.sum(), rel=1e-6, abs=1e-12)


def _alone(weight: np.ndarray[Any, Any], error: np.ndarray[Any, Any]) -> float:
    say = weight.sum() ** 2 / (weight**2).sum()
    return float((weight * error).sum() / weight.sum() * say / (say + SHRINK))


def test_background_alone_lacks_nothing() -> None:
    far = np.full((3, 50), -900.0)
    shift, gains = level(score_sums(far, far - 30))
    assert shift == 0.0
    assert (gains == 0.0).all()
