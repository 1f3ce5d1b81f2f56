"""Ridge regression towards a given solution, with the damping and the conditioning reported.

``W = argmin |P W - T|^2 + d |W - W0|^2`` with ``d = lam * tr(H) / n``: the solution of ``(H + d I) W = S + d W0``. For
``lam -> inf`` W is W0, the pruned teacher's weight; directions that few rows support fall back to it too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.linalg import cho_solve, lapack

Array = np.ndarray[Any, np.dtype[Any]]

FIRST_JITTER = 1e-12
"""Relative to the mean diagonal; grows tenfold until the factorisation succeeds."""


@dataclass(frozen=True)
class Factor:
    """A Cholesky factor (lower) of ``H + (damping + jitter) I``. ``condition`` is LAPACK's 1-norm estimate.

    ``jitter`` is what had to be added beyond the damping asked for; 0 in all but degenerate cases.
    """

    lower: Array
    damping: float
    jitter: float
    condition: float

    def solve(self, right: Array) -> Array:
        """``(H + (damping + jitter) I)^-1 right``."""
        return np.asarray(cho_solve((self.lower, True), right, check_finite=False))

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


def factor(h: Array, lam: float) -> Factor:
    """Factor ``H + d I`` for ``d = lam tr(H) / n``. A semi-definite H gets the least jitter that works, which is reported.

    Raises ValueError for statistics that are not finite.
    """
    if not np.isfinite(h).all():
        raise ValueError("the statistics are not finite")
    n = len(h)
    mean = float(np.trace(h)) / n if n else 0.0
    scale = mean if mean > 0 else 1.0
    damping, jitter = lam * mean, 0.0
    while True:
        damped = np.asfortranarray(h, np.float64).copy(order="F")
        damped[np.diag_indices(n)] += damping + jitter
        norm = float(np.abs(damped).sum(axis=0).max()) if n else 0.0
        lower, info = lapack.dpotrf(damped, lower=1, overwrite_a=1, clean=1)
        if info == 0:
            rcond, _ = lapack.dpocon(lower, norm, uplo="L")
            # Below this the factor exists only by rounding; a larger jitter makes the answer meaningful.
            if rcond > np.finfo(np.float64).eps or jitter >= 1e-6 * scale:
                return Factor(lower, damping, jitter, float(1 / max(rcond, 1e-300)))
        jitter = max(10 * jitter, FIRST_JITTER * scale)


@dataclass(frozen=True)
class Solution:
    """``columns`` is (group, n, out); ``condition`` and ``jitter`` are the worst over groups."""

    columns: Array
    condition: float
    jitter: float
    factors: tuple[Factor, ...]


def ridge(h: Array, s: Array, w0: Array, lam: float) -> Solution:
    """Solve every group: h (group, n, n), s and w0 (group, n, out)."""
    factors = tuple(factor(one, lam) for one in h)
    columns = np.stack([f.ridge(si, wi) for f, si, wi in zip(factors, s, w0, strict=True)])
    return Solution(columns, max(f.condition for f in factors), max(f.jitter for f in factors), factors)
