"""Parts of a network: residual blocks, values that the whole network passes through, and the nodes between
two values.

Everything here speaks in names of nodes and values, so that a region found in one model means the same in its
clone. A value that depends on constants only is part of no path.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

import onnx_ir as ir

from edgec.graph.cost import macs_of
from edgec.graph.errors import UsageError, did_you_mean
from edgec.graph.views import computed_from, is_constant


@dataclass(frozen=True)
class Region:
    """Nodes with one way in and one way out.

    ``nodes`` are in graph order, the last one makes ``output``. For a residual block ``input`` is the value
    where the branch and the skip part, ``output`` the sum, before any activation of it, and ``skip`` the
    nodes on the skip: none for an identity. ``skip`` is None where the region is no residual block.
    """

    name: str
    nodes: tuple[str, ...]
    input: str
    output: str
    skip: tuple[str, ...] | None = None

    @property
    def branch(self) -> tuple[str, ...]:
        """The nodes that are neither on the skip nor the join; all nodes where there is no skip."""
        if self.skip is None:
            return self.nodes
        return tuple(name for name in self.nodes[:-1] if name not in self.skip)

    @property
    def has_identity(self) -> bool:
        """True for a residual block whose skip computes nothing."""
        return self.skip == ()


def regions(model: ir.Model) -> tuple[Region, ...]:
    """The residual blocks of ``model`` in order, inner ones before those around them.

    A block is an Add of two computed values with the same fork (the nearest value that dominates the Add),
    nothing of which is read from elsewhere. The side with fewer multiplications is the skip.
    """
    dominators = _Dominators(model.graph)
    found = []
    for node in model.graph:
        sides = [v for v in node.inputs if v is not None and not is_constant(v)]
        if node.op_type != "Add" or len(sides) != 2 or sides[0] is sides[1]:
            continue
        fork = dominators.nearest(node.outputs[0])
        if fork is not None:
            block = _block(model.graph, fork, node, (sides[0], sides[1]))
            if block is not None:
                found.append(block)
    return _named(found)


def region(model: ir.Model, text: str) -> Region:
    """A region by name: a residual block (``block3``), blocks from one to another (``block3..block5``), or
    the part between two values (``a..b``).

    Raises UsageError where it does not exist or is no region.
    """
    known = {block.name: block for block in regions(model)}
    if text in known:
        return known[text]
    first, dots, last = text.partition("..")
    if not dots:
        raise UsageError(f"no region {text!r}", hint=did_you_mean(text, known) if known else _no_blocks())
    start = known[first].input if first in known else first
    end = known[last].output if last in known else last
    return between(model, start, end, name=text)


def between(model: ir.Model, start: str, end: str, *, name: str | None = None) -> Region:
    """The nodes that lead from value ``start`` to value ``end``.

    Raises UsageError where a value does not exist, where ``end`` is not computed from ``start``, where a node
    inside reads something made outside (a second input, or a skip that crosses the border), or where a value
    inside is read outside.
    """
    graph = model.graph
    where = f"region {name or f'{start}..{end}'!r}"
    values = _values(graph)
    for wanted in (start, end):
        if wanted not in values:
            raise UsageError(f"no value {wanted!r}", where=where, hint=did_you_mean(wanted, values))
    inside = _nodes_between(graph, values[start], values[end])
    if not inside:
        raise UsageError(f"{end!r} does not depend on {start!r}", where=where)
    _check_closed(graph, inside, values[start], values[end], where)
    return Region(name or f"{start}..{end}", tuple(n.name or "" for n in inside), start, end)


def _values(graph: ir.Graph) -> dict[str, ir.Value]:
    computed = [*graph.inputs, *(value for node in graph for value in node.outputs)]
    return {value.name: value for value in computed if value.name}


def _nodes_between(graph: ir.Graph, start: ir.Value, end: ir.Value) -> list[ir.Node]:
    """Nodes that depend on ``start`` and that ``end`` depends on, in order."""
    reached = {start}
    forward = []
    for node in graph:
        if any(value in reached for value in node.inputs):
            reached.update(node.outputs)
            forward.append(node)
    needed = {end}
    inside = []
    for node in reversed(forward):
        if any(value in needed for value in node.outputs):
            needed.update(value for value in node.inputs if value in reached and value is not start)
            inside.append(node)
    return inside[::-1]


def _check_closed(graph: ir.Graph, inside: list[ir.Node], start: ir.Value, end: ir.Value, where: str) -> None:
    outside = _leak(graph, inside, start, end)
    if outside is None:
        return
    node, value, entering = outside
    if entering:
        why = f"{node.op_type} {node.name!r} also reads {value.name!r}, which is made before {start.name!r}"
        hint = "It may lie on a skip connection: start the region at or before its fork."
    else:
        why = f"{value.name!r} is read by {node.op_type} {node.name!r} outside"
        hint = "It may feed a skip connection: end the region at or after its join."
    raise UsageError("a region needs one input and one output", where=where, why=why, hint=hint)


def _leak(
    graph: ir.Graph, inside: list[ir.Node], start: ir.Value, end: ir.Value
) -> tuple[ir.Node, ir.Value, bool] | None:
    """A node and a value that cross a region's border elsewhere than at its ends; True when it enters."""
    members, made = set(inside), {value for node in inside for value in node.outputs}
    computed = computed_from(graph.inputs)
    for node in inside:
        for value in node.inputs:
            if value is not None and value in computed and value not in made and value is not start:
                return node, value, True
        for value in node.outputs:
            if value is end:
                continue
            for reader in value.consumers():
                if reader not in members:
                    return reader, value, False
            if value.is_graph_output():
                return node, value, False
    return None


def _block(graph: ir.Graph, fork: ir.Value, join: ir.Node, sides: tuple[ir.Value, ir.Value]) -> Region | None:
    inside = _nodes_between(graph, fork, join.outputs[0])
    if _leak(graph, inside, fork, join.outputs[0]) is not None:
        return None
    paths = [_nodes_between(graph, fork, side) if side is not fork else [] for side in sides]
    if set(paths[0]) & set(paths[1]):
        return None
    skip = min(paths, key=lambda path: (sum(macs_of(node) for node in path), len(path)))
    names = tuple(node.name or "" for node in inside)
    return Region(
        "", names, fork.name or "", join.outputs[0].name or "", tuple(node.name or "" for node in skip)
    )


def _named(found: Iterable[Region]) -> tuple[Region, ...]:
    """``layer1.0`` where the source's node names agree on such a path and no other block has it, else
    ``block1``...
    """
    blocks = list(found)
    paths = [_common_path(block.nodes) for block in blocks]
    return tuple(
        Region(
            path if path and paths.count(path) == 1 else f"block{number}",
            block.nodes,
            block.input,
            block.output,
            block.skip,
        )
        for number, (block, path) in enumerate(zip(blocks, paths, strict=True), 1)
    )


def _common_path(nodes: tuple[str, ...]) -> str:
    """The last module that all of the node names (``/layer1/layer1.0/conv1/Conv``) lie in, or nothing."""
    split = [re.split(r"/+", name.strip("/"))[:-1] for name in nodes]
    common = []
    for parts in zip(*split, strict=False):
        if len(set(parts)) > 1:
            break
        common.append(parts[0])
    return common[-1] if common else ""


def _no_blocks() -> str:
    return "The network has no residual blocks; name two values: START..END."


class _Dominators:
    """The dominator tree of a graph's values (Cooper, Harvey, Kennedy; one sweep does without cycles)."""

    def __init__(self, graph: ir.Graph) -> None:
        self._parent: dict[ir.Value, ir.Value | None] = dict.fromkeys(graph.inputs)
        self._depth: dict[ir.Value, int] = dict.fromkeys(graph.inputs, 1)
        for node in graph:
            reads = [value for value in node.inputs if value is not None and value in self._parent]
            if not reads:
                continue
            nearest: ir.Value | None = reads[0]
            for value in reads[1:]:
                nearest = self._meet(nearest, value)
            depth = 1 if nearest is None else self._depth[nearest] + 1
            for value in node.outputs:
                self._parent[value], self._depth[value] = nearest, depth

    def _meet(self, one: ir.Value | None, other: ir.Value | None) -> ir.Value | None:
        while one is not other:
            if one is None or other is None:
                return None
            if self._depth[one] >= self._depth[other]:
                one = self._parent[one]
            else:
                other = self._parent[other]
        return one

    def nearest(self, value: ir.Value) -> ir.Value | None:
        """The last value before ``value`` that every path to it goes through."""
        return self._parent.get(value)
