"""Emit a run's models: which files, under which names, in which precision."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import onnx_ir as ir

from edgec.compiler.emit.codes import as_property, told, with_codes
from edgec.compiler.pipeline.run import Step
from edgec.compiler.pipeline.run_folder import RunFolder
from edgec.compiler.plan.names import NAMES
from edgec.compiler.plan.plan import Plan
from edgec.compiler.read.recipe import Recipe
from edgec.graph.data import InputSpec
from edgec.graph.read.metadata import open_sides, source_metadata
from edgec.graph.resolution.every_size import for_every_size
from edgec.graph.resolution.resize import size_of
from edgec.graph.version import __version__
from edgec.passes.cast_fp16 import widened
from edgec.passes.defaults import PRECISION_PASSES
from edgec.runtime.agent.engine import CODES_KEY
from edgec.targets.engines import Precision
from edgec.targets.jetpack import jetpack


@dataclass(frozen=True)
class Emitted:
    """One artifact: its file name in the run folder, and where it lies while the run is not finished."""

    name: str
    format: str
    precision: str
    path: Path
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Emission:
    """The networks that were emitted, by precision, and their files."""

    models: Mapping[str, ir.Model]
    files: tuple[Emitted, ...]
    remarks: tuple[str, ...] = ()
    """What the user should know of the files."""


def stages(source: ir.Model, steps: tuple[Step, ...]) -> dict[str, ir.Model]:
    """The network by precision: fp32 as it is before the first precision pass, and what the precision passes made."""
    found = {"fp32": source}
    for step in steps:
        if step.one.name in PRECISION_PASSES:
            found[PRECISION_PASSES[step.one.name]] = step.model
        elif len(found) == 1:
            found["fp32"] = step.model
        else:
            found[list(found)[-1]] = step.model
    return found


def emit_all(plan: Plan, steps: tuple[Step, ...], folder: RunFolder) -> Emission:
    """Write every artifact that the plan asks for into the folder's ``part``."""
    recipe, models, emitted = plan.recipe, stages(plan.model, steps), []
    for file_format in recipe.formats:
        for precision, model in models.items():
            name = NAMES[file_format, precision]
            # TFLite stores half precision in its own way, the values that the pass chose.
            source = widened(model) if file_format == "tflite" and precision == "fp16" else model
            data = emit_bytes(source, file_format, precision, plan, words_for(plan, model))
            path = folder.write(name, data)
            digest = hashlib.sha256(data).hexdigest()
            emitted.append(Emitted(name, file_format, precision, path, len(data), digest))
    coded = [one for one in emitted if recipe.io_type != "float" and one.precision == "int8"]
    remarks = tuple(f"{one.name}: {told(one.path)}" for one in coded)
    return Emission(models, tuple(emitted), remarks + _float_remarks(models))


def emit_bytes(
    model: ir.Model, file_format: str, precision: str, plan: Plan, metadata: Mapping[str, str]
) -> bytes:
    """One artifact's bytes; ``metadata``: what it says of itself."""
    recipe = plan.recipe
    if file_format == "onnx":
        from edgec.compiler.emit.onnx import emit

        if plan.target.jetpack is None:
            # what selects takes one sample at a time, as the source did
            batch = None if plan.selection is None else 1
            whole = for_every_size(model) if open_sides(plan.model) else plan.whole(model)
            words = dict(metadata)
            if precision == "int8" and recipe.io_type != "float":
                whole, ends = with_codes(whole, recipe.io_type)
                words[CODES_KEY] = as_property(ends)
            return emit(whole, metadata=words, batch=batch)
        # TensorRT reads what its release does, and chooses its kernels for one size; half precision is a flag until types are
        # taken from the file, and constants are wanted as they are.
        release = jetpack(plan.target.jetpack)
        half = release.strongly_typed and precision != "fp32"
        source = widened(model) if precision == "fp16" else model
        return emit(plan.whole(source), metadata=dict(metadata), opset=release.opset, batch=1, half=half)
    from edgec.compiler.emit import tflite

    if recipe.split_unsupported and tflite.unsupported(model):
        model = tflite.split_unsupported(model).model
    nothing_coded = precision == "int8" and not _holds_codes(model)
    return tflite.emit(
        model,
        precision=cast("Precision", "fp32" if nothing_coded else precision),
        io_layout=recipe.io_layout,
        io_type=recipe.io_type if precision == "int8" and not nothing_coded else "float",
        batch=recipe.batch,
        metadata=dict(metadata),
    )


def _holds_codes(model: ir.Model) -> bool:
    return any(node.op_type == "QuantizeLinear" for node in model.graph)


def _float_remarks(models: Mapping[str, ir.Model]) -> tuple[str, ...]:
    """Where `quantize` left every layer in float, the files of that name are float too."""
    if "int8" not in models or _holds_codes(models["int8"]):
        return ()
    return (
        "the int8 files are float: no layer of the network could be quantised, see the notes of quantize",
    )


def words_for(plan: Plan, model: ir.Model) -> dict[str, str]:
    """What an artifact says of itself: what the source model said, and its preprocessing, so that the device does the same.

    Its input size (Ultralytics' ``imgsz``) is that of ``model``.
    """
    carried = source_metadata(plan.model)
    if "imgsz" in carried and InputSpec.of(model) != InputSpec.of(plan.model):
        carried["imgsz"] = str(list(size_of(model)))
    settings = plan.preprocess_for(model).to_dict()
    own = {"edgec.version": __version__, "edgec.preprocess": json.dumps(settings, sort_keys=True)}
    return {**carried, **own}


def split_remarks(models: Mapping[str, ir.Model], recipe: Recipe) -> tuple[str, ...]:
    """What ``split_unsupported`` left out of the TFLite files, in words."""
    if not recipe.split_unsupported or "tflite" not in recipe.formats:
        return ()
    from edgec.compiler.emit import tflite

    refused = tflite.unsupported(models["fp32"])
    if not refused:
        return ()
    cut = ", ".join(tflite.split_unsupported(models["fp32"]).cut)
    names = ", ".join(f"{one.op} {one.node}" for one in refused[:3]) + (", ..." if len(refused) > 3 else "")
    return (f"the TFLite files end at {cut}: TFLite cannot take {names}; the rest is for the host program",)
