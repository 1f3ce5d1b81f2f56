"""Budgets as additive cost tables over the widths of channel groups: MACs, parameters, bytes, or a target's milliseconds."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import onnx_ir as ir

from edgec.graph.channels import Axis, ChannelGroup, CostModel, LayerCost, cost_model
from edgec.graph.channels import groups as channel_groups
from edgec.graph.cost import NodeCost, cost
from edgec.graph.views import is_constant
from edgec.passes.base import Context, LatencyModel
from edgec.passes.budget import Budget
from edgec.passes.pricing import milliseconds, source_price
from edgec.targets import Target
from edgec.targets.estimator import LatencyTable

Widths = Mapping[str, int]
SOURCE_BYTES = 4.0
"""Of one weight of the source model, whatever the shipped file stores."""


@dataclass(frozen=True)
class Term:
    """The price of one node at given widths, and the groups that it depends on.

    A search asks for the same few widths again and again, so what is priced once is kept.
    """

    node: str
    groups: tuple[str, ...]
    compute: Callable[[Widths], float]
    _known: dict[tuple[int, ...], float] = field(default_factory=dict, repr=False, compare=False)

    def price(self, widths: Widths) -> float:
        """In the table's unit; ``widths`` name all of ``groups``."""
        key = tuple([widths[name] for name in self.groups])
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = self.compute(widths)
        return known


@dataclass(frozen=True)
class AdditiveCost:
    """A sum of terms; the ``Cost`` of `solvers.allocate`. ``full`` are the widths where nothing else is said."""

    terms: tuple[Term, ...]
    full: Widths
    constant: float = 0.0

    @cached_property
    def _readers(self) -> dict[str, list[Term]]:
        found: dict[str, list[Term]] = {}
        for term in self.terms:
            for name in dict.fromkeys(term.groups):
                found.setdefault(name, []).append(term)
        return found

    def total(self, widths: Widths) -> float:
        """The cost of the whole model."""
        all_widths = {**self.full, **widths}
        return self.constant + sum(term.price(all_widths) for term in self.terms)

    def saved(self, group: str, units: int, widths: Widths) -> float:
        """What goes when ``group`` loses ``units`` more, starting at ``widths``."""
        before = {**self.full, **widths}
        after = {**before, group: before[group] - units}
        return sum(term.price(before) - term.price(after) for term in self._readers.get(group, ()))

    def neighbours(self, group: str) -> Collection[str]:
        """Groups that share a term with ``group``."""
        return {name for term in self._readers.get(group, ()) for name in term.groups}


def source_cost(budget: Budget, context: Context) -> float:
    """What the source model costs in the budget's unit: relative budgets are shares of it."""

    def price(source: ir.Model) -> float:
        groups = channel_groups(source)
        return cost_of(budget, source, groups, context.target, SOURCE_BYTES, context.prices).total({})

    return source_price(budget, context.prices, context.source, price)


def cost_of(
    budget: Budget,
    model: ir.Model,
    groups: tuple[ChannelGroup, ...],
    target: Target | None,
    scale: float,
    prices: LatencyModel | None = None,
) -> AdditiveCost:
    """The table for a budget's unit. ``scale``: bytes per parameter, for ``size``. Raises UsageError for latency without data."""
    table = cost_model(model)
    if budget.unit == "latency":
        return _latency(model, groups, table, target, prices)
    if budget.unit == "macs":
        terms = [Term(layer.node, _names(layer.work.axes), layer.macs) for layer in table.layers]
        return AdditiveCost(tuple(terms), table.full)
    factor = scale if budget.unit == "size" else 1.0
    terms = [
        Term(
            layer.node,
            _names([axis for size in layer.constants for axis in size.axes]),
            _scaled(layer.params, factor),
        )
        for layer in table.layers
    ]
    return AdditiveCost(tuple(terms), table.full, factor * table.constant_params)


def _names(axes: Collection[Axis]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for axis in axes for name, _ in axis.terms))


def _scaled(price: Callable[[Widths], int], factor: float) -> Callable[[Widths], float]:
    return lambda widths: factor * price(widths)


def _latency(
    model: ir.Model,
    groups: tuple[ChannelGroup, ...],
    table: CostModel,
    target: Target | None,
    given: LatencyModel | None,
) -> AdditiveCost:
    prices = milliseconds(target, given)
    layers = {layer.node: layer for layer in table.layers}
    axes = _activation_axes(groups)
    nodes = {node.name: node for node in model.graph}
    terms = []
    for one in cost(model).nodes:
        node = nodes[one.name]
        sources = [
            axes[v.name or ""] for v in node.inputs if v is not None and not is_constant(v) and v.name in axes
        ]
        results = [axes[v.name or ""] for v in node.outputs if v.name in axes]
        layer = layers.get(one.name)
        resized = _Resized(one, layer, tuple(sources), tuple(results), table.full)
        own = [] if layer is None else [axis for axis in (layer.inputs, layer.outputs) if axis is not None]
        names = _names([*sources, *results, *own])
        terms.append(Term(one.name, names, _timed(prices, resized)))
    return AdditiveCost(tuple(terms), table.full)


def _timed(prices: LatencyTable, node: _Resized) -> Callable[[Widths], float]:
    return lambda widths: prices.node_ms(node.at(widths))


@dataclass(frozen=True)
class _Resized:
    """One node's cost at other widths: products from the layer's own formula, elements in proportion to the channels."""

    node: NodeCost
    layer: LayerCost | None
    sources: tuple[Axis, ...]
    results: tuple[Axis, ...]
    full: Widths

    def at(self, widths: Widths) -> NodeCost:
        macs = self.node.macs if self.layer is None else self.layer.macs(widths)
        params = self.node.params if self.layer is None else self.layer.params(widths)
        return replace(
            self.node,
            macs=macs,
            params=params,
            in_elements=round(self.node.in_elements * self._share(self.sources, widths)),
            out_elements=round(self.node.out_elements * self._share(self.results, widths)),
        )

    def _share(self, axes: tuple[Axis, ...], widths: Widths) -> float:
        whole = sum(axis.length(self.full) for axis in axes)
        return sum(axis.length(widths) for axis in axes) / whole if whole else 1.0


def _activation_axes(groups: tuple[ChannelGroup, ...]) -> dict[str, Axis]:
    """Tensor name -> the groups along its channels."""
    terms: dict[str, list[tuple[str, int]]] = {}
    for group in groups:
        for member in group.activations:
            terms.setdefault(member.value, []).append((group.name, member.index.shape[1]))
    return {name: Axis(tuple(found)) for name, found in terms.items()}
