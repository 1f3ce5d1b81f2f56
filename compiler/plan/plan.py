"""From a recipe to a plan: everything that it names loaded and checked, before anything is written."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from edgec.compiler.plan.defaults import (
    REFINE,
    learning_remark,
    precision_of,
    resolve_passes,
    with_merged_layers,
    with_resolution,
)
from edgec.compiler.plan.fields import is_code
from edgec.compiler.plan.names import RUNTIMES
from edgec.compiler.plan.needs import check_given
from edgec.compiler.plan.recipe import PassSpec, Recipe, check_model
from edgec.compiler.plan.resolution import check_size
from edgec.compiler.plan.told import told_of, with_told
from edgec.compiler.plan.versions import versions
from edgec.compiler.tasks.find import find_task
from edgec.compiler.tasks.task import Task, Truth
from edgec.compiler.tasks.truth import truth_of
from edgec.graph.annotations.open import open_evaluation
from edgec.graph.cost import cost
from edgec.graph.data import Dataset, InputSpec, open_data
from edgec.graph.errors import DataError, ModelError, UsageError
from edgec.graph.execute import Executor
from edgec.graph.files import is_factory
from edgec.graph.foreign import Loading, Pending, begin
from edgec.graph.load import check_file
from edgec.graph.plugins import TARGETS, plugin
from edgec.graph.preprocess import Preprocess
from edgec.graph.read.told import Told
from edgec.graph.resolution.resize import size_of
from edgec.graph.version import __version__
from edgec.passes.base import Pass
from edgec.passes.budget import budgets_in, has_latency, parse_budget
from edgec.passes.pipeline_string import options_of
from edgec.passes.table import pass_plugin
from edgec.targets import target as find_target

if TYPE_CHECKING:
    from edgec.targets import Target


APART, MOST_APART = 0.2, 500
"""Share of the calibration data that no pass sees and that judges the run, where there is no evaluation data; so many at most."""
FEWEST_TO_PART = 30
"""Of fewer samples none are kept apart: the fits need them all, and the report says that nothing is known of unseen ones."""
OUTPUT_SAMPLES = 4
"""So many are looked at before the work begins."""
LEAST_SHARE = 1e-3
"""Of the source: a budget below it is a number without its unit."""


@dataclass(frozen=True)
class Plan:
    """A recipe whose parts are all there: loaded, opened, resolved."""

    recipe: Recipe
    model: ir.Model
    source_bytes: int
    sha256: str
    data: Dataset | None
    evaluation: Dataset | None
    target: Target
    passes: tuple[Pass, ...]
    told: Told = field(default_factory=Told)
    """What the model says of itself."""
    remarks: tuple[str, ...] = ()
    """What was made of it, for the user."""
    task: Task | None = None
    """What the network does; None where nobody says and its outputs do not tell."""
    truth: Truth | None = field(default=None, compare=False)
    """What is right for each sample of `judging_data`, as the task takes it; None without labels that it takes."""

    @property
    def has_latency_budget(self) -> bool:
        """Whether a pass narrows until a latency is met."""
        return any(map(has_latency, self.passes))

    def at_size(self, resolution: str, remark: str) -> Plan:
        """The plan that ``--resolution auto`` comes to: a size, or ``keep``; ``remark`` says why."""
        passes = with_resolution(self.passes, resolution)
        update = {"resolution": resolution, "passes": _specs(passes)}
        recipe = self.recipe.model_copy(update=update)
        return replace(self, recipe=recipe, passes=passes, remarks=(*self.remarks, remark))

    def preprocess_for(self, model: ir.Model) -> Preprocess:
        """How pictures are prepared for ``model``, whose picture may have another size than the source's."""
        given = self.recipe.preprocess.build()
        if InputSpec.of(model) == InputSpec.of(self.model):
            return given
        return given.at(size_of(self.model), size_of(model))

    @property
    def label_offset(self) -> int:
        """What is added to labels before they are compared."""
        return 0 if self.recipe.eval is None else self.recipe.eval.label_offset

    @property
    def keeps_apart(self) -> bool:
        """Whether part of the calibration data is kept from all passes, to judge the run."""
        return self.evaluation is None and self.data is not None and len(self.data) >= FEWEST_TO_PART

    def fitting_data(self) -> Dataset | None:
        """What passes see: the calibration data, less what is kept apart."""
        return self._parted[0]

    def judging_data(self) -> Dataset | None:
        """What the artifacts are judged on: evaluation data, else what is kept apart, else what passes saw, else nothing."""
        return self.evaluation if self.evaluation is not None else self._parted[1]

    @property
    def _parted(self) -> tuple[Dataset | None, Dataset | None]:
        if self.data is None or not self.keeps_apart:
            return self.data, self.data
        return self.data.split(min(APART, MOST_APART / len(self.data)), self.recipe.seed)


def make_plan(recipe: Recipe, loading: Loading, begun: Pending | None = None) -> Plan:
    """Load and check everything that the recipe names, and resolve its passes; nothing is written.

    ``begun``: the model, where its loading was begun already; it is closed here.
    """
    passes = resolve_passes(recipe)
    recipe = recipe.model_copy(update={"precision": precision_of(passes, recipe.precision)})
    target = find_target(recipe.target).on(recipe.jetpack)
    check_formats(recipe, target)
    check_precision(recipe, target)
    for one in passes:
        check_given(one, data=recipe.data is not None, labels=recipe.data is not None, target=True)
    check_latency(recipe, passes, target)
    source = recipe.model
    with begun or begin(
        source.path, loading, weights=source.weights, input_shape=source.input_shape
    ) as pending:
        if not is_factory(source.path):
            check_file(Path(source.path))  # before all of it is read for its hash
        sha256, size = _source_identity(source.path, source.weights)
        check_model(recipe, sha256)
        model = pending.model()
    check_budgets(recipe, passes, model)
    passes = with_merged_layers(recipe, passes, model)
    check_learning(passes, model)
    told = told_of(recipe, model)
    recipe, remarks = with_told(recipe, told)
    remarks = (*remarks, *filter(None, [learning_remark(recipe, passes)]))
    preprocess = recipe.preprocess.build()
    check_size(passes, model, recipe.model, preprocess, loading)
    preprocess.check_inputs([spec.channels for spec in InputSpec.of(model) if spec.shape])
    task = find_task(model, told.task, recipe.task)
    data = evaluation = None
    if recipe.data is not None:
        spec = recipe.data
        data = open_data(
            spec.path, model, preprocess, samples=spec.samples, seed=recipe.seed, skip_bad=spec.skip_bad
        )
    if recipe.eval is not None:
        evaluation = open_evaluation(
            recipe.eval.path,
            model,
            preprocess,
            labels=recipe.eval.labels,
            names=told.labels,
            seed=recipe.seed,
        )
    for known in (data, evaluation):
        if known is not None:
            check_outputs(model, known, recipe.threads)
    resolved = _resolved(recipe, target, passes, sha256, data, evaluation)
    return with_truth(
        Plan(resolved, model, size, sha256, data, evaluation, target, passes, told, remarks, task)
    )


def check_formats(recipe: Recipe, target: Target) -> None:
    """Raise UsageError for an int8 TFLite file beside an int8 file for TensorRT: no table of scales serves both."""
    if target.dialect == "tensorrt" and recipe.precision == "int8" and "tflite" in recipe.formats:
        why = "TensorRT takes symmetric scales and float biases, TFLite its own: one table cannot serve both files"
        hint = "Make the TFLite file in a run of its own, for the board's CPU: --target generic-arm64."
        raise UsageError(f"no int8 TFLite file for {target.title}", where="--format", why=why, hint=hint)


def check_latency(recipe: Recipe, passes: Sequence[Pass], target: Target) -> None:
    """Raise UsageError for a latency budget on a target of which no latencies are known."""
    from edgec.targets.estimator import latency_table

    if any(map(has_latency, passes)) and target.dialect == "tensorrt":
        why = "TensorRT chooses and fuses kernels on the board, by timing: no latency of it is known before"
        hint = (
            "Take a budget in macs, and measure: edgec bench RUN --device ssh://USER@BOARD --engine tensorrt."
        )
        raise UsageError(f"no latency budget for {target.title}", why=why, hint=hint)
    if any(map(has_latency, passes)) and target.name != "host":
        latency_table(target, RUNTIMES[recipe.formats[0]], recipe.precision)


def check_learning(passes: Sequence[Pass], model: ir.Model) -> None:
    """Raise UnsupportedError, before the closed forms do their work, for a network that cannot be learned from."""
    for one in passes:
        if one.name == REFINE:
            one.requires(model)


def check_budgets(recipe: Recipe, passes: Sequence[Pass], model: ir.Model) -> None:
    """Raise UsageError for an absolute budget that is a typing error: less than a thousandth of what the model costs."""
    spent = cost(model)
    whole = {"macs": spent.macs, "params": spent.params, "size": spent.weight_bytes}
    given = [
        parse_budget(f"{unit}={text}")
        for one in passes
        for unit, text in budgets_in(one).items()
        if text and unit in whole
    ]
    for budget in (*given, *([parse_budget(recipe.budget)] if recipe.budget else [])):
        source = whole.get(budget.unit, 0)
        if not budget.relative and budget.amount < LEAST_SHARE * source:
            share = f"{100 * budget.amount / source:.2g}% of the model's {source:,}"
            hint = f"A share is written {budget.unit}=50%; units are k, M and G (bytes: kB, MB, GB)."
            raise UsageError(f"the budget {budget.text} makes no sense here", why=f"it is {share}", hint=hint)


def check_outputs(model: ir.Model, data: Dataset, threads: int) -> None:
    """Raise ModelError where outputs cannot be compared sample by sample: from a few samples, what each of them holds."""
    feeds = next(data.batches(OUTPUT_SAMPLES))
    count = len(next(iter(feeds.values())))
    for name, array in Executor(model, threads=threads).run(feeds).items():
        rows = 1 if array.ndim == 0 else len(array)
        if not array.size or rows % count:
            why = f"of {count} samples it has the shape {array.shape}"
            hint = "Export the network without what selects among its results (NonMaxSuppression, NonZero)."
            raise ModelError("every sample needs its values", where=f"output {name!r}", why=why, hint=hint)


def with_truth(plan: Plan) -> Plan:
    """The plan that knows what is right for each sample that judges.

    Raises UsageError for an offset of labels that are not there, DataError for labels of the evaluation data that the task does
    not take; a function of the user's may compare with anything. Nobody asked for the labels that calibration data came with:
    those that the task does not take are left, with a remark.
    """
    data, metric = plan.judging_data(), plan.recipe.metric
    if data is None or (plan.evaluation is None and plan.task is None):
        return plan
    if plan.label_offset and data.labels is None and data.truth is None:
        hint = "Give labels (--eval-labels, or y in the .npz), or leave it out."
        raise UsageError("--label-offset without labels", where=data.name, hint=hint)
    try:
        return replace(plan, truth=truth_of(plan.task, plan.model, data, plan.label_offset))
    except DataError as error:
        if plan.evaluation is None:
            remark = f"the labels beside the calibration data are not used: {error.what}, {error.why}"
            return replace(plan, remarks=(*plan.remarks, remark))
        if metric is not None and is_code(metric):
            return plan
        raise


def check_precision(recipe: Recipe, target: Target) -> None:
    """Raise UsageError where the target has no arithmetic for the recipe's precision."""
    support = target.precisions.of(recipe.precision)
    if not support.supported:
        raise UsageError(
            f"{target.title} does not run {recipe.precision}", where="--precision", why=support.why
        )


def _resolved(
    recipe: Recipe,
    target: Target,
    passes: tuple[Pass, ...],
    sha256: str,
    data: Dataset | None,
    evaluation: Dataset | None,
) -> Recipe:
    """The recipe with nothing left open: hashes, fingerprints, every pass with its options, versions."""
    update: dict[str, Any] = {
        "model": recipe.model.model_copy(update={"sha256": sha256}),
        "jetpack": target.jetpack if target.dialect == "tensorrt" else recipe.jetpack,
        "passes": _specs(passes),
        "edgec": __version__,
        "versions": {**versions(), **_plugin_versions(recipe, passes)},
    }
    if recipe.data is not None and data is not None:
        update["data"] = recipe.data.model_copy(update={"fingerprint": data.fingerprint})
    if recipe.eval is not None and evaluation is not None:
        update["eval"] = recipe.eval.model_copy(update={"fingerprint": evaluation.fingerprint})
    return recipe.model_copy(update=update)


def _specs(passes: tuple[Pass, ...]) -> tuple[PassSpec, ...]:
    return tuple(PassSpec(name=one.name, options=options_of(one)) for one in passes)


def _plugin_versions(recipe: Recipe, passes: tuple[Pass, ...]) -> dict[str, str]:
    """Of the distributions that bring what the run names."""
    brought = [*(pass_plugin(one.name) for one in passes), plugin(TARGETS, recipe.target)]
    return {one.distribution: one.version for one in brought if one is not None}


def _source_identity(path: str, weights: str | None) -> tuple[str, int]:
    """(sha256, bytes) of the model file; of the weights for a torch factory; of the name where there is no file."""
    file = Path(weights or path)
    if not file.is_file():
        return hashlib.sha256(path.encode()).hexdigest(), 0
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest(), file.stat().st_size
