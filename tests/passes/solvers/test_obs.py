"""Elimination curves against refits written out."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgec.passes.solvers import obs
from edgec.passes.solvers.obs import Consumer, eliminate
from edgec.passes.solvers.ridge import factor

LAM = 1e-3


def problem(seed: int, units: int, rows_per_unit: int, outputs: int = 3, extra: int = 1) -> Consumer:
    rng = np.random.default_rng(seed)
    n = units * rows_per_unit + extra
    p = rng.standard_normal((4 * n, n)) @ rng.standard_normal((n, n))
    return Consumer(p.T @ p, rng.standard_normal((n, outputs)), np.arange(n - extra).reshape(units, -1))


def refit_error(consumer: Consumer, gone: tuple[int, ...]) -> float:
    """Least damped squared error of reproducing W's outputs without the rows of ``gone``."""
    n = len(consumer.h)
    damped = consumer.h + LAM * np.trace(consumer.h) / n * np.eye(n)
    w = consumer.w if consumer.metric is None else consumer.w @ consumer.metric
    keep = np.setdiff1d(np.arange(n), consumer.units[list(gone)].ravel())
    best = np.zeros_like(w)
    best[keep] = np.linalg.solve(damped[np.ix_(keep, keep)], damped[keep] @ w)
    return float(consumer.scale * np.trace((w - best).T @ damped @ (w - best)))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**16), st.integers(2, 7), st.integers(1, 3), st.booleans())
def test_every_point_of_the_curve_is_the_error_after_a_refit(
    seed: int, units: int, rows: int, weighed: bool
) -> None:
    consumer = problem(seed, units, rows)
    if weighed:
        metric = np.linalg.cholesky(np.diag([1.0, 4.0, 0.25]) + 0.1)
        consumer = Consumer(consumer.h, consumer.w, consumer.units, 0.5, metric)
    curve = eliminate([consumer], LAM)
    assert sorted(curve.order) == list(range(units))
    assert curve.errors[0] == 0
    for gone in range(1, units):
        assert curve.errors[gone] == pytest.approx(refit_error(consumer, curve.order[:gone]), rel=1e-6)


def test_blocked_updates_equal_immediate_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    consumer = problem(3, 30, 4)
    lazy = eliminate([consumer], LAM)
    monkeypatch.setattr(obs, "PENDING_COLUMNS", 1)
    eager = eliminate([consumer], LAM)
    assert lazy.order == eager.order
    np.testing.assert_allclose(lazy.errors, eager.errors, rtol=1e-8)


def test_the_first_removal_is_the_cheapest_over_all_consumers() -> None:
    consumers = [problem(1, 5, 2), problem(2, 5, 3, outputs=7)]
    curve = eliminate(consumers, LAM)
    costs = [sum(refit_error(c, (unit,)) for c in consumers) for unit in range(5)]
    assert curve.order[0] == int(np.argmin(costs))
    assert curve.errors[1] == pytest.approx(min(costs), rel=1e-6)


def test_greedy_is_close_to_exhaustive_search() -> None:
    consumer = problem(5, 7, 1, outputs=2)
    curve = eliminate([consumer], LAM)
    best = min(refit_error(consumer, gone) for gone in itertools.combinations(range(7), 3))
    assert curve.errors[3] <= 1.5 * best


def test_redundant_units_go_first_and_for_nothing() -> None:
    rng = np.random.default_rng(0)
    p = rng.standard_normal((200, 6))
    p[:, 5] = p[:, 0] + p[:, 1]
    consumer = Consumer(p.T @ p, rng.standard_normal((6, 3)), np.arange(6)[:, None])
    curve = eliminate([consumer], 1e-9)
    assert curve.order[0] in (0, 1, 5)
    assert curve.errors[1] < 1e-5
    assert curve.errors[2] > 1.0
    np.testing.assert_array_equal(curve.kept(5), np.setdiff1d(np.arange(6), curve.order[:1]))


def test_a_single_unit_stays_and_no_consumer_is_an_error() -> None:
    assert eliminate([problem(0, 1, 2)], LAM).order == (0,)
    with pytest.raises(ValueError, match="reads"):
        eliminate([], LAM)


def test_the_inverse_matches_the_factor() -> None:
    consumer = problem(9, 4, 2)
    n = len(consumer.h)
    damped = consumer.h + LAM * np.trace(consumer.h) / n * np.eye(n)
    np.testing.assert_allclose(factor(consumer.h, LAM).inverse() @ damped, np.eye(n), atol=1e-8)


def test_rounding_never_pays_for_a_removal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(obs, "PENDING_COLUMNS", 8)
    whole = problem(7, 24, 3)
    w = whole.w.copy()
    w[whole.units[[4, 9]].ravel()] = 0.0
    w[whole.units[12:].ravel()] *= 1e-9
    # What no unit does the others need not make up for: independent inputs.
    consumer = Consumer(np.diag(np.arange(1.0, len(whole.h) + 1)), w, whole.units)
    curve = eliminate([consumer], LAM)
    assert set(curve.order[:2]) <= {4, 9, *range(12, 24)}
    assert set(curve.order[:14]) == {4, 9, *range(12, 24)}
    assert (np.diff(curve.errors) >= 0).all()
    assert curve.errors[-1] > 0
