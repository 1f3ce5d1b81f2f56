"""What things cost in a budget's unit: multiplications, parameters, bytes, or milliseconds on the run's target.

Every pass and search that spends a budget asks here, so that all of them mean the same by it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import onnx_ir as ir

from edgec.graph.cost import NodeCost, cost
from edgec.graph.errors import UsageError
from edgec.passes.base import LatencyModel
from edgec.passes.budget import Budget
from edgec.targets import Target
from edgec.targets.estimator import LatencyTable, has_estimates, latency_table

Price = Callable[[Iterable[NodeCost]], float]


def milliseconds(target: Target | None, given: LatencyModel | None) -> LatencyTable:
    """What a latency budget is priced by: what the run was ``given``, else the target's estimates.

    Raises UsageError where there is nothing to go by.
    """
    if given is not None:
        return given.table
    if target is None:
        raise UsageError("a latency budget needs a target", hint="Add --target; see `edgec targets list`.")
    return latency_table(target)


def known_milliseconds(target: Target | None, given: LatencyModel | None) -> LatencyTable | None:
    """The same where somebody knows the target itself; None where only machines of its kind were measured, or none."""
    if given is not None and not given.typical:
        return given.table
    return latency_table(target) if target is not None and has_estimates(target) else None


def price_of(budget: Budget, target: Target | None, given: LatencyModel | None, scale: float) -> Price:
    """What nodes cost in the budget's unit; ``scale``: bytes per parameter, for ``size``.

    Raises UsageError for a latency budget with nothing to go by.
    """
    if budget.unit == "macs":
        return lambda nodes: float(sum(node.macs for node in nodes))
    if budget.unit == "params":
        return lambda nodes: float(sum(node.params for node in nodes))
    if budget.unit == "size":
        return lambda nodes: float(scale * sum(node.params for node in nodes))
    table = milliseconds(target, given)
    return lambda nodes: float(sum(table.node_ms(node) for node in nodes))


def network_price(table: LatencyTable | None) -> Callable[[ir.Model], float]:
    """Milliseconds of whole networks by ``table``; their multiplications where there is none."""
    if table is not None:
        return lambda model: table.model_ms(cost(model))
    return lambda model: float(cost(model).macs)


def source_price(
    budget: Budget, given: LatencyModel | None, source: ir.Model, price: Callable[[ir.Model], float]
) -> float:
    """What the source costs, of which relative budgets are shares: the time that it was measured at, else its ``price``."""
    if budget.unit == "latency" and given is not None:
        return given.source_ms
    return price(source)
