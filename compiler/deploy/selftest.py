"""What the host computes for a few samples, recorded so that a device can show that it computes the same."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgec.compiler.deploy.exactness import allowed
from edgec.compiler.deploy.picture import PICTURE, save_picture
from edgec.compiler.read.recipe import Recipe
from edgec.graph.data import Dataset, noise, open_data
from edgec.graph.disk import write_whole
from edgec.graph.errors import DataError
from edgec.graph.inputs import InputSpec
from edgec.graph.npz import npz_bytes
from edgec.graph.scratch import scratch_folder, write_scratch
from edgec.graph.text import visible
from edgec.runtime.bench import BenchOptions, outputs
from edgec.runtime.devices.local import LocalDevice

if TYPE_CHECKING:
    from edgec.runtime.replies import Outputs
    from edgec.runtime.report.schema import ModelInput, Report

Array = np.ndarray[Any, np.dtype[Any]]
Axes = Mapping[str, Sequence[int]]


@dataclass(frozen=True)
class Recorded:
    """``source``: what the samples are, for people. ``inputs``: those of the network that was compiled.

    ``facts``: per file delegate, quantised tensors, and for each input the network's axis that stands at each place.
    """

    source: str
    inputs: tuple[Mapping[str, Any], ...]
    facts: Mapping[str, Mapping[str, Any]]


def record(
    artifacts: Sequence[Path],
    report: Report,
    recipe: Recipe,
    save: Path,
    samples: int,
) -> Recorded:
    """Run ``samples`` inputs through every artifact on this host, each in a process of its own, into ``save``.

    Their inputs are the report's; where it has none (edgec 0.1), they are taken for pictures channels first, of the artifacts'
    shapes. The samples are the recipe's calibration samples where they can be read, else seeded noise. Raises DataError
    where an artifact lacks an input of the report. Where the network takes a picture, one more sample comes from a PNG beside
    ``save``, which the device prepares itself.
    """
    arrays: dict[str, Array] = {}
    facts: dict[str, Mapping[str, Any]] = {}
    specs, source_specs = _specs(report.inputs), _specs(report.model.inputs)
    found: dict[str, Array] = {}
    precisions = {Path(one.path).name: one.precision for one in report.artifacts}
    source = ""
    with LocalDevice() as device, scratch_folder() as folder:
        for path in artifacts:
            first = folder / "first.npz"
            told = outputs(path, None, first, BenchOptions(), device)
            axes = _axes(path)
            specs = specs or _assumed(told, axes, path, recipe)
            _check(specs, told, path)
            if not found:
                found, source, data = _samples(specs, source_specs or specs, recipe, samples)
                preprocess = recipe.preprocess.build()
                seen = save_picture(save.with_name(PICTURE), specs, source_specs or specs, preprocess, data)
                arrays |= {f"{PICTURE}/{name}": array[0] for name, array in seen.items()}
                found = {
                    name: np.concatenate([array, seen[name]]) if seen else array
                    for name, array in found.items()
                }
            feeds = {}
            for name, shape, dtype in told.inputs:
                feeds[name] = _placed(found[name], shape, axes.get(name), told.quantised.get(name), dtype)
            given, result = folder / "inputs.npz", folder / "outputs.npz"
            write_scratch(given, npz_bytes(feeds))
            made = outputs(path, given, result, BenchOptions(), device)
            arrays |= {f"{path.name}/rows/{name}": np.asarray(rows) for name, rows in made.rows.items()}
            arrays |= {f"{path.name}/in/{name}": array for name, array in feeds.items()}
            with np.load(result) as archive:
                arrays |= {f"{path.name}/out/{name}": archive[name] for name in archive.files}
            known = told.model_dump(include={"engine", "engine_version", "delegate", "quantised"})
            may = allowed(path, precisions[path.name])
            facts[path.name] = {
                **known,
                "allowed": may,
                "axes": {name: list(perm) for name, perm in axes.items()},
            }
    write_whole(save, npz_bytes(arrays, compressed=True))
    kept = tuple(
        {
            "name": one.name, "shape": list(one.shape), "dtype": str(one.dtype),
            "channels_last": one.channels_last,
        }
        for one in specs
    )  # fmt: skip
    return Recorded(source, kept, facts)


def _specs(inputs: Sequence[ModelInput]) -> tuple[InputSpec, ...]:
    return tuple(InputSpec(one.name, one.shape, np.dtype(one.dtype), one.channels_last) for one in inputs)


def _check(specs: Sequence[InputSpec], told: Outputs, path: Path) -> None:
    """Raise DataError where an artifact's inputs are not those of the report."""
    sizes = {one.name: math.prod(one.shape) for one in specs}
    for name, shape, _ in told.inputs:
        if sizes.get(name) != math.prod(shape):
            why = f"its input {visible(name)!r} is another than the report's"
            raise DataError("the artifact is not the one of the report", where=path.name, why=why)


def _axes(path: Path) -> Axes:
    """Of a TFLite file, as it says itself; an ONNX file keeps the network's own."""
    if path.suffix != ".tflite":
        return {}
    from edgec.compiler.evaluate.tflite_quality import axes_of
    from edgec.graph.tflite.read import read

    file = read(path)
    ranks = {file.tensors[index].name: len(file.tensors[index].shape) for index in file.inputs}
    return {name: axes for name, axes in axes_of(file).items() if ranks.get(name) == len(axes)}


def _assumed(told: Outputs, axes: Axes, path: Path, recipe: Recipe) -> tuple[InputSpec, ...]:
    """Inputs of a run whose report says nothing of them."""
    found = []
    for name, shape, dtype in told.inputs:
        moved = axes.get(name)
        if moved is None and path.suffix == ".tflite" and recipe.io_layout == "nhwc" and len(shape) == 4:
            moved = (0, 2, 3, 1)
        if moved is not None:
            shape = tuple(shape[list(moved).index(axis)] for axis in range(len(moved)))
        kind = np.dtype(np.float32) if name in told.quantised else np.dtype(dtype)
        found.append(InputSpec(name, tuple(shape[1:] if shape[:1] == (1,) else shape), kind))
    return tuple(found)


def _samples(
    specs: tuple[InputSpec, ...], source: tuple[InputSpec, ...], recipe: Recipe, count: int
) -> tuple[dict[str, Array], str, Dataset | None]:
    """``count`` samples by input, as the artifacts take them, what they are, and where they are from, if from data.

    ``source``: what the source model takes.
    """
    if recipe.data is not None and recipe.data.path != "random" and Path(recipe.data.path).exists():
        try:
            preprocess = recipe.preprocess.build()
            data = open_data(recipe.data.path, source, preprocess, samples=count, skip_bad=True).at(specs)
            return next(iter(data.batches(len(data)))), f"{len(data)} of the calibration samples", data
        except DataError:
            pass  # the data changed since the run: noise tests the arithmetic as well
    rng = np.random.default_rng(0)
    made = {one.name: noise(rng, (count, *one.shape), one.dtype) for one in specs}
    return made, f"{count} samples of seeded noise", None


def _placed(
    array: Array,
    shape: Sequence[int],
    axes: Sequence[int] | None,
    codes: tuple[float, int] | None,
    dtype: str,
) -> Array:
    """Samples (N, ...) as an artifact takes them one by one: its axes, its codes, its type."""
    count, kind = len(array), np.dtype(dtype)
    if axes is not None:
        back = [shape[list(axes).index(axis)] for axis in range(len(axes))]
        array = array.reshape(count, *back).transpose(0, *(1 + axis for axis in axes))
    if codes is not None and kind.kind in "iu" and array.dtype.kind == "f":
        scale, zero = codes
        limits = np.iinfo(kind)
        array = np.clip(np.round(array / np.float32(scale)) + zero, limits.min, limits.max)
    one = tuple(shape[1:] if tuple(shape[:1]) == (1,) else shape)
    return np.ascontiguousarray(array.reshape(count, *one), kind)
