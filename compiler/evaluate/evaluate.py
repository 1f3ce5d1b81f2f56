"""How good the run's artifacts are: graphs run in onnxruntime, TFLite files in their own runtime."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from edgec.compiler.emit.artifacts import Emission, Emitted, split_remarks
from edgec.compiler.evaluate.quality import judge
from edgec.compiler.evaluate.tflite_quality import judge_tflite
from edgec.compiler.face.metric import Judged, Metric
from edgec.compiler.plan.plan import Plan
from edgec.graph.data import Dataset
from edgec.graph.errors import DeviceError
from edgec.passes.base import Progress

STAGES = {"fp32": "float", "fp16": "fp16", "int8": "int8"}


@dataclass(frozen=True)
class Evaluation:
    """Quality objects of report.json; ``remarks`` say what could not be judged here."""

    by_stage: Mapping[str, Mapping[str, Any]]
    """Of the teacher, the float network, and the last precision."""
    by_artifact: Mapping[str, Mapping[str, Any]]
    """Of the artifacts that are judged by running the file itself."""
    remarks: tuple[str, ...] = ()
    metrics: tuple[Judged, ...] = ()
    """The caller's own, of every file."""

    def of(self, one: Emitted) -> Mapping[str, Any] | None:
        """The artifact's own figures; those of its graph for ONNX, which the same engine runs."""
        by_graph = self.by_stage.get(STAGES[one.precision]) if one.format == "onnx" else None
        return self.by_artifact.get(one.name, by_graph)


def judge_teacher(plan: Plan, targets: Any, metric: Metric | None) -> None:
    """The caller's metric on the source model, before any work; ``targets``: what came beside the evaluation data."""
    if metric is not None:
        metric.on_teacher(plan.model, plan.judging_data(), targets, plan.label_offset, plan.recipe.threads)


def evaluate(plan: Plan, emission: Emission, metric: Metric | None, progress: Progress) -> Evaluation:
    """Judge on evaluation data, else on held-out calibration data, else not at all."""
    with progress.counting("judging"):
        found = _figures(plan, emission)
        if metric is None:
            return found
        known = {one.name: found.of(one) or {} for one in emission.files} | {
            "": found.by_stage.get("teacher", {})
        }
        files = [(one.name, one.path) for one in emission.files]
        metrics, more = metric.on_files(files, known.__getitem__, emission.models["fp32"])
        return replace(found, metrics=metrics, remarks=(*found.remarks, *more))


def _figures(plan: Plan, emission: Emission) -> Evaluation:
    data = plan.judging_data()
    cut = split_remarks(emission.models, plan.recipe)
    if data is None:
        return Evaluation({}, {}, cut)
    by_stage = _stages(plan, emission, data)
    if cut or not any(one.format == "tflite" for one in emission.files):
        return Evaluation(by_stage, {}, cut)
    try:
        return Evaluation(by_stage, _files(plan, emission, data))
    except DeviceError as error:
        return Evaluation(by_stage, {}, (f"TFLite files were not judged: {error}",))


def _stages(plan: Plan, emission: Emission, data: Dataset) -> dict[str, dict[str, Any]]:
    named = {
        "float" if precision == "fp32" else precision: model for precision, model in emission.models.items()
    }
    return judge(plan.model, named, data, threads=plan.recipe.threads, label_offset=plan.label_offset)


def _files(plan: Plan, emission: Emission, data: Dataset) -> dict[str, dict[str, Any]]:
    return judge_tflite(
        plan.model,
        emission.files,
        data,
        like=emission.models["fp32"],
        label_offset=plan.label_offset,
        threads=plan.recipe.threads,
    )
