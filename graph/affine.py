"""Fold per-channel Mul, Div, Add and Sub by constants into the convolution before them.

Exporters leave such nodes where BatchNorm was written out, and layer scales have the same form. onnxscript's rules take
scalars only. Cases, for a Conv whose output has no other reader and a constant c that is one value per channel (or one):
1. ``conv * c`` and ``conv / c``: weights and bias are scaled;
2. ``conv + c``, ``conv - c``: the bias is shifted;
3. ``c - conv``: the weights change sign, the bias too, then case 2. ``c / conv`` stays.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from edgec.graph.edit import take_over
from edgec.graph.views import ConvView, constant, sole_consumer

Array = np.ndarray[Any, np.dtype[Any]]


def fold_affine(model: ir.Model) -> int:
    """Fold in place; the number of nodes that went."""
    count = 0
    for node in list(model.graph):
        if node.op_type in ("Mul", "Div", "Add", "Sub") and _fold(node):
            count += 1
    return count


def _fold(node: ir.Node) -> bool:
    left, right = node.inputs[0], node.inputs[1]
    swapped = constant(left) is not None
    value, operand = (right, left) if swapped else (left, right)
    if value is None or (swapped and node.op_type == "Div") or sole_consumer(value) is not node:
        return False
    view = ConvView.of(value.producer())
    factors = _per_channel(operand, view)
    if view is None or factors is None or view.weight.dtype != np.float32:
        return False
    weight = view.weight.astype(np.float64)
    bias = np.zeros(view.out_channels) if view.bias is None else view.bias.astype(np.float64)
    if node.op_type in ("Mul", "Div"):
        scale = factors if node.op_type == "Mul" else 1.0 / factors
        weight, bias = weight * scale.reshape(-1, *[1] * (weight.ndim - 1)), bias * scale
    elif swapped and node.op_type == "Sub":
        weight, bias = -weight, factors - bias
    else:
        bias = bias + factors if node.op_type == "Add" else bias - factors
    if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
        return False
    view.set(weight=weight.astype(np.float32), bias=bias.astype(np.float32))
    _take_over(node, value)
    return True


def _per_channel(operand: ir.Value | None, view: ConvView | None) -> Array | None:
    """The constant as one value per output channel, or None where it is something else."""
    array = constant(operand)
    if array is None or view is None or array.dtype != np.float32:
        return None
    return channel_values(array, len(view.kernel) + 2, view.out_channels)


def channel_values(array: Array, rank: int, channels: int) -> Array | None:
    """A constant beside a map of ``rank`` axes as one float64 for each of its ``channels``; None where it is something else."""
    if array.ndim > rank:
        return None
    shape = (1,) * (rank - array.ndim) + array.shape
    others = [size for axis, size in enumerate(shape) if axis != 1]
    if any(size != 1 for size in others) or shape[1] not in (1, channels):
        return None
    return np.broadcast_to(array.reshape(shape[1]).astype(np.float64), (channels,)).copy()


def _take_over(node: ir.Node, value: ir.Value) -> None:
    """The convolution writes what ``node`` wrote, under that name."""
    graph = node.graph
    assert isinstance(graph, ir.Graph)  # convolutions are looked for in the graph's own nodes
    take_over(graph, node.outputs[0], value)
    graph.remove(node, safe=True)
