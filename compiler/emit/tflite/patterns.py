"""Groups of ONNX nodes that are one TFLite operator.

Exports before opset 20 write GELU out: ``0.5 * x * (1 + erf(x / sqrt(2)))``, its factors in any order. TFLite has GELU
but no erf.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import onnx_ir as ir

from edgec.graph.views import constant, sole_consumer


@dataclass(frozen=True)
class WrittenOutGelu:
    """GELU of ``x``: the nodes it is made of, the last of which gives the result."""

    x: ir.Value
    nodes: tuple[ir.Node, ...]


def find_gelus(graph: ir.Graph) -> list[WrittenOutGelu]:
    """Every written-out GELU of ``graph``."""
    found = (_around(node) for node in graph if node.op_type == "Erf")
    return [gelu for gelu in found if gelu is not None]


def _around(erf: ir.Node) -> WrittenOutGelu | None:
    scaled = erf.inputs[0].producer() if erf.inputs[0] is not None else None
    if scaled is None or sole_consumer(scaled.outputs[0]) is not erf:
        return None
    x = _operand_beside(scaled, "Mul", _near(math.sqrt(0.5))) or _divided(scaled, math.sqrt(2.0))
    one_more = sole_consumer(erf.outputs[0])
    if x is None or one_more is None or _operand_beside(one_more, "Add", _near(1.0)) is not erf.outputs[0]:
        return None
    return _product(x, (scaled, erf, one_more))


def _product(x: ir.Value, nodes: tuple[ir.Node, ...]) -> WrittenOutGelu | None:
    """Multiply ``1 + erf`` by x and by a half, in either order; the half may stand before x too."""
    need_x, need_half = True, True
    chain = nodes
    while need_x or need_half:
        value = chain[-1].outputs[0]
        times = sole_consumer(value)
        if times is None or times.op_type != "Mul":
            return None
        other = times.inputs[1] if times.inputs[0] is value else times.inputs[0]
        if need_half and _near(0.5)(other):
            need_half = False
        elif need_x and other is x:
            need_x = False
        elif need_x and need_half and other is not None and _is_half_of(other.producer(), x, times):
            need_x = need_half = False
            chain = (*chain, other.producer())  # type: ignore[arg-type]
        else:
            return None
        chain = (*chain, times)
    return WrittenOutGelu(x, chain)


def _is_half_of(node: ir.Node | None, x: ir.Value, reader: ir.Node) -> bool:
    if node is None or sole_consumer(node.outputs[0]) is not reader:
        return False
    return _operand_beside(node, "Mul", _near(0.5)) is x


def _operand_beside(node: ir.Node, op: str, matches: Callable[[ir.Value | None], bool]) -> ir.Value | None:
    """The other operand of a two-operand node one of whose operands matches."""
    if node.op_type != op or len(node.inputs) != 2:
        return None
    a, b = node.inputs
    return b if matches(a) else a if matches(b) else None


def _divided(node: ir.Node, by: float) -> ir.Value | None:
    return node.inputs[0] if node.op_type == "Div" and _near(by)(node.inputs[1]) else None


def _near(number: float) -> Callable[[ir.Value | None], bool]:
    def matches(value: ir.Value | None) -> bool:
        array = constant(value)
        return (
            array is not None
            and array.size == 1
            and math.isclose(float(array.reshape(())), number, rel_tol=1e-4)
        )

    return matches
