"""Where every node comes from: the pass that made it, and the node of the source model that it stands for.

Both are kept in the node's metadata (onnx_ir), which goes with the model through copies, the cache and the child that reads
files, and which no artifact carries. Passes need not know of it: behind each of them `mark` compares the graph with the old one.
A pass that knows better says so by `stand_for`.

A node that a pass made stands for
1. the node whose value it writes now; else
2. what the node behind it stands for, where the same pass made that one and neither rounds (the first of two new layers); else
3. what the node in front of it stands for (a QuantizeLinear: the layer whose output it rounds); else
4. what the node behind it stands for (the DequantizeLinear of a weight).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # reports read `Origin` without loading onnx
    import onnx
    import onnx_ir as ir

MADE_BY, SOURCE = "edgec.made_by", "edgec.source"
FILE = "source"
"""What made a node that stands in the source model as it is."""
READING = "reading"
"""What made a node while the source model was brought to its canonical form."""
_ROUNDING = ("QuantizeLinear", "DequantizeLinear")


@dataclass(frozen=True)
class Origin:
    """``made_by`` is a pass, `FILE`, or `READING`; ``source`` names a node of the source model, empty where there is none."""

    made_by: str
    source: str

    def words(self, name: str) -> str:
        """For a person, of the node called ``name``: ``decompose-svd, from 'fc'``; empty where it is the source's own."""
        if self.made_by == FILE:
            return "" if self.source in ("", name) else f"from {self.source!r}"
        return self.made_by if self.source in ("", name) else f"{self.made_by}, from {self.source!r}"


def origin(node: ir.Node) -> Origin | None:
    """What is known of a node; None in a graph that was never marked."""
    made_by = node.metadata_props.get(MADE_BY)
    return None if made_by is None else Origin(made_by, node.metadata_props.get(SOURCE, ""))


def origins(model: ir.Model) -> dict[str, Origin]:
    """What is known of every node, by name."""
    return {node.name or "": found for node in model.graph if (found := origin(node)) is not None}


def place(node: ir.Node) -> str:
    """A node as errors name it: ``node 'fc_v' (Gemm; decompose-svd, from 'fc')``."""
    found = origin(node)
    words = "" if found is None else found.words(node.name or "")
    return f"node {node.name!r} ({node.op_type}{'; ' if words else ''}{words})"


def stand_for(made: ir.Node, old: ir.Node) -> None:
    """``made`` does a part of what ``old`` does, and stands for what that stands for."""
    found = origin(old)
    if found is not None:
        made.metadata_props[SOURCE] = found.source


def mark_read(source: onnx.ModelProto, model: ir.Model) -> None:
    """Mark the canonical ``model`` of ``source``, whose nodes all have names."""
    known = {node.name: (node.op_type, Origin(FILE, node.name)) for node in source.graph.node}
    written = {name: node.name for node in source.graph.node for name in node.output if name}
    for node in model.graph:  # a file may come with marks of its own
        node.metadata_props.pop(MADE_BY, None)
        node.metadata_props.pop(SOURCE, None)
    _mark(model, READING, known, written)


def mark(before: ir.Model, after: ir.Model, made_by: str) -> None:
    """Mark the nodes of ``after`` that the pass ``made_by`` made from ``before``; the others keep their marks."""
    known: dict[str, tuple[str, Origin]] = {}
    written: dict[str, str] = {}
    for node in before.graph:
        found = origin(node) or Origin(FILE, node.name or "")
        known[node.name or ""] = (node.op_type, found)
        written.update({value.name: found.source for value in node.outputs if value.name})
    _mark(after, made_by, known, written)


def _mark(
    model: ir.Model, made_by: str, known: Mapping[str, tuple[str, Origin]], written: Mapping[str, str]
) -> None:
    made: list[ir.Node] = []
    for node in model.graph:
        op, found = known.get(node.name or "", ("", None))
        if found is not None and op == node.op_type:
            _write(node, found)
        else:
            made.append(node)
    for node, source in _sources(made, written).items():
        _write(node, Origin(made_by, node.metadata_props.get(SOURCE) or source))


def _write(node: ir.Node, found: Origin) -> None:
    node.metadata_props[MADE_BY] = found.made_by
    node.metadata_props[SOURCE] = found.source


def _sources(made: list[ir.Node], written: Mapping[str, str]) -> dict[ir.Node, str]:
    """What each of ``made``, which are in the order of the graph, stands for."""
    found: dict[ir.Node, str] = dict.fromkeys(made, "")
    for node in made:
        found[node] = _first(written.get(value.name or "", "") for value in node.outputs)
    for node in reversed(made):
        if node.op_type not in _ROUNDING:
            found[node] = found[node] or _first(found.get(user, "") for user in _users(node))
    for node in made:
        found[node] = found[node] or _first(_stands_for(maker, found) for maker in _makers(node))
    for node in reversed(made):
        found[node] = found[node] or _first(_stands_for(user, found) for user in _users(node))
    return found


def _stands_for(node: ir.Node, found: Mapping[ir.Node, str]) -> str:
    return found[node] if node in found else node.metadata_props.get(SOURCE, "")


def _users(node: ir.Node) -> list[ir.Node]:
    return [use.node for value in node.outputs for use in value.uses()]


def _makers(node: ir.Node) -> list[ir.Node]:
    makers = (value.producer() for value in node.inputs if value is not None)
    return [maker for maker in makers if maker is not None]


def _first(names: Iterable[str]) -> str:
    return next((name for name in names if name), "")
