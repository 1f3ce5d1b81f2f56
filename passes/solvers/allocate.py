"""How wide every group stays: the least total error whose cost meets a limit.

Costs are additive over layers, but a layer's cost may depend on the widths on both of its sides, so what a unit
saves depends on its neighbours. Widths are found by marginal error per cost saved, with look-ahead over longer steps
(error curves are not convex), and then improved by exchanges: units given back to one group, others taken from another.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from edgec.passes.solvers.guard import TIE, first_least

Array = np.ndarray[Any, np.dtype[Any]]
Widths = dict[str, int]

MAX_EXCHANGES = 400


class Cost(Protocol):
    """Any additive cost table. Widths that are not named are full."""

    def total(self, widths: Mapping[str, int]) -> float:
        """The cost of the whole model."""

    def saved(self, group: str, units: int, widths: Mapping[str, int]) -> float:
        """What goes when ``group`` loses ``units`` more (negative: gains them), starting at ``widths``."""

    def neighbours(self, group: str) -> Collection[str]:
        """Groups for which ``saved`` depends on the width of ``group``, itself included."""


@dataclass(frozen=True)
class Allocation:
    """``widths`` of all groups with a curve, their ``cost`` and total ``error``; ``reached`` tells whether the limit is met.

    ``trace`` holds (cost, error) after every step of the descent: the trade-off curve. It goes on below the limit.
    """

    widths: Widths
    cost: float
    error: float
    reached: bool
    trace: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class _Move:
    group: str
    units: int
    ratio: float


def allowed_widths(full: int, multiple: int, minimum: int = 1) -> tuple[int, ...]:
    """Ascending: the multiples of ``multiple`` from ``minimum`` up, and the full width whatever it is.

    The multiple is halved until a group has four steps of it: a kernel's block of 8 says little about a group of 8.
    """
    while multiple > 1 and multiple > full // 4:
        multiple //= 2
    least = max(minimum, multiple, 1)
    return (*(w for w in range(least, full) if w % multiple == 0), full)


def allocate(
    curves: Mapping[str, Array],
    cost: Cost,
    limit: float,
    choices: Callable[[str, int], Sequence[int]] = lambda group, full: range(1, full + 1),
) -> Allocation:
    """Widths with ``cost.total(widths) <= limit`` and a small sum of errors; the cheapest possible where none meets it.

    ``curves[g][k]`` is the error when group g has lost k units; it has as many entries as the group has units. ``choices`` gives
    the widths that a group may have, ascending, the full one last.
    """
    search = _Search(curves, cost, choices)
    trace = search.descend(limit)
    widths = dict(search.widths)
    # The rest of the trade-off curve is for the report only.
    if search.cost.total(widths) <= limit:
        search.refine(limit)
        search.widen_on_plateaus(limit)
        widths = dict(search.widths)
        best = search.point()
        trace += search.descend(-np.inf)
    else:
        best = search.point()
    return Allocation(widths, best[0], best[1], best[0] <= limit, tuple(trace))


class _Search:
    def __init__(
        self, curves: Mapping[str, Array], cost: Cost, choices: Callable[[str, int], Sequence[int]]
    ) -> None:
        self.curves, self.cost = curves, cost
        self.full = {name: len(curve) for name, curve in curves.items()}
        self.choices = {name: np.array(choices(name, full)) for name, full in self.full.items()}
        self.widths = dict(self.full)
        self.moves: dict[str, _Move | None] = {}

    def error(self, name: str, width: int) -> float:
        return float(self.curves[name][self.full[name] - width])

    def point(self) -> tuple[float, float]:
        """(cost, error) now."""
        return self.cost.total(self.widths), sum(
            self.error(name, width) for name, width in self.widths.items()
        )

    def descend(self, limit: float) -> list[tuple[float, float]]:
        """Narrow by the best ratio until the limit is met or nothing can go; the points on the way."""
        self.moves = {name: self._best_narrowing(name) for name in self.widths}
        total, error = self.point()
        trace = [(total, error)]
        while total > limit:
            moves = [move for move in self.moves.values() if move is not None]
            if not moves:
                break
            move = moves[first_least(np.array([one.ratio for one in moves]))]
            error += self.error(move.group, self.widths[move.group] - move.units)
            error -= self.error(move.group, self.widths[move.group])
            self.widths[move.group] -= move.units
            total = self.cost.total(self.widths)
            trace.append((total, error))
            for name in {move.group, *self.cost.neighbours(move.group)} & self.widths.keys():
                self.moves[name] = self._best_narrowing(name)
        return trace

    def _best_narrowing(self, name: str) -> _Move | None:
        width = self.widths[name]
        found = None
        for step in _ladder(self.choices[name][::-1], width):
            saved = self.cost.saved(name, step, self.widths)
            if saved <= 0:
                continue
            ratio = (self.error(name, width - step) - self.error(name, width)) / saved
            if found is None or ratio < found.ratio - TIE * abs(found.ratio):
                found = _Move(name, step, ratio)
        return found

    def refine(self, limit: float) -> None:
        """Exchanges that lower the error and keep the limit, the best one at a time."""
        for _ in range(MAX_EXCHANGES):
            exchange = self._best_exchange(limit)
            if exchange is None:
                return
            self.widths.update(exchange)

    def widen_on_plateaus(self, limit: float) -> None:
        """Of widths with one error the widest that the limit leaves room for.

        Curves that were measured on few samples are level where fewer units happened to do as well; what costs nothing at all
        (units that are always zero) stays out.
        """
        for name, width in list(self.widths.items()):
            error = self.error(name, width)
            alike = [
                int(one)
                for one in self.choices[name]
                if one > width and error > 0 and self.error(name, int(one)) >= error * (1 - TIE)
            ]
            for wider in sorted(alike, reverse=True):
                if self.cost.total({**self.widths, name: wider}) <= limit:
                    self.widths[name] = wider
                    break

    def _best_exchange(self, limit: float) -> Widths | None:
        total, error = self.point()
        wider = list(self._steps(widen=True))
        narrower = [(None, 0, 0.0, 0.0), *self._steps(widen=False)]
        paid = np.array([step[2] for step in narrower])
        hurt = np.array([step[3] for step in narrower])
        found: list[tuple[float, Widths]] = []
        for name, width, saved, change in wider:
            enough = (total - saved - paid <= limit) & (hurt + change < -TIE * error)
            for index in np.flatnonzero(enough)[np.argsort(hurt[enough], kind="stable")][:3]:
                other = narrower[index]
                if other[0] == name:
                    continue
                after = {name: width} if other[0] is None else {name: width, other[0]: other[1]}
                found.append((change + float(hurt[index]), after))
        for _, after in sorted(found, key=lambda item: item[0])[:20]:
            # Savings of neighbours do not simply add: only the whole cost decides.
            if self.cost.total({**self.widths, **after}) <= limit:
                return after
        return None

    def _steps(self, *, widen: bool) -> Iterator[tuple[str, int, float, float]]:
        """(group, new width, cost saved, change of error) for every group and a ladder of steps."""
        for name, width in self.widths.items():
            choices = self.choices[name] if widen else self.choices[name][::-1]
            for step in _ladder(choices, width):
                new = width + step if widen else width - step
                units = width - new
                yield (
                    name,
                    new,
                    self.cost.saved(name, units, self.widths),
                    self.error(name, new) - self.error(name, width),
                )


def _ladder(choices: Array, width: int) -> Iterator[int]:
    """Distances to the next choice and to those 2, 4, 8 ... further on; ``choices`` lead away from ``width``."""
    beyond = np.abs(choices - width)[np.flatnonzero(choices == width)[0] + 1 :]
    index = 1
    while index <= len(beyond):
        yield int(beyond[index - 1])
        index *= 2
