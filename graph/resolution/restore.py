"""What a network gives at another size of its picture, laid over what its source gives: maps and rows of places, interpolated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from edgec.graph.resolution.axes import Axes, Axis
from edgec.graph.resolution.resize import RULES, picture_of, size_of
from edgec.graph.resolution.trace import Size, walk

Array = np.ndarray[Any, np.dtype[Any]]


def output_axes(source: ir.Model, size: Size) -> tuple[Axes, ...]:
    """Of the outputs of ``source``, what each axis is at ``size``; empty where the sizes are the same. Raises SizeError."""
    if size_of(source) == size:
        return ()
    found = walk(source, picture_of(source), size, RULES)
    return tuple(found.axes(value) for value in source.graph.outputs)


def restored(values: Array, axes: Axes) -> Array:
    """``values`` (samples first) of a network at the other size, with as many places as its source has.

    Rows of a detector are taken apart into the maps that they were. Whole numbers (classes) are those of the nearest place.
    """
    if values.ndim != len(axes):
        return values
    for at, axis in enumerate(axes):
        if at and axis.follows and values.shape[at] == axis.new:
            values = _along(values, at, axis)
    return values


def _along(values: Array, at: int, axis: Axis) -> Array:
    parts, start = [], 0
    for run in axis.runs:
        part = np.take(values, range(start, start + Axis((run,)).new), axis=at)
        start += part.shape[at]
        shape = part.shape
        part = part.reshape(*shape[:at], *(one.new for one in run), *shape[at + 1 :])
        for i, factor in enumerate(run):
            if factor.side:
                part = _interpolated(part, at + i, factor.old)
        parts.append(part.reshape(*shape[:at], -1, *shape[at + 1 :]))
    return np.concatenate(parts, axis=at)


def _interpolated(values: Array, axis: int, count: int) -> Array:
    """``count`` places along ``axis``, centres over centres."""
    size = values.shape[axis]
    if size == count:
        return values
    places = np.clip((np.arange(count) + 0.5) * size / count - 0.5, 0, size - 1)
    if values.dtype.kind != "f":
        return np.asarray(np.take(values, np.round(places).astype(np.intp), axis=axis))
    low = np.floor(places).astype(np.intp)
    high = np.minimum(low + 1, size - 1)
    share = (places - low).astype(values.dtype).reshape([-1 if i == axis else 1 for i in range(values.ndim)])
    return np.asarray(
        np.take(values, low, axis=axis) * (1 - share) + np.take(values, high, axis=axis) * share
    )


def same_places(outputs: Sequence[Array], axes: Sequence[Axes]) -> list[Array]:
    """All outputs, `restored`; as they are where ``axes`` is empty."""
    return [restored(*pair) for pair in zip(outputs, axes, strict=True)] if axes else list(outputs)
