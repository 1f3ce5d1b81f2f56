"""Factors do not depend on the signs that a kernel of BLAS gives to eigenvectors and singular vectors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.linalg

from edgec.passes.solvers import factorise, kernel_factors
from edgec.passes.solvers.factorise import LowRank, Response
from edgec.passes.solvers.kernel_factors import Decoupled, Separable, Tucker
from edgec.passes.solvers.signs import signs, upright

Array = np.ndarray[Any, np.dtype[Any]]
SVD = np.linalg.svd
C, OUT, KERNEL = 4, 5, (3, 2)
FORMS: dict[str, Callable[[Response], tuple[tuple[Array, ...], Array]]] = {
    "low rank": lambda response: LowRank(response, 6).at(3),
    "down, then across": lambda response: Separable(response, KERNEL, 0).at(4),
    "across, then down": lambda response: Separable(response, KERNEL, 1).at(4),
    "Tucker": lambda response: Tucker(response, 6).inner(2).at(3),
    "depthwise and pointwise": lambda response: Decoupled(response, 6).at(2),
}


def response(seed: int, mean: float) -> Response:
    rng = np.random.default_rng(seed)
    n = 6 * C
    p = rng.standard_normal((600, n)) @ rng.standard_normal((n, n)) * np.linspace(0.1, 2, n)
    p = np.concatenate([p - p.mean(axis=0) + mean, np.ones((600, 1))], axis=1)
    return Response.of(p.T @ p / len(p), rng.standard_normal((n + 1, OUT)))


def other_kernel(patch: pytest.MonkeyPatch, seed: int) -> None:
    """Decompositions come with other signs, which are as right as those before."""
    rng = np.random.default_rng(seed)

    def eigh(matrix: Array) -> tuple[Array, Array]:
        values, vectors = scipy.linalg.eigh(matrix)
        return values, vectors * rng.choice([-1.0, 1.0], len(values))

    def svd(matrix: Array, *, full_matrices: bool) -> tuple[Array, Array, Array]:
        left, sizes, right = SVD(matrix, full_matrices=full_matrices)
        turned = rng.choice([-1.0, 1.0], len(sizes))
        return left * turned, sizes, right * turned[:, None]

    patch.setattr(np.linalg, "svd", svd)
    for module in (factorise, kernel_factors):
        patch.setattr(module, "eigh", eigh)


@pytest.mark.parametrize("mean", [0.0, 0.5])
@pytest.mark.parametrize("form", FORMS)
def test_signs_of_another_kernel_give_the_same_factors(form, mean, monkeypatch) -> None:
    one, body = FORMS[form](response(0, mean))
    for seed in range(4):
        with monkeypatch.context() as patch:
            other_kernel(patch, seed)
            other, same = FORMS[form](response(0, mean))
        np.testing.assert_allclose(same, body, atol=1e-9)
        for a, b in zip(one, other, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-7)


def test_the_channels_between_lie_on_one_side_of_zero() -> None:
    """So that their common range is the shortest: from all on one side to half of them on the other costs a bit."""
    given = response(1, 0.5)
    (first, _), _ = LowRank(given, 6).at(4)
    assert (given.mean @ first.reshape(6 * C, 4) > 0).all()


@pytest.mark.parametrize("noise", [0.0, 1e-9])
def test_without_a_mean_the_first_of_the_largest_entries_is_positive(noise: float) -> None:
    """Entries that differ by rounding are as large: their order decides."""
    vectors = np.array([[0.1, 0.0], [-0.7, 0.0], [0.7 + noise, 0.0]])
    assert signs(vectors, np.zeros(3)).tolist() == [-1, 1]
    np.testing.assert_array_equal(upright(-vectors, np.zeros(3)), upright(vectors, np.zeros(3)))


def test_each_direction_may_have_a_mean_of_its_own() -> None:
    assert signs(np.array([[1.0, 1.0], [3.0, 3.0]]), np.array([[1.0, -1.0], [1.0, 0.0]])).tolist() == [1, -1]
