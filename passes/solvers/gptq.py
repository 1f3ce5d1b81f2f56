"""Rounding weights to a grid so that the layer's output, not the weight, errs least.

For one output channel with weights ``w``, grid values ``q`` and the inputs' second moments ``H`` the error of
the output is ``(w - q)' H (w - q)``. `gptq` rounds one input after the other and lets the ones not yet
rounded absorb the error (Frantar et al., GPTQ, arXiv 2210.17323; the update is OBQ's and Optimal Brain
Surgeon's). `descend` then changes single codes while that lowers the error (cyclic coordinate descent: Behdin
et al., QuantEase, arXiv 2309.01885).

All arrays carry a leading axis of groups, since a grouped convolution has one ``H`` per group: ``H`` (g, d,
d), ``W`` (g, o, d), ``scales`` (g, o).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.linalg import lapack

from edgec.passes.solvers.guard import TIE

Array = np.ndarray[Any, np.dtype[np.float64]]
Codes = np.ndarray[Any, np.dtype[np.int8]]
Order = np.ndarray[Any, np.dtype[np.intp]]

BLOCK = 64


def damped(H: Array, damping: float) -> Array:
    """``H`` plus ``damping`` times the mean of its diagonal; inputs that are never on get a unit diagonal."""
    diagonal = np.einsum("gii->gi", H)
    mean = diagonal.mean(axis=1)
    mean = np.where(mean > 0, mean, 1.0)
    dead = diagonal <= 0
    result: Array = H.copy()
    np.einsum("gii->gi", result)[...] += damping * mean[:, None] + np.where(dead, mean[:, None], 0.0)
    return result


def round_to_nearest(W: Array, scales: Array, limit: int) -> Codes:
    """The nearest codes."""
    return np.clip(np.rint(W / scales[..., None]), -limit, limit).astype(np.int8)


@dataclass(frozen=True)
class Feedback:
    """How the error of one rounded input is spread over those not yet rounded; it depends on ``H`` alone."""

    order: Order
    """The inputs, those of most energy first, (g, d)."""
    upper: Array
    """The upper Cholesky factor of ``H^-1`` in that order: row by row the inverse of what is left to round, (g, d, d)."""

    @staticmethod
    def of(H: Array, damping: float = 0.01) -> Feedback:
        """Of ``H`` with `damped`."""
        order = np.argsort(-np.einsum("gii->gi", H), axis=1, kind="stable")
        rows = np.arange(len(H))[:, None]
        sorted_ = damped(H, damping)[rows[:, :, None], order[:, :, None], order[:, None, :]]
        return Feedback(order, _inverse_factor(sorted_))


def gptq(feedback: Feedback, W: Array, scales: Array, limit: int) -> Codes:
    """Codes by successive rounding with error feedback, inputs of most energy first."""
    order, upper = feedback.order, feedback.upper
    size = order.shape[1]
    W = np.take_along_axis(W, order[:, None, :], axis=2).copy()
    codes = np.zeros(W.shape, np.int8)
    for start in range(0, size, BLOCK):
        stop = min(start + BLOCK, size)
        errors = np.zeros((*W.shape[:2], stop - start))
        for j in range(start, stop):
            column = W[:, :, j]
            code = np.clip(np.rint(column / scales), -limit, limit)
            codes[:, :, j] = code
            error = (column - code * scales) / upper[:, j, j][:, None]
            errors[:, :, j - start] = error
            W[:, :, j + 1 : stop] -= error[:, :, None] * upper[:, None, j, j + 1 : stop]
        W[:, :, stop:] -= errors @ upper[:, start:stop, stop:]
    inverse = np.argsort(order, axis=1, kind="stable")
    return np.take_along_axis(codes, inverse[:, None, :], axis=2)


def _inverse_factor(H: Array) -> Array:
    """The upper Cholesky factor of ``H^-1``; a matrix that is singular in float64 gets the least jitter that works.

    With the rows and columns of ``H`` in reverse, its factor is upper, and the inverse of that is what is wanted: a quarter of
    the work of inverting ``H``.
    """
    jitter = 0.0
    while True:
        try:
            found: Array = np.linalg.cholesky(damped(H, jitter)[:, ::-1, ::-1])
        except np.linalg.LinAlgError:
            jitter = max(10.0 * jitter, 1e-9)
        else:
            for lower in found:
                lower[...] = lapack.dtrtri(lower[::-1, ::-1])[0]
            return found


def descend(H: Array, W: Array, scales: Array, codes: Codes, limit: int, *, sweeps: int = 2) -> Codes:
    """Improve ``codes`` one input at a time; never raises the error."""
    diagonal = np.maximum(np.einsum("gii->gi", H), np.finfo(np.float64).tiny)
    size = H.shape[-1]
    current = codes.astype(np.float64)
    gradient = (current * scales[..., None] - W) @ H
    for _ in range(sweeps):
        before = current.copy()
        for start in range(0, size, BLOCK):
            # Within the block every step counts at once; the others are told of all its steps together.
            block = slice(start, min(start + BLOCK, size))
            local, near = gradient[:, :, block].copy(), H[:, block, block]
            for j in range(start, block.stop):
                best = current[:, :, j] - local[:, :, j - start] / (diagonal[:, j][:, None] * scales)
                step = np.clip(np.rint(best), -limit, limit) - current[:, :, j]
                if step.any():
                    current[:, :, j] += step
                    local += (step * scales)[:, :, None] * near[:, None, j - start, :]
            steps = (current - before)[:, :, block]
            if steps.any():
                gradient += (steps * scales[..., None]) @ H[:, block, :]
        if np.array_equal(current, before):
            break
    return current.astype(np.int8)


def error(H: Array, W: Array, scales: Array, codes: Codes) -> Array:
    """``(w - q)' H (w - q)`` per group and output channel, (g, o)."""
    difference = W - codes * scales[..., None]
    result: Array = np.einsum("god,god->go", difference @ H, difference)
    return result


def search_scales(H: Array, W: Array, limit: int, factors: Array) -> Array:
    """Per output channel the scale, among ``factors`` times the min/max one, whose nearest codes err least."""
    base = np.abs(W).max(axis=2) / limit
    base = np.where(base > 0, base, 1.0)
    best = np.full(base.shape, np.finfo(np.float64).max)
    scales = base.copy()
    for factor in factors:
        trial = (base * factor).astype(np.float32).astype(np.float64)
        value = error(H, W, trial, round_to_nearest(W, trial, limit))
        better = value < best - TIE * best
        best = np.where(better, value, best)
        scales = np.where(better, trial, scales)
    return scales
