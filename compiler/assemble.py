"""From a run's facts to the object of report.json."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgec.compiler.check.finding import Finding
from edgec.compiler.emit.artifacts import Emission, Emitted
from edgec.compiler.evaluate.along import quality_along
from edgec.compiler.evaluate.evaluate import STAGES, Evaluation
from edgec.compiler.evaluate.gates import GateResult, check_gates, file_gates
from edgec.compiler.evaluate.layer_table import LayerRow, layer_table
from edgec.compiler.evaluate.plausibility import Doubt
from edgec.compiler.face.given import unused_inputs
from edgec.compiler.latency.timings import Timings
from edgec.compiler.pipeline.resources import peak_rss_mb
from edgec.compiler.pipeline.run import Step
from edgec.compiler.pipeline.workspace import Workspace
from edgec.compiler.plan.names import NAMES, own_format
from edgec.compiler.plan.plan import Plan
from edgec.compiler.plan.versions import versions
from edgec.compiler.read.recipe import PassSpec, Recipe, relative_to
from edgec.compiler.search.portfolio import Portfolio
from edgec.compiler.search.resolution import Compared
from edgec.graph.cost import cost
from edgec.graph.data import InputSpec
from edgec.graph.read.metadata import notes_of
from edgec.graph.resolution.resize import size_of
from edgec.graph.values import share
from edgec.graph.version import __version__
from edgec.passes.defaults import REFINE, WORTH_LEARNING
from edgec.passes.learned.extra import has_torch

if TYPE_CHECKING:
    import onnx_ir as ir

    from edgec.runtime.report.schema import Report


@dataclass(frozen=True)
class RunFacts:
    """All that a finished run knows."""

    plan: Plan
    steps: tuple[Step, ...]
    emission: Emission
    evaluation: Evaluation
    timings: Timings
    doubts: tuple[Doubt, ...] = ()
    """About the inputs, from before the work."""
    compared: Compared | None = None
    """Sizes of the input, where they were compared."""
    forms: Portfolio | None = None
    """Forms of compression, where they were compared."""
    findings: Mapping[str, tuple[Finding, ...]] = field(default_factory=dict)
    """What the target's runtime would say to each artifact."""

    def layers(self) -> tuple[LayerRow, ...]:
        """What each layer cost and costs, and how far it moved, on the data that judges."""
        plan = self.plan
        data = plan.judging_data()
        return layer_table(
            plan.model, self.emission.models, data, self.timings.per_node_ms, plan.recipe.threads
        )

    def gates(self) -> tuple[GateResult, ...]:
        """What became of the plan's gates."""
        gates = check_gates(self.plan, self.steps, self.emission, self.evaluation, self.timings)
        return (*gates, *file_gates(self.findings))


def report(facts: RunFacts, space: Workspace, start: float) -> Report:
    """Write recipe and report, and put everything in place; the run began at ``start`` (`time.perf_counter`)."""
    from edgec.runtime.report import write

    recipe = relative_to(_settled(facts), space.folder.path, space.folder.part)
    made = assemble(facts, recipe, space, start)
    space.folder.write("recipe.yaml", recipe.to_yaml())
    write(space.folder.part, made)
    space.folder.publish(stale=(*NAMES.values(), *unused_inputs(recipe)))
    return made


def _settled(facts: RunFacts) -> Recipe:
    """The recipe that repeats the run: with what passes decided by the clock."""
    recipe = facts.plan.recipe
    specs = tuple(
        one.model_copy(update={"options": {**one.options, **step.data["settled"]}})
        if isinstance(one, PassSpec) and "settled" in step.data
        else one
        for one, step in zip(recipe.passes or (), facts.steps, strict=True)
    )
    return recipe.model_copy(update={"passes": specs})


def assemble(facts: RunFacts, recipe: Recipe, space: Workspace, start: float) -> Report:
    """The report; ``recipe`` is the run's with paths as seen from its folder.

    Nothing is computed here but costs, layers and gates; missing parts stay missing.
    """
    from edgec.runtime.report.schema import Report

    plan = facts.plan
    folder = shlex.quote(space.folder.path.resolve().name)
    before, after = cost(plan.model), cost(facts.emission.models["fp32"])
    values: dict[str, Any] = {
        "edgec": __version__,
        "model": {
            "name": plan.recipe.model.origin or Path(plan.recipe.model.path).name,
            "sha256": plan.sha256,
            "macs": before.macs,
            "params": before.params,
            "bytes": plan.source_bytes,
            "latency": facts.timings.source,
            "task": facts.plan.told.task if facts.plan.task is None else facts.plan.task.name,
            "labels": facts.plan.told.labels,
            "inputs": _inputs(plan.model),
        },
        "target": plan.target.name,
        "target_title": plan.target.title,
        "compressed": {"macs": after.macs, "params": after.params},
        "quality": dict(facts.evaluation.by_stage),
        "metrics": [asdict(one) for one in facts.evaluation.metrics],
        "artifacts": [_artifact(facts, one) for one in facts.emission.files],
        "passes": _passes(facts),
        "gates": [asdict(gate) for gate in facts.gates()],
        "latency": facts.timings.section,
        "layers": [_layer(row, facts.timings) for row in facts.layers()],
        "tradeoff": _tradeoff(facts),
        "resolution": _resolution(facts),
        "portfolio": None if facts.forms is None else asdict(facts.forms),
        "recipe": json.loads(recipe.model_dump_json(exclude_none=True)),
        "command": f"edgec compile --recipe {folder}/recipe.yaml -o {folder}-again",
        "environment": environment(),
        "data": _data(plan),
        "doubts": [str(one) for one in facts.doubts],
        "warnings": _warnings(facts, space.doubts()),
        "seconds": time.perf_counter() - start,
        "peak_rss_mb": max([peak_rss_mb(), *(step.peak_rss_mb for step in facts.steps)]),
    }
    report = Report.model_validate(values)
    headline = _headline(facts, report)
    named = {"headline": headline, **_samples(facts, headline)}
    return Report.model_validate({**report.model_dump(by_alias=True), **named})


def _samples(facts: RunFacts, headline: str | None) -> dict[str, Any]:
    """The strip and the table of classes: of the ONNX file of the precision that was looked at, whose graph gave the answers; of
    a run without one, of the headline's artifact."""
    samples = facts.evaluation.samples
    if samples is None:
        return {}
    fitting = [one for one in facts.emission.files if STAGES[one.precision] == samples.stage]
    first = min(fitting, key=lambda one: (one.format != "onnx", one.name != headline), default=None)
    name = None if first is None else first.name
    parts = {"strip": samples.strip, "classes": samples.classes}
    return {key: {**part, "artifact": name} for key, part in parts.items() if part is not None and name}


def _inputs(model: ir.Model) -> list[dict[str, Any]]:
    return [
        {"name": one.name, "shape": one.shape, "dtype": str(one.dtype), "channels_last": one.channels_last}
        for one in InputSpec.of(model)
    ]


def _resolution(facts: RunFacts) -> dict[str, Any] | None:
    """Where the artifacts' input has another size than the source's, or others were compared."""
    source, made = facts.plan.model, facts.emission.models["fp32"]
    if facts.compared is None and InputSpec.of(source) == InputSpec.of(made):
        return None
    found = {"source": size_of(source), "size": size_of(made), "inputs": _inputs(made)}
    if facts.compared is None:
        return found
    return {
        **found,
        "measure": facts.compared.measure,
        "points": [asdict(one) for one in facts.compared.points],
    }


def _headline(facts: RunFacts, report: Report) -> str | None:
    """The artifact that a latency budget is for, else the fastest of the smallest precision, else the target's own format."""
    from edgec.runtime.report.facts import fastest

    if facts.plan.has_latency_budget:
        return facts.timings.headline
    best = fastest(report.artifacts, own_format(facts.plan.target))
    return None if best is None else best.path


def _artifact(facts: RunFacts, one: Emitted) -> dict[str, Any]:
    quality = facts.evaluation.of(one)
    return {
        "path": one.name,
        "format": one.format,
        "precision": one.precision,
        "bytes": one.bytes,
        "sha256": one.sha256,
        "quality": quality,
        "latency": facts.timings.artifacts.get(one.name),
    }


def _passes(facts: RunFacts) -> list[dict[str, Any]]:
    quality = quality_along(facts.plan, facts.steps)
    return [{**_pass(step), "quality": quality.get(index)} for index, step in enumerate(facts.steps)]


def _pass(step: Step) -> dict[str, Any]:
    figures = step.figures()
    (macs_before, macs_after), (params_before, params_after) = figures.pop("macs"), figures.pop("params")
    figures.pop("modified")
    return {
        **figures,
        "reverted": step.reverted,
        "cached": step.cached,
        "before": {"macs": macs_before, "params": params_before},
        "after": {"macs": macs_after, "params": params_after},
    }


def _layer(row: LayerRow, timings: Timings) -> dict[str, Any]:
    total = sum(timings.per_node_ms.values())
    share = row.latency_ms / total if row.latency_ms is not None and total else None
    return {
        "name": row.name,
        "op": row.op,
        "macs_before": row.before.macs if row.before else 0,
        "macs_after": row.after.macs if row.after else 0,
        "params_before": row.before.params if row.before else 0,
        "params_after": row.after.params if row.after else 0,
        "bytes_before": row.before.weight_bytes if row.before else 0,
        "bytes_after": row.after.weight_bytes if row.after else 0,
        "latency_ms": row.latency_ms,
        "latency_share": share,
        "sqnr_db": row.sqnr_db,
        "error": row.error,
        "made_by": row.made_by,
        "source": row.source,
    }


def _tradeoff(facts: RunFacts) -> dict[str, Any] | None:
    """The curve of the first pass that searched under a MACs budget: (share of the source's MACs, predicted error)."""
    macs = cost(facts.plan.model).macs
    for step in facts.steps:
        if "tradeoff" not in step.data or step.data["budget"]["unit"] != "macs":
            continue
        points = [
            {"macs": round(share * macs), "predicted_error": error} for share, error in step.data["tradeoff"]
        ]
        here = {"macs": step.macs[1], "predicted_error": step.data["predicted_error"]}
        return {"points": points, "this": here, "budget": facts.plan.recipe.budget or ""}
    return None


def _data(plan: Plan) -> dict[str, Any] | None:
    if plan.data is None and plan.evaluation is None:
        return None
    data, evaluation = plan.data, plan.evaluation
    return {
        "name": data.name if data is not None else "none",
        "samples": len(data) if data is not None else 0,
        "fingerprint": data.fingerprint if data is not None else "",
        "random": data is not None and data.is_random,
        "eval_name": evaluation.name if evaluation is not None else None,
        "eval_samples": len(evaluation) if evaluation is not None else None,
        "eval_fingerprint": evaluation.fingerprint if evaluation is not None else None,
    }


def _warnings(facts: RunFacts, doubts: Sequence[str]) -> list[str]:
    found = [
        f"{step.one.name}: {note.text}"
        for step in facts.steps
        for note in step.notes
        if note.level == "warning"
    ]
    data = facts.plan.data
    if data is not None:
        found.extend(f"skipped {name}" for name in data.skipped)
    if facts.plan.evaluation is None and data is not None and not facts.plan.keeps_apart:
        few = f"{len(data)} input{'s are' if len(data) != 1 else ' is'} too few to keep some apart"
        found.append(f"{few}: judged on those that the passes were fitted to; give more, or --eval")
    support = facts.plan.target.precisions.of(facts.plan.recipe.precision)
    if facts.plan.recipe.precision != "fp32" and not support.pays:
        found.append(f"{facts.plan.recipe.precision} on {facts.plan.target.title}: {support.why}")
    found += [line] if (line := _learning_hint(facts)) else []
    return [
        *facts.plan.remarks,
        *notes_of(facts.plan.model),
        *found,
        *facts.emission.remarks,
        *doubts,
        *(f"{name}: {one}" for name, found in facts.findings.items() for one in _told(found)),
        *facts.evaluation.remarks,
        *facts.timings.warnings,
    ]


def _learning_hint(facts: RunFacts) -> str:
    """Where the closed forms lost much and nothing was learned: the option that may win it back."""
    agreement = facts.evaluation.by_stage.get(STAGES["fp32"], {}).get("agreement")
    recovered = any(step.one.recovers and step.modified for step in facts.steps)
    if agreement is None or not recovered or facts.plan.recipe.learn != "off":
        return ""
    if any(step.one.name == REFINE for step in facts.steps) or 1 - agreement <= share(WORTH_LEARNING):
        return ""
    need = "" if has_torch() else " (pip install 'edgec[torch]' first)"
    # What is learned is learned in float: beside an int8 network's own figures this one needs its name.
    where = "" if facts.plan.recipe.precision == "fp32" else "in float "
    return f"{where}{1 - agreement:.1%} of the answers changed: --learn on --time 5m may win some back{need}"


def _told(found: Sequence[Finding]) -> list[str]:
    """The warnings among them, a rule's first with the number of the others. Errors are a gate's, notes are for `inspect`."""
    told = []
    for rule in dict.fromkeys(one.rule for one in found if one.level == "warning"):
        same = [one for one in found if one.rule == rule]
        more = f" (and {len(same) - 1} more)" if len(same) > 1 else ""
        told.append(f"{same[0]}{more}")
    return told


def environment() -> dict[str, Any]:
    """Where the run took place."""
    from edgec.runtime.host import describe_host

    return {**versions(), **describe_host()}
