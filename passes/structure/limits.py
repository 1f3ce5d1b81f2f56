"""What a network may cost in all, and each of its blocks for itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import onnx_ir as ir

from edgec.graph.channels import groups
from edgec.passes.base import Context
from edgec.passes.budget import Budget
from edgec.passes.channel_pruning.costs import SOURCE_BYTES, AdditiveCost, cost_of, source_cost
from edgec.passes.structure.blocks import BlockBudget, nodes_of

Widths = Mapping[str, int]


@dataclass(frozen=True)
class Limit:
    """``cost`` must not exceed ``most``; ``source`` is what the source costs there. ``block`` is empty for the whole network."""

    block: str
    budget: Budget
    cost: AdditiveCost
    most: float
    source: float

    def met(self, widths: Widths) -> bool:
        return self.cost.total(widths) <= self.most

    @property
    def text(self) -> str:
        return f"{self.block}:{self.budget.text}" if self.block else self.budget.text

    def touches(self, group: str) -> bool:
        """Whether the width of ``group`` changes what it costs."""
        return group in self.cost.neighbours(group)


def limits_of(
    model: ir.Model, whole: Budget | None, blocks: Sequence[BlockBudget], context: Context
) -> tuple[Limit, ...]:
    """The whole network's first, where there is one. Raises UsageError for an unknown block."""
    found, scale = groups(model), SOURCE_BYTES
    limits = []
    if whole is not None:
        cost = cost_of(whole, model, found, context.target, scale, context.prices)
        source = source_cost(whole, context)
        limits.append(Limit("", whole, cost, whole.limit(source), source))
    for one in blocks:
        cost = cost_of(one.budget, model, found, context.target, scale, context.prices)
        part = within(cost, nodes_of(model, one.block))
        source = _source(one, context)
        limits.append(Limit(one.block, one.budget, part, one.budget.limit(source), source))
    return tuple(limits)


def within(cost: AdditiveCost, nodes: frozenset[str]) -> AdditiveCost:
    """The part of ``cost`` that ``nodes`` have."""
    return replace(cost, terms=tuple(term for term in cost.terms if term.node in nodes), constant=0.0)


def _source(one: BlockBudget, context: Context) -> float:
    """In the network that has the block: behind a pass that put another one in the source's place, that one."""
    source = context.source if context.successor is None else context.successor
    cost = cost_of(one.budget, source, groups(source), context.target, SOURCE_BYTES, context.prices)
    return within(cost, nodes_of(source, one.block)).total({})
