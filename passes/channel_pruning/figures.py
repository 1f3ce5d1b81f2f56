"""What a search under a budget leaves for the report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgec.graph.channels import ChannelGroup
from edgec.passes.budget import Budget
from edgec.passes.solvers.allocate import Allocation

POINTS = 200
"""Most points of the curve that are kept."""


def figures(
    budget: Budget, chosen: Allocation, source: float, limit: float, groups: Sequence[ChannelGroup]
) -> dict[str, Any]:
    """JSON types: the trade-off curve, where this run sits on it, and the widths of ``groups``."""
    step = max(1, len(chosen.trace) // POINTS)
    return {
        "budget": {
            "unit": budget.unit,
            "asked": limit / source,
            "reached": chosen.cost / source,
            "met": chosen.reached,
        },
        "tradeoff": [[c / source, e] for c, e in (*chosen.trace[::step], *chosen.trace[-1:])],
        "predicted_error": chosen.error,
        "widths": {group.name: [group.size, chosen.widths[group.name]] for group in groups},
    }
