"""What a recipe asks for, as far as it can be known before anything is loaded: its passes, its precision, its target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgec.compiler.read.recipe import Recipe
from edgec.graph.errors import UsageError
from edgec.passes.base import Pass
from edgec.passes.budget import has_latency
from edgec.passes.defaults import PRECISION_PASSES, choose_passes, precision_of
from edgec.passes.needs import check_given
from edgec.targets import target as find_target
from edgec.targets.engines import engines_for
from edgec.targets.jetpack import TIMED_ON_THE_BOARD, measured_by

if TYPE_CHECKING:
    from edgec.targets import Target


@dataclass(frozen=True)
class Asked:
    """``recipe``, whose precision is the one that its ``passes`` end in, and the device class that it is for."""

    recipe: Recipe
    passes: tuple[Pass, ...]
    target: Target


def asked(recipe: Recipe) -> Asked:
    """Raises UsageError for what cannot be, whatever the model is."""
    passes = resolve_passes(recipe)
    for one in passes:
        check_given(one, data=recipe.data is not None, labels=recipe.data is not None, target=True)
    recipe = recipe.model_copy(update={"precision": precision_of(passes, recipe.precision)})
    target = find_target(recipe.target).on(recipe.jetpack)
    support = target.precisions.of(recipe.precision)
    if target.dialect == "tensorrt" and recipe.precision == "int8" and "tflite" in recipe.formats:
        why = "TensorRT takes symmetric scales and float biases, TFLite its own: one table cannot serve both files"
        hint = "Make the TFLite file in a run of its own, for the board's CPU: --target generic-arm64."
        raise UsageError(f"no int8 TFLite file for {target.title}", where="--format", why=why, hint=hint)
    if not support.supported:
        what = f"{target.title} does not run {recipe.precision}"
        raise UsageError(what, where="--precision", why=support.why)
    if recipe.io_type != "float":
        check_codes(recipe, passes, target)
    if any(map(has_latency, passes)):
        check_latency(recipe, target)
    return Asked(recipe, passes, target)


def resolve_passes(recipe: Recipe) -> tuple[Pass, ...]:
    """The recipe's passes, with everything that its budget, precision and resolution bring along. Raises UsageError."""
    return choose_passes(
        recipe.build_passes(),
        budget=recipe.budget,
        precision=recipe.precision,
        resolution=recipe.resolution,
        portfolio=recipe.portfolio,
        learn=recipe.learn,
        time=recipe.time,
        keep_quantized=recipe.keep_quantized,
    )


def check_codes(recipe: Recipe, passes: tuple[Pass, ...], target: Target) -> None:
    """Raise UsageError where no file of the run can take and give codes."""
    where = f"--io-type {recipe.io_type}"
    if not any(PRECISION_PASSES.get(one.name) == "int8" for one in passes):
        hint = "Add --precision int8, or leave it out."
        raise UsageError("it is about int8 files, and the run makes none", where=where, hint=hint)
    if target.dialect == "tensorrt":
        why = "its int8 files are built into engines that take and give real numbers"
        raise UsageError(f"no codes at the ends for {target.title}", where=where, why=why)


def check_latency(recipe: Recipe, target: Target) -> None:
    """Raise UsageError for a latency budget on a target of which no latencies are known."""
    from edgec.targets.estimator import latency_table

    if target.dialect == "tensorrt":
        why = f"{TIMED_ON_THE_BOARD}: no latency of it is known before"
        hint = f"Take a budget in macs, and measure: {measured_by('RUN')}."
        raise UsageError(f"no latency budget for {target.title}", why=why, hint=hint)
    if target.name != "host":
        latency_table(target, engines_for(recipe.formats[0])[0].package, recipe.precision)
