"""Checks that a graph is canonical. The pipeline calls this after every pass."""

from __future__ import annotations

from collections.abc import Iterable

import onnx_ir as ir

from edgec.graph.errors import ModelError, UnsupportedError
from edgec.graph.provenance import place
from edgec.graph.spec import KNOWN_DOMAINS, MIN_OPSET, REFUSED, SELECTING, is_opaque

_OF_ONNXRUNTIME = "com.microsoft"


def verify(model: ir.Model) -> None:
    """Raise ModelError or UnsupportedError, naming the node, when ``model`` breaks the spec of design section 2.

    Checked: opset, unique node and value names, use before definition, initialisers that are inputs, refused ops, static
    shapes but for the leading axis, float32 (or int8/uint8/int32 behind DequantizeLinear), known ranks.
    """
    opset = model.opset_imports.get("", 0)
    if opset < MIN_OPSET:
        raise ModelError(f"opset {opset} is older than {MIN_OPSET}")
    graph = model.graph
    _verify_names(graph)
    _verify_order(graph)
    for value in graph.inputs:
        if value.name in graph.initializers:
            raise ModelError("an initialiser is listed as an input", where=f"value {value.name!r}")
    selected: set[ir.Node | None] = set()
    for node in graph:
        if node.op_type in SELECTING or any(v is not None and v.producer() in selected for v in node.inputs):
            selected.add(node)
        _verify_node(node, has_size=node not in selected)
    for value in graph.outputs:
        if value.shape is None:
            _refuse_ops_of_onnxruntime(graph)
            raise UnsupportedError("the output's rank is unknown", where=f"output {value.name!r}")


def _verify_names(graph: ir.Graph) -> None:
    nodes: set[str] = set()
    values: set[str] = {value.name or "" for value in graph.inputs} | set(graph.initializers)
    for node in graph:
        if not node.name:
            raise ModelError("a node has no name", where=f"{node.op_type} node")
        if node.name in nodes:
            raise ModelError("two nodes share a name", where=place(node))
        nodes.add(node.name)
        for value in node.outputs:
            if value.name in values and value.name:
                raise ModelError("two values share a name", where=f"value {value.name!r}")
            values.add(value.name or "")


def _verify_order(graph: ir.Graph) -> None:
    defined = {id(value) for value in graph.inputs} | {id(value) for value in graph.initializers.values()}
    for node in graph:
        for value in node.inputs:
            if value is not None and id(value) not in defined:
                where = place(node)
                raise ModelError(f"reads {value.name!r} before anything writes it", where=where)
        defined.update(id(value) for value in node.outputs)
    for value in graph.outputs:
        if id(value) not in defined:
            raise ModelError("nothing writes this output", where=f"output {value.name!r}")


def _verify_node(node: ir.Node, has_size: bool) -> None:
    """``has_size``: how much comes out does not depend on what an op selects."""
    where = place(node)
    if node.domain not in KNOWN_DOMAINS:
        raise UnsupportedError(f"an op of domain {node.domain!r} cannot run here", where=where)
    if node.domain in ("", "ai.onnx") and node.op_type in REFUSED:
        raise UnsupportedError("this op is not supported", where=where, why=REFUSED[node.op_type])
    if is_opaque(node):
        return
    for value in node.outputs:
        if not value.name:
            continue
        if value.shape is None:
            if node.graph is not None:
                _refuse_ops_of_onnxruntime(node.graph)
            raise UnsupportedError("the rank of its output is unknown", where=where)
        for axis, size in enumerate(value.shape):
            if axis > 0 and has_size and not isinstance(size, int):
                why = f"axis {axis} of {value.name!r} is {size}"
                hint = "Fix the input's shape with --input-shape."
                raise UnsupportedError("its shape is not static", where=where, why=why, hint=hint)


def _refuse_ops_of_onnxruntime(nodes: Iterable[ir.Node]) -> None:
    """Raise UnsupportedError for the first op of onnxruntime's own that hides the shape of what it makes."""
    for node in nodes:
        if node.domain == _OF_ONNXRUNTIME and any(value.shape is None for value in node.outputs):
            why = f"it is an op of onnxruntime's own ({node.domain}), whose output's shape nobody else knows"
            hint = "A file that onnxruntime optimised holds such ops: give the one that it was made from."
            raise UnsupportedError("this op is not supported", where=place(node), why=why, hint=hint)
