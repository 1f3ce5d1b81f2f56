"""Quality of TFLite artifacts, from their own outputs: run in a TFLite runtime, compared with the teacher.

ONNX artifacts are judged while the graph is at hand (`compiler.quality`); a TFLite file is another program, so it is run.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from edgec.compiler.artifacts import Emitted
from edgec.compiler.quality import Tally
from edgec.graph.data import Dataset
from edgec.graph.execute import Executor

Array = np.ndarray[Any, np.dtype[Any]]

CHUNK_BYTES = 64 << 20
"""Inputs are handed over in files of about this size: memory stays flat whatever the number of samples."""


def judge_tflite(
    teacher: ir.Model,
    emitted: Sequence[Emitted],
    data: Dataset,
    *,
    io_layout: str,
    label_offset: int,
    threads: int,
) -> dict[str, dict[str, Any]]:
    """Quality objects by artifact name, for the TFLite files among ``emitted``. Raises EdgecError where none can run."""
    files = [one for one in emitted if one.format == "tflite"]
    if not files:
        return {}
    runner = Executor(teacher, threads=threads)
    tallies = {one.name: Tally(label_offset) for one in files}
    labels, done = data.labels, 0
    for feeds in data.batches(_chunk(data)):
        reference = runner.run(feeds)
        count = len(next(iter(feeds.values())))
        batch_labels = None if labels is None else labels[done : done + count]
        for one, values in _run_all(files, feeds, io_layout):
            moved = {
                name: _like(value, reference[name]) for name, value in zip(reference, values, strict=True)
            }
            tallies[one.name].add(reference, moved, batch_labels)
        done += count
    return {name: tally.figures() for name, tally in tallies.items()}


def _run_all(
    files: Sequence[Emitted], feeds: Mapping[str, Array], io_layout: str
) -> Iterator[tuple[Emitted, list[Array]]]:
    from edgec.runtime.bench import BenchOptions, outputs
    from edgec.runtime.devices import open_device

    with tempfile.TemporaryDirectory() as folder, open_device("local") as device:
        inputs = Path(folder) / "inputs.npz"
        moved = {name: _to_layout(array, io_layout) for name, array in feeds.items()}
        np.savez(inputs, **moved)
        for one in files:
            saved = Path(folder) / f"{one.name}.npz"
            outputs(one.path, inputs, saved, BenchOptions(), device)
            with np.load(saved) as arrays:
                yield one, [arrays[name] for name in arrays.files]


def _chunk(data: Dataset) -> int:
    sample = data.source.read(data.indices[:1])
    each = sum(array.nbytes for array in sample.values())
    return max(1, min(len(data), CHUNK_BYTES // max(1, each)))


def _to_layout(array: Array, io_layout: str) -> Array:
    """Pictures go in as the file wants them; anything else has no layout."""
    if io_layout == "nhwc" and array.ndim == 4:
        return np.ascontiguousarray(array.transpose(0, 2, 3, 1))
    return array


def _like(value: Array, reference: Array) -> Array:
    """An output in the teacher's layout."""
    if value.shape == reference.shape:
        return value
    if value.ndim == 4 and value.transpose(0, 3, 1, 2).shape == reference.shape:
        return value.transpose(0, 3, 1, 2)
    if math.prod(value.shape) == math.prod(reference.shape):
        return value.reshape(reference.shape)
    return value
