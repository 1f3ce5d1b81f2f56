"""A scale and shift per channel as (part of) a layer: int8 kernels have a scale per channel there, and nowhere else.

Cases, for a BatchNormalization, or a Mul and the Add behind it, by constants per channel:
1. behind a Conv or Gemm that nothing else reads, through Reshapes that keep channels channels: into its weights;
2. in front of a Gemm that alone reads it: into its weights;
3. on axis 1 of a map of three or four axes: a depthwise ``Conv`` of kernel 1;
4. on two axes: the same between two Reshapes.

Case 3 is what a norm before an activation is (DenseNet, pre-activation ResNets): the convolution takes the activation
with it, so that Concat, norm, Relu and the next layer all stay on codes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgec.graph.views import GemmView, add_initializer, attribute, constant, shape_of, sole_consumer
from edgec.passes.quantize.rewrites.replace import (
    Array,
    depthwise,
    drop,
    new_node,
    only_reader,
    replace,
    scale_layer,
)

_VIEWS = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity"})


@dataclass(frozen=True)
class _Affine:
    """``scale * x + shift`` per cell of ``axis``; ``nodes`` compute it, the last one gives the result."""

    x: ir.Value
    axis: int
    scale: Array
    shift: Array
    nodes: tuple[ir.Node, ...]


def use_affine_layers(model: ir.Model) -> int:
    """In place; the number of nodes changed."""
    count = 0
    for node in list(model.graph):
        if node.graph is None:
            continue
        found = _norm(node) or _product(node)
        if found is not None and np.isfinite([found.scale, found.shift]).all():
            count += _rewrite(model.graph, found)
    return count


def _rewrite(graph: ir.Graph, affine: _Affine) -> int:
    last = affine.nodes[-1]
    producer = _layer_before(affine)
    if (producer is not None and scale_layer(producer, affine.scale, affine.shift)) or _fold_forward(affine):
        drop(graph, last, affine.x)
    elif affine.axis != 1:
        return 0
    elif len(shape_of(affine.x)) == 2:
        replace(graph, last, _on_features(graph, affine))
    else:
        replace(graph, last, depthwise(graph, last, affine.x, affine.scale, affine.shift, f"{last.name}_dw"))
    for node in reversed(affine.nodes[:-1]):
        graph.remove(node, safe=True)
    return 1


def _norm(node: ir.Node) -> _Affine | None:
    if node.op_type != "BatchNormalization" or attribute(node, "training_mode", 0) or len(node.outputs) > 1:
        return None
    x, parts = node.inputs[0], [constant(value) for value in node.inputs[1:5]]
    if x is None or not _is_map(x) or any(part is None or part.dtype != np.float32 for part in parts):
        return None
    gamma, beta, mean, variance = (np.asarray(part, np.float64) for part in parts)
    scale = gamma / np.sqrt(variance + float(attribute(node, "epsilon", 1e-5)))
    return _Affine(x, 1, scale, beta - mean * scale, (node,))


def _is_map(x: ir.Value) -> bool:
    return x.shape is not None and len(x.shape) in (2, 3, 4) and isinstance(x.shape[1], int)


def _product(node: ir.Node) -> _Affine | None:
    """A Mul by one constant per channel of a map, with the Add behind it where there is one."""
    if node.op_type != "Mul":
        return None
    x, scale, axis = _operands(node)
    if x is None or scale is None:
        return None
    add = sole_consumer(node.outputs[0])
    if add is not None and add.op_type == "Add":
        _, shift, same = _operands(add)
        if shift is not None and same == axis:
            return _Affine(x, axis, scale, shift, (node, add))
    return _Affine(x, axis, scale, np.zeros_like(scale), (node,))


def _operands(node: ir.Node) -> tuple[ir.Value | None, Array | None, int]:
    """(the map, one float64 per channel, the axis of channels) of a Mul or Add; Nones where the constant is another.

    Channels lie on axis 1, or last as in tokens.
    """
    for x, other in ((node.inputs[0], node.inputs[1]), (node.inputs[1], node.inputs[0])):
        array = constant(other)
        if array is None or x is None or x.shape is None or array.dtype != np.float32 or array.size < 2:
            continue
        rank = len(x.shape)
        shape = (1,) * (rank - array.ndim) + array.shape
        for axis in (1, rank - 1) if rank in (3, 4) else ():
            if (
                shape == tuple(array.size if i == axis else 1 for i in range(rank))
                and x.shape[axis] == array.size
            ):
                return x, array.reshape(-1).astype(np.float64), axis
    return None, None, 1


def _layer_before(affine: _Affine) -> ir.Node | None:
    """The node that computes ``affine.x``, seen through views that keep channels where the affine counts them."""
    value, reader, axis = affine.x, affine.nodes[0], affine.axis
    while True:
        node = value.producer()
        if node is None or not only_reader(value, reader):
            return None
        if node.op_type not in _VIEWS:
            rank = None if value.shape is None else len(value.shape)
            outputs_last = node.op_type == "Gemm" and axis == 1 and rank == 2
            return node if (node.op_type == "Conv" and axis == 1) or outputs_last else None
        source = node.inputs[0]
        moved = None if source is None else _moved(source, value, axis)
        if moved is None or source is None:
            return None
        value, reader, axis = source, node, moved


def _moved(source: ir.Value, result: ir.Value, axis: int) -> int | None:
    """Which axis of ``source`` is axis ``axis`` of its view ``result``: as many cells behind it, and of its size."""
    if source.shape is None or result.shape is None:
        return None
    before, after = shape_of(source), shape_of(result)
    if None in after[axis:]:
        return None
    inner = int(np.prod([size or 1 for size in after[axis + 1 :]]))
    for place in range(len(before) - 1, -1, -1):
        behind = before[place + 1 :]
        if None in behind:
            return None
        if before[place] == after[axis] and int(np.prod([size or 1 for size in behind])) == inner:
            return place
    return None


def _fold_forward(affine: _Affine) -> bool:
    """Into the Gemm that alone reads the result: ``W (s x + t) + b = (W s) x + (b + W t)``."""
    last = affine.nodes[-1]
    reader = sole_consumer(last.outputs[0])
    view = GemmView.of(reader)
    if view is None or view.x is not last.outputs[0] or view.weight.dtype != np.float32:
        return False
    if affine.axis != 1 or len(shape_of(affine.x)) != 2 or (reader is not None and reader.op_type != "Gemm"):
        return False
    weight = view.weight.astype(np.float64)
    bias = np.zeros(view.out_channels) if view.bias is None else view.bias.astype(np.float64)
    view.set(
        weight=(weight * affine.scale).astype(np.float32),
        bias=(bias + weight @ affine.shift).astype(np.float32),
    )
    return True


def _on_features(graph: ir.Graph, affine: _Affine) -> ir.Node:
    last, channels = affine.nodes[-1], int(affine.scale.size)
    name, head = last.name or "norm", None if affine.x.shape is None else affine.x.shape[0]
    wide = add_initializer(graph, f"{name}_wide", np.asarray([-1, channels, 1, 1], np.int64))
    flat = add_initializer(graph, f"{name}_flat", np.asarray([-1, channels], np.int64))
    x = new_node(graph, last, "Reshape", [affine.x, wide], f"{name}_map", [head, channels, 1, 1])
    conv = depthwise(graph, last, x.outputs[0], affine.scale, affine.shift, f"{name}_dw")
    return new_node(graph, last, "Reshape", [conv.outputs[0], flat], f"{name}_features", [head, channels])
