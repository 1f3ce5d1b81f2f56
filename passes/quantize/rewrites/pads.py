"""A Pad of some axes is one of all.

onnxruntime's layout step reads margins for every axis behind a QLinearConv, whatever ``axes`` says.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgec.graph.views import constant, own_constant


def pad_all_axes(model: ir.Model) -> int:
    """In place; the number of nodes changed."""
    return sum(_pad_all_axes(model.graph, node) for node in model.graph if node.op_type == "Pad")


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
