"""GELU as exporters before opset 20 write it out, kept whole.

Its last factor, a half, stands right in front of the layer that reads it, and would be fused into that layer's weights: what is
left is no GELU any more, and TFLite has no erf. The half moves to where no layer can take it::

    (x * (1 + erf(x / sqrt 2))) * 0.5    ->    x * ((1 + erf(x / sqrt 2)) * 0.5)
"""

from __future__ import annotations

import onnx
import onnx_ir as ir

from edgec.graph.views import constant, sole_consumer


def keep_gelus_whole(model: onnx.ModelProto) -> onnx.ModelProto:
    """``model`` with the halves of its written-out GELUs moved inwards; itself where it has none. Before anything is fused."""
    if not any(node.op_type == "Erf" for node in model.graph.node):
        return model
    graph = ir.from_proto(model)
    if not _move_halves(graph):
        return model
    graph.graph.sort()  # the half may be a node, and stand too late now
    return ir.to_proto(graph)


def _move_halves(model: ir.Model) -> bool:
    changed = False
    for erf in [node for node in model.graph if node.op_type == "Erf"]:
        shifted = sole_consumer(erf.outputs[0])
        product = None if shifted is None or shifted.op_type != "Add" else sole_consumer(shifted.outputs[0])
        last = None if product is None or product.op_type != "Mul" else sole_consumer(product.outputs[0])
        if shifted is None or product is None or last is None or last.op_type != "Mul":
            continue
        x = _beside(product, shifted.outputs[0])
        half = _beside(last, product.outputs[0])
        array = constant(half)
        if array is None or array.size != 1 or float(array.reshape(())) != 0.5 or constant(x) is not None:
            continue
        # The two products change their places: the first halves, the second multiplies by x.
        product.replace_input_with(0, shifted.outputs[0])
        product.replace_input_with(1, half)
        last.replace_input_with(0, product.outputs[0])
        last.replace_input_with(1, x)
        product.outputs[0].shape = shifted.outputs[0].shape
        changed = True
    return changed


def _beside(node: ir.Node, value: ir.Value) -> ir.Value | None:
    return node.inputs[1] if node.inputs[0] is value else node.inputs[0]
