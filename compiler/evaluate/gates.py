"""Conditions on a run's result. A gate that fails is exit code 1; the artifacts are there, the report says why."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from edgec.compiler.check.finding import Finding
from edgec.compiler.emit.artifacts import Emission, Emitted
from edgec.compiler.evaluate.evaluate import Evaluation
from edgec.compiler.latency.timings import Timings
from edgec.compiler.pipeline.run import Step
from edgec.compiler.plan.plan import Plan
from edgec.compiler.read.recipe import Recipe
from edgec.graph.cost import cost
from edgec.passes.budget import budgets_in, parse_budget

SLACK = 0.005
"""Half a percent: budgets are met in whole channels."""
MEASURED_SLACK = 0.03
"""Of a latency limit: as far as two measurements of one file may lie apart on a quiet machine (docs/measuring.md)."""


@dataclass(frozen=True)
class GateResult:
    """One condition: what was asked, what came out."""

    name: str
    passed: bool
    value: float | str
    limit: float | str
    why: str = ""


@dataclass(frozen=True)
class _Drop:
    """How far one file is below the source: as a share where there is one; ``why``: of what."""

    value: float | str
    why: str

    @property
    def rank(self) -> float:
        """What could not be measured is worst of all."""
        return float("inf") if isinstance(self.value, str) or math.isnan(self.value) else self.value


def drop_gate(recipe: Recipe, files: Sequence[Emitted], evaluation: Evaluation) -> GateResult | None:
    """``--max-drop``: of the caller's metric, else of the task's own figure, on the files of the last precision.

    Each file is judged in the engine that runs it, and the worst of them decides.
    """
    limit = recipe.gates.max_drop
    if limit is None:
        return None
    last = files[-1].precision
    drops = [_drop(one, evaluation) for one in files if one.precision == last]
    worst = max(drops, key=lambda one: one.rank)
    return GateResult("max-drop", worst.rank <= limit + 1e-9, worst.value, limit, worst.why)


def _drop(one: Emitted, evaluation: Evaluation) -> _Drop:
    if evaluation.metrics:
        metric = evaluation.metrics[0]
        return _below(
            metric.name, metric.teacher, metric.values.get(one.name), metric.lower_is_better, one.name
        )
    quality = evaluation.of(one)
    if quality is None:
        why = "; ".join(evaluation.remarks) or "there is no data to judge on; add --eval or --data"
        return _Drop("not measured", f"{one.name}: {why}")
    measures = quality.get("measures", ())
    if not measures:
        why = (
            "the outputs are no answers that are known; say what they are with --task, or judge with --metric"
        )
        return _Drop("no measure", f"{one.name}: {why}")
    first = measures[0]
    if first["against"] == "labels":
        found = evaluation.by_stage["teacher"].get("measures", ())
        teacher = next((old["value"] for old in found if old["name"] == first["name"]), None)
        return _below(first["name"], teacher, first["value"], first["lower_is_better"], one.name)
    if first["best"] is None:
        why = f"{first['name']} is in {first['unit']}, which is no share; give labels, or judge with --metric"
        return _Drop("no share", f"{one.name}: {why}")
    counted = f": {first['lost']} of {first['count']} {first['of']} lost" if first["lost"] is not None else ""
    return _Drop(abs(first["best"] - first["value"]), f"{first['name']}, {one.name}{counted}")


def _below(name: str, source: float | None, ours: float | None, lower_is_better: bool, file: str) -> _Drop:
    """The loss of a metric: itself where it lies between 0 and 1, else as a share of the source's value."""
    if source is None or ours is None:
        return _Drop("not measured", f"{name} of {file}")
    gap = float(ours - source) if lower_is_better else float(source - ours)
    text = f"{name} of {file} {ours:.4g}, of the source {source:.4g}"
    if 0 <= source <= 1 and 0 <= ours <= 1:
        return _Drop(gap, text)
    return _Drop(
        gap / abs(source) if source else float("inf") if gap > 0 else 0.0, f"{text}; as a share of it"
    )


def budget_gate(
    recipe: Recipe, source: ir.Model, models: Mapping[str, ir.Model], steps: Sequence[Step], timings: Timings
) -> GateResult | None:
    """``--budget``, relative to the source or absolute, against what the passes reached."""
    if recipe.budget is None:
        return None
    budget = parse_budget(recipe.budget)
    reached = {
        "macs": lambda model: cost(model).macs,
        "params": lambda model: cost(model).params,
        "size": lambda model: cost(model).weight_bytes,
    }
    if budget.unit == "latency":
        old, new = timings.source_ms, timings.headline_ms
        if old is None or new is None:
            return GateResult(
                f"budget {recipe.budget}", False, "unknown", recipe.budget, "no latency is known"
            )
    else:
        # A size budget is about the file that is shipped, so it counts the last precision's weights.
        last = list(models.values())[-1] if budget.unit == "size" else models["fp32"]
        old, new = reached[budget.unit](source), reached[budget.unit](last)
    limit = budget.limit(old)
    slack = MEASURED_SLACK * limit if timings.measured and budget.unit == "latency" else SLACK * old
    passed = new <= limit + slack
    if budget.unit == "latency" and timings.measured and _planned(steps):
        why = "the estimate that the widths were chosen by was too low; ask for a little less, or measure on a quieter machine"
        return GateResult(f"budget {recipe.budget}", passed, float(new), float(limit), "" if passed else why)
    why = "" if passed else ("; ".join(_shortfalls(steps)) or "the passes could not go lower")
    return GateResult(f"budget {recipe.budget}", passed, float(new), float(limit), why)


def _shortfalls(steps: Sequence[Step]) -> list[str]:
    """What the passes that had a budget warn of: what others warn of is no reason for missing it."""
    budgeted = [step for step in steps if any(budgets_in(step.one).values())]
    return [note.text for step in budgeted for note in step.notes if note.level == "warning"]


def _planned(steps: Sequence[Step]) -> bool:
    """Whether a pass met the latency budget by its own estimate."""
    found = [step.data.get("budget") for step in steps]
    return any(one["unit"] == "latency" and one["met"] for one in found if isinstance(one, dict))


def file_gates(findings: Mapping[str, Sequence[Finding]]) -> tuple[GateResult, ...]:
    """One for every file that the target's runtime would refuse."""
    failed = {
        name: [one for one in found if one.level == "error"]
        for name, found in findings.items()
        if any(one.level == "error" for one in found)
    }
    return tuple(
        GateResult(f"{name} for the target", False, f"{len(errors)} errors", "none", str(errors[0]))
        for name, errors in failed.items()
    )


def check_gates(
    plan: Plan, steps: Sequence[Step], emission: Emission, evaluation: Evaluation, timings: Timings
) -> tuple[GateResult, ...]:
    """Every gate of the plan."""
    budget = budget_gate(plan.recipe, plan.model, emission.models, steps, timings)
    gates = (budget, drop_gate(plan.recipe, emission.files, evaluation))
    return tuple(gate for gate in gates if gate is not None)
