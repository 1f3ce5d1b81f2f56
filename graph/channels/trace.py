"""One walk over the graph that labels every tensor with atoms.

Rules (one per operator, in the rules_* modules) say how labels pass through a node, which atoms it unites,
and which axes of its constants belong to which atoms. A tensor has a channel axis because a layer gave it one,
never because of its rank: what comes in and what no rule knows is one atom that stays. A node without a rule, or
whose rule cannot follow it, is opaque: what it reads must stay as it is.

A Reshape may leave the channels on several axes (heads and their dims). Rules that need them on one unite the
parts on the others; what no rule has decided at the end is decided by `_settle`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import onnx_ir as ir

from edgec.graph.channels.atoms import Atoms, Dims, Labels, UntraceableError, along, collapse, cut_to, varying
from edgec.graph.spec import LAYERS
from edgec.graph.views import is_constant

Role = Literal["producer", "consumer", "parameter", "activation"]
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
class Spread:
    """A constant operand read by channels that lie on several axes; the slot is known when one of them is left."""

    node: ir.Node
    operand: int
    labels: Labels
    """Of the node's output."""


@dataclass(frozen=True, eq=False)
class Shuffle:
    """Reshape, Transpose, Reshape that only permute channels: output i is input channel ``order[i]``."""

    nodes: tuple[ir.Node, ir.Node, ir.Node]
    axis: int
    order: Labels


class Trace:
    """What the walk has found so far."""

    def __init__(self, model: ir.Model) -> None:
        self.graph: ir.Graph = model.graph
        self.atoms: Atoms = Atoms()
        self.values: dict[ir.Value, Labels] = {}
        self.slots: list[Slot] = []
        self.spread: list[Spread] = []
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
        """One fresh atom for all of ``value``, which must stay: nothing is known of its channels."""
        return self.blank(len(self.dims(value)), reason)

    def blank(self, rank: int, reason: str) -> Labels:
        """Labels of a tensor without a channel axis; what is united with it must stay for ``reason``."""
        atoms = self.atoms.fresh(1)
        self.atoms.freeze(atoms, reason)
        return atoms.reshape((1,) * rank)

    def settle(self, labels: Labels, axis: int) -> Labels:
        """Labels that change along ``axis`` only, where they do so at all: parts on other axes go together."""
        if axis in varying(labels):
            for other in varying(labels):
                if other != axis:
                    labels = self.atoms.unite_along(labels, other)
        return labels

    def along(self, labels: Labels, axis: int, size: int | None) -> Labels:
        """The atoms along ``axis`` as a vector of ``size``. Raises UntraceableError where channels lie elsewhere."""
        return along(self.settle(labels, axis), axis, size)

    def whole(self, labels: Labels, axes: Iterable[int], why: str) -> Labels:
        """Labels for a node that mixes ``axes``: channels keep their parts there. Raises UntraceableError with ``why``
        where whole channels lie on them."""
        mixed = set(varying(labels)) & set(axes)
        if mixed and mixed == set(varying(labels)):
            raise UntraceableError(why)
        for axis in sorted(mixed):
            labels = self.atoms.unite_along(labels, axis)
        return labels

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
    _settle(found)
    return found


def _settle(found: Trace) -> None:
    """One channel axis for every tensor: where no rule chose among several, the longest one, and of equal ones the one
    along which the source's channels lie further apart."""
    open_ = [value for value, labels in found.values.items() if len(varying(labels)) > 1]
    while open_:
        roots, _ = found.atoms.solve()
        left = []
        for value in open_:
            labels = found.values[value]
            axes = varying(collapse(roots[labels]))
            if len(axes) > 1:
                labels = found.settle(cut_to(labels, axes), max(axes, key=lambda axis: _reach(labels, axis)))
                left.append(value)
            found.values[value] = cut_to(labels, varying(labels) if len(axes) > 1 else axes)
        open_ = left
    if not found.spread:
        return
    roots, _ = found.atoms.solve()
    for one in found.spread:
        labels = cut_to(one.labels, varying(collapse(roots[one.labels])))
        found.slots.extend(parameter_slots(one.node, one.operand, labels))


def _reach(labels: Labels, axis: int) -> tuple[int, int]:
    """Length of an axis, and the distance of its first two atoms."""
    line = cut_to(labels, (axis,)).ravel()
    return len(line), int(abs(line[1] - line[0]))


def parameter_slots(node: ir.Node, operand: int, labels: Labels) -> list[Slot]:
    """The axes of a constant that is broadcast onto a tensor with ``labels`` and that follow its channels."""
    constant = node.inputs[operand]
    shape = () if constant is None or constant.shape is None else tuple(constant.shape)
    skipped = labels.ndim - len(shape)
    return [
        Slot(node, operand, axis - skipped, along(labels, axis, labels.shape[axis]), "parameter")
        for axis in varying(labels)
        if axis >= skipped and shape[axis - skipped] != 1
    ]


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
