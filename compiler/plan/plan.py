"""From a recipe to a plan: everything that it names loaded and checked, before anything is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from edgec.compiler.plan.enough import check_enough
from edgec.compiler.plan.networks import read_networks
from edgec.compiler.plan.resolution import check_open_size, check_size
from edgec.compiler.plan.samples import Samples, open_samples
from edgec.compiler.plan.versions import versions
from edgec.compiler.read.fields import is_code
from edgec.compiler.read.recipe import PassSpec, Recipe
from edgec.compiler.read.source import Source
from edgec.compiler.tasks.find import find_task
from edgec.compiler.tasks.selected import suppressed_task
from edgec.compiler.tasks.task import Task, Truth
from edgec.compiler.tasks.truth import truth_of
from edgec.graph.cost import cost
from edgec.graph.data import Dataset, InputSpec
from edgec.graph.errors import DataError, UsageError
from edgec.graph.foreign import Loading
from edgec.graph.plugins import TARGETS, plugin
from edgec.graph.preprocess import Preprocess
from edgec.graph.read.told import Told
from edgec.graph.resolution.resize import size_of
from edgec.graph.selection import Selection, joined
from edgec.graph.version import __version__
from edgec.passes.base import Pass
from edgec.passes.budget import check_amounts, has_latency
from edgec.passes.defaults import with_merged_layers, with_resolution
from edgec.passes.distil import Distil
from edgec.passes.learning import Learning
from edgec.passes.pipeline_string import options_of

if TYPE_CHECKING:
    from edgec.targets import Target


APART, MOST_APART = 0.2, 500
"""Share of the calibration data that no pass sees and that judges the run, where there is no evaluation data; so many at most."""
FEWEST_TO_PART = 30
"""Of fewer samples none are kept apart: the fits need them all, and the report says that nothing is known of unseen ones."""


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
    targets: Any = field(default=None, compare=False)
    """What a Python program brought beside its evaluation data, for its own metric."""
    truth: Truth | None = field(default=None, compare=False)
    """What is right for each sample of `judging_data`, as the task takes it; None without labels that it takes."""
    selection: Selection | None = None
    """What selects among the answers of `model`, behind it in every ONNX file; None for most networks."""
    networks: Mapping[str, ir.Model] = field(default_factory=dict, compare=False)
    """What lies in the files that passes name, by path."""

    def whole(self, network: ir.Model) -> ir.Model:
        """What was made of `model`, as its file has it."""
        return network if self.selection is None else joined(network, self.selection)

    @property
    def has_latency_budget(self) -> bool:
        """Whether a pass narrows until a latency is met."""
        return any(map(has_latency, self.passes))

    def at_size(self, resolution: str, remark: str) -> Plan:
        """The plan that ``--resolution auto`` comes to: a size, or ``keep``; ``remark`` says why."""
        return self._found(with_resolution(self.passes, resolution), remark, resolution=resolution)

    def in_form(self, passes: tuple[Pass, ...], remark: str) -> Plan:
        """The plan that ``--portfolio`` comes to."""
        return self._found(passes, remark, portfolio=False)

    def _found(self, passes: tuple[Pass, ...], remark: str, **update: Any) -> Plan:
        """What a search came to, in a recipe that needs none."""
        recipe = self.recipe.model_copy(update={**update, "passes": _specs(passes)})
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


def make_plan(source: Source, loading: Loading) -> Plan:
    """Open the samples that the recipe names, and resolve what it leaves open; nothing is written.

    What is cheap to know comes first. Raises UsageError, ModelError and DataError for what does not go together.
    """
    recipe, model, passes = source.recipe, source.model, source.passes
    check_amounts(passes, recipe.budget, cost(model))
    passes = with_merged_layers(passes, model, named=recipe.passes is not None)
    check_open_size(source, passes)
    passes, networks = read_networks(passes, loading)
    check_learning(passes, model, networks)
    preprocess = recipe.preprocess.build()
    preprocess.check_inputs([spec.channels for spec in InputSpec.of(model) if spec.shape])
    check_size(passes, model, recipe.model, preprocess, loading)
    task: Task | None = None
    if source.selection is not None and recipe.task in (None, "detection"):
        task = suppressed_task(model, source.selection)
    task = task or find_task(model, source.told.task, recipe.task)
    samples = open_samples(source, preprocess)
    plan = Plan(
        recipe=_resolved(source, passes, samples),
        model=model,
        source_bytes=source.bytes,
        sha256=source.sha256,
        data=samples.data,
        evaluation=samples.evaluation,
        target=source.target,
        passes=passes,
        told=source.told,
        remarks=(*source.remarks, *check_enough(passes, samples.data)),
        task=task,
        targets=source.targets,
        selection=source.selection,
        networks=networks,
    )
    return with_truth(plan)


def check_learning(passes: tuple[Pass, ...], model: ir.Model, networks: Mapping[str, ir.Model]) -> None:
    """Raise UnsupportedError, before the closed forms do their work, for a network that cannot be learned from; ModelError for a
    student that cannot stand in the source's place."""
    for one in passes:
        if isinstance(one, Learning):
            one.requires(model)
        if isinstance(one, Distil) and one.student and not any(other.changes_input for other in passes):
            one.adopt(networks[one.student], model)


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


def _resolved(source: Source, passes: tuple[Pass, ...], samples: Samples) -> Recipe:
    """The recipe with nothing left open: hashes, fingerprints, every pass with its options, versions."""
    recipe, target = source.recipe, source.target
    update: dict[str, Any] = {
        "model": recipe.model.model_copy(update={"sha256": source.sha256}),
        "jetpack": target.jetpack if target.dialect == "tensorrt" else recipe.jetpack,
        "passes": _specs(passes),
        "edgec": __version__,
        "versions": {**versions(), **_plugin_versions(recipe, passes)},
    }
    if recipe.data is not None and samples.data is not None:
        update["data"] = recipe.data.model_copy(update={"fingerprint": samples.data.fingerprint})
    if recipe.eval is not None and samples.evaluation is not None:
        update["eval"] = recipe.eval.model_copy(update={"fingerprint": samples.evaluation.fingerprint})
    return recipe.model_copy(update=update)


def _specs(passes: tuple[Pass, ...]) -> tuple[PassSpec, ...]:
    return tuple(PassSpec(name=one.name, options=options_of(one)) for one in passes)


def _plugin_versions(recipe: Recipe, passes: tuple[Pass, ...]) -> dict[str, str]:
    """Of the distributions that bring what the run names."""
    brought = [*(one.brought for one in passes), plugin(TARGETS, recipe.target)]
    return {one.distribution: one.version for one in brought if one is not None}
