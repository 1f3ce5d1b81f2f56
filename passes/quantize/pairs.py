"""The last step towards a file that quantises inputs only: weights as floats in front of a pair, and no pair behind a Pad.

TensorRT 8 refuses int8 initialisers ("invalid weights type of Int8"): a weight has to be float, Q, DQ. Written as
``float32(code * scale)`` it gives back its code exactly, since the quotient is within two roundings of it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from edgec.graph.read.codes import spread
from edgec.graph.views import Names, attribute, constant, set_constant


def pair_weights(model: ir.Model) -> None:
    """In place: every int8 constant behind a DequantizeLinear becomes floats in front of Q and DQ."""
    names = Names(model.graph)
    for node in list(model.graph):
        codes = constant(node.inputs[0]) if node.op_type == "DequantizeLinear" else None
        stored, scale = node.inputs[0], constant(node.inputs[1]) if codes is not None else None
        if codes is None or stored is None or scale is None or codes.dtype != np.int8:
            continue
        axis = _axis(node, scale)
        wide = spread(scale.astype(np.float32), axis, codes.ndim)
        set_constant(stored, (codes.astype(np.float32) * wide).astype(np.float32))
        attributes = {} if axis is None else {"axis": axis}
        quantise = ir.node("QuantizeLinear", node.inputs, attributes, name=names.fresh(f"{node.name}_Q"))
        result = quantise.outputs[0]
        result.name = names.fresh(f"{stored.name}_codes")
        result.shape, result.type = stored.shape, ir.TensorType(ir.DataType.INT8)
        model.graph.insert_before(node, quantise)
        node.replace_input_with(0, result)


def unpair_weights(model: ir.Model) -> bool:
    """The inverse of `pair_weights`, in place; True where there was something to do."""
    count = 0
    for node in list(model.graph):
        floats = constant(node.inputs[0]) if node.op_type == "QuantizeLinear" else None
        stored, scale = node.inputs[0], constant(node.inputs[1]) if floats is not None else None
        if floats is None or stored is None or scale is None:
            continue
        wide = spread(scale, _axis(node, scale), floats.ndim)
        set_constant(stored, np.clip(np.rint(floats / wide), -128, 127).astype(np.int8))
        node.outputs[0].replace_all_uses_with(stored)
        model.graph.remove(node, safe=True)
        count += 1
    return count > 0


def _axis(node: ir.Node, scale: np.ndarray[Any, np.dtype[Any]]) -> int | None:
    """Along which there is a scale for each entry; None where there is one in all."""
    return int(attribute(node, "axis", 1)) if scale.ndim else None


def unpair_pads(model: ir.Model) -> None:
    """In place: what reads a pair behind a Pad of dequantised zeros reads the Pad itself; kernels take both in one."""
    for node in list(model.graph):
        source = node.inputs[0].producer() if node.op_type == "Pad" and node.inputs[0] is not None else None
        if source is None or source.op_type != "DequantizeLinear":
            continue
        for use in list(node.outputs[0].uses()):
            if use.node.op_type == "QuantizeLinear" and _same(use.node, source):
                _remove_pair(model.graph, use.node, node.outputs[0])


def _same(first: ir.Node, second: ir.Node) -> bool:
    pairs = [(constant(a), constant(b)) for a, b in zip(first.inputs[1:3], second.inputs[1:3], strict=True)]
    return all(a is not None and b is not None and np.array_equal(a, b) for a, b in pairs)


def _remove_pair(graph: ir.Graph, quantise: ir.Node, value: ir.Value) -> None:
    for use in list(quantise.outputs[0].uses()):
        use.node.outputs[0].replace_all_uses_with(value)
        graph.remove(use.node, safe=True)
    graph.remove(quantise, safe=True)
