"""Allocations against exhaustive search."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping, Sequence

import numpy as np
import pytest

from edgec.passes.solvers.allocate import allocate, allowed_widths


class Chain:
    """A chain of layers: layer i costs width[i-1] * width[i], as in a plain network."""

    def __init__(self, full: Mapping[str, int]) -> None:
        self.full = dict(full)
        self.names = list(full)

    def total(self, widths: Mapping[str, int]) -> float:
        w = {**self.full, **widths}
        sizes = [3, *(w[name] for name in self.names), 10]
        return float(sum(a * b for a, b in itertools.pairwise(sizes)))

    def saved(self, group: str, units: int, widths: Mapping[str, int]) -> float:
        w = {**self.full, **widths}
        return self.total(w) - self.total({**w, group: w[group] - units})

    def neighbours(self, group: str) -> Collection[str]:
        at = self.names.index(group)
        return self.names[max(0, at - 1) : at + 2]


def curves_of(seed: int, sizes: Collection[int]) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {f"g{i}": np.r_[0, np.cumsum(rng.gamma(0.5, size=n - 1))] for i, n in enumerate(sizes)}


def exhaustive(curves: Mapping[str, np.ndarray], cost: Chain, limit: float) -> float:
    best = np.inf
    for widths in itertools.product(*(range(1, len(c) + 1) for c in curves.values())):
        named = dict(zip(curves, widths, strict=True))
        if cost.total(named) <= limit:
            best = min(best, sum(c[len(c) - w] for c, w in zip(curves.values(), widths, strict=True)))
    return float(best)


def test_meets_the_limit_and_is_near_the_optimum() -> None:
    ratios = []
    for seed, fraction in itertools.product(range(12), (0.8, 0.6, 0.4)):
        curves = curves_of(seed, (6, 7, 5, 6))
        cost = Chain({name: len(curve) for name, curve in curves.items()})
        limit = fraction * cost.total({})
        found = allocate(curves, cost, limit)
        assert found.reached
        assert found.cost == cost.total(found.widths) <= limit
        assert found.error == pytest.approx(sum(c[len(c) - found.widths[n]] for n, c in curves.items()))
        ratios.append(found.error / exhaustive(curves, cost, limit))
    assert np.mean(ratios) < 1.05
    assert max(ratios) < 1.5


def test_an_unreachable_limit_ends_at_the_cheapest_widths() -> None:
    curves = curves_of(0, (4, 4))
    cost = Chain({name: len(curve) for name, curve in curves.items()})
    found = allocate(curves, cost, 1.0)
    assert not found.reached
    assert set(found.widths.values()) == {1}


def test_widths_are_multiples_or_full() -> None:
    assert allowed_widths(36, 8) == (8, 16, 24, 32, 36)
    # Small groups have finer steps, else nothing could leave them.
    assert allowed_widths(20, 8) == (4, 8, 12, 16, 20)
    assert allowed_widths(8, 8) == (2, 4, 6, 8)
    assert allowed_widths(4, 1, minimum=2) == (2, 3, 4)
    curves = curves_of(1, (64, 44, 32))
    cost = Chain({name: len(curve) for name, curve in curves.items()})
    found = allocate(curves, cost, 0.5 * cost.total({}), lambda _, full: allowed_widths(full, 8))
    assert found.reached
    assert all(width % 8 == 0 or width == len(curves[name]) for name, width in found.widths.items())


def test_looks_past_a_hump() -> None:
    """One removal is dear, but the next three come free: better than the other group's steady price."""
    curves = {"g0": np.array([0.0, 1.0, 1.0, 1.0, 1.0]), "g1": np.array([0.0, 0.6, 1.2, 1.8, 2.4])}
    cost = Chain({"g0": 5, "g1": 5})
    found = allocate(curves, cost, cost.total({"g0": 1}))
    assert found.widths == {"g0": 1, "g1": 5}


def test_the_trace_runs_from_full_to_narrowest() -> None:
    curves = curves_of(2, (5, 5, 5))
    cost = Chain(dict.fromkeys(curves, 5))
    found = allocate(curves, cost, 0.7 * cost.total({}))
    costs = [point[0] for point in found.trace]
    assert costs[0] == cost.total({})
    assert min(costs) == cost.total(dict.fromkeys(curves, 1))
    assert found.trace[0][1] == 0


def test_of_widths_with_one_error_the_widest_is_kept_that_the_limit_has_room_for() -> None:
    """A curve that few samples left level: 4 units cost what 8 do, and the limit has room for 8. What is free stays out."""
    level = np.r_[0, np.linspace(1, 8, 8), [8.0] * 4, [20.0] * 3]
    curves = {"g0": level, "dead": np.r_[np.zeros(4), 5.0, 9.0]}
    cost = Chain({name: len(curve) for name, curve in curves.items()})

    def choices(name: str, full: int) -> Sequence[int]:
        return range(4, full + 1, 4) if name == "g0" else range(1, full + 1)

    found = allocate(curves, cost, cost.total({"g0": 8, "dead": 4}), choices)
    assert found.widths["g0"] == 8
    assert found.widths["dead"] <= 4
    assert found.error == 8
    assert allocate(curves, cost, cost.total({"g0": 8, "dead": 2}) - 1, choices).widths["g0"] == 4
