"""Which of several ways is taken: ties go to what was changed least."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest

from edgec.compiler.search.trials import Trials

NOISE = np.array([-1.0, 1.0] * 50)
"""Of deviation 1: a standard error of 0.1 in the mean of 100 samples."""


def trials(**means: float) -> Trials[str]:
    """Ways with these mean losses: a standard error of 0.1 between the first and each other, of 0.2 between those."""
    nothing = cast(Any, None)
    noise = {one: np.roll(NOISE, index) * (index > 0) for index, one in enumerate(means)}
    return Trials(nothing, nothing, nothing, {one: mean + noise[one] for one, mean in means.items()})


@pytest.mark.parametrize(
    ("usual", "fitted", "untouched", "taken"),
    [
        (1.0, 0.5, 0.55, "untouched"),  # a tie of two that are better than the usual
        (1.0, 0.5, 0.95, "fitted"),  # what is untouched is not told from the usual
        (1.0, 0.2, 0.5, "fitted"),  # the fitted one is clearly better
        (1.0, 0.6, 0.5, "untouched"),
        (0.5, 0.49, 0.45, "usual"),  # nothing is told from the usual
        (0.5, 1.0, 1.0, "usual"),
    ],
)
def test_a_tie_goes_to_what_was_changed_least(
    usual: float, fitted: float, untouched: float, taken: str
) -> None:
    made = trials(usual=usual, fitted=fitted, untouched=untouched)
    assert made.simplest("usual", "untouched", ("usual", "fitted", "untouched")) == taken


def test_without_an_untouched_way_the_best_is_taken() -> None:
    made = trials(usual=1.0, fitted=0.5, other=0.7)
    assert made.simplest("usual", None, ("usual", "fitted", "other")) == "fitted"
    assert made.simplest("usual", "untouched", ("usual", "other")) == "other"
