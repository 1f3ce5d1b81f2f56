"""Least squares through a clipping activation, as a convex problem.

Behind ReLU (or ReLU6) it does not matter how far below 0 (above 6) a pre-activation lies that the teacher clips too. So instead
of ``sum (s - t)^2`` minimise

    sum over 0 < t < 6 of (s - t)^2  +  sum over t <= 0 of max(s, 0)^2  +  sum over t >= 6 of min(s - 6, 0)^2,

which is convex in the weights, bounds the error behind the activation from above, and is 0 where that error is. With
``z = t``, or the nearest clipped value where both clip, it is ``min_z (s - z)^2``, so alternating between z and the weights is a
majorise-minimise method in which the normal matrix never changes: one factorisation serves all iterations (Zhang et al.,
arXiv 1505.06798, alternate likewise for a harder, non-convex loss). Nesterov's extrapolation speeds it up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from edgec.passes.solvers.parallel import in_order
from edgec.passes.solvers.ridge import Factor

Array = np.ndarray[Any, np.dtype[Any]]
Tile = tuple[Array, Array, "Array | None"]
"""Patches (group, r, n), targets (group, r, out), and the part of the sum that the layer does not make (None: nothing)."""


BLOCK = 8192
ROW = 1024
"""Numbers that fill a register many times over and leave room in the first cache."""
BEYOND = np.float32(1e38)
"""Further than anything that a network makes: what is so far out loses every comparison."""


@dataclass(frozen=True)
class Clipping:
    """The activation's bounds: ``low`` 0 and ``high`` None for ReLU, 0 and 6 for ReLU6."""

    low: float | None = 0.0
    high: float | None = None

    def nearest(self, prediction: Array, target: Array, offset: Array | None) -> Array:
        """z: the target, or the prediction where both are clipped to the same bound (``offset`` is added before clipping)."""
        rest, found = np.float32(0) if offset is None else offset, target
        if self.low is not None:
            bound = np.float32(self.low) - rest
            found = _raised(target <= bound, -BEYOND, found)
            np.maximum(found, _bounded(np.minimum, prediction, bound), out=found)
        if self.high is not None:
            bound = np.float32(self.high) - rest
            found = _raised(target >= bound, BEYOND, found)
            np.minimum(found, _bounded(np.maximum, prediction, bound), out=found)
        return found

    def apply(self, value: Array, out: Array | None = None) -> Array:
        """The activation itself, in ``out`` where that is given (``value``, say)."""
        if self.low is not None:
            value = _bounded(np.maximum, value, np.float32(self.low), out)
        return value if self.high is None else _bounded(np.minimum, value, np.float32(self.high), out)

    def error(self, prediction: Array, target: Array, offset: Array | None) -> tuple[float, float]:
        """(squared error, energy of the target) behind the activation."""
        if offset is not None:
            prediction, target = prediction + offset, target + offset
        wanted = self.apply(target)
        return squared(self.apply(prediction) - wanted), squared(wanted)

    def passes(self, value: Array) -> Array:
        """Where the activation passes changes on: 1, else 0."""
        found = np.ones(value.shape, np.float32)
        if self.low is not None:
            found *= value > self.low
        if self.high is not None:
            found *= value < self.high
        return found

    def mask(self, flow: Array, value: Array) -> None:
        """Set ``flow`` to 0 where the activation, before or behind which ``value`` stands, does not pass changes on."""
        if self.low is not None:
            flow *= value > self.low
        if self.high is not None:
            flow *= value < self.high


def _bounded(extreme: np.ufunc, value: Array, bound: Array | np.float32, out: Array | None = None) -> Array:
    """``extreme``, np.minimum or np.maximum, of ``value`` and a bound. With one number for all, numpy's loops take three times as
    long as with two arrays: so it is given a row of that number, again and again."""
    room = np.empty_like(value) if out is None else out
    if np.ndim(bound) or not (value.flags.c_contiguous and room.flags.c_contiguous):
        return np.asarray(extreme(value, bound, out=room))
    flat, into = value.reshape(-1), room.reshape(-1)
    whole = flat.size - flat.size % ROW
    rows = flat[:whole].reshape(-1, ROW), np.full(ROW, bound, value.dtype)
    extreme(*rows, out=into[:whole].reshape(-1, ROW))
    extreme(flat[whole:], bound, out=into[whole:])
    return room


def _raised(where: Array, by: np.float32, value: Array) -> Array:
    """``value`` + ``by`` where that is said, else ``value`` to the last bit. Choosing by a mask takes ten times as long, for a
    processor cannot foresee which."""
    found = np.multiply(where, by, dtype=np.float32)
    found += value
    return found


def squared(values: Array) -> float:
    """The sum of squares: float32 products of `BLOCK` numbers, a float64 sum."""
    flat = np.ascontiguousarray(values).reshape(-1)
    blocks = (flat[start : start + BLOCK] for start in range(0, len(flat), BLOCK))
    return sum(float(np.dot(block, block)) for block in blocks)


def fit_clipped(
    tiles: Sequence[Tile],
    factors: tuple[Factor, ...],
    start: Array,
    w0: Array,
    clipping: Clipping,
    iterations: int,
    threads: int = 1,
) -> Array:
    """``iterations`` majorise-minimise steps from ``start`` (group, n, out); each reads all tiles once.

    ``factors`` belong to the same rows, and ``w0`` is what the ridge falls back to.
    """
    now, before = start, start
    for step in range(iterations):
        at = now + step / (step + 3) * (now - before)
        s = np.zeros_like(start)
        for part in in_order(partial(_projected, at.astype(np.float32), clipping), tiles, threads):
            s += part
        before, now = now, np.stack([f.ridge(si, wi) for f, si, wi in zip(factors, s, w0, strict=True)])
    return now


def _projected(w: Array, clipping: Clipping, tile: Tile) -> Array:
    p, t, offset = tile
    return np.asarray(np.swapaxes(p, 1, 2) @ clipping.nearest(p @ w, t, offset))
