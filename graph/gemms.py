"""Gemm in the one form that layers have: alpha and beta in its constants, the input as it lies, the bias a vector.

Older exporters write scales as alpha and beta, biases as rows, single numbers or not at all, and give the input turned. Cases:
1. a constant weight takes alpha, a constant bias takes beta (a missing bias needs none);
2. a constant bias of (), (1,), (1, 1) or (1, n) becomes a vector of n;
3. transA becomes a Transpose in front.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgec.graph.views import attribute, constant, fresh_name, own_constant, set_attribute


def write_gemms_plainly(model: ir.Model) -> int:
    """How many nodes changed. In place."""
    nodes = [node for node in list(model.graph) if node.op_type == "Gemm" and node.domain in ("", "ai.onnx")]
    return sum(
        _scales(model.graph, node) | _bias(model.graph, node) | _turned(model.graph, node) for node in nodes
    )


def _scales(graph: ir.Graph, node: ir.Node) -> bool:
    changed = False
    for index, name in ((1, "alpha"), (2, "beta")):
        factor = attribute(node, name, 1.0)
        missing = len(node.inputs) <= index or node.inputs[index] is None
        array = None if missing else constant(node.inputs[index])
        if factor == 1.0 or (array is None and not missing):
            continue
        if array is not None:
            own_constant(graph, node, index, array * array.dtype.type(factor))
        set_attribute(node, name, 1.0)
        changed = True
    return changed


def _bias(graph: ir.Graph, node: ir.Node) -> bool:
    bias = constant(node.inputs[2]) if len(node.inputs) > 2 else None
    weight = node.inputs[1]
    if bias is None or weight is None or weight.shape is None:
        return False
    units = weight.shape[0 if attribute(node, "transB", 0) else 1]
    if not isinstance(units, int) or bias.shape == (units,) or bias.size not in (1, units):
        return False
    if bias.ndim == 2 and bias.shape[0] != 1:
        return False  # a column: another number for each sample
    own_constant(graph, node, 2, np.array(np.broadcast_to(bias.reshape(-1), (units,))))
    return True


def _turned(graph: ir.Graph, node: ir.Node) -> bool:
    if not attribute(node, "transA", 0):
        return False
    turn = ir.node(
        "Transpose", [node.inputs[0]], {"perm": [1, 0]}, name=fresh_name(graph, f"{node.name}_turned")
    )
    graph.insert_before(node, turn)
    node.replace_input_with(0, turn.outputs[0])
    set_attribute(node, "transA", 0)
    return True
