"""A bias of zeros where a layer has none: corrections then have somewhere to write."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgec.graph.views import attribute, constant, own_constant


def add_biases(model: ir.Model) -> int:
    """In place; the number of biases added."""
    count = 0
    for node in model.graph:
        if node.op_type not in ("Conv", "Gemm") or (len(node.inputs) > 2 and node.inputs[2] is not None):
            continue
        weight = constant(node.inputs[1])
        if weight is not None:
            axis = 0 if node.op_type == "Conv" or attribute(node, "transB", 0) else 1
            own_constant(model.graph, node, 2, np.zeros(weight.shape[axis], np.float32), "_bias")
            count += 1
    return count
