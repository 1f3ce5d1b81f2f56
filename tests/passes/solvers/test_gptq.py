"""Rounding with error feedback, against exhaustive search on tiny problems."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgec.passes.solvers.gptq import Feedback, damped, descend, error, gptq, round_to_nearest, search_scales


def problem(
    seed: int, groups: int = 1, outputs: int = 3, inputs: int = 8, rows: int = 64
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Correlated inputs, weights, and min/max scales for codes of 4 bits."""
    rng = np.random.default_rng(seed)
    mix = rng.standard_normal((groups, inputs, inputs)) + 2.0
    x = rng.standard_normal((groups, rows, inputs)) @ mix
    W = rng.standard_normal((groups, outputs, inputs))
    return x.transpose(0, 2, 1) @ x, W, np.abs(W).max(axis=2) / 7


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), groups=st.integers(1, 3))
def test_errors_only_fall(seed: int, groups: int) -> None:
    H, W, scales = problem(seed, groups)
    rounded = gptq(Feedback.of(H), W, scales, 7)
    assert rounded.dtype == np.int8
    assert np.abs(rounded).max() <= 7
    improved = descend(H, W, scales, rounded, 7)
    assert np.all(error(H, W, scales, improved) <= error(H, W, scales, rounded) + 1e-9)
    nearest = round_to_nearest(W, scales, 7)
    assert np.all(
        error(H, W, scales, descend(H, W, scales, nearest, 7)) <= error(H, W, scales, nearest) + 1e-9
    )


def test_far_better_than_nearest_on_correlated_inputs() -> None:
    total = {"nearest": 0.0, "gptq": 0.0}
    for seed in range(20):
        H, W, scales = problem(seed, inputs=32, rows=256)
        total["nearest"] += float(error(H, W, scales, round_to_nearest(W, scales, 7)).sum())
        total["gptq"] += float(
            error(H, W, scales, descend(H, W, scales, gptq(Feedback.of(H), W, scales, 7), 7)).sum()
        )
    assert total["gptq"] < 0.2 * total["nearest"]


@pytest.mark.parametrize("seed", range(5))
def test_near_the_optimum_of_a_tiny_problem(seed: int) -> None:
    H, W, scales = problem(seed, outputs=1, inputs=4)
    near = round_to_nearest(W, scales, 7)[0, 0].astype(int)
    candidates = np.array(list(itertools.product(*[range(c - 3, c + 4) for c in near])))
    difference = W[0, 0] - np.clip(candidates, -7, 7) * scales[0, 0]
    best = np.einsum("ni,ij,nj->n", difference, H[0], difference).min()
    found = descend(H, W, scales, gptq(Feedback.of(H), W, scales, 7), 7)
    assert error(H, W, scales, found)[0, 0] <= 4 * best + 1e-9


def test_uncorrelated_inputs_give_the_nearest_codes() -> None:
    _, W, scales = problem(0)
    H = np.eye(8)[None]
    np.testing.assert_array_equal(gptq(Feedback.of(H), W, scales, 7), round_to_nearest(W, scales, 7))


def test_many_columns_cross_blocks() -> None:
    """The lazy update of later blocks is the same as rounding column by column."""
    H, W, scales = problem(3, inputs=150, rows=600)
    codes = gptq(Feedback.of(H), W, scales, 7)
    order = np.argsort(-np.diag(H[0]), kind="stable")
    Hd = damped(H, 0.01)[0][np.ix_(order, order)]
    w, result = W[0][:, order].copy(), np.zeros((3, 150))
    inverse = np.linalg.inv(Hd)
    for j in range(150):
        result[:, j] = np.clip(np.rint(w[:, j] / scales[0]), -7, 7)
        step = (w[:, j] - result[:, j] * scales[0]) / inverse[j, j]
        w[:, j:] -= step[:, None] * inverse[j, j:]
        inverse -= np.outer(inverse[:, j], inverse[j]) / inverse[j, j]
    back = np.argsort(order)
    assert np.mean(result[:, back] == codes[0]) > 0.99


@pytest.mark.parametrize("H", [np.zeros((1, 6, 6)), np.ones((1, 6, 6)), np.diag([1.0, 0, 2, 0, 0, 3])[None]])
def test_degenerate_statistics(H: np.ndarray) -> None:
    W = np.random.default_rng(0).standard_normal((1, 2, 6))
    scales = np.abs(W).max(axis=2) / 7
    codes = gptq(Feedback.of(H), W, scales, 7)
    assert np.all(np.abs(codes * scales[..., None] - W)[:, :, np.diag(H[0]) == 0] <= scales[..., None] * 0.51)


def test_scale_search_never_loses() -> None:
    H, W, _ = problem(1, inputs=16)
    W[0, 0, 3] = 40.0
    H[0, 3, :] *= 1e-3
    H[0, :, 3] *= 1e-3
    base = np.abs(W).max(axis=2) / 7
    found = search_scales(H, W, 7, np.linspace(1.0, 0.1, 19))
    assert np.all(
        error(H, W, found, round_to_nearest(W, found, 7))
        <= error(H, W, base, round_to_nearest(W, base, 7)) + 1e-6
    )
    assert found[0, 0] < base[0, 0]


def test_a_channel_of_zeros() -> None:
    H, W, _ = problem(2)
    W[0, 1] = 0.0
    scales = search_scales(H, W, 127, np.linspace(1.0, 0.7, 4))
    assert np.all(scales > 0)
    assert not gptq(Feedback.of(H), W, scales, 127)[0, 1].any()
