"""How good the run's artifacts are: graphs run in onnxruntime, TFLite files in their own runtime."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from edgec.compiler.emit.artifacts import Emission, Emitted, split_remarks
from edgec.compiler.evaluate.quality import Tally, judge
from edgec.compiler.evaluate.tflite_quality import judge_tflite
from edgec.compiler.face.metric import Judged, Metric
from edgec.compiler.plan.plan import Plan
from edgec.compiler.tasks.task import TaskTally, Truth
from edgec.compiler.tasks.truth import truth_of
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

    answers: Mapping[str, TaskTally] = field(default_factory=dict)
    """How far each sample's answer is from the source's, by stage and by artifact (`key_of`)."""

    def of(self, one: Emitted) -> Mapping[str, Any] | None:
        """The artifact's own figures; those of its graph for ONNX, which the same engine runs."""
        return self.by_artifact.get(one.name) or self.by_stage.get(self.key_of(one))

    @staticmethod
    def key_of(one: Emitted) -> str:
        """Under which an artifact was judged: its stage, where the same engine runs the graph, else its name."""
        return STAGES[one.precision] if one.format == "onnx" else one.name


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
    stages = _stages(plan, emission, data)
    by_stage = {name: _of_source(one) if name == "teacher" else one.figures() for name, one in stages.items()}
    if cut or not any(one.format == "tflite" for one in emission.files):
        return Evaluation(by_stage, {}, cut, answers=_answers(stages))
    try:
        files = _files(plan, emission, data)
    except DeviceError as error:
        remark = f"TFLite files were not judged: {error}"
        return Evaluation(by_stage, {}, (remark,), answers=_answers(stages))
    by_artifact = {name: one.figures() for name, one in files.items()}
    return Evaluation(by_stage, by_artifact, answers=_answers({**stages, **files}))


def _answers(tallies: Mapping[str, Tally]) -> dict[str, TaskTally]:
    return {name: one.answers for name, one in tallies.items() if one.answers is not None}


def _stages(plan: Plan, emission: Emission, data: Dataset) -> dict[str, Tally]:
    named = {
        "float" if precision == "fp32" else precision: model for precision, model in emission.models.items()
    }
    return judge(
        plan.model, named, data, threads=plan.recipe.threads, task=plan.task, truth=_truth(plan, data)
    )


def _of_source(tally: Tally) -> dict[str, Any]:
    """The source's own figures: those against labels; that it agrees with itself says nothing."""
    found = tally.figures()
    measures = [one for one in found.get("measures", ()) if one["against"] == "labels"]
    bare = {"change": None, "change_low": None, "change_high": None, "lost": None, "won": None}
    return {**found, "measures": tuple({**one, **bare} for one in measures)}


def _files(plan: Plan, emission: Emission, data: Dataset) -> dict[str, Tally]:
    return judge_tflite(
        plan.model,
        emission.files,
        data,
        like=emission.models["fp32"],
        threads=plan.recipe.threads,
        task=plan.task,
        truth=_truth(plan, data),
    )


def _truth(plan: Plan, data: Dataset) -> Truth | None:
    """What is right for ``data``: known of the evaluation data, and of calibration data that came with classes."""
    if data is plan.evaluation:
        return plan.truth
    return None if plan.task is None or data.labels is None else truth_of(plan.task, plan.model, data, 0)
