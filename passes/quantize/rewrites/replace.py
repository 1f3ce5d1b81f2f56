"""The edits that the rewrites share: a chain of new nodes in the place of old ones, and a scale and shift per channel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from edgec.graph.edit import take_over
from edgec.graph.views import ConvView, GemmView, add_initializer, fresh_name, shape_of, sole_consumer

Array = np.ndarray[Any, np.dtype[Any]]


def new_node(
    graph: ir.Graph,
    before: ir.Node,
    op: str,
    inputs: Sequence[ir.Value | None],
    name: str,
    shape: Sequence[Any] | ir.Shape | None,
    **attributes: int | float | Sequence[int],
) -> ir.Node:
    """A node with one float result of ``shape``, placed in front of ``before``; names are made unique."""
    node = ir.node(op, inputs=list(inputs), attributes=attributes, name=fresh_name(graph, name))
    result = node.outputs[0]
    result.name = fresh_name(graph, f"{name}_out")
    result.shape = None if shape is None else ir.Shape(list(shape))
    result.type = ir.TensorType(ir.DataType.FLOAT)
    graph.insert_before(before, node)
    return node


def replace(graph: ir.Graph, old: ir.Node, new: ir.Node) -> None:
    """The result of ``new`` stands for that of ``old``, which goes; ``new`` takes both names."""
    name = old.name
    take_over(graph, old.outputs[0], new.outputs[0])
    graph.remove(old, safe=True)
    new.name = name


def drop(graph: ir.Graph, node: ir.Node, source: ir.Value) -> None:
    """``source`` stands for the result of ``node``, under that name; the node goes."""
    take_over(graph, node.outputs[0], source)
    graph.remove(node, safe=True)


def channels_of(value: ir.Value | None) -> int | None:
    """Channels of a map (N, C, length) or (N, C, height, width); None for other ranks and open axes."""
    if value is None or value.shape is None or len(value.shape) not in (3, 4):
        return None
    return shape_of(value)[1]


def scale_layer(node: ir.Node | None, scale: Array, shift: Array) -> bool:
    """Let a Conv or Gemm with constant weights compute ``scale * y + shift`` per output channel; False where it cannot.

    The layer's own result must have no other reader: the caller looks.
    """
    view: ConvView | GemmView | None = ConvView.of(node) or GemmView.of(node)
    if view is None or view.weight.dtype != np.float32:
        return False
    outs = view.out_channels
    if scale.size not in (1, outs) or shift.size not in (1, outs):
        return False
    scale, shift = np.broadcast_to(scale.reshape(-1), (outs,)), np.broadcast_to(shift.reshape(-1), (outs,))
    weight = view.weight.astype(np.float64) * scale.reshape(-1, *[1] * (view.weight.ndim - 1))
    bias = np.zeros(outs) if view.bias is None else view.bias.astype(np.float64)
    view.set(weight=weight.astype(np.float32), bias=(bias * scale + shift).astype(np.float32))
    return True


def depthwise(
    graph: ir.Graph, before: ir.Node, x: ir.Value, scale: Array, shift: Array, name: str
) -> ir.Node:
    """``scale * x + shift`` per channel as a depthwise Conv of kernel 1 in front of ``before``."""
    rank, channels = len(shape_of(x)), int(scale.size)
    kernel = scale.astype(np.float32).reshape(channels, 1, *[1] * (rank - 2))
    weight = add_initializer(graph, f"{name}_weight", kernel)
    bias = add_initializer(graph, f"{name}_bias", shift.astype(np.float32).reshape(channels))
    ones = [1] * (rank - 2)
    return new_node(
        graph, before, "Conv", [x, weight, bias], name, x.shape, group=channels, kernel_shape=ones
    )


def only_reader(value: ir.Value | None, node: ir.Node) -> bool:
    """True when ``node`` alone reads ``value``, once."""
    return value is not None and sole_consumer(value) is node
