"""Where gates come from: hyperplanes over the patches of a block's input, as columns (n, k); the constant is the last row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from edgec.passes.solvers.gated import Whitening

Array = np.ndarray[Any, np.dtype[Any]]


def from_patches(p: Array, count: int, rng: np.random.Generator) -> Array:
    """Differences of two patches each, open on half of the rows: what tells one patch of the data from another."""
    one, other = rng.integers(len(p), size=(2, count))
    return halved(np.asarray(p[one] - p[other], np.float64).T, p)


def gaussian(root: Whitening, p: Array, count: int, rng: np.random.Generator) -> Array:
    """Gaussian directions of the rows that the solver sees, open on half of them."""
    return halved(root.columns(rng.standard_normal((p.shape[1], count))), p)


def from_teacher(filters: Sequence[Array], p: Array, count: int, rng: np.random.Generator) -> Array:
    """Filters ``(n, channels)`` of the teacher's convolutions, mixed; where there are too few, `from_patches` too."""
    pool = np.concatenate([*filters, np.empty((p.shape[1], 0))], axis=1)
    found = pool[:, rng.permutation(pool.shape[1])[:count]]
    rest = count - found.shape[1]
    return np.concatenate([found, from_patches(p, rest, rng)], axis=1) if rest else found


def halved(columns: Array, p: Array) -> Array:
    """The constant such that every gate is open on half of the rows."""
    columns = columns.copy()
    columns[-1] = 0
    columns[-1] = -np.median(p @ columns.astype(np.float32), axis=0)
    return columns


def sharpness(raw: Array, edge: float) -> Array:
    """Per gate (rows, k): the s for which ``edge`` of the open rows lie where ``Clip(s raw, 0, 1)`` is below 1."""
    found = np.ones(raw.shape[1])
    for number in range(raw.shape[1]):
        positive = raw[:, number][raw[:, number] > 0]
        if len(positive):
            found[number] = 1 / max(float(np.quantile(positive, edge)), 1e-12)
    return found
