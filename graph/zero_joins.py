"""Zeros joined to a map are padding: ``Concat(x, 0)`` -> ``Pad(x)``, which stores no zeros and has no batch of its own.

Exporters write the channel padding of a residual branch (BlazeFace) as a Concat with a constant as large as the map.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgec.graph.edit import take_over
from edgec.graph.views import add_initializer, attribute, constant, fresh_name, shape_of


def pad_for_zeros(model: ir.Model) -> int:
    """Replace every Concat with zeros at its ends by a Pad, of what else it joins; how many. In place."""
    return sum(_pad(model.graph, node) for node in list(model.graph) if node.op_type == "Concat")


def _pad(graph: ir.Graph, node: ir.Node) -> bool:
    result = node.outputs[0]
    if node.domain not in ("", "ai.onnx") or result.shape is None:
        return False
    rank = len(result.shape)
    axis = int(attribute(node, "axis", 0)) % rank
    kept = list(node.inputs)
    before, after = _take_zeros(kept, axis, 0), _take_zeros(kept, axis, -1)
    if not axis or not kept or not before + after or any(constant(value) is not None for value in kept):
        return False
    name, x = node.name or "join", kept[0]
    if len(kept) > 1:
        size, inner = shape_of(result)[axis], [*result.shape]
        inner[axis] = None if size is None else size - before - after
        joined = ir.node("Concat", kept, attributes={"axis": axis}, name=fresh_name(graph, f"{name}_joined"))
        x = joined.outputs[0]
        x.name, x.shape, x.type = fresh_name(graph, f"{name}_joined_out"), ir.Shape(inner), result.type
        graph.insert_before(node, joined)
    amounts = np.zeros(2 * rank, np.int64)
    amounts[axis], amounts[rank + axis] = before, after
    pads = add_initializer(graph, f"{name}_pads", amounts)
    zero = add_initializer(graph, f"{name}_zero", np.asarray(0.0, np.float32))
    padded = ir.node("Pad", [x, pads, zero], name=name)
    padded.outputs[0].shape, padded.outputs[0].type = result.shape, result.type
    padded.metadata_props.update(node.metadata_props)
    graph.insert_before(node, padded)
    take_over(graph, result, padded.outputs[0])
    graph.remove(node, safe=True)
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
