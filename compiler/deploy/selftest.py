"""What the host computes for a few samples, recorded so that a device can show that it computes the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgec.compiler.plan.recipe import Recipe
from edgec.graph.disk import write_whole
from edgec.graph.errors import DataError
from edgec.graph.npz import npz_bytes
from edgec.graph.scratch import scratch_folder, write_scratch
from edgec.runtime.bench import BenchOptions, outputs
from edgec.runtime.devices.local import LocalDevice

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Recorded:
    """``source``: what the samples are, for people. ``facts``: per file delegate, inputs, and quantised tensors."""

    source: str
    facts: Mapping[str, Mapping[str, Any]]


def record(artifacts: Sequence[Path], recipe: Recipe, save: Path, samples: int) -> Recorded:
    """Run ``samples`` inputs through every artifact on this host, each in a process of its own, into ``save``.

    The inputs are the recipe's calibration samples where they can be read, else seeded noise.
    """
    arrays: dict[str, Array] = {}
    facts: dict[str, Mapping[str, Any]] = {}
    source = ""
    with LocalDevice() as device, scratch_folder() as folder:
        for path in artifacts:
            first = folder / "first.npz"
            told = outputs(path, None, first, BenchOptions(), device)
            facts[path.name] = told.model_dump(include={"engine", "engine_version", "delegate", "quantised"})
            specs = {name: (shape, np.dtype(dtype)) for name, shape, dtype in told.inputs}
            feeds, source = _samples(specs, told.quantised, path.suffix, recipe, samples)
            given, result = folder / "inputs.npz", folder / "outputs.npz"
            write_scratch(given, npz_bytes(feeds))
            outputs(path, given, result, BenchOptions(), device)
            arrays |= {f"{path.name}/in/{name}": array for name, array in feeds.items()}
            with np.load(result) as archive:
                arrays |= {f"{path.name}/out/{name}": archive[name] for name in archive.files}
    write_whole(save, npz_bytes(arrays, compressed=True))
    return Recorded(source, facts)


def _samples(
    specs: Mapping[str, tuple[tuple[int, ...], np.dtype[Any]]],
    quantised: Mapping[str, tuple[float, int]],
    suffix: str,
    recipe: Recipe,
    count: int,
) -> tuple[dict[str, Array], str]:
    """Feeds with ``count`` samples in an artifact's own layout and type, and what they are."""
    last = suffix == ".tflite" and recipe.io_layout == "nhwc"
    shapes = {name: _channels_first(shape) if last else shape for name, (shape, _) in specs.items()}
    found, source = _calibration(shapes, recipe, count)
    if found is None:
        rng = np.random.default_rng(0)
        found = {
            name: rng.standard_normal((count, *(shape[1:] if shape[:1] == (1,) else shape)), np.float32)
            for name, shape in shapes.items()
        }
        source = f"{count} samples of seeded noise"
    feeds = {}
    for name, (shape, dtype) in specs.items():
        array = np.moveaxis(found[name], 1, -1) if last and len(shape) == 4 else found[name]
        if dtype.kind in "iu" and name in quantised:
            scale, zero = quantised[name]
            limits = np.iinfo(dtype)
            array = np.clip(np.round(array / np.float32(scale)) + zero, limits.min, limits.max)
        feeds[name] = np.ascontiguousarray(array, dtype)
    return feeds, source


def _channels_first(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (shape[0], shape[3], shape[1], shape[2]) if len(shape) == 4 else shape


def _calibration(
    shapes: Mapping[str, tuple[int, ...]], recipe: Recipe, count: int
) -> tuple[dict[str, Array] | None, str]:
    """The first calibration samples by input name, or None where the data is not at hand."""
    import onnx
    import onnx_ir as ir

    from edgec.graph.data import open_data

    if recipe.data is None or recipe.data.path == "random" or not Path(recipe.data.path).exists():
        return None, ""
    values = [onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, s) for n, s in shapes.items()]
    bare = onnx.helper.make_model(onnx.helper.make_graph([], "inputs", values, []))
    try:
        data = open_data(
            recipe.data.path, ir.from_proto(bare), recipe.preprocess.build(), samples=count, skip_bad=True
        )
    except DataError:
        return None, ""  # the data changed since the run: noise tests the arithmetic as well
    return next(iter(data.batches(len(data)))), f"{len(data)} of the calibration samples"
