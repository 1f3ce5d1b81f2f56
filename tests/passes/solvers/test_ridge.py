"""Ridge and clipped least squares against closed forms, numpy and scipy, on healthy and on degenerate statistics."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.optimize
from hypothesis import given, settings
from hypothesis import strategies as st

from edgec.passes.solvers.rectified import Clipping, fit_clipped
from edgec.passes.solvers.ridge import TooLargeError, factor, ridge


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 12), st.integers(0, 2**16), st.sampled_from([1e-6, 1e-3, 1.0, 1e3]))
def test_ridge_is_the_stacked_least_squares(n: int, seed: int, lam: float) -> None:
    rng = np.random.default_rng(seed)
    p, t, w0 = rng.standard_normal((30, n)), rng.standard_normal((30, 4)), rng.standard_normal((n, 4))
    h = p.T @ p
    d = lam * np.trace(h) / n
    stacked = np.linalg.lstsq(np.r_[p, np.sqrt(d) * np.eye(n)], np.r_[t, np.sqrt(d) * w0], rcond=None)[0]
    found = ridge(h[None], (p.T @ t)[None], w0[None], lam)
    np.testing.assert_allclose(found.columns[0], stacked, rtol=1e-7, atol=1e-9)
    assert found.jitter == 0


def test_a_huge_ridge_returns_the_given_solution() -> None:
    rng = np.random.default_rng(0)
    p, t, w0 = rng.standard_normal((40, 6)), rng.standard_normal((40, 2)), rng.standard_normal((6, 2))
    found = ridge((p.T @ p)[None], (p.T @ t)[None], w0[None], 1e12)
    np.testing.assert_allclose(found.columns[0], w0, atol=1e-9)


def test_too_few_rows_move_the_weights_only_where_rows_speak() -> None:
    rng = np.random.default_rng(1)
    p, w0 = rng.standard_normal((3, 10)), rng.standard_normal((10, 2))
    t = rng.standard_normal((3, 2))
    found = ridge((p.T @ p)[None], (p.T @ t)[None], w0[None], 1e-6).columns[0]
    np.testing.assert_allclose(p @ found, t, atol=1e-4)
    unseen = np.linalg.svd(p)[2][3:]
    np.testing.assert_allclose(unseen @ found, unseen @ w0, atol=1e-4)


def test_rank_deficient_statistics_get_a_reported_jitter() -> None:
    rng = np.random.default_rng(2)
    p = rng.standard_normal((20, 4)) @ rng.standard_normal((4, 9))
    found = ridge((p.T @ p)[None], (p.T @ p[:, :2])[None], np.zeros((1, 9, 2)), 0.0)
    assert found.jitter > 0
    assert np.isfinite(found.columns).all()
    np.testing.assert_allclose(p @ found.columns[0], p[:, :2], atol=1e-2)


def test_statistics_of_no_rows_fall_back() -> None:
    w0 = np.ones((1, 5, 2))
    found = ridge(np.zeros((1, 5, 5)), np.zeros((1, 5, 2)), w0, 1e-3)
    np.testing.assert_allclose(found.columns, w0)


def test_condition_and_inverse_agree_with_numpy() -> None:
    rng = np.random.default_rng(3)
    scales = np.logspace(0, -4, 12)
    p = rng.standard_normal((200, 12)) * scales
    h = p.T @ p
    found = factor(h, 0.0)
    assert found.jitter == 0
    assert found.condition == pytest.approx(np.linalg.cond(h, 1), rel=0.5)
    np.testing.assert_allclose(found.inverse() @ h, np.eye(12), atol=1e-6)


def test_ill_conditioned_statistics_are_still_solved_accurately() -> None:
    n = 8
    h = 1.0 / (np.arange(n)[:, None] + np.arange(n)[None, :] + 1)
    wanted = np.ones((n, 1))
    found = ridge(h[None], (h @ wanted)[None], np.zeros((1, n, 1)), 0.0)
    assert found.condition > 1e9
    np.testing.assert_allclose(h @ found.columns[0], h @ wanted, atol=1e-10)


def test_statistics_that_are_not_finite_are_refused() -> None:
    with pytest.raises(TooLargeError, match="finite"):
        factor(np.array([[np.nan]]), 1e-3)


@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize(
    "clipping", [Clipping(), Clipping(0.0, 6.0), Clipping(None, 6.0), Clipping(-1.0, 1.0)]
)
def test_the_nearest_that_would_do_is_chosen_to_the_last_bit(clipping: Clipping, shifted: bool) -> None:
    rng = np.random.default_rng(0)
    made, wanted = (5 * rng.standard_normal((2, 40, 50, 6))).astype(np.float32)
    wanted[::5], wanted[1::5] = np.float32(clipping.low or 0), np.float32(clipping.high or 0)
    wanted[2::5] *= np.float32(1e-30)
    offset = rng.standard_normal(made.shape).astype(np.float32) if shifted else None
    rest = np.zeros_like(made) if offset is None else offset
    expected = wanted.copy()
    if clipping.low is not None:
        low = np.float32(clipping.low) - rest
        expected = np.where(wanted <= low, np.minimum(made, low), expected)
    if clipping.high is not None:
        high = np.float32(clipping.high) - rest
        expected = np.where(wanted >= high, np.maximum(made, high), expected)
    found = clipping.nearest(made, wanted, offset)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("shape", [(3, 50, 41), (1, 1), (2, 1024), (0, 4)])
@pytest.mark.parametrize(
    "clipping", [Clipping(), Clipping(0.0, 6.0), Clipping(None, 6.0), Clipping(-1.0, 1.0)]
)
def test_an_activation_bounds_every_number_wherever_it_lies(
    clipping: Clipping, shape: tuple[int, ...]
) -> None:
    value = (5 * np.random.default_rng(0).standard_normal((*shape, 2))).astype(np.float32)
    value[..., :1] = np.float32(clipping.high or 0)
    low, high = (
        bound if given is None else given
        for bound, given in ((-np.inf, clipping.low), (np.inf, clipping.high))
    )
    expected = np.clip(value, np.float32(low), np.float32(high))
    for turned in (value, value[::-1], np.asfortranarray(value), value[..., 1:]):
        wanted = np.clip(turned, np.float32(low), np.float32(high))
        np.testing.assert_array_equal(clipping.apply(turned), wanted)
        room = np.empty_like(turned)
        assert clipping.apply(turned, out=room) is room
        np.testing.assert_array_equal(room, wanted)
    assert clipping.apply(value, out=value) is value
    np.testing.assert_array_equal(value, expected)


@pytest.mark.parametrize("clipping", [Clipping(), Clipping(0.0, 1.0), Clipping(None, 0.5)])
@pytest.mark.parametrize("shifted", [False, True])
def test_clipped_fit_reaches_the_minimum_of_its_convex_loss(clipping: Clipping, shifted: bool) -> None:
    rng = np.random.default_rng(4)
    p = rng.standard_normal((1, 120, 4)).astype(np.float32)
    t = rng.standard_normal((1, 120, 2)).astype(np.float32)
    offset = rng.standard_normal((1, 120, 2)).astype(np.float32) * 0.3 if shifted else None

    def loss(flat: np.ndarray) -> float:
        prediction = p @ flat.reshape(1, 4, 2)
        return float(np.square(prediction - clipping.nearest(prediction, t, offset)).sum())

    start = ridge(p[0].T @ p[0][None], p[0].T @ t[0][None], np.zeros((1, 4, 2)), 1e-9)
    found = fit_clipped([(p, t, offset)], start.factors, start.columns, np.zeros((1, 4, 2)), clipping, 60)
    best = scipy.optimize.minimize(loss, start.columns.ravel(), method="BFGS").fun
    assert loss(start.columns.ravel()) > best * 1.001
    assert loss(found.ravel()) == pytest.approx(best, rel=5e-4)


def test_what_both_sides_clip_costs_nothing() -> None:
    clipping = Clipping(0.0, 6.0)
    target = np.array([[[-3.0, 2.0, 9.0]]], np.float32)
    prediction = np.array([[[-1.0, 2.0, 7.0]]], np.float32)
    np.testing.assert_array_equal(clipping.nearest(prediction, target, None), prediction)
    assert clipping.error(prediction, target, None) == (0.0, 40.0)
