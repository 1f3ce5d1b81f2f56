"""Which residual blocks can be taken out of a graph, and what takes their place.

1. A block with an identity skip goes as a whole. What makes its fork, a convolution or the sum of the block
in front, makes the block's output instead: its last convolution is the absorber. The activation between the
two goes, the one behind the block stays. 2. Of a block whose skip ends in a convolution the branch goes; that
convolution is the absorber.

Names stay true: the value that a removed block made keeps its name, so that whoever compares the network with
its teacher by name compares the right things.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from edgec.graph.edit import take_over
from edgec.graph.regions import Region, regions
from edgec.graph.spec import ACTIVATION
from edgec.graph.views import ConvView, is_constant, sole_consumer


@dataclass(frozen=True)
class Removable:
    """A block that can go. ``absorber`` is the convolution to re-fit; it makes ``block.output`` together with
    ``rest``, the other side of a sum (None where it makes it alone).
    """

    block: Region
    absorber: str
    features: str
    rest: str | None


@dataclass(frozen=True)
class Stuck:
    """A block that cannot go, and why."""

    block: Region
    why: str


def survey(model: ir.Model) -> tuple[list[Removable], list[Stuck]]:
    """All residual blocks of ``model``, by whether they can go."""
    nodes = {node.name or "": node for node in model.graph}
    removable: list[Removable] = []
    stuck: list[Stuck] = []
    for block in regions(model):
        found = _in_front(block, nodes) if block.has_identity else _on_skip(block, nodes)
        if isinstance(found, Removable):
            removable.append(found)
        else:
            stuck.append(Stuck(block, found))
    return removable, stuck


def take_out(model: ir.Model, what: Removable) -> None:
    """Take the block out, in place; the absorber's weight stays as it is."""
    nodes = {node.name or "": node for node in model.graph}
    join = nodes[what.block.nodes[-1]]
    if what.block.has_identity:
        _bridge(model.graph, join, [nodes[name] for name in what.block.branch])
    else:
        _take_over(model.graph, join, nodes[what.absorber].outputs[0])
        model.graph.remove([nodes[name] for name in what.block.branch], safe=True)
    for name, value in list(model.graph.initializers.items()):
        if not value.uses() and not value.is_graph_output():
            del model.graph.initializers[name]


def _on_skip(block: Region, nodes: dict[str, ir.Node]) -> Removable | str:
    join = nodes[block.nodes[-1]]
    skip = set(block.skip or ())
    for value in join.inputs:
        producer = value.producer() if value is not None else None
        if producer is not None and producer.name in skip:
            view = _dense(producer)
            if view is not None and sole_consumer(producer.outputs[0]) is join:
                return Removable(block, producer.name or "", view.x.name or "", None)
    return "its skip ends in no convolution that could absorb the branch"


def _in_front(block: Region, nodes: dict[str, ir.Node]) -> Removable | str:
    inside = {nodes[name] for name in block.nodes}
    join = nodes[block.nodes[-1]]
    fork = next(value for value in join.inputs if value is not None and value.name == block.input)
    if fork.is_graph_output() or any(reader not in inside for reader in fork.consumers()):
        return "its input is read elsewhere too"
    maker = _maker(fork)
    if maker is None:
        return "nothing in front of it can absorb it"
    made = maker.outputs[0]
    if made is not fork and (made.is_graph_output() or len(made.uses()) != 1):
        return "what its input is the activation of is read elsewhere too"
    if maker.op_type == "Add":
        return _in_sum(block, maker)
    view = _dense(maker)
    if view is None:
        return f"{maker.op_type} {maker.name!r} in front of it cannot absorb it"
    return Removable(block, maker.name or "", view.x.name or "", None)


def _maker(fork: ir.Value) -> ir.Node | None:
    """The node whose output, behind at most one activation, is the fork."""
    node = fork.producer()
    if node is not None and node.op_type in ACTIVATION:
        source = node.inputs[0]
        node = None if source is None else source.producer()
    return node


def _in_sum(block: Region, add: ir.Node) -> Removable | str:
    """The side of the sum with the larger convolution absorbs; the other side is the rest."""
    sides = [value for value in add.inputs if value is not None]
    if any(is_constant(value) for value in sides):
        return f"Add {add.name!r} in front of it adds a constant"
    best: tuple[int, Removable] | None = None
    for value, other in (sides, sides[::-1]):
        view = _dense(value.producer())
        if view is not None and sole_consumer(value) is add:
            found = Removable(block, view.node.name or "", view.x.name or "", other.name)
            if best is None or view.weight.size > best[0]:
                best = (view.weight.size, found)
    return best[1] if best is not None else f"no convolution feeds Add {add.name!r} in front of it"


def _dense(node: ir.Node | None) -> ConvView | None:
    view = ConvView.of(node)
    return view if view is not None and view.group == 1 else None


def _bridge(graph: ir.Graph, join: ir.Node, branch: list[ir.Node]) -> None:
    """Let what made the fork make the block's output."""
    inside = {value for node in branch for value in node.outputs}
    fork = next(value for value in join.inputs if value is not None and value not in inside)
    maker = _maker(fork)
    if maker is None:
        return
    doomed = [*branch]
    if fork.producer() is not maker:
        doomed.append(fork.producer())  # type: ignore[arg-type]
    if maker.op_type == "Add":
        for operand, value in enumerate(maker.inputs):
            join.replace_input_with(operand, value)
        graph.remove([*doomed, maker], safe=True)
    else:
        _take_over(graph, join, maker.outputs[0])
        graph.remove([node for node in doomed if node.graph is graph], safe=True)


def _take_over(graph: ir.Graph, join: ir.Node, value: ir.Value) -> None:
    """``value`` stands in for the output of ``join``, under its name; ``join`` goes."""
    take_over(graph, join.outputs[0], value)
    graph.remove(join, safe=True)
