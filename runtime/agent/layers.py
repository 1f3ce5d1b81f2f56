"""Time per layer, and outputs for given inputs: both run in this very process, which holds one engine."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import zipfile
import zlib
from importlib import import_module
from pathlib import Path
from typing import Any, Dict, List, Sequence, Set, Tuple

from .base import VERSION, AgentError, Json, first_line
from .engine import TENSORRT
from .engines import made_up_feeds, open_engine, read_feeds
from .machine import Machine
from .measure import split_artifact
from .worker import burst

LAYERS_MOST = 20_000  # single-op models in an archive
BYTES_MOST = 2**31  # of all of them, unpacked


def profile(args: argparse.Namespace) -> Json:
    """Microseconds per layer: onnxruntime's own profiler, or one single-op model per layer (``--layers``)."""
    cores = Machine(args.root).choose_cores(args.threads) if args.pin else []
    if cores:
        os.sched_setaffinity(0, cores)
    path, engine = split_artifact(args.artifact)
    if (engine or args.engine) == TENSORRT:
        from .trt_bench import layer_times

        rows = layer_times(path, args)
    elif args.layers:
        with tempfile.TemporaryDirectory() as folder:
            layers = unpack(args.layers, Path(folder))
            rows = _single_ops(layers, engine or args.engine, args.threads)
    elif path.endswith(".onnx"):
        rows = _session(path, engine or args.engine, args)
    else:
        raise AgentError("usage", f"{path}: times per layer of a .tflite need --layers (single-op models)")
    total = sum(row["us"] for row in rows) or 1.0
    return {"agent": VERSION, "layers": [{**row, "share": round(row["us"] / total, 5)} for row in rows]}


def _session(path: str, engine_name: str | None, args: argparse.Namespace) -> List[Json]:
    """onnxruntime's profiler, per node of its optimised graph (fused nodes keep the name of the first)."""
    with tempfile.TemporaryDirectory() as folder:
        engine: Any = open_engine(
            path, engine_name, args.threads, dict(args.shape), str(Path(folder) / "profile")
        )
        engine.feed(made_up_feeds(engine))
        burst(engine.invoke, 3, 0.3, 0)
        runs = len(burst(engine.invoke, 10, min(2.0, args.seconds), 0))
        try:
            events = json.loads(Path(engine.session.end_profiling()).read_text(encoding="utf-8"))
        except ValueError:
            raise AgentError("worker", f"the profile in {folder} was cut short: is the disk full?") from None
    ops: Dict[str, str] = {}
    times: Dict[str, List[float]] = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            name = event["name"][: -len("_kernel_time")]
            ops[name] = event["args"]["op_name"]
            times.setdefault(name, []).append(event["dur"])
    return [{"name": name, "op": ops[name], "us": round(middle_mean(times[name][-runs:]), 3)} for name in ops]


def middle_mean(values: Sequence[float]) -> float:
    """Mean of the middle half: robust like the median, and finer than the profiler's whole microseconds."""
    ordered = sorted(values)
    quarter = len(ordered) // 4
    kept = ordered[quarter : len(ordered) - quarter]
    return sum(kept) / len(kept)


def unpack(path: str, folder: Path) -> List[Tuple[str, str, str]]:
    """(name, op, file) of each single-op model of the archive, unpacked into ``folder`` under names of our own.

    The archive holds ``layers.json``, a list of {"name", "op"}, and for the row with index i the file ``i.tflite`` or ``i.onnx``.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(member.file_size for member in archive.infolist()) > BYTES_MOST:
                raise ValueError(f"it unpacks to more than {BYTES_MOST >> 20} MB")
            rows = json.loads(archive.read("layers.json").decode("utf-8"))
            if not isinstance(rows, list) or not 0 < len(rows) <= LAYERS_MOST:
                raise ValueError(f"layers.json is not a list of 1 to {LAYERS_MOST} layers")
            here = set(archive.namelist())
            return [_unpacked(archive, here, row, i, folder) for i, row in enumerate(rows)]
    except (
        OSError,
        ValueError,
        KeyError,
        RuntimeError,
        RecursionError,
        EOFError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise AgentError("usage", f"{path}: not an archive of layers: {first_line(error)}") from error


def _unpacked(
    archive: zipfile.ZipFile, here: Set[str], row: Any, index: int, folder: Path
) -> Tuple[str, str, str]:
    if not isinstance(row, dict) or not all(isinstance(row.get(key), str) for key in ("name", "op")):
        raise ValueError(f'layer {index} is not {{"name": text, "op": text}}')
    name = next((name for name in (f"{index}.tflite", f"{index}.onnx") if name in here), None)
    if name is None:
        raise ValueError(f"it has no model of layer {index}")
    (folder / name).write_bytes(archive.read(name))
    return row["name"], row["op"], str(folder / name)


def _single_ops(layers: Sequence[Tuple[str, str, str]], engine_name: str | None, threads: int) -> List[Json]:
    """Median of each single-op model, the lower of two passes over all of them."""
    best: Dict[int, float] = {}
    for _ in range(2):
        for i, (_, _, path) in enumerate(layers):
            engine = open_engine(path, engine_name, threads, {})
            engine.feed(made_up_feeds(engine))
            burst(engine.invoke, 5, 0.02, 0)
            found = statistics.median(burst(engine.invoke, 20, 0.06, 0)) / 1e3
            best[i] = min(found, best.get(i, found))
    return [{"name": name, "op": op, "us": round(best[i], 3)} for i, (name, op, _) in enumerate(layers)]


def outputs(args: argparse.Namespace) -> Json:
    """Run every sample of ``--inputs`` and write all outputs, samples along the first axis, to ``--save``.

    The answer's ``rows`` say how many each sample has of an output whose number the data decides (boxes behind a suppression).
    """
    numpy = import_module("numpy")
    path, engine_name = split_artifact(args.artifact)
    engine = open_engine(path, engine_name or args.engine, args.threads, dict(args.shape))
    collected: Dict[str, List[Any]] = {}
    batched = True
    for feeds in read_feeds(args.inputs, engine) if args.inputs else [made_up_feeds(engine)]:
        batched = all(array.shape[:1] == (1,) for array in feeds.values() if array.ndim)
        engine.feed(feeds)
        engine.invoke()
        for name, array in engine.outputs().items():
            collected.setdefault(name, []).append(numpy.array(array))
    arrays, rows = {}, {}
    for name, parts in collected.items():
        alike = len({part.shape for part in parts}) == 1
        single = all(part.shape[:1] == (1,) for part in parts)
        if not parts[0].ndim or (alike and not (batched and single)):
            arrays[name] = numpy.stack(parts)
        else:
            arrays[name] = numpy.concatenate(parts)
            if not single:
                rows[name] = [len(part) for part in parts]
    part = Path(args.save + ".part")
    with zipfile.ZipFile(str(part), "w") as archive:  # savez(**arrays) cannot take an output called 'file'
        for name, array in arrays.items():
            with archive.open(name + ".npy", "w", force_zip64=True) as file:
                numpy.save(file, array, allow_pickle=False)
    part.replace(args.save)
    facts: Json = {"engine": engine.name, "engine_version": engine.version, "delegate": engine.delegate}
    facts["inputs"] = [[name, list(shape), str(dtype)] for name, shape, dtype in engine.inputs]
    facts["outputs"] = [[name, list(array.shape), str(array.dtype)] for name, array in arrays.items()]
    facts["rows"] = rows
    return {"agent": VERSION, **facts, "quantised": engine.quantised, "notices": engine.notices}
