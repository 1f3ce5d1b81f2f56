"""Widths that keep the limits of all blocks and of the whole network, with the least total error.

Each block is narrowed until its own limit holds, by the groups that it has; then the whole network from there on. Both by
`solvers.allocate`, so one limit alone is what `prune-channels` does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edgec.passes.channel_pruning.costs import AdditiveCost
from edgec.passes.solvers.allocate import allocate
from edgec.passes.structure.limits import Limit

Array = np.ndarray[Any, np.dtype[Any]]
Choices = Callable[[str, int], Sequence[int]]


@dataclass(frozen=True)
class Plan:
    """``widths`` of all groups with a curve; ``missed`` are the limits that no widths could meet."""

    widths: Mapping[str, int]
    error: float
    missed: tuple[Limit, ...]


def plan(errors: Mapping[str, Array], limits: Sequence[Limit], choices: Choices) -> Plan:
    """``errors[g][k]`` is the error when group g has lost k units."""
    widths = {name: len(curve) for name, curve in errors.items()}
    for limit in sorted(limits, key=lambda one: not one.block):  # blocks first
        named = [name for name in errors if limit.touches(name)]
        if named and not limit.met(widths):
            left = {name: errors[name][len(errors[name]) - widths[name] :] for name in named}
            widths.update(allocate(left, _at(limit.cost, widths), limit.most, choices).widths)
    error = sum(float(curve[len(curve) - widths[name]]) for name, curve in errors.items())
    return Plan(widths, error, tuple(one for one in limits if not one.met(widths)))


def _at(cost: AdditiveCost, widths: Mapping[str, int]) -> AdditiveCost:
    """Groups that are not named are as wide as they are by now."""
    return replace(cost, full={**cost.full, **widths})
