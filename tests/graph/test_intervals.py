"""Intervals: of known distributions they hold the true value as often as they say; of nothing they say nothing."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from edgec.graph.intervals import bootstrap, paired, wilson


def first(means):
    return means[:, 0]


@pytest.mark.parametrize(("hits", "count"), [(0, 30), (30, 30), (587, 650), (3, 7), (1, 2)])
def test_wilson_is_that_of_scipy(hits: int, count: int) -> None:
    theirs = stats.binomtest(hits, count).proportion_ci(method="wilson")
    assert wilson(hits / count, count) == pytest.approx((theirs.low, theirs.high), abs=1e-7)


def test_of_no_sample_nothing_is_known() -> None:
    assert wilson(0.0, 0) == (0.0, 1.0)
    assert bootstrap(np.zeros((1, 1)), first) is None
    assert bootstrap(np.full((50, 1), 0.3), first) is None
    assert bootstrap(np.array([[1.0], [np.nan]]), first) is None


def test_the_bootstrap_is_near_that_of_scipy() -> None:
    """At the level that 95% is expanded to for 80 samples."""
    rows = np.random.default_rng(0).exponential(size=(80, 1))
    found = bootstrap(rows, first)
    level = 2 * stats.norm.cdf(np.sqrt(80 / 79) * stats.t.ppf(0.975, 79)) - 1
    assert 0.951 < level < 0.96
    theirs = stats.bootstrap(
        (rows[:, 0],), np.mean, n_resamples=9999, random_state=0, confidence_level=level
    ).confidence_interval
    assert found == pytest.approx((theirs.low, theirs.high), abs=0.05)
    assert bootstrap(rows, first) == found


@pytest.mark.parametrize("draw", ["normal", "exponential", "beta"])
def test_the_mean_is_held_in_about_95_of_100(draw: str) -> None:
    rng = np.random.default_rng(1)
    sample = {
        "normal": (lambda: rng.normal(2, 1, (60, 1)), 2.0),
        "exponential": (lambda: rng.exponential(1, (60, 1)), 1.0),
        "beta": (lambda: rng.beta(8, 1, (60, 1)), 8 / 9),
    }
    make, mean = sample[draw]
    held = [low <= mean <= high for low, high in (bootstrap(make(), first) for _ in range(150))]
    assert np.mean(held) > 0.88


def test_a_ratio_of_sums_is_not_a_mean_of_ratios() -> None:
    rows = np.array([[1.0, 1], [0, 9]] * 20)
    low, high = bootstrap(rows, lambda means: means[:, 0] / means[:, 1])
    assert low < 0.1 < high < 0.3


def test_newcombes_own_examples() -> None:
    """Of his paper, method 10: (both, ours only, theirs only, neither) and the interval."""
    for (a, b, c, d), wanted in (
        ((36, 12, 2, 0), (0.0569, 0.3404)),
        ((54, 0, 0, 0), (-0.0664, 0.0664)),
    ):
        ours = np.repeat([True, True, False, False], [a, b, c, d])
        theirs = np.repeat([True, False, True, False], [a, b, c, d])
        assert paired(ours, theirs) == pytest.approx(wanted, abs=6e-4), (a, b, c, d)


def test_two_that_never_differ_may_do_so_elsewhere() -> None:
    hits = np.arange(128) < 111
    low, high = paired(hits, hits)
    assert -0.06 < low < -0.01
    assert 0.01 < high < 0.06
