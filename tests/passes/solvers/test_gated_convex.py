"""The convex gated problem: known optima, scikit-learn's solutions, an honest gap, one objective from every start."""

from __future__ import annotations

import numpy as np
import pytest

from edgec.passes.solvers.gated_convex import (
    GateGram,
    GroupLasso,
    Nuclear,
    factored,
    gate_gram,
    solve_convex,
)


def rows(seed: int = 0, count: int = 400, n: int = 6, gates: int = 3, out: int = 4):
    """Whitened rows, gates, and targets of rank one per gate with noise."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((count, n)).astype(np.float32)
    d = (x @ rng.standard_normal((n, gates)) > 0).astype(np.float32)
    t = sum(
        (x * d[:, [g]]) @ np.outer(rng.standard_normal(n), rng.standard_normal(out)) for g in range(gates)
    )
    t = t + 2.0 + 0.3 * rng.standard_normal((count, out))
    return x, d, t.astype(np.float32)


def gram(**options) -> GateGram:
    return gate_gram(*rows(**options))


def wide(x: np.ndarray, d: np.ndarray) -> np.ndarray:
    """[D_1 X, D_2 X, ...]"""
    return np.concatenate([x * d[:, [g]] for g in range(d.shape[1])], axis=1)


def test_statistics_are_those_of_the_wide_matrix():
    x, d, t = rows()
    found = gate_gram(x, d, t)
    features, targets = wide(x, d), t - t.mean(axis=0)
    features = features - features.mean(axis=0)
    np.testing.assert_allclose(found.k, features.T @ features, rtol=1e-3, atol=1e-2)
    np.testing.assert_allclose(found.s, features.T @ targets, rtol=1e-3, atol=1e-2)
    assert found.energy == pytest.approx(np.square(targets).sum(), rel=1e-4)


def test_ridge_is_scikit_learns():
    ridge_model = pytest.importorskip("sklearn.linear_model").Ridge

    x, d, t = rows()
    statistics = gate_gram(x, d, t)
    found = solve_convex(statistics, "ridge", 11.0)
    reference = ridge_model(alpha=11.0).fit(wide(x, d), t)
    u = found.u.reshape(statistics.s.shape)
    np.testing.assert_allclose(u, reference.coef_.T, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(statistics.constant(u), reference.intercept_, rtol=1e-3, atol=1e-3)
    assert found.converged
    assert found.gap < 1e-8


def test_group_lasso_with_single_columns_is_scikit_learns_multi_task_lasso():
    """Its groups are the rows of the coefficients: one gate per column, each open everywhere."""
    lasso_model = pytest.importorskip("sklearn.linear_model").MultiTaskLasso

    rng = np.random.default_rng(3)
    x = rng.standard_normal((200, 8)).astype(np.float32)
    t = (x[:, :3] @ rng.standard_normal((3, 4)) + 0.1 * rng.standard_normal((200, 4))).astype(np.float32)
    whole = gate_gram(x, np.ones((200, 1), np.float32), t)
    columns = GateGram(whole.k, whole.s, whole.energy, 200, 8, whole.means, whole.target_means)
    alpha = 0.2
    found = solve_convex(columns, "group-lasso", alpha * 200, tolerance=1e-9)
    reference = lasso_model(alpha=alpha, tol=1e-6, max_iter=10_000).fit(x, t)
    np.testing.assert_allclose(found.u[:, 0], reference.coef_.T, atol=1e-4)
    assert (np.linalg.norm(found.u, axis=(1, 2)) == 0).sum() == 5


def test_one_orthonormal_gate_has_its_optimum_in_closed_form():
    rng = np.random.default_rng(0)
    q = np.linalg.qr(rng.standard_normal((64, 6)) - 0)[0]
    q = np.linalg.qr(q - q.mean(axis=0))[0].astype(np.float32)
    t = rng.standard_normal((64, 5)).astype(np.float32)
    t -= t.mean(axis=0)
    statistics = gate_gram(q, np.ones((64, 1), np.float32), t)
    s = q.T @ t
    norm = np.linalg.norm(s)
    lasso = solve_convex(statistics, "group-lasso", 0.4 * norm, tolerance=1e-9)
    np.testing.assert_allclose(lasso.u[0], 0.6 * s, atol=1e-4)
    left, sizes, right = np.linalg.svd(s, full_matrices=False)
    strength = 0.5 * sizes[0]
    nuclear = solve_convex(statistics, "nuclear", strength, tolerance=1e-9)
    np.testing.assert_allclose(nuclear.u[0], (left * np.maximum(sizes - strength, 0)) @ right, atol=1e-4)


@pytest.mark.parametrize("penalty", ["group-lasso", "nuclear"])
def test_starts_do_not_matter(penalty):
    statistics = gram()
    strength = 0.02 * statistics.scale
    rng = np.random.default_rng(1)
    starts = [None, 30 * rng.standard_normal((3, 6, 4)), -5 * rng.random((3, 6, 4))]
    found = [solve_convex(statistics, penalty, strength, start=one) for one in starts]
    assert all(one.converged and one.gap <= 1e-4 for one in found)
    values = [one.objective for one in found]
    assert max(values) <= min(values) * (1 + 1e-4)


@pytest.mark.parametrize("penalty", ["group-lasso", "nuclear"])
def test_the_gap_bounds_the_distance_to_the_optimum(penalty):
    statistics = gram(seed=4)
    strength = 0.05 * statistics.scale
    best = solve_convex(statistics, penalty, strength, tolerance=1e-10, limit=20_000).objective
    for limit in (1, 3, 10, 30):
        found = solve_convex(statistics, penalty, strength, limit=limit, tolerance=1e-12)
        assert found.objective * (1 - found.gap) <= best * (1 + 1e-8)
        assert not found.converged
        assert found.iterations == limit


@pytest.mark.parametrize("penalty", ["group-lasso", "nuclear"])
def test_everything_vanishes_above_the_largest_penalty(penalty):
    statistics = gram()
    found = solve_convex(statistics, penalty, 3 * statistics.scale)
    assert not found.u.any()
    assert found.gap <= 1e-12


def test_penalties_are_their_own_proximal_maps():
    """The subgradient of the prox: (u - v) / step lies in the dual ball, and meets v at Omega(v)."""
    u = np.random.default_rng(0).standard_normal((3, 5, 4))
    for omega in (GroupLasso(), Nuclear()):
        v = omega.prox(u, 0.7)
        slope = (u - v) / 0.7
        assert omega.dual(slope) <= 1 + 1e-6
        assert float((slope * v).sum()) == pytest.approx(omega.value(v), rel=1e-6)


def test_factors_are_the_largest_singular_triples():
    rng = np.random.default_rng(0)
    u = np.stack(
        [np.outer(rng.standard_normal(6), rng.standard_normal(4)) * size for size in (1.0, 3.0, 2.0)]
    )
    whole = factored(u, 3)
    assert sorted(whole.gate.tolist()) == [0, 1, 2]
    for v, w, gate in zip(whole.v.T, whole.w, whole.gate, strict=True):
        np.testing.assert_allclose(np.outer(v, w), u[gate], atol=1e-10)
        assert np.linalg.norm(v) == pytest.approx(np.linalg.norm(w))
    sizes = [np.linalg.norm(one) for one in u]
    assert factored(u, 1).gate.tolist() == [int(np.argmax(sizes))]


def test_a_gate_that_is_never_open_is_harmless():
    x, d, t = rows()
    found = solve_convex(gate_gram(x, np.concatenate([d, 0 * d[:, :1]], axis=1), t), "nuclear", 50.0)
    assert found.converged
    assert not found.u[3].any()
