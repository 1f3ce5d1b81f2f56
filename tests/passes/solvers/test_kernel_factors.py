"""Factors of kernels: exact where the kernel has the form, better for knowing the data, and what they say they make."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgec.passes.solvers.factorise import Response
from edgec.passes.solvers.kernel_factors import Decoupled, Separable, Tucker

Array = np.ndarray[Any, np.dtype[Any]]
Made = tuple[tuple[Array, ...], Array]

C, OUT, K = 4, 5, (3, 2)
TAPS = K[0] * K[1]


def rows(seed: int, n: int = C * TAPS) -> tuple[Array, Array]:
    """Correlated rows (600, n + 1) with a constant, and their second moments."""
    rng = np.random.default_rng(seed)
    p = rng.standard_normal((600, n)) @ rng.standard_normal((n, n)) * np.linspace(0.1, 2, n) + 0.5
    p = np.concatenate([p, np.ones((600, 1))], 1)
    return p, p.T @ p / len(p)


def separable(response: Response, along: int = 0) -> Made:
    return Separable(response, K, along).at(4)


def tucker(response: Response) -> Made:
    return Tucker(response, TAPS).inner(2).at(3)


def decoupled(response: Response) -> Made:
    return Decoupled(response, TAPS).at(2)


def columns(seed: int, body: Array | None = None) -> Array:
    rng = np.random.default_rng(seed)
    return np.concatenate(
        [rng.standard_normal((C * TAPS, OUT)) if body is None else body, rng.standard_normal((1, OUT))]
    )


def compose(name: str, factors: tuple[Array, ...]) -> Array:
    """The body (taps, channels, out) that factors make, written down from the definition of each form."""
    if name == "separable":
        return np.einsum("uir,vro->uvio", *factors).reshape(-1, OUT)
    if name == "across":
        return np.einsum("vir,uro->uvio", *factors).reshape(-1, OUT)
    if name == "tucker":
        return np.einsum("ir,trs,so->tio", factors[0][0], factors[1], factors[2][0]).reshape(-1, OUT)
    depth = factors[0].reshape(TAPS, C, -1)
    return np.einsum("tis,iso->tio", depth, factors[1].reshape(C, -1, OUT)).reshape(-1, OUT)


FORMS: dict[str, Callable[[Response], Made]] = {
    "separable": separable,
    "across": lambda response: separable(response, 1),
    "tucker": tucker,
    "decoupled": decoupled,
}


@pytest.mark.parametrize("whitened", [True, False], ids=["whitened", "plain"])
@pytest.mark.parametrize("name", FORMS)
def test_a_kernel_of_the_form_is_found_without_loss(name: str, whitened: bool) -> None:
    _, h = rows(1)
    first, _ = FORMS[name](Response.of(h, columns(2)))
    exact = compose(name, first)
    response = Response.of(h, columns(3, exact), whitened=whitened)
    factors, body = FORMS[name](response)
    np.testing.assert_allclose(body, exact, atol=2e-4 * np.abs(exact).max())
    np.testing.assert_allclose(compose(name, factors), body, atol=1e-9 * np.abs(exact).max())


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 500), name=st.sampled_from(sorted(FORMS)))
def test_knowing_the_data_is_better_and_the_error_is_that_of_the_rows(seed: int, name: str) -> None:
    p, h = rows(seed)
    w = columns(seed + 1)
    aware, plain = (Response.of(h, w, whitened=yes) for yes in (True, False))
    _, body = FORMS[name](aware)
    direct = np.square(p @ w - (p[:, :-1] @ body + aware.bias_for(body))).sum(1).mean()
    assert aware.error(body) == pytest.approx(direct, rel=1e-6)
    assert aware.error(body) <= 1.02 * aware.error(FORMS[name](plain)[1])


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 500), along=st.integers(0, 1))
def test_the_last_factor_is_the_least_squares_solution(seed: int, along: int) -> None:
    """Against numpy on the rows themselves."""
    p, h = rows(seed)
    w = columns(seed)
    response = Response.of(h, w)
    form = Separable(response, K, along)
    (left, right), body = form.at(3)
    basis = np.einsum("uir,vw->uviwr" if along == 0 else "uir,vw->vuiwr", left, np.eye(K[1 - along]))
    z = p[:, :-1] @ basis.reshape(C * TAPS, -1)
    z = np.concatenate([z, np.ones((len(z), 1))], 1)
    best, *_ = np.linalg.lstsq(z, p @ w, rcond=None)
    least = np.square(z @ best - p @ w).sum(1).mean()
    assert response.error(body) == pytest.approx(least, rel=2e-2)
    assert right.shape == (K[1 - along], 3, OUT)


@pytest.mark.parametrize("name", FORMS)
def test_rows_without_spread_are_no_obstacle(name: str) -> None:
    h = np.zeros((C * TAPS + 1, C * TAPS + 1))
    h[-1, -1] = 1.0
    factors, body = FORMS[name](Response.of(h, columns(0)))
    assert np.isfinite(body).all()
    assert all(np.isfinite(one).all() for one in factors)


def test_more_is_never_worse() -> None:
    _, h = rows(7)
    response = Response.of(h, columns(7))
    tuck = Tucker(response, TAPS)
    for errors in (
        [response.error(Separable(response, K, 0).at(r)[1]) for r in range(1, 11)],
        [response.error(Decoupled(response, TAPS).at(r)[1]) for r in range(1, 6)],
        [response.error(tuck.inner(2).at(r)[1]) for r in range(1, 6)],
        [response.error(tuck.inner(r).at(3)[1]) for r in range(1, 5)],
    ):
        assert (np.diff(errors) <= 1e-6 * errors[0]).all()


@pytest.mark.parametrize("rank", [0, 99])
def test_ranks_outside_the_layer_are_refused(rank: int) -> None:
    _, h = rows(0)
    response = Response.of(h, columns(0))
    for form in (Separable(response, K, 0), Tucker(response, TAPS).inner(2), Decoupled(response, TAPS)):
        with pytest.raises(ValueError, match="is not within 1 and"):
            form.at(rank)
    with pytest.raises(ValueError, match="is not within 1 and"):
        Tucker(response, TAPS).inner(rank)
