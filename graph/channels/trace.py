"""One walk over the graph that labels every tensor with atoms.

Rules (one per operator, in the rules_* modules) say how labels pass through a node, which atoms it unites,
and which axes of its constants belong to which atoms. A node without a rule, or whose rule cannot follow it,
is opaque: what it reads must stay as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import onnx_ir as ir

from edgec.graph.channels.atoms import Atoms, Dims, Labels, UntraceableError, on_axis
from edgec.graph.views import is_constant

Role = Literal["producer", "consumer", "parameter", "activation"]
LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""Operators whose second operand is the weight of a layer."""

Rule = Callable[["Trace", ir.Node], None]


@dataclass(frozen=True, eq=False)
class Slot:
    """One axis of one constant operand, and the atom that each of its positions belongs to."""

    node: ir.Node
    operand: int
    axis: int
    labels: Labels
    role: Role


@dataclass(frozen=True, eq=False)
class Shuffle:
    """Reshape, Transpose, Reshape that only permute channels: output i is input channel ``order[i]``."""

    nodes: tuple[ir.Node, ir.Node, ir.Node]
    axis: int
    order: Labels


class Trace:
    """What the walk has found so far."""

    def __init__(self, model: ir.Model) -> None:
        self.graph = model.graph
        self.atoms = Atoms()
        self.values: dict[ir.Value, Labels] = {}
        self.slots: list[Slot] = []
        self.shuffles: dict[ir.Node, Shuffle] = {}
        self.done: set[ir.Node] = set()

    def dims(self, value: ir.Value | None) -> Dims:
        """The shape, with None for what is not static."""
        if value is None or value.shape is None:
            raise UntraceableError(
                f"the shape of {value.name!r} is not known" if value is not None else "an input is missing"
            )
        return tuple(dim if isinstance(dim, int) else None for dim in value.shape)

    def labels(self, value: ir.Value | None) -> Labels:
        """The labels of a computed tensor; a constant read as data gets frozen ones."""
        if value is None:
            raise UntraceableError("an input is missing")
        if value not in self.values:
            if not is_constant(value):
                raise UntraceableError(f"{value.name!r} is not traced")
            self.values[value] = self.frozen(value, f"constant {value.name!r}")
        return self.values[value]

    def frozen(self, value: ir.Value, reason: str) -> Labels:
        """Fresh atoms on the usual channel axis of ``value``, all of which must stay."""
        dims = self.dims(value)
        axis = 2 if len(dims) == 3 else 1
        size = dims[axis] if axis < len(dims) else None
        atoms = self.atoms.fresh(1 if size is None else size)
        self.atoms.freeze(atoms, reason)
        return on_axis(atoms, len(dims), axis if size is not None else 0) if dims else atoms[0]

    def set(self, value: ir.Value, labels: Labels) -> None:
        """Label an output."""
        self.values[value] = labels

    def slot(self, node: ir.Node, operand: int, axis: int, labels: Labels, role: Role) -> None:
        """Note that an axis of a constant operand follows these atoms."""
        self.slots.append(Slot(node, operand, axis, labels, role))

    def freeze(self, labels: Labels, node: ir.Node, why: str) -> None:
        """The node needs all of these channels."""
        self.atoms.freeze(labels, f"{node.op_type} {node.name!r} {why}")

    def opaque(self, node: ir.Node, why: str) -> None:
        """Nothing is known of this node: what it reads and makes must stay."""
        for value in (*node.inputs, *_captured(node)):
            if value is not None and value in self.values:
                self.freeze(self.values[value], node, why)
        for value in node.outputs:
            if value.shape is not None:
                self.values[value] = self.frozen(value, f"{node.op_type} {node.name!r} {why}")


def _captured(node: ir.Node) -> list[ir.Value]:
    """Values that the subgraphs of If, Loop and Scan read from outside."""
    found: list[ir.Value] = []
    for attr in node.attributes.values():
        graphs = [attr.value] if attr.type == ir.AttributeType.GRAPH else []
        if attr.type == ir.AttributeType.GRAPHS:
            graphs = list(attr.value)
        for graph in graphs:
            found.extend(v for inner in graph.all_nodes() for v in inner.inputs if v is not None)
            found.extend(graph.outputs)
    return found


def trace(model: ir.Model, rules: Mapping[str, Rule]) -> Trace:
    """Label every tensor of ``model``."""
    found = Trace(model)
    for value in model.graph.inputs:
        if value.shape is not None:
            found.set(value, found.frozen(value, f"graph input {value.name!r}"))
    for node in model.graph:
        if node in found.done or node.op_type == "Constant":
            continue
        rule = rules.get(node.op_type) if node.domain in ("", "ai.onnx") else None
        if rule is None:
            found.opaque(node, "is not traced")
            continue
        try:
            rule(found, node)
        except UntraceableError as error:
            found.opaque(node, f"is not traced: {error}")
    for value in model.graph.outputs:
        if value in found.values:
            found.atoms.freeze(found.values[value], f"graph output {value.name!r}")
    _tie_shared_weights(found)
    return found


def _tie_shared_weights(found: Trace) -> None:
    """Layers that share one weight keep sharing it: their channels go together."""
    first: dict[tuple[ir.Value, int], Labels] = {}
    for slot in found.slots:
        value = slot.node.inputs[slot.operand]
        if value is None or slot.operand != 1 or slot.node.op_type not in LAYERS:
            continue
        other = first.setdefault((value, slot.axis), slot.labels)
        if other is not slot.labels:
            found.atoms.unite(other, slot.labels)
