"""Carry Mul, Div, Add and Sub by constants over into the convolutions behind them.

Where an activation stands between a convolution and such a node it cannot go into the layer before (`affine`): PP-LCNetV3 and
norm-free networks scale, and shift, behind every activation. Cases, for a constant c of one value, or one per channel, and a
result that convolutions alone read (a scale may have a shift by such a constant between):
1. ``conv(c * x)`` and ``conv(x / c)``: the weights of c's channel are scaled; padded zeros stay zeros;
2. ``conv(c * x + d)``: the same, and ``x + d / c`` is left;
3. ``conv(x + c)`` and ``conv(x - c)`` without padding: the bias is shifted by what the weights make of c.

Two steps stay as they are: the last one of a HardSigmoid or HardSwish that is written out, ``Clip(x + 3, 0, 6) / 6`` and times
``x``, and what is done to the network's inputs, which is how pictures are prepared.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from edgec.graph.affine import channel_values
from edgec.graph.views import ConvView, attribute, constant, own_constant, per_input, sole_consumer

Array = np.ndarray[Any, np.dtype[Any]]

LEAST = 1e-6
"""Smaller scales are no scales: what is left of a shift divided by them would be no number of use."""
_PREPARING = ("Mul", "Div", "Add", "Sub", "Transpose", "Reshape", "Cast", "Pad", "Gather", "Concat")


def carry_ahead(model: ir.Model) -> int:
    """In place; the number of nodes that went. From the last to the first, so that a chain goes as a whole."""
    return sum(_carry(model.graph, node) for node in reversed(list(model.graph)))


def _carry(graph: ir.Graph, node: ir.Node) -> bool:
    x, operand = _operands(node)
    if x is None or x.producer() is None or _is_prepared(x) or _is_gate(x):
        return False
    if node.op_type in ("Mul", "Div"):
        return _carry_scale(graph, node, x, operand)
    if node.op_type in ("Add", "Sub"):
        return _carry_shift(graph, node, x, operand)
    return False


def _carry_scale(graph: ir.Graph, node: ir.Node, x: ir.Value, operand: Array) -> bool:
    """Cases 1 and 2."""
    result, shift = node.outputs[0], None
    readers = _convolutions(result)
    if readers is None:
        shift = sole_consumer(result)
        if shift is None or shift.op_type not in ("Add", "Sub") or shift.inputs[0] is None:
            return False
        shifted, by = _operands(shift)
        readers = None if shifted is not result else _convolutions(shift.outputs[0])
        if readers is None:
            return False
    scale = _per_channel(operand, x, readers[0])
    if scale is None or float(np.abs(scale).min()) < LEAST:
        return False
    scale = scale if node.op_type == "Mul" else 1 / scale
    with np.errstate(over="ignore"):
        weights = [(view.weight * _on_inputs(scale, view)).astype(np.float32) for view in readers]
    if not all(np.isfinite(weight).all() for weight in weights):
        return False
    if shift is not None:
        offset = _per_channel(by, x, readers[0])
        left = None if offset is None else offset / scale
        if left is None or not np.isfinite(left).all():
            return False
        place = 1 if shift.inputs[0] is result else 0
        spread = (
            left[:1].reshape(()) if np.ptp(left) == 0 else left.reshape(-1, *[1] * len(readers[0].kernel))
        )
        own_constant(graph, shift, place, spread.astype(np.float32), "_scaled")
    for view, weight in zip(readers, weights, strict=True):
        view.set(weight=weight)
    _drop(graph, node, x)
    return True


def _carry_shift(graph: ir.Graph, node: ir.Node, x: ir.Value, operand: Array) -> bool:
    """Case 3."""
    readers = _convolutions(node.outputs[0])
    if readers is None or any(_pads(view) for view in readers):
        return False
    shift = _per_channel(operand, x, readers[0])
    if shift is None or (node.op_type == "Sub" and node.inputs[0] is not x):
        return False
    shift = shift if node.op_type == "Add" else -shift
    for view in readers:
        made = (
            (view.weight.astype(np.float64) * _on_inputs(shift, view))
            .reshape(view.out_channels, -1)
            .sum(axis=1)
        )
        before = np.zeros(view.out_channels) if view.bias is None else view.bias.astype(np.float64)
        view.set(bias=(before + made).astype(np.float32))
    _drop(graph, node, x)
    return True


def _operands(node: ir.Node) -> tuple[ir.Value | None, Array]:
    """(the computed operand, the constant one); None where there is no such pair, or the constant is divided."""
    nothing = np.zeros(0, np.float32)
    if node.op_type not in ("Mul", "Div", "Add", "Sub"):
        return None, nothing
    left, right = node.inputs[0], node.inputs[1]
    for x, other in ((left, right), (right, left)):
        array = constant(other)
        if array is not None and array.dtype == np.float32 and x is not None and constant(x) is None:
            return (None if node.op_type == "Div" and x is right else x), array
    return None, nothing


def _convolutions(value: ir.Value) -> list[ConvView] | None:
    """The layers that read a value, where nothing else does."""
    if value.is_graph_output():
        return None
    found = []
    for reader, place in value.uses():
        view = ConvView.of(reader) if reader.op_type == "Conv" else None
        if view is None or place != 0 or view.weight.dtype != np.float32:
            return None
        found.append(view)
    return found or None


def _per_channel(operand: Array, x: ir.Value, view: ConvView) -> Array | None:
    """The constant as one value for each of the layer's input channels, or None where it is something else, or widens ``x``."""
    rank, known = len(view.kernel) + 2, () if x.shape is None else tuple(x.shape)
    as_wide = len(known) == rank and (operand.size == 1 or known[1] == view.in_channels)
    if not as_wide and (operand.ndim == rank or operand.size > 1):
        return None
    return channel_values(operand, rank, view.in_channels)


def _on_inputs(factors: Array, view: ConvView) -> Array:
    return per_input(factors, view.group, view.weight.shape)


def _pads(view: ConvView) -> bool:
    return any(view.pads) or attribute(view.node, "auto_pad", "NOTSET") not in ("NOTSET", "VALID")


def _is_gate(x: ir.Value) -> bool:
    """Whether a number behind ``x`` may be the last of a HardSigmoid or HardSwish that is written out."""
    node = x.producer()
    made: Sequence[ir.Value | None] = (
        () if node is None else (x, *node.inputs) if node.op_type == "Mul" else (x,)
    )
    return any(
        value is not None and (maker := value.producer()) is not None and maker.op_type == "Clip"
        for value in made
    )


def _is_prepared(x: ir.Value) -> bool:
    """Whether nothing but such arithmetic, and moving, lies between a network's input and ``x``."""
    node = x.producer()
    while node is not None and node.op_type in _PREPARING:
        sources = [value for value in node.inputs if value is not None and constant(value) is None]
        if len(sources) != 1:
            return False
        x, node = sources[0], sources[0].producer()
    return node is None


def _drop(graph: ir.Graph, node: ir.Node, x: ir.Value) -> None:
    for reader, place in tuple(node.outputs[0].uses()):
        reader.replace_input_with(place, x)
    graph.remove(node, safe=True)
