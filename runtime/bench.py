"""Measure artifacts on a device, one by one or against each other (design section 8).

>>> from edgec.runtime.bench import BenchOptions, bench
>>> from edgec.runtime.devices import open_device
>>> with open_device("local") as device:
...     (m,) = bench([Path("model.onnx")], BenchOptions(threads=1), device)
>>> m.median_ms, m.valid
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from edgec.graph.errors import DataError, DeviceError, EdgecError, ModelError, UsageError, did_you_mean
from edgec.graph.scratch import scratch_folder, write_scratch
from edgec.graph.text import shortened
from edgec.graph.values import THREADS, NotAdmitted, Range, seconds, switch, whole
from edgec.runtime.devices.base import Completed, Device, run_job
from edgec.runtime.measurement import Comparison, LayerTime, Measurement, Ratio
from edgec.runtime.replies import (
    Answer,
    Bench,
    Failure,
    Info,
    Outputs,
    Profile,
    not_understood,
    parse,
)

_ERRORS: Mapping[str, type[EdgecError]] = {
    "model": ModelError,
    "data": DataError,
    "usage": UsageError,
    "engine": DeviceError,
    "accelerator": DeviceError,
    "worker": DeviceError,
}
_HINTS = {
    "engine": "pip install onnxruntime (.onnx) or ai-edge-litert (.tflite); `edgec deploy RUN --device` does it on a board.",
}


@dataclass(frozen=True)
class Artifact:
    """A model file and the engine to run it with (None: the preferred one for its type).

    Engines: onnxruntime, onnxruntime-cuda, onnxruntime-tensorrt, tensorrt, litert, litert-builtin, litert-reference,
    tflite-runtime, tflite-runtime-builtin, tflite-runtime-reference.
    """

    path: Path
    engine: str | None = None
    there: str | None = None
    """Where the same file lies on the device already, beside engines that were built of it; None: it is sent."""


@dataclass(frozen=True)
class LayerModel:
    """A single-op model that stands for one layer of a .tflite, for times per layer."""

    name: str
    op: str
    path: Path


@dataclass(frozen=True)
class BenchOptions:
    """How to measure; times in seconds, or text such as ``500ms``. Raises UsageError for what is not admitted."""

    engine: str | None = None
    threads: int = 1
    runs: int = 50
    seconds: float = 2.0
    warmup: float = 1.0
    warmup_most: float = 10.0
    sustained: float = 0.0
    restarts: int = 3
    pin: bool = True
    samples: bool = False
    inputs: Path | None = None
    shapes: Mapping[str, Sequence[int]] = field(default_factory=dict)
    timeout: float = 3600.0
    wait: float = 600.0

    def __post_init__(self) -> None:
        for name, read in _READERS.items():
            try:
                object.__setattr__(self, name, read(getattr(self, name)))
            except NotAdmitted as error:
                raise UsageError(f"{name}: {error}") from None
        if self.engine is not None:
            _check_name(self.engine)


_COUNT, _TIMES = partial(whole, within=Range(1, 1_000_000)), partial(seconds, within=Range(0, 86_400))
_READERS: Mapping[str, Callable[[Any], Any]] = {
    "threads": partial(whole, within=THREADS),
    "runs": _COUNT,
    "restarts": partial(whole, within=Range(1, 100)),
    "seconds": _TIMES,
    "warmup": _TIMES,
    "warmup_most": _TIMES,
    "sustained": _TIMES,
    "timeout": partial(seconds, within=Range(0, 864_000, above=True)),
    "wait": _TIMES,
    "pin": switch,
    "samples": switch,
}


def check_engine(artifact: Path, engine: str | None) -> None:
    """Raise UsageError for an engine that does not exist, or that does not run files of this kind."""
    from edgec.runtime.agent.engine import TENSORRT
    from edgec.runtime.agent.engines import ORT_PROVIDERS, TFLITE_RESOLVERS

    if engine is None:
        return
    _check_name(engine)
    known = [*ORT_PROVIDERS, TENSORRT] if artifact.suffix == ".onnx" else [*TFLITE_RESOLVERS]
    if engine not in known:
        hint = f"Engines for {artifact.suffix}: {', '.join(known)}."
        raise UsageError(f"{engine} does not run {artifact.suffix} files", where=str(artifact), hint=hint)


def _check_name(engine: str) -> None:
    from edgec.runtime.agent.engines import engine_names

    if engine not in engine_names():
        hint = did_you_mean(engine, engine_names())
        raise UsageError(f"unknown engine {engine!r}", why=f"known: {', '.join(engine_names())}", hint=hint)


def bench(
    artifacts: Sequence[Path | Artifact],
    options: BenchOptions,
    device: Device,
    notify: Callable[[str], None] = lambda text: None,
) -> tuple[Measurement, ...]:
    """Measure each artifact by itself, one after the other, in the given order.

    A Measurement whose ``valid`` is False must not be used; it says why. ``notify`` gets progress lines.
    Raises ModelError for a file that cannot be loaded, DeviceError for a device or engine that does not work.
    """
    result = _agent(Bench, ["bench", *_bench_flags(options)], artifacts, options, device, notify)
    return _measurements(result, artifacts, device)


def compare(
    artifacts: Sequence[Path | Artifact],
    options: BenchOptions,
    device: Device,
    notify: Callable[[str], None] = lambda text: None,
) -> Comparison:
    """Measure artifacts in turns in one session: ratios of the others to the first.

    Each lives in a process of its own and is asked for short bursts in the order A B, B A, A B, so that
    clock, heat, and noise meet all sides alike. ``options.restarts`` generations of processes average out
    what memory layout is worth.
    """
    if len(artifacts) < 2:
        raise UsageError("a comparison needs at least two artifacts")
    flags = ["bench", "--interleave", "--restarts", str(options.restarts), *_bench_flags(options)]
    result = _agent(Bench, flags, artifacts, options, device, notify)
    measurements = _measurements(result, artifacts, device)
    first, *others = (m.artifact for m in measurements)
    if len(result.ratios) != len(others):
        raise not_understood(f"{len(result.ratios)} ratios for {len(others)} artifacts", device.name)
    ratios = [
        Ratio(other, first, **found.model_dump()) for other, found in zip(others, result.ratios, strict=True)
    ]
    return Comparison(measurements, tuple(ratios))


def profile(
    artifact: Path | Artifact,
    options: BenchOptions,
    device: Device,
    layers: Sequence[LayerModel] = (),
    notify: Callable[[str], None] = lambda text: None,
) -> tuple[LayerTime, ...]:
    """Time per layer, in execution order.

    An .onnx is measured by onnxruntime's profiler, per node of its optimised graph. A .tflite needs
    ``layers``, one single-op model per layer; each is timed by itself in the same engine.
    """
    with scratch_folder() as folder:
        flags = ["profile", *_common_flags(options)]
        if layers:
            archive = folder / "layers.zip"
            write_scratch(archive, _archive(layers))
            flags += ["--layers", device.push(archive)]
        result = _agent(Profile, flags, [artifact], options, device, notify)
    if layers and len(result.layers) != len(layers):
        raise not_understood(f"times of {len(result.layers)} layers, not of {len(layers)}", device.name)
    return tuple(LayerTime(**row.model_dump()) for row in result.layers)


def _archive(layers: Sequence[LayerModel]) -> bytes:
    """All single-op models as one file, so that one is sent and no path stands in it: see `agent.layers`."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        rows = [{"name": layer.name, "op": layer.op} for layer in layers]
        archive.writestr("layers.json", json.dumps(rows))
        for index, layer in enumerate(layers):
            archive.writestr(f"{index}{layer.path.suffix}", layer.path.read_bytes())
    return buffer.getvalue()


def outputs(
    artifact: Path | Artifact,
    inputs: Path | None,
    save: Path,
    options: BenchOptions,
    device: Device,
    notify: Callable[[str], None] = lambda text: None,
) -> Outputs:
    """Run every sample of ``inputs`` (.npz, samples first; None: one seeded) and put all outputs in ``save``.

    Returns which engine, version, and delegate computed them.
    """
    remote = device.temporary("outputs.npz")
    flags = ["outputs", "--save", remote, *_common_flags(options)]
    if inputs is not None:
        flags += ["--inputs", device.push(inputs)]
    result = _agent(Outputs, flags, [artifact], options, device, notify)
    device.pull(remote, save)
    return result


def device_info(device: Device) -> Info:
    """What the device is and which engines work there (see :mod:`edgec.runtime.agent.probe`)."""
    return _result(Info, device.run([*device.agent_command(), "info"], timeout=300.0), device)


def _common_flags(options: BenchOptions) -> list[str]:
    flags = ["--threads", str(options.threads), "--seconds", str(options.seconds)]
    if options.engine:
        flags += ["--engine", options.engine]
    if not options.pin:
        flags.append("--no-pin")
    for name, shape in options.shapes.items():
        flags += ["--shape", f"{name}={'x'.join(map(str, shape))}"]
    return flags


def _bench_flags(options: BenchOptions) -> list[str]:
    flags = [*_common_flags(options), "--runs", str(options.runs)]
    flags += ["--warmup", str(options.warmup), "--warmup-most", str(options.warmup_most)]
    if options.sustained:
        flags += ["--sustained", str(options.sustained)]
    if options.samples:
        flags.append("--samples")
    return flags


def _agent(
    kind: type[Answer],
    flags: Sequence[str],
    artifacts: Sequence[Path | Artifact],
    options: BenchOptions,
    device: Device,
    notify: Callable[[str], None],
) -> Answer:
    """Bring the files there, run the agent as a job, and return its answer."""
    named = [item if isinstance(item, Artifact) else Artifact(item) for item in artifacts]
    for item in named:
        if not item.path.is_file():
            raise ModelError("no such file", where=str(item.path))
    command = [*device.agent_command(), *flags]
    if flags[0] == "bench" and options.inputs is not None:
        command += ["--inputs", device.push(options.inputs)]
    for item in named:
        remote = item.there or device.push(item.path)
        command.append(f"{remote}@{item.engine}" if item.engine else remote)
    # One run at a time holds a board; this host is everybody's.
    wait = None if device.name == "local" else options.wait
    limit = options.timeout + options.sustained + (wait or 0.0)
    done = run_job(device, command, timeout=limit, wait=wait, notify=notify)
    return _result(kind, done, device)


def _result(kind: type[Answer], done: Completed, device: Device) -> Answer:
    """The agent's answer, or the error that it stands for."""
    line = done.stdout.rstrip().rpartition("\n")[2]
    if not line.startswith("{") and done.returncode != 0:
        raise _broke_down(done, device)
    answer = parse(kind, line, device.name)
    if isinstance(answer, Failure):
        ours = device.name == "local" and answer.kind not in ("engine", "accelerator", "worker")
        where = None if ours else device.name
        raise _ERRORS[answer.kind](answer.error, where=where, hint=_HINTS.get(answer.kind))
    if done.returncode != 0:
        raise _broke_down(done, device)
    return answer


def _broke_down(done: Completed, device: Device) -> DeviceError:
    """The error for an agent that ended without an answer."""
    tail = shortened(" | ".join(done.stderr.strip().splitlines()[-3:]), 1000)
    code = done.returncode
    how = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
    why = f"{how}: {tail}" if tail else how
    return DeviceError("the measuring agent failed", where=device.name, why=why)


def _measurements(
    result: Bench, artifacts: Sequence[Path | Artifact], device: Device
) -> tuple[Measurement, ...]:
    paths = [str(item.path if isinstance(item, Artifact) else item) for item in artifacts]
    if len(result.artifacts) != len(paths):
        raise not_understood(
            f"records of {len(result.artifacts)} artifacts, not of {len(paths)}", device.name
        )
    return tuple(
        Measurement.of(record, artifact=path, device=device.name)
        for record, path in zip(result.artifacts, paths, strict=True)
    )
