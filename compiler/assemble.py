"""From a run's facts to the object of report.json."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

import edgec
from edgec.compiler.artifacts import Emitted
from edgec.compiler.face.metric import Judged
from edgec.compiler.gates import GateResult
from edgec.compiler.latency import Timings
from edgec.compiler.layer_table import LayerRow
from edgec.compiler.pipeline import Step
from edgec.compiler.prepare import Prepared
from edgec.compiler.prices import has_budget, own_format
from edgec.compiler.recipe import Recipe
from edgec.graph.cost import cost

if TYPE_CHECKING:
    from edgec.runtime.report.schema import Report

STAGES = {"fp32": "float", "fp16": "fp16", "int8": "int8"}


@dataclass(frozen=True)
class RunFacts:
    """All that a finished run knows."""

    ready: Prepared
    steps: tuple[Step, ...]
    models: Mapping[str, ir.Model]
    emitted: tuple[Emitted, ...]
    quality: Mapping[str, Mapping[str, Any]]
    artifact_quality: Mapping[str, Mapping[str, Any]]
    metrics: tuple[Judged, ...]
    timings: Timings
    layers: tuple[LayerRow, ...]
    remarks: tuple[str, ...]
    folder: str
    gates: tuple[GateResult, ...]
    environment: Mapping[str, Any]
    seconds: float
    peak_rss_mb: float


def assemble(facts: RunFacts, recipe: Recipe) -> Report:
    """The report; ``recipe`` is the run's with paths as seen from its folder.

    Nothing is computed here but costs; missing parts stay missing.
    """
    from edgec.runtime.report.schema import Report

    ready = facts.ready
    before, after = cost(ready.model), cost(facts.models["fp32"])
    values: dict[str, Any] = {
        "edgec": edgec.__version__,
        "model": {
            "name": ready.recipe.model.origin or Path(ready.recipe.model.path).name,
            "sha256": ready.sha256,
            "macs": before.macs,
            "params": before.params,
            "bytes": ready.source_bytes,
            "latency": facts.timings.source,
        },
        "target": ready.target.name,
        "target_title": ready.target.title,
        "compressed": {"macs": after.macs, "params": after.params},
        "quality": dict(facts.quality),
        "metrics": [asdict(one) for one in facts.metrics],
        "artifacts": [_artifact(facts, one) for one in facts.emitted],
        "passes": [_pass(step) for step in facts.steps],
        "gates": [asdict(gate) for gate in facts.gates],
        "latency": facts.timings.section,
        "layers": [_layer(row, facts.timings) for row in facts.layers],
        "tradeoff": _tradeoff(facts),
        "recipe": json.loads(recipe.model_dump_json(exclude_none=True)),
        "command": f"edgec compile --recipe {facts.folder}/recipe.yaml -o {facts.folder}-again",
        "environment": dict(facts.environment),
        "data": _data(ready),
        "warnings": _warnings(facts),
        "seconds": facts.seconds,
        "peak_rss_mb": facts.peak_rss_mb,
    }
    report = Report.model_validate(values)
    return report.model_copy(update={"headline": _headline(facts, report)})


def _headline(facts: RunFacts, report: Report) -> str | None:
    """The artifact that a latency budget is for, else the fastest of the smallest precision, else the target's own format."""
    from edgec.runtime.report.facts import fastest

    if any(has_budget(one) for one in facts.ready.passes):
        return facts.timings.headline
    best = fastest(report.artifacts, own_format(facts.ready.target))
    return None if best is None else best.path


def _artifact(facts: RunFacts, one: Emitted) -> dict[str, Any]:
    quality = quality_of(one, facts.quality, facts.artifact_quality)
    return {
        "path": one.name,
        "format": one.format,
        "precision": one.precision,
        "bytes": one.bytes,
        "sha256": one.sha256,
        "quality": quality,
        "latency": facts.timings.artifacts.get(one.name),
    }


def quality_of(
    one: Emitted, quality: Mapping[str, Mapping[str, Any]], by_artifact: Mapping[str, Mapping[str, Any]]
) -> Mapping[str, Any] | None:
    """The artifact's own figures; those of its graph for ONNX, which the same engine runs."""
    return by_artifact.get(one.name, quality.get(STAGES[one.precision]) if one.format == "onnx" else None)


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
    }


def _tradeoff(facts: RunFacts) -> dict[str, Any] | None:
    """The curve of the first pass that searched under a MACs budget: (share of the source's MACs, predicted error)."""
    macs = cost(facts.ready.model).macs
    for step in facts.steps:
        if "tradeoff" not in step.data or step.data["budget"]["unit"] != "macs":
            continue
        points = [
            {"macs": round(share * macs), "predicted_error": error} for share, error in step.data["tradeoff"]
        ]
        here = {"macs": step.macs[1], "predicted_error": step.data["predicted_error"]}
        return {"points": points, "this": here, "budget": facts.ready.recipe.budget or ""}
    return None


def _data(ready: Prepared) -> dict[str, Any] | None:
    if ready.data is None and ready.evaluation is None:
        return None
    data, evaluation = ready.data, ready.evaluation
    return {
        "name": data.name if data is not None else "none",
        "samples": len(data) if data is not None else 0,
        "fingerprint": data.fingerprint if data is not None else "",
        "random": data is not None and data.is_random,
        "eval_name": evaluation.name if evaluation is not None else None,
        "eval_samples": len(evaluation) if evaluation is not None else None,
        "eval_fingerprint": evaluation.fingerprint if evaluation is not None else None,
    }


def _warnings(facts: RunFacts) -> list[str]:
    found = [
        f"{step.one.name}: {note.text}"
        for step in facts.steps
        for note in step.notes
        if note.level == "warning"
    ]
    data = facts.ready.data
    if data is not None:
        found.extend(f"skipped {name}" for name in data.skipped)
    evaluated = facts.ready.evaluation is not None
    if not evaluated and data is not None:
        found.append("judged on calibration samples: give --eval for figures on data that no pass has seen")
    support = facts.ready.target.precisions.of(facts.ready.recipe.precision)
    if facts.ready.recipe.precision != "fp32" and not support.pays:
        found.append(f"{facts.ready.recipe.precision} on {facts.ready.target.title}: {support.why}")
    return [*found, *facts.remarks, *facts.timings.warnings]
