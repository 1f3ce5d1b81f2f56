"""Conditions on a run's result. A gate that fails is exit code 1; the artifacts are there, the report says why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir

from edgec.compiler.check.finding import Finding
from edgec.compiler.emit.artifacts import Emission
from edgec.compiler.evaluate.evaluate import Evaluation
from edgec.compiler.latency.timings import Timings
from edgec.compiler.pipeline.run import Step
from edgec.compiler.plan.plan import Plan
from edgec.compiler.plan.recipe import Recipe
from edgec.graph.cost import cost
from edgec.passes.budget import parse_budget

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


def drop_gate(recipe: Recipe, quality: Mapping[str, Mapping[str, Any]]) -> GateResult | None:
    """``--max-drop``: of top-1 where there are labels, else the share of the teacher's boxes or answers that are lost."""
    limit = recipe.gates.max_drop
    if limit is None:
        return None
    last = list(quality)[-1] if quality else None
    if last is None:
        return GateResult(
            "max-drop", False, "not measured", limit, "there is no data to judge on; add --eval or --data"
        )
    teacher, student = quality["teacher"], quality[last]
    if "top1" in student:
        drop = float(teacher["top1"] - student["top1"])
        return GateResult(
            "max-drop", drop <= limit + 1e-9, drop, limit, f"top-1 of {last} against the teacher"
        )
    found = student.get("detection")
    if found and found["boxes"]:
        drop = found["lost"] / found["boxes"]
        why = f"{found['lost']} of the teacher's {found['boxes']} boxes are lost in {last}"
        return GateResult("max-drop", drop <= limit + 1e-9, drop, limit, why)
    if "agreement" in student:
        drop = 1.0 - float(student["agreement"])
        return GateResult(
            "max-drop", drop <= limit + 1e-9, drop, limit, f"{last} answers otherwise than the teacher"
        )
    return GateResult(
        "max-drop", False, "no classes", limit, "the outputs are no class scores; top-1 has no meaning"
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
    reasons = [note.text for step in steps for note in step.notes if note.level == "warning"]
    why = "" if passed else ("; ".join(reasons) or "the passes could not go lower")
    return GateResult(f"budget {recipe.budget}", passed, float(new), float(limit), why)


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
    gates = (budget, drop_gate(plan.recipe, evaluation.by_stage))
    return tuple(gate for gate in gates if gate is not None)
