"""Low-rank factors: exact at full rank, best in the data's metric, with the error that they state."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgec.passes.solvers.factorise import LowRank, Response, solve

Array = np.ndarray[Any, np.dtype[Any]]


def problem(seed: int, n: int, out: int) -> tuple[Array, Array, Array]:
    """Correlated rows with a constant, their second moments, and columns."""
    rng = np.random.default_rng(seed)
    p = np.concatenate(
        [rng.standard_normal((400, n)) @ rng.standard_normal((n, n)) + 1, np.ones((400, 1))], 1
    )
    return p, p.T @ p / len(p), rng.standard_normal((n + 1, out))


sizes = st.integers(2, 9)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 999), n=sizes, out=sizes, whitened=st.booleans())
def test_errors_are_those_of_the_rows(seed: int, n: int, out: int, whitened: bool) -> None:
    p, h, columns = problem(seed, n, out)
    found = LowRank(Response.of(h, columns, whitened=whitened))
    assert found.full == min(n, out)
    scale = np.square(p @ columns).mean()
    for rank in range(1, found.full + 1):
        (first, second), body = found.at(rank)
        np.testing.assert_allclose(first[0] @ second[0], body)
        made = p[:, :-1] @ body + found.response.bias_for(body)
        direct = np.square(made - p @ columns).sum(1).mean()
        assert direct == pytest.approx(found.errors[rank], rel=1e-6, abs=1e-8 * scale)
    assert found.errors[-1] <= 1e-8 * scale * out


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 999), n=sizes, out=sizes)
def test_no_rank_is_better_without_the_data(seed: int, n: int, out: int) -> None:
    _, h, columns = problem(seed, n, out)
    aware, plain = (LowRank(Response.of(h, columns, whitened=yes)).errors for yes in (True, False))
    assert (aware <= plain + 1e-3 * plain[0]).all()
    assert (np.diff(aware) <= 1e-12).all()


def test_the_whitened_error_is_that_of_the_truncated_svd() -> None:
    p, h, columns = problem(3, 6, 5)
    centred = (p[:, :-1] - p[:, :-1].mean(0)) / np.sqrt(len(p))
    values = np.linalg.svd(centred @ columns[:-1], compute_uv=False)
    tails = np.concatenate([np.cumsum(values[::-1] ** 2)[::-1], [0.0]])
    np.testing.assert_allclose(LowRank(Response.of(h, columns)).errors, tails, atol=1e-3 * tails[0])


def test_a_head_of_many_classes_needs_no_matrix_of_all_outputs() -> None:
    _, h, columns = problem(5, 12, 4000)
    tracemalloc.start()
    try:
        found = LowRank(Response.of(h, columns))
        errors = found.errors
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4000 * 4000 * 8 / 10
    assert errors.shape == (13,)
    np.testing.assert_allclose(found.basis.T @ found.basis, np.eye(12), atol=1e-9)


@pytest.mark.parametrize("rank", [0, 6])
def test_ranks_outside_the_layer_are_refused(rank: int) -> None:
    _, h, columns = problem(0, 6, 5)
    with pytest.raises(ValueError, match="not within 1 and 5"):
        LowRank(Response.of(h, columns)).at(rank)


def test_a_metric_that_rounding_left_indefinite_has_the_smallest_solution() -> None:
    """Of black pictures every covariance is rounding alone."""
    vectors, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((6, 6)))
    normal = (vectors * [4.0, 1.0, 0.0, 0.0, -1e-7, -1e-6]) @ vectors.T
    right = normal @ np.ones((6, 2))
    with pytest.raises(np.linalg.LinAlgError):
        np.linalg.cholesky(normal + 1e-9 * np.eye(6))
    found = solve(normal, right)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(normal @ found, right, atol=1e-5)
