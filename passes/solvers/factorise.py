"""Low-rank factors of a linear layer, and what a layer answers to its data, in which metric factors are chosen and judged.

The best rank-r approximation of ``y = W' p`` over the data projects the output on r directions: with C the covariance of the
rows, minimising ``tr((W - W_r)' C (W - W_r))`` is the truncated SVD of ``C^(1/2) W`` (design section 3.6), whose right singular
vectors are the eigenvectors B of ``W' C W``: ``W_r = W B_r B_r'``. So the first factor is ``W B_r`` and the second ``B_r'``
(the linear case of Zhang et al., arXiv 1505.06798). Without data, B are the eigenvectors of ``W' W`` (Denton et al.,
arXiv 1404.0736). The mean of what is cut off goes into the bias, exactly.

Unknowns are ordered (tap, channel), as in `solvers.gram`; every factor is (taps, inputs, outputs).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from scipy.linalg import LinAlgError, cho_factor, cho_solve, eigh, pinvh, svd

from edgec.passes.solvers.signs import upright

Array = np.ndarray[Any, np.dtype[Any]]

RIDGE = 1e-4
"""Of the data's metric, relative to its mean diagonal: few rows say nothing about most directions."""


@dataclass(frozen=True)
class Response:
    """A layer under its data: ``covariance`` (n, n) and ``mean`` (n,) of its rows, ``body`` (n, out), ``bias`` (out,).

    ``metric`` (n, n) is what factors are chosen in: the covariance with a small ridge, or the identity. Errors are always those
    of the data.
    """

    covariance: Array
    mean: Array
    body: Array
    bias: Array
    metric: Array

    @staticmethod
    def of(h: Array, columns: Array, *, whitened: bool = True) -> Response:
        """From ``h = E[p p']`` (n + 1, n + 1) and ``columns`` (n + 1, out), the constant's row last."""
        mean = h[:-1, -1] / h[-1, -1]
        covariance = h[:-1, :-1] / h[-1, -1] - np.outer(mean, mean)
        n = len(mean)
        ridge = RIDGE * max(float(np.trace(covariance)) / n, 1e-30)
        metric = covariance + ridge * np.eye(n) if whitened else np.eye(n)
        return Response(covariance, mean, columns[:-1], columns[-1], metric)

    @cached_property
    def directions(self) -> Array:
        """``metric @ body``."""
        return np.asarray(self.metric @ self.body)

    def error(self, body: Array) -> float:
        """Mean squared error per row, summed over outputs, when ``body`` (n, out) takes the layer's place with its best bias."""
        lost = self.body - body
        return max(float(np.einsum("no,no->", lost, self.covariance @ lost)), 0.0)

    def bias_for(self, body: Array) -> Array:
        """(out,): the bias, and the mean of what ``body`` loses."""
        return np.asarray(self.bias + self.mean @ (self.body - body))

    def fit(self, basis: Array) -> Array:
        """The best B (q, out) in ``body ~ basis @ B``, for basis (n, q)."""
        return solve(basis.T @ self.metric @ basis, basis.T @ self.directions)


@dataclass(frozen=True)
class LowRank:
    """All ranks of one layer of ``taps`` taps at once."""

    response: Response
    taps: int = 1

    @cached_property
    def basis(self) -> Array:
        """(out, ranks): directions of the output, the most important first."""
        body, metric = self.response.body, self.response.metric
        if len(body) < body.shape[1]:
            # A head of 18,000 classes behind 120 channels: no more directions than inputs, and never a matrix of all outputs.
            values, axes = eigh(metric)
            root = np.sqrt(np.maximum(values, 0.0))[:, None] * axes.T
            vectors = svd(root @ body, full_matrices=False)[2].T
        else:
            vectors = eigh(body.T @ self.response.directions)[1][:, ::-1]
        return upright(vectors, self.response.mean @ body)

    @cached_property
    def errors(self) -> Array:
        """(ranks + 1,): the mean squared error per row at every rank."""
        covariance, body = self.response.covariance, self.response.body
        shown = body @ self.basis
        explained = np.einsum("nr,nr->r", shown, covariance @ shown)
        energy = np.einsum("no,no->", body, covariance @ body)
        return np.asarray(np.maximum(energy - np.concatenate([[0.0], np.cumsum(explained)]), 0.0))

    @property
    def full(self) -> int:
        """The rank at which nothing is lost."""
        return int(min(self.response.body.shape))

    def at(self, rank: int) -> tuple[tuple[Array, Array], Array]:
        """The factors (taps, in, rank) and (1, rank, out), and the body (n, out) that they make."""
        within(rank, self.full)
        kept = self.basis[:, :rank]
        first = self.response.body @ kept
        return (first.reshape(self.taps, -1, rank), kept.T[None]), first @ kept.T


def within(rank: int, full: int) -> None:
    """Raises ValueError for a rank outside 1 ... full."""
    if not 1 <= rank <= full:
        raise ValueError(f"rank {rank} is not within 1 and {full}")


def solve(normal: Array, right: Array) -> Array:
    """``normal^-1 right`` for a semi-definite matrix; the smallest solution where rounding leaves no Cholesky factor."""
    ridge = 1e-9 * max(float(np.trace(normal)) / len(normal), 1e-30)
    try:
        return np.asarray(cho_solve(cho_factor(normal + ridge * np.eye(len(normal)), lower=True), right))
    except LinAlgError:
        return np.asarray(pinvh(normal, rtol=1e-9) @ right)
