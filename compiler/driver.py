"""`edgec compile`, from a recipe to a run folder: load, run the passes, emit, judge, measure, report."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from edgec.compiler.artifacts import NAMES, Emitted, emit_all, split_remarks, stages
from edgec.compiler.assemble import RunFacts, assemble, quality_of
from edgec.compiler.cache import PassCache
from edgec.compiler.face.given import Given, unused_inputs
from edgec.compiler.face.metric import Judged, Metric
from edgec.compiler.gates import check_gates
from edgec.compiler.latency import time_run
from edgec.compiler.layer_table import layer_table
from edgec.compiler.pipeline import Step, run_pipeline
from edgec.compiler.prepare import Prepared, prepare, versions
from edgec.compiler.prices import has_budget, prices_for, settle
from edgec.compiler.quality import judge
from edgec.compiler.recipe import Recipe, relative_to
from edgec.compiler.resources import peak_rss_mb
from edgec.compiler.run_folder import CACHE, RunFolder
from edgec.compiler.sealed import SealedFolder, user_key
from edgec.compiler.tflite_quality import judge_tflite
from edgec.graph.data import Dataset
from edgec.graph.errors import DeviceError
from edgec.graph.foreign import Loading, Pending
from edgec.graph.scratch import scratch_folder
from edgec.passes.base import Context, Prices, Progress

if TYPE_CHECKING:
    from edgec.runtime.report.schema import Report

HELD_OUT = 0.2
"""Share of the calibration data that scores the run when there is no evaluation data."""


@dataclass(frozen=True)
class Settings:
    """How to run, as opposed to what to make: nothing here changes an artifact."""

    out: Path
    force: bool = False
    resume: bool = False
    measure: bool = True
    loading: Loading = field(default_factory=Loading)
    """How the model is read."""
    pending: Pending | None = None
    """The recipe's model, where somebody has begun to load it."""
    progress: Progress = field(default_factory=Progress)
    after_pass: Callable[[Step], None] | None = None
    given: Given | None = None
    """What a Python program holds in memory, in place of files."""
    metric: Metric | None = None


def compile_recipe(recipe: Recipe, settings: Settings) -> Report:
    """Run ``recipe`` into ``settings.out``. Gates that fail are in the report; everything else raises EdgecError."""
    start = time.perf_counter()
    with RunFolder(settings.out, force=settings.force) as folder, scratch_folder() as scratch:
        pending, targets = settings.pending, None
        if settings.given is not None:
            brought = settings.given.bring(recipe, settings.loading, folder.part)
            recipe, pending, targets = brought.recipe, brought.pending, brought.targets
        ready = prepare(recipe, settings.loading, pending)
        if settings.metric is not None:
            offset = ready.recipe.eval.label_offset if ready.recipe.eval is not None else 0
            settings.metric.on_teacher(
                ready.model, _judging_data(ready), targets, offset, ready.recipe.threads
            )
        kept = SealedFolder(folder.cache, user_key())
        cache = PassCache(kept)
        if not settings.resume:
            cache.clear()
            folder.forget()
        priced = prices_for(
            ready,
            kept,
            scratch,
            measure=settings.measure,
            resume=settings.resume,
            progress=settings.progress,
        )
        priced = settle(
            ready,
            priced,
            lambda prices: _narrow(ready, settings, cache, scratch, prices),
            kept,
            scratch,
        )
        ready = replace(ready, recipe=ready.recipe.model_copy(update={"timing": priced.timing}))
        steps = _run_passes(ready, settings, folder, cache, scratch, priced.prices)
        models = stages(ready.model, steps)
        emitted = emit_all(models, ready.recipe, folder)
        with settings.progress.counting("judging"):
            quality = _judge(ready, models)
            by_artifact, remarks = _judge_files(ready, models, emitted)
            metrics, more = _own_metric(settings.metric, emitted, quality, by_artifact)
        timings = time_run(
            ready, models, emitted, scratch, measure=settings.measure, progress=settings.progress
        )
        data = ready.evaluation if ready.evaluation is not None else ready.data
        facts = RunFacts(
            ready=ready,
            steps=steps,
            models=models,
            emitted=emitted,
            quality=quality,
            artifact_quality=by_artifact,
            metrics=metrics,
            remarks=(*_doubts(kept), *remarks, *more),
            folder=shlex.quote(folder.path.resolve().name),
            timings=timings,
            layers=layer_table(ready.model, models, data, timings.per_node_ms, ready.recipe.threads),
            gates=check_gates(ready.recipe, ready.model, models, quality, steps, timings),
            environment=environment(),
            seconds=time.perf_counter() - start,
            peak_rss_mb=max([peak_rss_mb(), *(step.peak_rss_mb for step in steps)]),
        )
        return _publish(facts, folder)


def _doubts(kept: SealedFolder) -> tuple[str, ...]:
    """What ``--resume`` found and did not take."""
    if not kept.refused:
        return ()
    count = len(kept.refused)
    what = f"{count} entries" if count > 1 else "an entry"
    return (
        f"--resume: {what} of {CACHE} not taken and computed anew: damaged, or not written by this user on this machine",
    )


def _run_passes(
    ready: Prepared,
    settings: Settings,
    folder: RunFolder,
    cache: PassCache,
    scratch: Path,
    prices: Prices | None,
) -> tuple[Step, ...]:
    context = _context(ready, settings, scratch, prices)

    def after(step: Step) -> None:
        folder.log({"time": time.time(), "cached": step.cached, **step.figures()})
        if settings.after_pass is not None:
            settings.after_pass(step)

    resume = (
        settings.resume or ready.recipe.timing is not None
    )  # then this run itself left what `_narrow` computed
    return run_pipeline(ready.passes, ready.model, context, cache=cache, resume=resume, after=after)


def _narrow(ready: Prepared, settings: Settings, cache: PassCache, scratch: Path, prices: Prices) -> ir.Model:
    """The float model after the last pass with a latency budget, by ``prices``."""
    last = max(index for index, one in enumerate(ready.passes) if has_budget(one))
    context = _context(ready, settings, scratch, prices)
    first = ready.passes[: last + 1]
    return run_pipeline(first, ready.model, context, cache=cache, resume=settings.resume)[-1].model


def _context(ready: Prepared, settings: Settings, scratch: Path, prices: Prices | None) -> Context:
    return Context(
        teacher=ready.model,
        scratch=scratch,
        data=ready.data,
        target=ready.target,
        seed=ready.recipe.seed,
        threads=ready.recipe.threads,
        progress=settings.progress,
        prices=prices,
    )


def _judging_data(ready: Prepared) -> Dataset | None:
    """Evaluation data, else a part of the calibration data, else nothing."""
    data = ready.evaluation
    if data is None and ready.data is not None:
        data = ready.data.split(HELD_OUT, ready.recipe.seed)[1]
    return data if data is not None and len(data) else None


def _judge(ready: Prepared, models: dict[str, ir.Model]) -> dict[str, dict[str, Any]]:
    """Quality by stage: teacher, float, and the last precision; on evaluation data, else on held-out calibration data."""
    data = _judging_data(ready)
    if data is None:
        return {}
    named = {"float" if precision == "fp32" else precision: model for precision, model in models.items()}
    offset = ready.recipe.eval.label_offset if ready.recipe.eval is not None else 0
    return judge(ready.model, named, data, threads=ready.recipe.threads, label_offset=offset)


def _judge_files(
    ready: Prepared, models: dict[str, ir.Model], emitted: tuple[Emitted, ...]
) -> tuple[dict[str, dict[str, Any]], tuple[str, ...]]:
    """Quality of the artifacts that are judged by running the file itself; a remark where they cannot be run here."""
    cut = split_remarks(models, ready.recipe)
    data = _judging_data(ready)
    if cut or data is None or not any(one.format == "tflite" for one in emitted):
        return {}, cut
    offset = ready.recipe.eval.label_offset if ready.recipe.eval is not None else 0
    try:
        found = judge_tflite(
            ready.model,
            emitted,
            data,
            io_layout=ready.recipe.io_layout,
            label_offset=offset,
            threads=ready.recipe.threads,
        )
    except DeviceError as error:
        return {}, (f"TFLite files were not judged: {error}",)
    return found, ()


def _own_metric(
    metric: Metric | None,
    emitted: tuple[Emitted, ...],
    quality: dict[str, dict[str, Any]],
    by_artifact: dict[str, dict[str, Any]],
) -> tuple[tuple[Judged, ...], tuple[str, ...]]:
    """The metric that was asked for, of every file; remarks where one cannot be run here."""
    if metric is None:
        return (), ()
    known = {one.name: quality_of(one, quality, by_artifact) or {} for one in emitted} | {
        "": quality.get("teacher", {})
    }
    return metric.on_files([(one.name, one.path) for one in emitted], known.__getitem__)


def _publish(facts: RunFacts, folder: RunFolder) -> Report:
    from edgec.runtime.report import write

    recipe = relative_to(facts.ready.recipe, folder.path, folder.part)
    report = assemble(facts, recipe)
    folder.write("recipe.yaml", recipe.to_yaml())
    write(folder.part, report)
    folder.publish(stale=(*NAMES.values(), *unused_inputs(recipe)))
    return report


def environment() -> dict[str, Any]:
    """Where the run took place."""
    from edgec.runtime.host import describe_host

    return {**versions(), **describe_host()}
