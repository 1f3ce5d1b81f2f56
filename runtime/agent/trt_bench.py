"""TensorRT engines measured by NVIDIA's own trtexec: times of each inference on the GPU, times per layer.

The protocol is the agent's where trtexec lets it: warm up, then at least so many runs and seconds, the machine watched meanwhile.
What it counts is the time on the GPU alone, inputs and outputs in place, with CUDA graphs: the same in every version.
"""

from __future__ import annotations

import argparse
import math
import re
import statistics
import tempfile
import time
from pathlib import Path
from typing import Callable, List, Sequence, Tuple

from .base import AgentError, Json, say
from .figures import STABLE, kept_samples, observed, percentile
from .machine import Machine
from .trt_engines import Built, engine_of
from .trt_output import UNSTABLE, Times, deserialised_ms, layers, profile, summary, times, told, unstable
from .trtexec import Ended, Trtexec, find
from .watch import Watch

_PATIENCE = 600.0  # seconds beside those that were asked for
AGREE = 0.02  # what trtexec prints and what it writes must be of one run: its median is the upper of two
_UNSETTLED = "latency had not settled after {:.1f} s of warm-up"


def measure(path: str, args: argparse.Namespace) -> Json:
    """The record of one ONNX file: its engine is built first where it is not there."""
    machine, tool, onnx = Machine(args.root), find(), Path(path)
    if args.inputs:
        raise AgentError(
            "usage", "trtexec measures on inputs of its own: leave --inputs out with the engine tensorrt"
        )
    built = engine_of(onnx, machine, dict(args.shape))
    say(f"{onnx.name}: measuring on the GPU")
    watch, start = Watch(machine, []), time.monotonic()
    readings: List[Tuple[float, Json]] = []

    def sample() -> None:
        if watch.sample():
            readings.append((time.monotonic() - start, watch.after))

    with tempfile.TemporaryDirectory() as folder:
        file, seconds = Path(folder) / "times.json", math.ceil(max(args.seconds, args.sustained, 1))
        warmup_ms = max(200, round(1e3 * args.warmup))
        options = [f"--warmUp={warmup_ms}", f"--duration={seconds}", f"--iterations={args.runs}"]
        options += [f"--exportTimes={file}", *tool.equal_terms()]
        ended = _run(tool, built, options, Path(folder), sample, seconds + args.warmup)
        found = times(file, warmup_ms)
    watch.read()
    noise = {**watch.noise(ended.cpu), "measured_cores": None}
    record = observed(onnx, watch, noise, found.milliseconds)
    _judge(record, found, ended, warmup_ms)
    queries = re.search(r"Warmup completed (\d+) queries", ended.text)
    return {
        **record,
        "engine": "tensorrt",
        "engine_version": tool.name,
        "delegate": f"GPU, {built.kind}",
        "threads": 1,
        "cores": [],
        "inputs": [],
        "import_ms": None,
        "load_ms": deserialised_ms(ended.text),
        "first_ms": None,
        "warmup_runs": int(queries[1]) if queries else None,
        "warmup_seconds": warmup_ms / 1e3,
        "settled": _settled(found.milliseconds),
        "engine_rss_mb": None,
        "peak_rss_mb": ended.peak_mb,
        "hard_faults": ended.faults,
        "sustained": _windows(found, readings) if args.sustained else None,
        "samples_ms": kept_samples(found.milliseconds, args),
    }


def layer_times(path: str, args: argparse.Namespace) -> List[Json]:
    """Microseconds per layer of the engine, and the nodes of the ONNX file that it says are in it."""
    machine, tool = Machine(args.root), find()
    built = engine_of(Path(path), machine, dict(args.shape))
    say(f"{Path(path).name}: measuring each layer")
    with tempfile.TemporaryDirectory() as folder:
        rows, info = Path(folder) / "profile.json", Path(folder) / "layers.json"
        options = [
            f"--exportProfile={rows}",
            f"--exportLayerInfo={info}",
            f"--duration={math.ceil(max(args.seconds, 1))}",
        ]
        _run(
            tool, built, [*options, *tool.equal_terms(graph=False)], Path(folder), lambda: None, args.seconds
        )
        nodes = layers(info) if info.is_file() else {}
        return [{**row, "op": "", "nodes": nodes.get(row["name"], [])} for row in profile(rows)]


def _run(
    tool: Trtexec,
    built: Built,
    options: Sequence[str],
    folder: Path,
    sample: Callable[[], object],
    seconds: float,
) -> Ended:
    shapes = [option for option in built.record["options"] if option.startswith("--shapes=")]
    command = [f"--loadEngine={built.path}", *shapes, *options]
    ended = tool.run(command, folder / "log", sample, seconds + _PATIENCE)
    if ended.code != 0:
        how = (
            f"was killed by signal {-ended.code}" if ended.code < 0 else f"ended with exit code {ended.code}"
        )
        raise AgentError("accelerator", f"trtexec {tool.name} {how} on {built.path.name}: {told(ended.text)}")
    return ended


def _judge(record: Json, found: Times, ended: Ended, warmup_ms: float) -> None:
    """Add what the times and trtexec's own words say against the figures."""
    spread = unstable(ended.text)
    spread = found.spread if spread is None else spread  # 8.2 does not say so itself; the rule is the same
    if spread > UNSTABLE:
        how = "pin the clocks (sudo jetson_clocks) and measure again"
        record["invalid"].append(f"the GPU's time is unstable, coefficient of variance {spread:.1f}%: {how}")
        record["valid"] = False
    median, words = statistics.median(found.milliseconds), summary(ended.text).get("median")
    if words is not None and abs(words - median) > AGREE * median:
        record["invalid"].append(
            f"trtexec prints a median of {words:g} ms, and its file of times gives {median:g}"
        )
        record["valid"] = False
    if not _settled(found.milliseconds):
        record["notices"].append(_UNSETTLED.format(warmup_ms / 1e3))
    if "Throughput may be bound by Enqueue Time" in ended.text:
        record["notices"].append("the CPU starts inferences more slowly than the GPU ends them")


def _settled(milliseconds: Sequence[float]) -> bool:
    """Whether the medians of three parts agree as those of three windows of a warm-up must."""
    third = max(1, len(milliseconds) // 3)
    medians = [
        statistics.median(part)
        for part in (milliseconds[:third], milliseconds[third : 2 * third], milliseconds[-third:])
        if part
    ]
    return max(medians) - min(medians) <= STABLE * min(medians)


def _windows(found: Times, readings: Sequence[Tuple[float, Json]]) -> List[Json]:
    """The course of a long run: the inferences between two readings of the machine, with the later one."""
    rows: List[Json] = []
    if not readings:
        return rows
    # Both ends agree: the last inference ends as the program does.
    offset, width = readings[-1][0] - found.begun[-1], max(0.5, min(5.0, found.begun[-1] / 240))
    begun, part = [start + offset for start in found.begun], 0
    for at, state in readings:
        inside = []
        while part < len(begun) and begun[part] < at:
            inside.append(found.milliseconds[part])
            part += 1
        if not inside or (rows and at - rows[-1]["t"] - offset < width):
            part -= len(inside)
            continue
        median, p90 = statistics.median(inside), percentile(sorted(inside), 0.9)
        row = {
            "t": round(at - offset, 2),
            "median_ms": round(median, 5),
            "p90_ms": round(p90, 5),
            "runs": len(inside),
        }
        rows.append(
            {**row, **{key: state[key] for key in ("clock_mhz", "temperature_c", "throttled", "power_w")}}
        )
    return rows
