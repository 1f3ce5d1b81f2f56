"""Gathers that take everything in its order: they only give a shape.

torch's dynamo exporter writes ``as_strided`` (a global pool behind channels-last maps, for one) as a Reshape to one axis and a
Gather of constant positions 0, 1, 2..., which hides channels from what follows and ties the file to the batch of its example.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgec.graph.edit import take_over
from edgec.graph.views import add_initializer, attribute, constant


def drop_gathers_in_order(model: ir.Model) -> int:
    """Replace every Gather of all of an axis in its order by a Reshape, or by nothing; how many. In place."""
    count = 0
    for node in list(model.graph):
        if node.op_type == "Gather" and node.domain in ("", "ai.onnx") and _takes_all(node):
            count += _as_reshape(model.graph, node)
    return count


def _takes_all(node: ir.Node) -> bool:
    data, positions = node.inputs[0], constant(node.inputs[1])
    if data is None or data.shape is None or positions is None or not len(data.shape):
        return False
    size = data.shape[attribute(node, "axis", 0)]
    return size == positions.size and np.array_equal(positions.ravel(), np.arange(positions.size))


def _as_reshape(graph: ir.Graph, node: ir.Node) -> bool:
    """False where the shape cannot be written as constants, or an output of the graph would be something else's."""
    result, data = node.outputs[0], _unshaped(node.inputs[0])
    sizes = None if result.shape is None else [one if isinstance(one, int) else -1 for one in result.shape]
    if data is None or sizes is None or sizes.count(-1) > 1:
        return False
    if data.shape == result.shape and not result.is_graph_output():
        result.replace_all_uses_with(data)
        graph.remove(node, safe=True)
        return True
    target = add_initializer(graph, f"{node.name}_shape", np.array(sizes, np.int64))
    reshape = ir.node("Reshape", [data, target], name=node.name)
    reshape.outputs[0].shape, reshape.outputs[0].type = result.shape, result.type
    graph.insert_before(node, reshape)
    take_over(graph, result, reshape.outputs[0])
    graph.remove(node, safe=True)
    return True


def _unshaped(value: ir.Value | None) -> ir.Value | None:
    """What a Reshape to one axis took, or the value itself: another order of the same numbers is none."""
    maker = None if value is None else value.producer()
    if maker is not None and maker.op_type == "Reshape" and maker.domain in ("", "ai.onnx"):
        return _unshaped(maker.inputs[0])
    return value
