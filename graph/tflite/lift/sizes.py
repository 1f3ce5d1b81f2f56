"""How large an open axis is: a file writes 1 for it, and what is reshaped may hold a multiple of that.

Tokens of a sample that are merged with the batch, (n, 7, 12) -> (7 n, 12), stand in the file as (1, 12), open at the front.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from edgec.graph.tflite.read import OperatorInfo, TfliteFile

Shape = tuple[int, ...]
_RESHAPES = ("RESHAPE", "SQUEEZE", "EXPAND_DIMS")


def true_shapes(file: TfliteFile) -> Mapping[int, Shape]:
    """The shapes of the tensors that an operator writes with an open axis, where each input has the size that the file writes."""
    known: dict[int, Shape] = {}
    for op in file.operators:
        for index in op.outputs:
            axis = _open_axis(file, index)
            size = None if axis is None else _size(file, op, index, axis, known)
            if axis is not None and size is not None:
                shape = file.tensors[index].shape
                known[index] = (*shape[:axis], size, *shape[axis + 1 :])
    return known


def _open_axis(file: TfliteFile, index: int) -> int | None:
    """The one axis of a tensor that is open."""
    tensor = file.tensors[index] if index >= 0 else None
    if tensor is None or len(tensor.signature) != len(tensor.shape) or tensor.signature.count(-1) != 1:
        return None
    return tensor.signature.index(-1)


def _size(
    file: TfliteFile, op: OperatorInfo, index: int, axis: int, known: Mapping[int, Shape]
) -> int | None:
    for operand in op.inputs:
        source_axis = _open_axis(file, operand)
        if source_axis is None:
            continue
        shape = known.get(operand, file.tensors[operand].shape)
        rest = None
        if op.code in _RESHAPES:
            rest = math.prod(d for k, d in enumerate(file.tensors[index].shape) if k != axis)
        elif (
            op.code == "FULLY_CONNECTED" and len(op.inputs) > 1 and not op.options.get("keep_num_dims", False)
        ):
            rest = math.prod(file.tensors[op.inputs[1]].shape[1:])
        return shape[source_axis] if rest is None else math.prod(shape) // max(rest, 1)
    return None
