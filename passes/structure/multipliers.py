"""Multipliers of the limits, solved anew at every step: the least prices at which the expected costs keep their limits.

A unit stays where its gain is above what it costs at these prices: the Lagrangian of the least loss under all limits. Gradient
steps on the multipliers lag behind a falling budget (tried: at 61% when 35% was due); here each is found by bisection, its
costs taken as straight lines around the widths of the step before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgec.passes.channel_pruning.costs import AdditiveCost
from edgec.passes.structure.limits import Limit

Array = np.ndarray[Any, np.dtype[Any]]

SWEEPS = 4
"""Over the multipliers, each solved with the others held."""
HALVINGS = 32
SPAN = 40.0
"""Of a multiplier's logarithm, around the gains per cost."""
STEP = 8
"""A group's slope is that of an eighth of its units: times have plateaus."""


@dataclass(frozen=True)
class Prices:
    """Around some widths: ``spent`` (limits,), and what a unit of each group adds to it, ``slopes`` (limits, groups)."""

    widths: Array
    spent: Array
    slopes: Array

    @staticmethod
    def at(limits: Sequence[Limit], widths: Mapping[str, int]) -> Prices:
        spent = np.array([one.cost.total(widths) for one in limits])
        slopes = np.array([[slope(one.cost, name, widths) for name in widths] for one in limits])
        return Prices(np.array(list(widths.values()), float), spent, np.maximum(slopes, 0.0))

    def expected(self, counts: Array) -> Array:
        """(limits,): the cost with ``counts`` units, as a straight line."""
        return np.asarray(self.spent + self.slopes @ (counts - self.widths))


def slope(cost: AdditiveCost, group: str, widths: Mapping[str, int]) -> float:
    """What one more unit of ``group`` costs at ``widths``: the derivative where the cost is a product of widths."""
    if not cost.neighbours(group):
        return 0.0
    step = max(1, min(widths[group] - 1, cost.full[group] // STEP))
    if widths[group] == 1:
        return -cost.saved(group, -1, widths)
    return cost.saved(group, step, widths) / step


@dataclass(frozen=True)
class Gate:
    """How likely a unit is open: the logistic function of ``sharpness`` times the logarithm of (its gain over its price),
    and ``shift``."""

    sharpness: float
    shift: float

    def open(self, gains: Array, price: Array) -> Array:
        return np.asarray(
            1 / (1 + np.exp(-np.clip(self.sharpness * (gains - np.log(price)) + self.shift, -60, 60)))
        )


def solve(gains: Array, group_of: Array, prices: Prices, limits: Array, gate: Gate) -> Array:
    """(groups,): the price of a unit, so that the expected costs keep ``limits`` (limits,). ``gains`` are logarithms."""
    count = prices.slopes.shape[1]
    largest = np.max(prices.slopes, axis=1)
    middle = float(np.median(gains))
    least = np.exp(middle - SPAN / 2) / np.maximum(largest, 1e-300)
    multipliers = np.zeros(len(limits))

    def price(values: Array) -> Array:
        return np.asarray(np.maximum(values @ prices.slopes, np.exp(middle - SPAN)))

    def spent(values: Array) -> Array:
        opened = gate.open(gains, price(values)[group_of])
        return prices.expected(np.bincount(group_of, opened, minlength=count))

    for _ in range(SWEEPS if len(limits) > 1 else 1):
        for which in range(len(limits)):
            multipliers[which] = 0.0
            if spent(multipliers)[which] <= limits[which]:
                continue
            low, high = 0.0, SPAN
            for _ in range(HALVINGS):
                multipliers[which] = least[which] * np.exp(tried := (low + high) / 2)
                low, high = (tried, high) if spent(multipliers)[which] > limits[which] else (low, tried)
            multipliers[which] = least[which] * np.exp(high)
    return price(multipliers)
