"""Einsum becomes the ops that it stands for: pruned, quantised and written to TFLite as what it computes, not by its notation.

The factors are multiplied two at a time, from the left. Of two, an axis is kept (in both and asked for later), summed (in both
and not asked for), a row (only in the left one) or a column (only in the right one); what only one has and nobody asks for is
summed first. Cases:
1. an axis is summed, and there are rows or columns: a MatMul behind Transposes; several axes of a kind are one by a Reshape.
   A constant factor goes to the right, where a matrix makes a layer of it;
2. nothing is summed, or nothing is left beside it: a Mul of tensors brought to one order of axes, then a ReduceSum;
3. one factor: a ReduceSum and a Transpose.
Left as it is: an equation that takes a diagonal, numbers that are no floats, and more than one open size beside each other.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgec.graph.edit import take_over
from edgec.graph.names import free_name
from edgec.graph.views import Names, attribute, constant

Size = int | ir.SymbolicDim


@dataclass(frozen=True)
class Equation:
    """Which axes every factor and the result have, by label. The axes of an ellipsis are counted from its end."""

    factors: tuple[tuple[str, ...], ...]
    out: tuple[str, ...]


@dataclass(frozen=True)
class _Factor:
    value: ir.Value
    labels: tuple[str, ...]


def lower_einsums(model: ir.Model) -> int:
    """Rewrite in place; the number of Einsums that went."""
    names = Names(model.graph)
    return sum(_lower(model.graph, node, names) for node in list(model.graph) if node.op_type == "Einsum")


def _lower(graph: ir.Graph, node: ir.Node, names: Names) -> bool:
    values = [value for value in node.inputs if value is not None and value.shape is not None]
    out = node.outputs[0]
    if len(values) < len(node.inputs) or any(value.dtype != ir.DataType.FLOAT for value in values):
        return False
    equation = parse(str(attribute(node, "equation", "")), [len(value.shape or ()) for value in values])
    sizes = None if equation is None else _sizes(values, equation)
    if equation is None or sizes is None:
        return False
    writer = _Writer(graph, node, names, sizes)
    factor, *others = (_Factor(value, labels) for value, labels in zip(values, equation.factors, strict=True))
    for number, other in enumerate(others):
        later = {label for labels in equation.factors[number + 2 :] for label in labels}
        factor = writer.product(factor, other, equation.out, later)
    factor = writer.ordered(writer.summed(factor, set(equation.out)), equation.out)
    if factor.value.producer() is None or factor.value in values:
        return False
    name = node.name
    node.name = names.fresh(f"{name}_replaced")
    factor.value.type, factor.value.shape = out.type, out.shape
    main = writer.main or factor.value.producer()
    if main is not None and name:
        main.name = name
    take_over(graph, out, factor.value)
    graph.remove(node, safe=True)
    return True


def parse(text: str, ranks: Sequence[int]) -> Equation | None:
    """The equation for factors of these ranks; None where it takes a diagonal or does not fit them."""
    inputs, arrow, result = text.replace(" ", "").partition("->")
    terms = inputs.split(",")
    if len(terms) != len(ranks):
        return None
    factors = [_labels(term, rank) for term, rank in zip(terms, ranks, strict=True)]
    hidden = max((factor for factor in factors if factor), key=_hidden, default=())
    dots = tuple(label for label in hidden or () if len(label) > 1)
    out = _out(result, dots) if arrow else (*dots, *_once(inputs))
    known = {label for factor in factors if factor for label in factor}
    if any(factor is None or len(set(factor)) < len(factor) for factor in factors):
        return None
    if len(set(out)) < len(out) or not set(out) <= known or not set(dots) <= set(out):
        return None
    return Equation(tuple(factor for factor in factors if factor is not None), out)


def _hidden(labels: tuple[str, ...]) -> int:
    return sum(len(label) > 1 for label in labels)


def _labels(term: str, rank: int) -> tuple[str, ...] | None:
    """One label for every axis: a letter, or ``.2`` for the last but one axis of the ellipsis."""
    if "..." not in term:
        return tuple(term) if len(term) == rank else None
    front, _, back = term.partition("...")
    hidden = rank - len(front) - len(back)
    return None if hidden < 0 else (*front, *(f".{place}" for place in range(hidden, 0, -1)), *back)


def _out(result: str, dots: tuple[str, ...]) -> tuple[str, ...]:
    front, ellipsis, back = result.partition("...")
    return (*front, *dots, *back) if ellipsis else tuple(front)


def _once(inputs: str) -> list[str]:
    """An equation without a result means the labels that stand in it once, in the order of the alphabet."""
    return sorted(letter for letter in set(inputs) - set(",.") if inputs.count(letter) == 1)


def _sizes(values: Iterable[ir.Value], equation: Equation) -> dict[str, Size] | None:
    """The size of every axis; None where more than one is open: a Reshape can leave only one to be worked out."""
    sizes: dict[str, Size] = {}
    for value, labels in zip(values, equation.factors, strict=True):
        for label, size in zip(labels, value.shape or (), strict=True):
            if sizes.get(label, 1) == 1:
                sizes[label] = size
    return sizes if sum(not isinstance(size, int) for size in sizes.values()) <= 1 else None


class _Writer:
    """Writes ops in front of ``node``."""

    def __init__(self, graph: ir.Graph, node: ir.Node, names: Names, sizes: dict[str, Size]) -> None:
        self.graph, self.node, self.names, self.sizes = graph, node, names, sizes
        self.main: ir.Node | None = None
        """The last product: it goes by the Einsum's name."""

    def product(self, one: _Factor, two: _Factor, out: tuple[str, ...], later: set[str]) -> _Factor:
        """Both multiplied; of what nobody asks for later the sum."""
        wanted = later | set(out)
        one, two = (
            self.summed(mine, wanted | set(theirs.labels)) for mine, theirs in ((one, two), (two, one))
        )
        if constant(one.value) is not None:
            one, two = two, one
        shared = [label for label in one.labels if label in two.labels]
        total = [label for label in shared if label not in wanted]
        rows = [label for label in one.labels if label not in shared]
        columns = [label for label in two.labels if label not in shared]
        if not total or not (rows or columns):
            return self._elementwise(one, two, out, wanted)
        return self._matrices(one, two, [label for label in shared if label in wanted], total)

    def _elementwise(self, one: _Factor, two: _Factor, out: tuple[str, ...], wanted: set[str]) -> _Factor:
        known = dict.fromkeys((*one.labels, *two.labels))
        order = (*(label for label in out if label in known), *(label for label in known if label not in out))
        sides = [self._spread(self.ordered(side, order), order) for side in (one, two)]
        self.main = self._node("Mul", sides)
        return self.summed(
            _Factor(self._made(self.main, [self.sizes[label] for label in order]), order), wanted
        )

    def _matrices(self, one: _Factor, two: _Factor, kept: list[str], total: list[str]) -> _Factor:
        rows = [label for label in one.labels if label not in (*kept, *total)]
        columns = [label for label in two.labels if label not in (*kept, *total)]
        left, right = self.ordered(one, (*kept, *rows, *total)), self.ordered(two, (*kept, *total, *columns))
        lead = [[label] for label in kept]
        row_axes = [[label] for label in rows] if rows and not kept else [rows]
        a = self._grouped(left, [*lead, *row_axes, total])
        b = self._grouped(right, [*lead, total, columns])
        self.main = self._node("MatMul", [a, b])
        groups = [*lead, *row_axes, columns]
        product = self._made(self.main, [self._size(group) for group in groups])
        labels = (*kept, *rows, *columns)
        if any(len(group) != 1 for group in groups):
            product = self._reshaped(product, [self.sizes[label] for label in labels])
        return _Factor(product, labels)

    def summed(self, factor: _Factor, wanted: set[str]) -> _Factor:
        """The sum over the axes that nobody asks for."""
        axes = [axis for axis, label in enumerate(factor.labels) if label not in wanted]
        if not axes:
            return factor
        left = tuple(label for label in factor.labels if label in wanted)
        given = self.names.initializer(f"{self.node.name}_axes", np.array(axes, np.int64))
        node = self._node("ReduceSum", [factor.value, given], {"keepdims": 0})
        return _Factor(self._made(node, self._of(factor, left)), left)

    def ordered(self, factor: _Factor, order: Iterable[str]) -> _Factor:
        """The factor with those of its axes that stand in ``order``, in that order: all of them do."""
        labels = tuple(label for label in order if label in factor.labels)
        perm = [factor.labels.index(label) for label in labels]
        if perm == sorted(perm):
            return factor
        array = constant(factor.value)
        if array is not None:
            return _Factor(self.names.initializer(f"{self.node.name}_b", array.transpose(perm)), labels)
        node = self._node("Transpose", [factor.value], {"perm": perm})
        return _Factor(self._made(node, self._of(factor, labels)), labels)

    def _spread(self, factor: _Factor, order: tuple[str, ...]) -> ir.Value:
        """With an axis of 1 for every label that it lacks; in front Mul needs none."""
        known = self._of(factor, factor.labels)
        own = dict(zip(factor.labels, known, strict=True))
        first = next((place for place, label in enumerate(order) if label in own), len(order))
        sizes = [own.get(label, 1) for label in order[first:]]
        return factor.value if len(sizes) == len(own) else self._reshaped(factor.value, sizes)

    def _grouped(self, factor: _Factor, groups: Sequence[Sequence[str]]) -> ir.Value:
        """One axis for every group of labels, of size 1 for an empty one."""
        if all(len(group) == 1 for group in groups):
            return factor.value
        own = dict(zip(factor.labels, self._of(factor, factor.labels), strict=True))
        return self._reshaped(factor.value, [_joined([own[label] for label in group]) for group in groups])

    def _size(self, group: Sequence[str]) -> Size:
        return _joined([self.sizes[label] for label in group])

    def _of(self, factor: _Factor, labels: Iterable[str]) -> list[Size]:
        """The factor's own sizes: an axis of an ellipsis may be 1 where another factor has more."""
        own = dict(zip(factor.labels, factor.value.shape or (), strict=True))
        return [own[label] for label in labels]

    def _reshaped(self, value: ir.Value, sizes: Sequence[Size]) -> ir.Value:
        shape = np.array([size if isinstance(size, int) else -1 for size in sizes], np.int64)
        array = constant(value)
        if array is not None:
            return self.names.initializer(f"{self.node.name}_b", array.reshape(shape))
        given = self.names.initializer(f"{self.node.name}_shape", shape)
        return self._made(self._node("Reshape", [value, given]), sizes)

    def _node(
        self, op_type: str, inputs: Sequence[ir.Value], attributes: dict[str, int | list[int]] | None = None
    ) -> ir.Node:
        name = self.names.fresh(f"{self.node.name}_{op_type.lower()}")
        node = ir.node(op_type, list(inputs), attributes or {}, name=name)
        self.graph.insert_before(self.node, node)
        return node

    def _made(self, node: ir.Node, sizes: Sequence[Size]) -> ir.Value:
        value = node.outputs[0]
        value.name = free_name(f"{node.name}_out", self.names.taken)
        value.type, value.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape(sizes)
        return value


def _joined(sizes: Sequence[Size]) -> Size:
    """The size of several axes made one: open where one of them is."""
    product = 1
    for size in sizes:
        if not isinstance(size, int):
            return ir.SymbolicDim(None) if len(sizes) > 1 else size
        product *= size
    return product
