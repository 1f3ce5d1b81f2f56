"""Low-rank factors of a linear layer, in the metric of its data or without one.

The best rank-r approximation of ``y = W' p`` over the data projects the output on r directions: with C the covariance of the
rows, minimising ``tr((W - W_r)' C (W - W_r))`` is the truncated SVD of ``C^(1/2) W`` (design section 3.6), whose right singular
vectors are the eigenvectors B of ``W' C W``: ``W_r = W B_r B_r'``. So the first factor is ``W B_r`` and the second ``B_r'``
(the linear case of Zhang et al., arXiv 1505.06798). Without data, B are the eigenvectors of ``W' W`` (Denton et al.,
arXiv 1404.0736). The mean of what is cut off goes into the bias, exactly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class LowRank:
    """All ranks of one layer at once. ``body`` (n, out) and ``bias`` (out,) are the layer, ``basis`` (out, ranks) the directions,
    the most important first. ``errors[r]`` is the mean squared error per row at rank r: (ranks + 1,)."""

    body: Array
    bias: Array
    mean: Array
    basis: Array
    errors: Array

    @property
    def full(self) -> int:
        """The rank at which nothing is lost."""
        return self.basis.shape[1]

    def first(self, rank: int) -> Array:
        """(n, rank). Raises ValueError for a rank outside 1 ... full."""
        return np.asarray(self.body @ self._kept(rank))

    def second(self, rank: int) -> tuple[Array, Array]:
        """(rank, out) and the bias (out,)."""
        kept = self._kept(rank)
        lost: Array = self.body - self.body @ kept @ kept.T
        return kept.T, np.asarray(self.bias + self.mean @ lost)

    def _kept(self, rank: int) -> Array:
        if not 1 <= rank <= self.full:
            raise ValueError(f"rank {rank} is not within 1 and {self.full}")
        return self.basis[:, :rank]


def low_rank(h: Array, columns: Array, *, whitened: bool = True) -> LowRank:
    """Factors of ``columns`` (n + 1, out), the constant's row last, for rows with ``h = E[p p']`` (n + 1, n + 1).

    ``h`` judges the error either way; ``whitened`` decides whether it chooses the directions too.
    """
    body, bias, mean = columns[:-1], columns[-1], h[:-1, -1] / h[-1, -1]
    covariance = h[:-1, :-1] / h[-1, -1] - np.outer(mean, mean)
    energy = body.T @ covariance @ body
    _, vectors = np.linalg.eigh(energy if whitened else body.T @ body)
    basis = vectors[:, ::-1][:, : min(body.shape)]
    explained = np.einsum("or,op,pr->r", basis, energy, basis, optimize=True)
    errors = np.trace(energy) - np.concatenate([[0.0], np.cumsum(explained)])
    return LowRank(body, bias, mean, basis, np.maximum(errors, 0.0))
