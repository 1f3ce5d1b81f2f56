"""What a recipe asks for, as far as it can be known before anything is loaded: its passes, its precision, its target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgec.compiler.read.recipe import Recipe
from edgec.graph.errors import UsageError
from edgec.passes.base import Pass
from edgec.passes.budget import has_latency
from edgec.passes.defaults import choose_passes, learning_remarks, precision_of
from edgec.passes.needs import check_codes, check_given, check_latency
from edgec.targets import target as find_target

if TYPE_CHECKING:
    from edgec.targets import Target


@dataclass(frozen=True)
class Asked:
    """``recipe``, whose precision is the one that its ``passes`` end in, and the device class that it is for."""

    recipe: Recipe
    passes: tuple[Pass, ...]
    target: Target
    remarks: tuple[str, ...] = ()
    """What of it cannot be done on this machine, for the user."""


def asked(recipe: Recipe) -> Asked:
    """Raises UsageError for what cannot be, whatever the model is."""
    passes = resolve_passes(recipe)
    remarks = learning_remarks(recipe.learn, passes)
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
        check_codes(recipe.io_type, passes, target)
    if any(map(has_latency, passes)):
        check_latency(target, recipe.formats[0], recipe.precision)
    return Asked(recipe, passes, target, remarks)


def resolve_passes(recipe: Recipe) -> tuple[Pass, ...]:
    """The recipe's passes, with everything that its budget, precision and resolution bring along. Raises UsageError."""
    named = recipe.build_passes()
    return choose_passes(
        named,
        budget=recipe.budget,
        precision=recipe.precision,
        resolution=recipe.resolution,
        portfolio=recipe.portfolio,
        learn=recipe.learn,
        time=recipe.time,
        keep_quantized=recipe.keep_quantized,
    )
