"""Matrix products: layers with a constant matrix, and products of two computed tensors (attention).

A product of two computed tensors sums over one axis of each, so the channels on these axes go together: q's dims with
k's. All other axes stay, and what lies on them goes on: v's dims come out where they went in. Axes that both operands
and the result have (heads, windows) go along with one another; parts of channels that lie on them stay together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from edgec.graph.channels.atoms import Labels, UntraceableError, on_axis, varying
from edgec.graph.channels.rules_layers import read
from edgec.graph.channels.trace import Rule, Trace
from edgec.graph.views import attribute, is_constant

SUMMED = "it sums over these channels"


def _matmul(trace: Trace, node: ir.Node) -> None:
    """A layer where the matrix on the right is constant; of two computed tensors, what it sums over goes together."""
    left, right = node.inputs[0], node.inputs[1]
    if left is None or right is None:
        raise UntraceableError("an input is missing")
    if not is_constant(left) and is_constant(right) and len(trace.dims(right)) == 2:
        _layer(trace, node)
        return
    ranks = (len(trace.dims(left)), len(trace.dims(right)))
    if min(ranks) < 2:
        raise UntraceableError("one of its inputs is a vector")
    free = tuple(f"batch{n}" for n in range(max(ranks) - 2, 0, -1))
    one, two = ((*free[len(free) + 2 - rank :], "?", "?") for rank in ranks)
    product(
        trace, node, Terms((*one[:-2], "row", "sum"), (*two[:-2], "sum", "column"), (*free, "row", "column"))
    )


def _layer(trace: Trace, node: ir.Node) -> None:
    """A constant matrix on the right: a fully connected layer on the last axis."""
    labels, rank = trace.labels(node.inputs[0]), len(trace.dims(node.inputs[0]))
    inside, outside = (size or 0 for size in trace.dims(node.inputs[1]))
    if varying(labels) and rank - 1 not in varying(labels):
        trace.set(node.outputs[0], labels)  # it mixes another axis, the same way in every channel
        return
    trace.slot(node, 1, 0, read(trace, node, 0, rank - 1, inside), "consumer")
    out = trace.atoms.fresh(outside)
    trace.slot(node, 1, 1, out, "producer")
    trace.set(node.outputs[0], on_axis(out, rank, rank - 1))


@dataclass(frozen=True)
class Terms:
    """The axes of two factors and of their product by name: in both and not in the product, they are summed over."""

    left: tuple[str, ...]
    right: tuple[str, ...]
    out: tuple[str, ...]

    @property
    def summed(self) -> set[str]:
        return (set(self.left) & set(self.right)) - set(self.out)

    @property
    def shared(self) -> set[str]:
        return set(self.left) & set(self.right) & set(self.out)


def product(trace: Trace, node: ir.Node, terms: Terms) -> None:
    """Follow channels through a product of two tensors, of which one may be a constant read as data."""
    sides = []
    for value, names in zip(node.inputs, (terms.left, terms.right), strict=True):
        labels = trace.labels(value)
        shared = {axis for axis, name in enumerate(names) if name in terms.shared}
        if set(varying(labels)) - shared:
            labels = trace.whole(labels, shared, SUMMED)
        sides.append((labels, names))
    summed = [{names[axis] for axis in varying(labels)} & terms.summed for labels, names in sides]
    if all(summed):
        _contract(trace, node, terms, sides)
        return
    for number, (labels, names) in enumerate(sides):
        if summed[number]:
            trace.freeze(labels, node, "sums them with what has no such channels")
            sides[number] = (trace.blank(labels.ndim, SUMMED), names)
    (left, _), (right, _) = sides
    named = {names[axis] for labels, names in sides for axis in varying(labels)}
    one, two = (_as_product(labels, names, terms) for labels, names in sides)
    if varying(left) and varying(right):
        if named <= terms.shared:
            trace.atoms.unite(one, two)
            one = one if one.size >= two.size else two
        else:
            trace.freeze(left, node, "multiplies each of them with each of other channels")
            one = two
    elif named & terms.shared:
        trace.freeze(left, node, "multiplies them with what has no channels")
        trace.freeze(right, node, "multiplies them with what has no channels")
    if not named:
        one = trace.blank(len(terms.out), f"{node.op_type} {node.name!r} makes them of others")
    trace.set(node.outputs[0], one if varying(one) or not named else two)


def _as_product(labels: Labels, names: tuple[str, ...], terms: Terms) -> Labels:
    """The labels of a factor at the places of the product's axes; the summed ones, along which they are equal, go."""
    order = [names.index(name) for name in terms.out if name in names]
    placed = labels.transpose(*order, *[axis for axis in range(labels.ndim) if axis not in order])
    return placed.reshape([labels.shape[names.index(name)] if name in names else 1 for name in terms.out])


def _contract(
    trace: Trace, node: ir.Node, terms: Terms, sides: Sequence[tuple[Labels, tuple[str, ...]]]
) -> None:
    """Unite what lies on the two summed axes."""
    summed = {names[axis] for labels, names in sides for axis in varying(labels)} & terms.summed
    if len(summed) > 1:
        raise UntraceableError("channels lie on two axes that it sums over")
    if any(is_constant(value) for value in node.inputs):
        raise UntraceableError("it is no layer with a constant matrix on the right")
    vectors = []
    for value, (labels, names) in zip(node.inputs, sides, strict=True):
        axis = names.index(min(summed))
        vectors.append(trace.along(labels, axis, trace.dims(value)[axis]))
    trace.atoms.unite(vectors[0], vectors[1])
    trace.set(
        node.outputs[0], trace.blank(len(terms.out), f"{node.op_type} {node.name!r} makes them of others")
    )


def _einsum(trace: Trace, node: ir.Node) -> None:
    """Of two tensors, what it sums over goes together."""
    equation = str(attribute(node, "equation", "")).replace(" ", "")
    inputs, arrow, out = equation.partition("->")
    factors = inputs.split(",")
    plain = arrow and len(factors) == 2 and "." not in equation
    if not plain or any(len(set(part)) < len(part) for part in (*factors, out)):
        raise UntraceableError("its equation is no plain product of two tensors")
    product(trace, node, Terms(tuple(factors[0]), tuple(factors[1]), tuple(out)))


RULES: dict[str, Rule] = {"MatMul": _matmul, "Einsum": _einsum}
