"""Mixed precision: which layers hurt when quantised, and the fewest to leave in float for a goal."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

import onnx_ir as ir

from edgec.graph.data import Dataset
from edgec.graph.views import is_constant
from edgec.passes.base import Context, Note
from edgec.passes.incremental.executor import IncrementalExecutor
from edgec.passes.quantize.compose import Outcome, Prepared, Settings, assemble, build
from edgec.passes.quantize.plan import make_plan
from edgec.passes.quantize.planned import Plan
from edgec.passes.quantize.rules import data_inputs
from edgec.passes.quantize.score import Reference, Score

PROBE_SAMPLES = 32
GOAL_SAMPLES = 512


@dataclass(frozen=True)
class MixedGoal:
    """What the quantised network must reach on calibration data; None: not asked for."""

    min_sqnr: float | None = None
    max_drop: float | None = None

    def met(self, found: Score) -> bool:
        """True when ``found`` satisfies what was asked for."""
        loud = self.min_sqnr is None or found.sqnr_db >= self.min_sqnr
        return loud and (self.max_drop is None or found.drop <= self.max_drop)

    def __str__(self) -> str:
        parts = [] if self.min_sqnr is None else [f"SQNR at least {self.min_sqnr:g} dB"]
        parts += [] if self.max_drop is None else [f"drop at most {self.max_drop:g}%"]
        return " and ".join(parts)


@dataclass(frozen=True)
class Sensitivity:
    """Output SQNR with nothing but this unit (a layer and what follows it up to the next layer) quantised."""

    unit: str
    nodes: tuple[str, ...]
    sqnr_db: float


def units(model: ir.Model, plan: Plan) -> dict[str, tuple[str, ...]]:
    """The quantised nodes by layer: each anchor with the cheap nodes behind it, named after the anchor."""
    owner: dict[str, str] = {}
    found: dict[str, list[str]] = {}
    for node in model.graph:
        rule = plan.nodes.get(node.name or "")
        if rule is None:
            continue
        name = node.name or ""
        sources = [node.inputs[i] for i in data_inputs(node, rule) if not is_constant(node.inputs[i])]
        producers = [value.producer() for value in sources if value is not None]
        before = [owner[p.name] for p in producers if p is not None and p.name in owner]
        owner[name] = name if rule.anchor or not before else before[-1]
        found.setdefault(owner[name], []).append(name)
    return {unit: tuple(names) for unit, names in found.items()}


@dataclass(frozen=True)
class Bench:
    """The float network with one unit after the other quantised, on a few samples.

    In front of the unit all is float: that much is run once for all units, and for each only what lies behind.
    """

    prepared: Prepared
    reference: Reference
    walk: IncrementalExecutor
    groups: Mapping[str, tuple[str, ...]]
    """The units, in the order of the graph."""

    @staticmethod
    @contextmanager
    def on(
        teacher: ir.Model, prepared: Prepared, probe: Dataset, settings: Settings, context: Context
    ) -> Iterator[Bench]:
        """For all units that ``settings`` quantise."""
        found = units(
            prepared.original, make_plan(prepared.original, settings.form.dialect, settings.excluded)
        )
        position = _positions(prepared.original)
        ordered = dict(sorted(found.items(), key=lambda one: min(position[name] for name in one[1])))
        with Reference(teacher, probe, context) as reference, reference.beside(prepared.original) as walk:
            yield Bench(prepared, reference, walk, ordered)

    def stand(self, unit: str) -> None:
        """Go to ``unit``; never back."""
        position = _positions(self.prepared.original)
        self.walk.go(min(position[name] for name in self.groups[unit]))

    def alone(self, unit: str, settings: Settings) -> Sensitivity:
        """With nothing but ``unit`` quantised, in front of which it stands."""
        nodes = self.groups[unit]
        quantised = set(nodes)
        model, _, _ = assemble(self.prepared, settings, lambda name: name not in quantised)
        return Sensitivity(unit, nodes, self.reference.score_from(self.walk, model).sqnr_db)


def _positions(model: ir.Model) -> dict[str, int]:
    return {node.name or "": number for number, node in enumerate(model.graph)}


def sensitivities(
    teacher: ir.Model,
    prepared: Prepared,
    data: Dataset,
    settings: Settings,
    context: Context,
    samples: int = PROBE_SAMPLES,
) -> tuple[Sensitivity, ...]:
    """Every unit's sensitivity, the worst first, on so many samples."""
    found = []
    with Bench.on(teacher, prepared, data.take(samples, context.seed), settings, context) as bench:
        for unit in context.progress.over("sensitivity", bench.groups, len(bench.groups)):
            bench.stand(unit)
            found.append(bench.alone(unit, settings))
    return tuple(sorted(found, key=lambda one: one.sqnr_db))


def search(
    reference: Reference,
    teacher: ir.Model,
    prepared: Prepared,
    data: Dataset,
    settings: Settings,
    goal: MixedGoal,
    context: Context,
) -> tuple[Outcome, bool, tuple[Sensitivity, ...]]:
    """The outcome with the fewest units in float that meets ``goal``, whether it does, and the sensitivities."""
    with Reference(teacher, data.take(GOAL_SAMPLES, context.seed), context) as judged:

        def attempt(excluded: Callable[[str], bool]) -> tuple[Outcome, bool]:
            outcome = build(reference, prepared, data, settings, context, excluded)
            found = judged.score(outcome.model)
            return replace(outcome, score=found), goal.met(found)

        best, met = attempt(settings.excluded)
        if met:
            return best, True, ()
        ranked = sensitivities(teacher, prepared, data, settings, context)
        low, high = 0, len(ranked)
        while low + 1 < high or (not met and low < high):
            count = max((low + high) // 2, low + 1)
            outcome, good = attempt(without(settings, ranked[:count]))
            if good:
                best, met, high = outcome, True, count
            else:
                low = count
                best = best if met else outcome
            if low >= high:
                break
    kept = tuple(Note(f"left in float for {goal}: {one.unit}", "info", one.unit) for one in ranked[:high])
    return replace(best, notes=(*best.notes, *(kept if met else ()))), met, ranked


def without(settings: Settings, worst: tuple[Sensitivity, ...]) -> Callable[[str], bool]:
    """What is excluded where these units stay float too."""
    names = {name for one in worst for name in one.nodes}
    return lambda name: name in names or settings.excluded(name)


def figures(ranked: tuple[Sensitivity, ...]) -> Mapping[str, float]:
    """For the report."""
    return {one.unit: one.sqnr_db for one in ranked}
