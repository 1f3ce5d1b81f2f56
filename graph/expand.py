"""Expand in front of arithmetic that broadcasts anyway says nothing new: squeeze-excite blocks written with
``expand_as`` leave it behind, often with a shape computed from the batch size."""

from __future__ import annotations

import onnx_ir as ir

from edgec.graph.spec import BINARY


def drop_expands(model: ir.Model) -> int:
    """Take out every Expand all of whose readers broadcast its input to the same shape; how many went. In place."""
    gone = 0
    for node in list(model.graph):
        if node.op_type != "Expand" or node.domain not in ("", "ai.onnx"):
            continue
        source, result = node.inputs[0], node.outputs[0]
        if source is None or result.is_graph_output() or not result.uses():
            continue
        if all(_covers(use.node, use.idx, result, source) for use in result.uses()):
            result.replace_all_uses_with(source)
            model.graph.remove(node, safe=True)
            gone += 1
    return gone


def _covers(reader: ir.Node, operand: int, expanded: ir.Value, source: ir.Value) -> bool:
    """Whether the reader's other operand alone already has the expanded shape."""
    if reader.op_type not in BINARY or len(reader.inputs) != 2:
        return False
    other = reader.inputs[1 - operand]
    if other is None or other is expanded or other.shape is None:
        return False
    if expanded.shape is None or source.shape is None or len(other.shape) != len(expanded.shape):
        return False
    if len(source.shape) > len(other.shape):
        return False
    return all(_same(mine, theirs) for mine, theirs in zip(expanded.shape, other.shape, strict=True))


def _same(expanded: int | ir.SymbolicDim, other: int | ir.SymbolicDim) -> bool:
    """Sizes that are equal; a size only known at run time is the batch, and equals another such one."""
    if isinstance(expanded, int):
        return expanded in (1, other)
    return not isinstance(other, int)
