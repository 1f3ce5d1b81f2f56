"""Zeros joined to a map are padding: ``Concat(x, 0)`` -> ``Pad(x)``, which stores no zeros; a Pad of some axes is one of all.

Exporters write the channel padding of a residual branch (BlazeFace) as a Concat with a constant as large as the map.
onnxruntime's layout step reads margins for every axis behind a QLinearConv, whatever ``axes`` says.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgec.graph.views import add_initializer, attribute, constant, own_constant, shape_of
from edgec.passes.quantize.rewrites.replace import new_node, replace


def use_pads(model: ir.Model) -> int:
    """In place; the number of nodes changed."""
    joins = sum(_use_pad(model.graph, node) for node in list(model.graph) if node.op_type == "Concat")
    return joins + sum(_pad_all_axes(model.graph, node) for node in model.graph if node.op_type == "Pad")


def _pad_all_axes(graph: ir.Graph, node: ir.Node) -> bool:
    axes = constant(node.inputs[3]) if len(node.inputs) > 3 else None
    given, shape = constant(node.inputs[1]), node.outputs[0].shape
    if axes is None or given is None or shape is None:
        return False
    amounts = np.zeros((2, len(shape)), np.int64)
    amounts[:, axes] = given.reshape(2, -1)
    own_constant(graph, node, 1, amounts.ravel())
    node.resize_inputs(3)
    return True


def _use_pad(graph: ir.Graph, node: ir.Node) -> bool:
    result = node.outputs[0]
    if result.shape is None:
        return False
    rank = len(result.shape)
    axis = int(attribute(node, "axis", 0)) % rank
    kept = list(node.inputs)
    before = _take_zeros(kept, axis, 0)
    after = _take_zeros(kept, axis, -1)
    if not kept or not before + after or any(constant(value) is not None for value in kept):
        return False
    name, x = node.name or "join", kept[0]
    size = shape_of(result)[axis]
    inner = [*result.shape]
    if size is not None:
        inner[axis] = size - before - after
    if len(kept) > 1:
        x = new_node(graph, node, "Concat", kept, f"{name}_joined", inner, axis=axis).outputs[0]
    amounts = np.zeros(2 * rank, np.int64)
    amounts[axis], amounts[rank + axis] = before, after
    pads = add_initializer(graph, f"{name}_pads", amounts)
    zero = add_initializer(graph, f"{name}_zero", np.asarray(0.0, np.float32))
    replace(graph, node, new_node(graph, node, "Pad", [x, pads, zero], f"{name}_padded", result.shape))
    return True


def _take_zeros(values: list[ir.Value | None], axis: int, end: int) -> int:
    """Remove constants of zeros from one end of ``values``; how long they are along ``axis``."""
    length = 0
    while values:
        array = constant(values[end])
        if array is None or array.dtype != np.float32 or np.any(array):
            return length
        length += int(array.shape[axis])
        values.pop(end)
    return length
