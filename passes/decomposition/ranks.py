"""Which layers are cut, and where: the least total damage whose saving meets a budget.

1. A cut is looked at only where its pieces cost less than the layer (the break-even rank), and, where the run knows what its
   target's milliseconds are, only where they are faster too.
2. Errors are those of the layer's output relative to its energy, scaled by what they do to the network's output
   (`pruning.damage`): measured, on samples that no statistics saw.
3. Per layer only the lower convex hull of (damage, saving) counts; over all layers the flattest segments go first. That is the
   least total damage for every budget that a corner meets; the last step goes no further than it must.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

from edgec.passes.channel_pruning.statistics import ConsumerStatistics, restore
from edgec.passes.decomposition.cuts import Cut, Form, cuts_of
from edgec.passes.decomposition.pieces import Geometry, Piece, costs
from edgec.passes.pricing import Price
from edgec.passes.sensitivity.measure import Sensitivity, Subject, Trial, scaled_errors
from edgec.passes.solvers.factorise import Response
from edgec.passes.solvers.guard import amplitude
from edgec.targets.estimator import LatencyTable

Array = np.ndarray[Any, np.dtype[Any]]

TRIALS = (0.25, 0.5, 0.75)
"""Shares of a layer's largest saving near which its damage is measured."""


@dataclass(frozen=True)
class Way:
    """A cut, what it saves in the budget's unit, and its damage at the network's output."""

    cut: Cut
    saved: float
    damage: float


@dataclass(frozen=True)
class Candidate:
    """A layer with all ways to cut it that pay, by ascending damage."""

    statistics: ConsumerStatistics
    response: Response
    geometry: Geometry
    ways: tuple[Way, ...]
    slower: tuple[float, float] | None = None
    """Milliseconds (in pieces, in one) of what would have paid in the budget's unit, but not in time."""

    @property
    def name(self) -> str:
        return self.statistics.layer.name

    @property
    def label(self) -> str:
        """Its name where channel groups have theirs too."""
        return f"{self.name} in pieces"

    def hull(self) -> list[Way | None]:
        """Corners of the lower convex hull, the whole layer (None) first."""
        points: list[Way | None] = [None]
        for way in sorted(self.ways, key=lambda one: (one.saved, -one.damage)):
            while len(points) > 1 and _slope(points[-2], points[-1]) >= _slope(points[-2], way):
                points.pop()
            if points[-1] is None or way.saved > points[-1].saved:
                points.append(way)
        return points

    def subjects(self) -> list[Subject]:
        """A few cuts of each form that might be taken, to measure their damage: equal errors of two forms do unequal harm."""
        front = self.front()
        most = max((way.saved for way in front), default=0.0)
        found = []
        for name in dict.fromkeys(way.cut.form.name for way in front):
            ways = [way for way in self.ways if way.cut.form.name == name]
            near = {min(ways, key=lambda way: abs(way.saved - share * most)).cut.rank for share in TRIALS}
            trials = tuple(
                Trial(self.relative(way.cut), partial(self._apply, way.cut))
                for way in ways
                if way.cut.rank in near
            )
            found.append(Subject(self._of_form(name), self.name, trials, partial(restore, [self.statistics])))
        return found

    def judged(self, damage: Mapping[str, Sequence[Sensitivity]]) -> Candidate:
        """With every way's damage read off what was measured for some of its form, or else of any."""
        measured = {
            name: damage.get(self._of_form(name), ())
            for name in dict.fromkeys(way.cut.form.name for way in self.ways)
        }
        anything = [one for points in measured.values() for one in points]
        ways: list[Way] = []
        for name, points in measured.items():
            own = sorted((w for w in self.ways if w.cut.form.name == name), key=lambda way: way.cut.error)
            found = scaled_errors(np.array([self.relative(way.cut) for way in own]), points or anything)
            ways += [replace(way, damage=float(d)) for way, d in zip(own, found, strict=True)]
        return replace(self, ways=tuple(ways))

    def _of_form(self, name: str) -> str:
        return f"{self.label}: {name}"

    def front(self) -> list[Way]:
        """The ways that none of those which save more beats, by rising saving."""
        found: list[Way] = []
        for way in sorted(self.ways, key=lambda way: (-way.saved, way.damage)):
            if not found or way.damage < found[-1].damage:
                found.append(way)
        return found[::-1]

    def relative(self, cut: Cut) -> float:
        """The cut's error over the energy of what the layer's output becomes."""
        return _relative(cut, self.statistics)

    def _apply(self, cut: Cut) -> None:
        _, body = cut.factors()
        self.statistics.set_columns(np.concatenate([body, self.response.bias_for(body)[None]]))


def candidate(
    statistics: ConsumerStatistics,
    geometry: Geometry,
    forms: Sequence[Form],
    price: Price,
    table: LatencyTable | None,
    *,
    whitened: bool,
    multiple: int,
) -> Candidate:
    """All ways to cut one layer in ``forms``. ``table``: milliseconds that the pieces must save too."""
    layer = statistics.layer
    response = Response.of(statistics.h, statistics.columns, whitened=whitened)
    axes = tuple(range(len(geometry.kernel)))
    whole = costs(layer.name, geometry, (Piece(axes, layer.patches.channels, layer.view.out_channels),))
    slower: list[tuple[float, float]] = []

    def pays(pieces: tuple[Piece, ...]) -> bool:
        found = costs(layer.name, geometry, pieces)
        if price(found) >= price(whole):
            return False
        times = None if table is None else table.compare(whole, found)
        if times is not None and not times.pays:
            slower.append((times.pieces_ms, times.whole_ms))
        return times is None or times.pays

    ways = []
    for form in forms:
        if form.why_not(layer) is not None:
            continue
        for cut in cuts_of(layer, response, form, multiple, pays):
            saved = price(whole) - price(costs(layer.name, geometry, cut.pieces))
            ways.append(Way(cut, saved, _relative(cut, statistics)))
    return Candidate(statistics, response, geometry, tuple(ways), min(slower, default=None))


def _relative(cut: Cut, statistics: ConsumerStatistics) -> float:
    """The cut's error over the energy of the output; 0 for what the rounding of the pieces' weights alone would make."""
    found = cut.error / statistics.energy if statistics.energy else 0.0
    return found if found > amplitude(len(statistics.h)) ** 2 else 0.0


def choose(candidates: Sequence[Candidate], wanted: float) -> dict[str, Way]:
    """A way for every layer that is cut, saving ``wanted`` together, or all that can be."""
    steps = []
    for one in candidates:
        steps += [(_slope(a, b), one, a, b) for a, b in pairwise(one.hull()) if b is not None]
    chosen: dict[str, Way] = {}
    for _, one, a, b in sorted(steps, key=lambda step: step[0]):
        if wanted <= 0:
            break
        before = 0.0 if a is None else a.saved
        enough = [way for way in one.ways if way.saved - before >= wanted and way.saved <= b.saved]
        way = min(enough, key=lambda found: found.damage, default=b)
        chosen[one.name] = way
        wanted -= way.saved - before
    return chosen


def damages(chosen: Mapping[str, Way]) -> float:
    """What all of them do to the output together, as modelled."""
    return sum(way.damage for way in chosen.values())


def _slope(a: Way | None, b: Way | None) -> float:
    """Damage per saving from one corner to the next; None is the whole layer."""
    saved = (b.saved if b is not None else 0.0) - (a.saved if a is not None else 0.0)
    damage = (b.damage if b is not None else 0.0) - (a.damage if a is not None else 0.0)
    return damage / saved if saved > 0 else np.inf
