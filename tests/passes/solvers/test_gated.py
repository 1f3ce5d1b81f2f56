"""Gated blocks: exact halves, monotone descent, known optima, and gates that follow."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgec.passes.solvers.gated import (
    Gated,
    GatedRows,
    Whitening,
    alternate,
    follow,
    objective,
    solve_inner,
    solve_outer,
)
from edgec.passes.solvers.rectified import Clipping


def problem(seed: int = 0, count: int = 300, n: int = 9, k: int = 4, out: int = 3, noise: float = 0.0):
    """Whitened rows whose targets a gated block of width k makes, and that block."""
    rng = np.random.default_rng(seed)
    p = np.concatenate([rng.standard_normal((count, n - 1)), np.ones((count, 1))], axis=1).astype(np.float32)
    root = Whitening.of(p.astype(np.float64).T @ p, count, 0.0)
    d = (p @ rng.standard_normal((n, k)) > 0).astype(np.float32)
    truth = Gated(rng.standard_normal((n, k)), rng.standard_normal((k, out)), rng.standard_normal(out))
    rows = GatedRows(root.apply(p), d, np.zeros((count, out), np.float32))
    t = truth.make(rows) + noise * rng.standard_normal((count, out)).astype(np.float32)
    return replace(rows, t=t), truth


def start(rows: GatedRows, k: int, seed: int = 1) -> Gated:
    rng = np.random.default_rng(seed)
    out = rows.t.shape[1]
    return Gated(rng.standard_normal((rows.x.shape[1], k)), np.zeros((k, out)), np.zeros(out))


def dense(rows: GatedRows, block: Gated) -> np.ndarray:
    """The design matrix of vec(V) for the block's W: (rows * out, n * k)."""
    design = np.einsum("rn,rk,ko->ronk", rows.x, rows.d, block.w.astype(np.float32))
    return design.reshape(rows.t.size, -1).astype(np.float64)


def test_whitening_goes_there_and_back():
    rng = np.random.default_rng(0)
    p = (rng.standard_normal((500, 6)) @ rng.standard_normal((6, 6))).astype(np.float32)
    root = Whitening.of(p.astype(np.float64).T @ p, 500, 0.0)
    x = root.apply(p)
    np.testing.assert_allclose(x.T @ x / 500, np.eye(6), atol=1e-4)
    v = rng.standard_normal((6, 2))
    np.testing.assert_allclose(p @ root.columns(v), x @ v, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(root.whiten(root.columns(v)), v, atol=1e-8)


def test_outer_step_is_ridge_regression():
    ridge_model = pytest.importorskip("sklearn.linear_model").Ridge

    rows, _ = problem(noise=0.3)
    block = solve_outer(rows, start(rows, 4), 7.0)
    z = block.features(rows)
    reference = ridge_model(alpha=7.0).fit(z, rows.t)
    np.testing.assert_allclose(block.w, reference.coef_.T, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(block.b, reference.intercept_, rtol=1e-3, atol=1e-4)


def test_inner_step_reaches_the_least_squares_solution():
    rows, _ = problem(noise=0.3)
    block = solve_outer(rows, start(rows, 4), 5.0)
    found = solve_inner(rows, block, 5.0, steps=80)
    design = dense(rows, block)
    target = (rows.t - block.b).reshape(-1)
    exact = np.linalg.solve(design.T @ design + 5.0 * np.eye(design.shape[1]), design.T @ target)
    np.testing.assert_allclose(found.v.reshape(-1), exact, rtol=1e-3, atol=1e-4)


def test_recovers_a_block_that_made_the_targets():
    rows, _ = problem()
    found = alternate(rows, start(rows, 4), 1e-6, 400, tolerance=0.0)
    assert found.block.relative_error(rows) < 1e-3


@settings(max_examples=15, deadline=None)
@given(
    st.integers(0, 10_000),
    st.integers(1, 5),
    st.floats(0.0, 1.0),
    st.sampled_from([None, Clipping()]),
    st.booleans(),
)
def test_every_sweep_lowers_the_objective(seed, k, noise, clipping, soft):
    rows, _ = problem(seed, 120, 6, k, 2, noise)
    rng = np.random.default_rng(seed)
    if soft:
        rows = replace(rows, d=rng.random(rows.d.shape).astype(np.float32))
    rows = replace(rows, clipping=clipping, offset=rng.standard_normal(rows.t.shape).astype(np.float32))
    found = alternate(rows, start(rows, k), 1e-2 * rows.scale, 12)
    history = np.array(found.objective)
    assert (np.diff(history) <= 1e-4 * history[:-1]).all()


def test_half_steps_lower_the_objective():
    rows, _ = problem(noise=0.5)
    block = solve_outer(rows, start(rows, 4), 3.0)
    values = [objective(rows, block, 3.0)]
    for number in range(10):
        block = solve_inner(rows, block, 3.0) if number % 2 == 0 else solve_outer(rows, block, 3.0)
        values.append(objective(rows, block, 3.0))
    assert values == sorted(values, reverse=True)


def test_clipped_targets_are_matched_behind_the_activation():
    """Targets far below 0 need not be met: with the clipped loss the error behind the ReLU is smaller."""
    rows, _ = problem(noise=0.0)
    cut = replace(rows, t=np.where(rows.t < 0, rows.t - 20, rows.t).astype(np.float32), clipping=Clipping())
    plain = alternate(replace(cut, clipping=None), start(rows, 4), 1e-3, 60).block
    clipped = alternate(cut, start(rows, 4), 1e-3, 60).block
    assert clipped.relative_error(cut) < 0.3 * plain.relative_error(cut)


def test_balancing_keeps_the_function_and_lowers_the_penalty():
    rows, truth = problem()
    even = truth.balanced()
    np.testing.assert_allclose(even.make(rows), truth.make(rows), rtol=1e-4, atol=1e-4)
    assert (
        np.square(even.v).sum() + np.square(even.w).sum()
        < np.square(truth.v).sum() + np.square(truth.w).sum()
    )


def test_gates_that_follow_end_as_a_relu_block():
    rows, _ = problem(noise=0.2)
    relu, d = follow(rows, start(rows, 6), 1.0, 15)
    np.testing.assert_array_equal(d, (rows.x @ relu.v.astype(np.float32) > 0).astype(np.float32))
    made = np.maximum(rows.x @ relu.v.astype(np.float32), 0) @ relu.w.astype(np.float32) + relu.b
    np.testing.assert_allclose(relu.make(replace(rows, d=d)), made, atol=1e-4)
    first, d0 = follow(rows, start(rows, 6), 1.0, 0)
    assert objective(replace(rows, d=d), relu, 1.0) < objective(replace(rows, d=d0), first, 1.0)


def test_progress_is_told_and_may_stop():
    rows, _ = problem()
    seen = []
    alternate(
        rows, start(rows, 4), 1.0, 3, tolerance=0.0, progress=lambda done, total: seen.append((done, total))
    )
    assert seen == [(0, 3), (1, 3), (2, 3)]

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        follow(rows, start(rows, 4), 1.0, 3, progress=stop)
