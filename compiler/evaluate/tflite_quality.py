"""Quality of TFLite artifacts, from their own outputs: run in a TFLite runtime, compared with the teacher.

ONNX artifacts are judged while the graph is at hand (`evaluate.quality`); a TFLite file is another program, so it is run.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from edgec.compiler.emit.artifacts import Emitted
from edgec.compiler.evaluate.quality import Judge, Tally
from edgec.compiler.tasks.task import Task, Truth
from edgec.graph.compare import Difference, same_shape
from edgec.graph.data import Dataset
from edgec.graph.errors import ModelError
from edgec.graph.execute import Executor
from edgec.graph.npz import npz_bytes
from edgec.graph.parts import parts_of
from edgec.graph.scratch import scratch_folder, write_scratch
from edgec.graph.tflite.read import TensorInfo, TfliteFile, read
from edgec.graph.tflite.schema import TensorType

Array = np.ndarray[Any, np.dtype[Any]]

_CODES = {
    TensorType.INT8: ("int8", -128, 127),
    TensorType.UINT8: ("uint8", 0, 255),
    TensorType.INT16: ("int16", -32768, 32767),
}
"""Type and range of the codes of a quantised input."""
CHUNK_BYTES = 64 << 20
"""Inputs are handed over in files of about this size: memory stays flat whatever the number of samples."""


def judge_tflite(
    teacher: ir.Model,
    emitted: Sequence[Emitted],
    data: Dataset,
    *,
    like: ir.Model,
    threads: int,
    task: Task | None = None,
    truth: Truth | None = None,
) -> dict[str, Tally]:
    """Tallies by artifact name, for the TFLite files among ``emitted``. Raises EdgecError where none can run.

    ``like``: a graph with the inputs that the files have.
    """
    files = [one for one in emitted if one.format == "tflite"]
    if not files:
        return {}
    runner = Executor(teacher, threads=threads)
    judge, theirs, chunk = Judge.of(teacher, like, task), data.at(like), _chunk(data)
    tallies, done = {one.name: Tally(judge) for one in files}, 0
    given = (None,) * len(data) if theirs is data else theirs.batches(chunk)
    for feeds, other in zip(data.batches(chunk), given):  # noqa: B905  (as many batches as there are)
        reference = runner.run(feeds)
        count = len(next(iter(feeds.values())))
        right = None if truth is None else truth[done : done + count]
        paths = [one.path for one in files]
        for one, (axes, values) in zip(files, _run_all(paths, other or feeds), strict=True):
            moved = {
                name: _like(value, reference[name], axes.get(name))
                for name, value in zip(reference, values, strict=True)
            }
            tallies[one.name].add(count, reference, moved, right)
        done += count
    return tallies


def compare_file(model: ir.Model, path: Path, data: Dataset, *, threads: int = 1) -> tuple[Difference, ...]:
    """Differences at the outputs between ``model`` and a TFLite file run on the same data. Raises EdgecError."""
    runner = Executor(model, threads=threads)
    parts = parts_of(model)
    found = [Difference(part.name, op="output") for part in parts]
    for feeds in data.batches(_chunk(data)):
        reference = runner.run(feeds)
        ((axes, values),) = _run_all([path], feeds)
        if len(values) != len(reference):
            why = f"{len(reference)} against {len(values)}"
            raise ModelError("the models have different numbers of outputs", where=str(path), why=why)
        wanted = list(reference.values())
        made = [
            _like(value, expected, axes.get(name))
            for (name, expected), value in zip(reference.items(), values, strict=True)
        ]
        for name, value, expected in zip(reference, made, wanted, strict=True):
            same_shape(value, expected, name)
        for part, difference in zip(parts, found, strict=True):
            difference.add(part.of(wanted), part.of(made))
    return tuple(found)


Axes = Mapping[str, Sequence[int]]
"""By name of an input or output: the ONNX axis that stands at each place of the file's tensor."""


def _run_all(files: Sequence[Path], feeds: Mapping[str, Array]) -> Iterator[tuple[Axes, list[Array]]]:
    """Outputs of each file for one batch, as real numbers, and how the file says that its tensors lie."""
    from edgec.runtime.bench import BenchOptions, outputs
    from edgec.runtime.devices import open_device

    with scratch_folder() as folder, open_device("local") as device:
        for index, path in enumerate(files):
            file = read(path)
            axes = axes_of(file)
            given = [file.tensors[i] for i in file.inputs]
            moved = [
                _to_layout(array, axes.get(name), tensor)
                for (name, array), tensor in zip(feeds.items(), given, strict=True)
            ]
            coded = {t.name: _encode(array, t) for t, array in zip(given, moved, strict=True)}
            inputs, saved = folder / f"inputs{index}.npz", folder / f"outputs{index}.npz"
            write_scratch(inputs, npz_bytes(coded))
            outputs(path, inputs, saved, BenchOptions(), device)
            with np.load(saved) as arrays:
                values = [arrays[name] for name in arrays.files]
            yield (
                axes,
                [_decode(value, file.tensors[i]) for value, i in zip(values, file.outputs, strict=True)],
            )


def axes_of(file: TfliteFile) -> Axes:
    """Written into the file by the emitter; of a foreign file nothing is known."""
    axes = file.edgec_metadata.get("axes")
    if not isinstance(axes, dict):
        return {}
    return {name: perm for name, perm in axes.items() if sorted(perm) == list(range(len(perm)))}


def _encode(array: Array, tensor: TensorInfo) -> Array:
    """Real numbers as the codes that a quantised input takes; a float input takes them as they are."""
    limits = _CODES.get(tensor.type)
    if limits is None or tensor.quantization is None:
        return array
    kind, low, high = limits
    codes = np.round(array / tensor.quantization.scale[0]) + tensor.quantization.zero_point[0]
    return np.asarray(np.clip(codes, low, high)).astype(kind)


def _decode(value: Array, tensor: TensorInfo) -> Array:
    if value.dtype.kind == "f" or tensor.quantization is None:
        return value
    real = (value.astype(np.float64) - tensor.quantization.zero_point[0]) * tensor.quantization.scale[0]
    return real.astype(np.float32)


def _chunk(data: Dataset) -> int:
    sample = data.source.read(data.indices[:1])
    each = sum(array.nbytes for array in sample.values())
    return max(1, min(len(data), CHUNK_BYTES // max(1, each)))


def _to_layout(array: Array, axes: Sequence[int] | None, tensor: TensorInfo) -> Array:
    """An input as the file wants it: in the order and the type that it has there; of a foreign file, by its shape."""
    if axes is not None and len(axes) == array.ndim:
        array = array.transpose(axes)
    elif axes is None and array.ndim == 4 and array.shape[1:] != tuple(tensor.shape[1:]):
        array = array.transpose(0, 2, 3, 1)
    narrowed = array.dtype.kind == "f" and array.dtype != np.float32
    return np.ascontiguousarray(array, np.float32 if narrowed else array.dtype)


def _like(value: Array, reference: Array, axes: Sequence[int] | None) -> Array:
    """An output in the teacher's layout: by what the file says of it, else by its shape."""
    if axes is not None and len(axes) == value.ndim:
        value = value.transpose(np.argsort(axes))
    if value.shape == reference.shape:
        return value
    if value.ndim == 4 and value.transpose(0, 3, 1, 2).shape == reference.shape:
        return value.transpose(0, 3, 1, 2)
    if math.prod(value.shape) == math.prod(reference.shape):
        return value.reshape(reference.shape)
    return value
