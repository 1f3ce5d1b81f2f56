"""Nodes that compute the same of the same are one node: duplicated heads, and the branches behind them.

Cases: equal op, equal attributes, the same computed inputs, and constants that are equal in type, shape and bytes wherever they
are stored. A node that makes a graph output stays.
"""

from __future__ import annotations

from collections.abc import Hashable

import onnx_ir as ir

from edgec.graph.views import constant, is_constant


def merge_twins(model: ir.Model) -> list[str]:
    """Merge in place; for each node that went its name and that of its twin."""
    found: list[str] = []
    seen: dict[Hashable, list[ir.Node]] = {}
    for node in list(model.graph):
        key = _key(node)
        if key is None:
            continue
        twin = next((other for other in seen.get(key, ()) if _same_constants(node, other)), None)
        if twin is None:
            seen.setdefault(key, []).append(node)
        elif not any(value.is_graph_output() for value in node.outputs):
            for mine, other in zip(node.outputs, twin.outputs, strict=True):
                mine.replace_all_uses_with(other)
            model.graph.remove(node, safe=True)
            found.append(f"{twin.name}: {twin.name}, {node.name}")
    return found


def _key(node: ir.Node) -> Hashable | None:
    """What twins have in common but for the bytes of their constants; None for a node that has no twins."""
    inputs = [value for value in node.inputs if value is not None]
    graphs = any(
        attr.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) for attr in node.attributes.values()
    )
    if graphs or all(is_constant(value) for value in inputs):
        return None
    reads = tuple(None if v is None else _shape(v) if is_constant(v) else id(v) for v in node.inputs)
    attributes = tuple(sorted((name, str(attr.value)) for name, attr in node.attributes.items()))
    return node.domain, node.op_type, reads, attributes, len(node.outputs)


def _shape(value: ir.Value) -> tuple[str, str]:
    return str(value.dtype), str(value.shape)


def _same_constants(one: ir.Node, other: ir.Node) -> bool:
    for mine, theirs in zip(one.inputs, other.inputs, strict=True):
        if mine is theirs or not is_constant(mine):
            continue
        a, b = constant(mine), constant(theirs)
        if a is None or b is None or a.dtype != b.dtype or a.shape != b.shape or a.tobytes() != b.tobytes():
            return False
    return True
