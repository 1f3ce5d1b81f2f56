"""Sparse constants of TFLite files, written out.

The format is that of TACO's: the axes, and blocks inside them, in an order of traversal, each dense or compressed
(https://github.com/tensorflow/tensorflow/blob/master/tensorflow/lite/schema/schema.fbs, SparsityParameters).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from edgec.graph.tflite.read import TensorInfo
from edgec.graph.tflite.tensors import NUMPY_TYPE

Array = np.ndarray[Any, np.dtype[Any]]
_MOST_BYTES = (1 << 31) - 1
_COMPRESSED = 1


def dense(tensor: TensorInfo) -> Array:
    """The constant as an array of its whole shape. Raises ValueError where its indices do not fit."""
    if tensor.data is None or tensor.sparsity is None:
        raise ValueError(f"tensor {tensor.name!r} is not sparse")
    kind = np.dtype(NUMPY_TYPE[tensor.type])
    if tensor.elements * kind.itemsize > _MOST_BYTES:
        raise ValueError(f"tensor {tensor.name!r} is above 2 GB when written out")
    stored = tensor.data.view(kind)
    order, blocks, levels = _form(tensor)
    places = np.zeros((1, 0), np.int64)
    for level in levels:
        places = _descend(places, level, tensor.elements)
    if len(places) != len(stored):
        raise ValueError(
            f"tensor {tensor.name!r} stores {len(stored)} numbers, its indices are {len(places)}"
        )
    along: Array = np.empty_like(places)
    along[:, order] = places
    rank = len(tensor.shape)
    sizes = {axis: int(levels[order.index(rank + k)]["dense_size"]) for k, axis in enumerate(blocks)}
    index = along[:, :rank].copy()
    for k, axis in enumerate(blocks):
        index[:, axis] = index[:, axis] * sizes[axis] + along[:, rank + k]
    if (index < 0).any() or (index >= np.asarray(tensor.shape)).any():
        raise ValueError(f"tensor {tensor.name!r} has an index outside its shape")
    whole = np.zeros(tensor.shape, kind)
    whole[tuple(index.T)] = stored
    return whole


def _form(tensor: TensorInfo) -> tuple[list[int], list[int], list[dict[str, Any]]]:
    """The order of traversal, the axis of each block, and the levels."""
    sparsity = tensor.sparsity or {}
    levels = list(sparsity["dim_metadata"] or ())
    given = sparsity["traversal_order"]
    order = [int(a) for a in given] if given is not None else list(range(len(levels)))
    blocks = [int(a) for a in sparsity["block_map"]] if sparsity["block_map"] is not None else []
    rank = len(tensor.shape)
    if sorted(order) != list(range(rank + len(blocks))) or len(levels) != len(order):
        raise ValueError(f"tensor {tensor.name!r} has no sound order of traversal")
    if any(not 0 <= axis < rank for axis in blocks) or len(set(blocks)) != len(blocks):
        raise ValueError(f"tensor {tensor.name!r} has blocks along no axis of it")
    return order, blocks, levels


def _descend(places: Array, level: dict[str, Any], most: int) -> Array:
    """Every place of the levels above, with each coordinate that this level has there."""
    if int(level["format"]) == _COMPRESSED:
        segments, indices = (_values(level[key]) for key in ("array_segments", "array_indices"))
        counts = np.diff(segments)
        if (
            len(counts) != len(places)
            or (counts < 0).any()
            or segments[0] != 0
            or segments[-1] != len(indices)
        ):
            raise ValueError("the segments of a sparse axis do not fit")
        return np.column_stack([np.repeat(places, counts, axis=0), indices])
    size = int(level["dense_size"])
    if size < 1 or math.prod((size, len(places))) > most:
        raise ValueError("a sparse tensor is larger than its shape")
    return np.column_stack([np.repeat(places, size, axis=0), np.tile(np.arange(size), len(places))])


def _values(indices: dict[str, Any]) -> Array:
    if not indices or indices["values"] is None:
        raise ValueError("a sparse axis lacks its indices")
    return np.asarray(indices["values"]).astype(np.int64)
