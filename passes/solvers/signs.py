"""Which way a direction points: eigenvectors and singular vectors have no sign, and every kernel of BLAS gives its own.

The product of the factors is the same either way, and so is what float numbers make of it. Quantised it is not: the channels
between the factors share one scale, whose range depends on the side of zero on which each of them lies.
"""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

SEEN = 2.0**-10
"""A mean below this share of its terms' sizes, and a difference of entries below it, is left to no rounding error to decide."""


def signs(vectors: Array, row: Array) -> Array:
    """(ranks,) of 1 and -1: what each of ``vectors`` (n, ranks) is multiplied by so that it makes a positive number of the mean
    ``row`` of its data, (n,) or (n, ranks).

    Where the mean says nothing, the largest entry gets positive, the first of those that are as large.
    """
    rows = row if row.ndim == vectors.ndim else row[:, None]
    means, sizes = (rows * vectors).sum(axis=0), np.abs(rows * vectors).sum(axis=0)
    large = np.abs(vectors) >= (1 - SEEN) * np.abs(vectors).max(axis=0, initial=0.0)
    entries = np.take_along_axis(vectors, large.argmax(axis=0)[None], axis=0)[0]
    return np.where(np.where(np.abs(means) > SEEN * sizes, means, entries) < 0, -1.0, 1.0)


def upright(vectors: Array, row: Array) -> Array:
    """``vectors`` with their `signs`: channels then lie on one side of zero as far as they can, and share the shortest range."""
    return np.asarray(vectors * signs(vectors, row))
