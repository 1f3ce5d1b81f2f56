"""What a product computes too: Mul has an int8 kernel, Div, Neg and Pow have none.

1. ``Div(x, c)`` by a constant -> ``Mul(x, 1 / c)``: queries by the root of their dims, ``Clip(x, 0, 6) / 6`` of a gate;
2. ``Neg(x)`` -> ``Mul(x, -1)``;
3. ``Pow(x, 2)`` -> ``Mul(x, x)``, ``Pow(x, 3)`` -> that times x, as in a GELU by tanh.

The inverse is rounded to float32 once more, far below a code. Divisions by computed values and other exponents stay.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgec.graph.views import add_initializer, constant
from edgec.passes.quantize.rewrites.replace import Array, new_node, replace

_SPELT = frozenset({"Div", "Neg", "Pow"})


def use_products(model: ir.Model) -> int:
    """In place; the number of nodes changed."""
    return sum(_rewrite(model.graph, node) for node in list(model.graph) if node.op_type in _SPELT)


def _rewrite(graph: ir.Graph, node: ir.Node) -> bool:
    x = node.inputs[0]
    if x is None or x.dtype != ir.DataType.FLOAT or constant(x) is not None:
        return False
    if node.op_type == "Pow":
        return _power(graph, node, x)
    factor = np.float32(-1) if node.op_type == "Neg" else _inverse(constant(node.inputs[1]))
    if factor is None:
        return False
    other = add_initializer(graph, f"{node.name}_factor", np.asarray(factor))
    replace(graph, node, _product(graph, node, x, other))
    return True


def _inverse(divisor: Array | None) -> Array | None:
    """None where the divisor is not constant, or its inverse is no float32 or nothing."""
    if divisor is None or divisor.dtype != np.float32:
        return None
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        inverse = (1.0 / divisor.astype(np.float64)).astype(np.float32)
    return inverse if (np.isfinite(inverse) & (inverse != 0)).all() else None


def _power(graph: ir.Graph, node: ir.Node, x: ir.Value) -> bool:
    exponent = constant(node.inputs[1])
    if exponent is None or exponent.size != 1 or exponent.ndim > len(x.shape or ()):
        return False
    if float(exponent.reshape(())) not in (2.0, 3.0):
        return False
    power = _product(graph, node, x, x)
    if float(exponent.reshape(())) == 3.0:
        power = _product(graph, node, power.outputs[0], x)
    replace(graph, node, power)
    return True


def _product(graph: ir.Graph, node: ir.Node, one: ir.Value, two: ir.Value) -> ir.Node:
    return new_node(graph, node, "Mul", [one, two], f"{node.name}_product", node.outputs[0].shape)
