"""What every unit is worth, as the closed form judges it: the error that its loss adds, on the way down its group's curve."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from edgec.passes.solvers.obs import Curve

Array = np.ndarray[Any, np.dtype[Any]]

LEAST = 1e-6
"""Share of a group's largest gain that every unit has at least."""
LAST = 10.0
"""The last unit, which must stay, counts so many times the one before it."""


def gains_of(curve: Curve, errors: Array) -> Array:
    """(units,): ``errors`` are the curve's, scaled to what they do to the output. Units that go earlier gain less: where a curve
    is not convex, its steps are averaged over the stretch."""
    rising = _rising(np.diff(errors))
    last = LAST * (rising[-1] if len(rising) else 1.0)
    rising = np.append(rising, last)
    rising = np.maximum(rising, LEAST * rising[-1] + 1e-30)
    rising = rising * (1 + 1e-6 * np.arange(len(rising)))  # equal gains keep the curve's order
    found = np.empty(len(rising))
    found[list(curve.order)] = rising
    return found


def curve_of(gains: Array) -> Curve:
    """The inverse: the least worth go first, the error is the sum of what went."""
    order = np.argsort(gains, kind="stable")
    return Curve(tuple(int(unit) for unit in order), np.concatenate([[0.0], np.cumsum(gains[order])[:-1]]))


def _rising(steps: Array) -> Array:
    """The nearest sequence that never falls (pool adjacent violators)."""
    pools: list[list[float]] = []  # mean, count
    for step in steps:
        pools.append([float(step), 1])
        while len(pools) > 1 and pools[-2][0] >= pools[-1][0]:
            mean, count = pools.pop()
            total = pools[-1][1] + count
            pools[-1] = [(pools[-1][0] * pools[-1][1] + mean * count) / total, total]
    return np.concatenate([np.full(int(count), mean) for mean, count in pools])


def joined(by_group: Mapping[str, Array]) -> tuple[Array, Array]:
    """(all gains one behind the other, number of the group of each)."""
    sizes = [len(one) for one in by_group.values()]
    return np.concatenate(list(by_group.values())), np.repeat(np.arange(len(sizes)), sizes)
