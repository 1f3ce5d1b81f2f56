"""Ridge regression towards a given solution, with the damping and the conditioning reported.

``W = argmin |P W - T|^2 + d |W - W0|^2`` with ``d = lam * tr(H) / n``: the solution of ``(H + d I) W = S + d W0``. For
``lam -> inf`` W is W0, the pruned teacher's weight; directions that few rows support fall back to it too, and so do those about
which the statistics, sums of float32 products, hold nothing but rounding noise (`CARRIED`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.linalg import lapack

Array = np.ndarray[Any, np.dtype[Any]]

EXACT = 1 / (16 * 2.0**-52)
"""Conditions that statistics in float64 carry, times the root of the number of unknowns."""
CARRIED = float(1 / (16 * 2.0**-24))
"""The same for sums of float32 products, about 1e6. Sums of a tile err by some units of rounding: kernels add in registers over
a few hundred rows, so 16 units bound it. The errors of n x n entries have random signs: as a matrix they are smaller than the
largest eigenvalue by the root of n more. Eigen-directions below that are nothing but noise, which a solution would blow up."""


@dataclass(frozen=True)
class Factor:
    """A Cholesky factor (lower) of ``H + (damping + jitter) I``. ``condition`` is LAPACK's 1-norm estimate.

    ``jitter`` is what had to be added beyond the damping asked for; 0 where the condition is carried without.
    """

    lower: Array
    damping: float
    jitter: float
    condition: float

    def solve(self, right: Array) -> Array:
        """``(H + (damping + jitter) I)^-1 right``."""
        if not right.size:
            return np.zeros(right.shape)
        # What scipy's `cho_solve` calls, without its checks: a depthwise layer has a small system per channel.
        return np.asarray(lapack.dpotrs(self.lower, right, lower=1)[0])

    def ridge(self, s: Array, w0: Array) -> Array:
        """The ridge solution for ``S`` and the solution ``W0`` to fall back to."""
        return self.solve(s + (self.damping + self.jitter) * w0)

    def inverse(self) -> Array:
        """The whole inverse, symmetric."""
        found, info = lapack.dpotri(self.lower, lower=1)
        if info != 0:
            raise np.linalg.LinAlgError("the factor is singular")
        upper = np.triu_indices(len(found), 1)
        found[upper] = found.T[upper]
        return np.asarray(found)


class TooLargeError(ArithmeticError):
    """Sums of squares that are not finite: what they were taken from was, so it was too large to square."""


def factor(h: Array, lam: float, *, carried: float = EXACT) -> Factor:
    """Factor ``H + d I`` for ``d = lam tr(H) / n``, raised where the condition would exceed what ``carried`` stands for.

    ``carried`` is `EXACT` for statistics in float64 and `CARRIED` for sums of float32 products. What is added beyond d (a
    semi-definite H needs something in any case) is the least that works, and is reported.
    Raises TooLargeError for statistics that are not finite.
    """
    if not np.isfinite(h).all():
        raise TooLargeError("the statistics are not finite")
    n = len(h)
    mean = float(np.trace(h)) / n if n else 0.0
    limit = carried * max(n, 1) ** 0.5
    damping, jitter = lam * mean, 0.0
    while True:
        damped = np.array(h, np.float64, order="F")
        damped.reshape(-1, order="F")[:: n + 1] += damping + jitter
        norm = float(np.abs(damped).sum(axis=0).max()) if n else 0.0
        if not np.isfinite(norm):
            raise TooLargeError("the statistics are not finite")
        lower, info = lapack.dpotrf(damped, lower=1, overwrite_a=1, clean=1)
        if info == 0:
            rcond, _ = lapack.dpocon(lower, norm, uplo="L")
            if rcond * limit >= 1:
                return Factor(lower, damping, jitter, float(1 / rcond))
        # The least eigenvalue must reach this; twice as much where the estimate was not enough.
        jitter = max(2 * jitter, (norm if norm > 0 else 1.0) / limit)


@dataclass(frozen=True)
class Solution:
    """``columns`` is (group, n, out); ``condition`` and ``jitter`` are the worst over groups."""

    columns: Array
    condition: float
    jitter: float
    factors: tuple[Factor, ...]


def ridge(h: Array, s: Array, w0: Array, lam: float, *, carried: float = EXACT) -> Solution:
    """Solve every group: h (group, n, n), s and w0 (group, n, out). ``carried`` as in `factor`."""
    factors = tuple(factor(one, lam, carried=carried) for one in h)
    columns = np.stack([f.ridge(si, wi) for f, si, wi in zip(factors, s, w0, strict=True)])
    return Solution(columns, max(f.condition for f in factors), max(f.jitter for f in factors), factors)
