"""How good the run's artifacts are: graphs run in onnxruntime, TFLite files in their own runtime."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from edgec.compiler.emit.artifacts import Emission, Emitted, split_remarks
from edgec.compiler.evaluate.plausibility import Doubt, doubts_of
from edgec.compiler.evaluate.quality import Tally, judge
from edgec.compiler.evaluate.samples import Samples, Watched, classes, strip
from edgec.compiler.evaluate.tflite_quality import judge_tflite
from edgec.compiler.face.metric import Judged, Metric
from edgec.compiler.plan.plan import Plan
from edgec.graph.data import Dataset
from edgec.graph.errors import DeviceError
from edgec.passes.base import Progress

if TYPE_CHECKING:
    import onnx_ir as ir

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
    samples: Samples | None = None
    """Inputs to look at, and the table of classes, of the last precision."""

    def of(self, one: Emitted) -> Mapping[str, Any] | None:
        """The artifact's own figures; those of its graph for ONNX, which the same engine runs."""
        by_graph = self.by_stage.get(STAGES[one.precision]) if one.format == "onnx" else None
        return self.by_artifact.get(one.name, by_graph)


def evaluate_source(plan: Plan, metric: Metric | None) -> tuple[Doubt, ...]:
    """Before any work: the caller's metric on the source model, and what is doubtful about its inputs."""
    if metric is not None:
        metric.on_teacher(
            plan.whole(plan.model), plan.judging_data(), plan.targets, plan.label_offset, plan.recipe.threads
        )
    return doubts_of(plan)


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
    named = {STAGES[precision]: model for precision, model in emission.models.items()}
    watched = Watched.of(plan.task, named)
    tallies = judge(
        plan.model, named, data, threads=plan.recipe.threads, task=plan.task, truth=plan.truth, watch=watched
    )
    by_stage = {
        name: _of_source(tally) if name == "teacher" else tally.figures() for name, tally in tallies.items()
    }
    seen = _samples(plan, watched.with_errors(tallies[watched.stage].answers), named, data)
    found = Evaluation(by_stage, {}, cut, samples=seen)
    if cut or not any(one.format == "tflite" for one in emission.files):
        return found
    try:
        files = _files(plan, emission, data)
        return replace(found, by_artifact={name: one.figures() for name, one in files.items()})
    except DeviceError as error:
        return replace(found, remarks=(f"TFLite files were not judged: {error}",))


def _samples(plan: Plan, watched: Watched, models: Mapping[str, ir.Model], data: Dataset) -> Samples:
    names, made, settings = plan.told.labels, models[watched.stage], plan.recipe.preprocess.build()
    right = plan.truth if watched.after else None
    shown = None if data.is_random else strip(watched, plan.model, made, data, settings, names, right)
    return Samples(watched.stage, shown, classes(watched, right, names))


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
        truth=plan.truth,
    )
