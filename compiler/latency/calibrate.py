"""Teach edgec this machine's speed: measure probe networks with the engines that are installed, and fit.

Times are processor time of the one thread that runs the network, so that other programs disturb them little; the
measured latency of a compiled model (`edgec bench`) is wall-clock time, which on a quiet machine is the same.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import numpy as np
import onnx_ir as ir

from edgec.compiler.emit.onnx import emit as emit_onnx
from edgec.compiler.emit.tflite import emit as emit_tflite
from edgec.compiler.plan.names import RUNTIMES
from edgec.graph.cost import ModelCost, cost
from edgec.graph.data import open_data
from edgec.graph.errors import DeviceError
from edgec.graph.scratch import scratch_folder, write_scratch
from edgec.passes.base import Context, Progress
from edgec.passes.quantize import Quantize
from edgec.targets import target
from edgec.targets.estimator.coefficients import Coefficients, Entry
from edgec.targets.estimator.own import fit_own, save_host
from edgec.targets.estimator.probes import probes

Precision = Literal["fp32", "int8"]
ENGINES = tuple(RUNTIMES.values())
PROBES = 210
_LEAST = 40
_WARM_S = 0.015
_BURST_S = 0.04
_ROUNDS = 3
_TYPES = {
    f"tensor({name})": np.dtype(kind)
    for name, kind in (("double", "f8"), ("float16", "f2"), ("uint8", "u1"), ("int8", "i1"), ("int64", "i8"))
}


def calibrate(
    count: int = PROBES,
    engines: Sequence[str] = ENGINES,
    progress: Progress | None = None,
    precisions: Sequence[Precision] = ("fp32", "int8"),
) -> Coefficients:
    """Measure ``count`` probe networks in ``precisions`` with each installed engine; fit, save, and return the result.

    Raises DeviceError when no engine is installed.
    """
    progress = progress or Progress()
    present = [engine for engine in engines if _version(engine)]
    if not present:
        raise DeviceError(
            "no inference engine here", hint="pip install onnxruntime (.onnx) or ai-edge-litert (.tflite)."
        )
    with scratch_folder() as folder:
        costs: list[ModelCost] = []
        files: list[dict[tuple[str, Precision], Path]] = []
        wanted = max(count, _LEAST)
        for name, model in progress.over("preparing probe networks", probes(wanted), wanted):
            files.append(artifacts(name, model, present, folder, precisions))
            costs.append(cost(model))
        found: list[Entry] = []
        for engine in present:
            for precision in precisions:
                paths = [made[engine, precision] for made in files]
                with progress.counting(f"measuring {engine} {precision}") as counted:
                    ms = list(measure(paths, counted))
                found.append(fit_own(costs, ms, engine, _version(engine), precision, target("host").soc))
    return save_host(found)


def artifacts(
    name: str,
    model: ir.Model,
    engines: Sequence[str],
    folder: Path,
    precisions: Sequence[Precision] = ("fp32", "int8"),
) -> dict[tuple[str, Precision], Path]:
    """The files of one network for each engine and precision. Ranges come from noise: only speed matters here."""
    graphs = {"fp32": model}
    if "int8" in precisions:
        data = open_data("random", model, samples=4)
        context = Context(teacher=model, scratch=folder, data=data, target=target("host"))
        quantise = Quantize(method="minmax", correct="none", equalize="no", reduce_range="no")
        graphs["int8"] = quantise.run(model.clone(), context).model
    made: dict[tuple[str, Precision], Path] = {}
    for engine in engines:
        for precision in precisions:
            graph = graphs[precision]
            onnx = engine == "onnxruntime"
            path = folder / f"{name}.{precision}.{'onnx' if onnx else 'tflite'}"
            write_scratch(
                path, emit_onnx(graph) if onnx else emit_tflite(graph, precision=precision, batch=1)
            )
            made[engine, precision] = path
    return made


def measure(
    paths: Sequence[Path], progress: Callable[[int, int], None] = lambda done, total: None
) -> Iterator[float]:
    """Milliseconds of one inference for each file: one thread, processor time, lower third of interleaved bursts."""
    times: list[list[float]] = [[] for _ in paths]
    for round_ in range(_ROUNDS):
        for index, path in enumerate(paths):
            progress(round_ * len(paths) + index, _ROUNDS * len(paths))
            run = _session(path) if path.suffix == ".onnx" else _interpreter(path)
            _burst(run, _WARM_S)
            times[index] += _burst(run, _BURST_S)
    for taken in times:
        yield 1e3 * float(np.quantile(taken, 0.3))


def _burst(run: Callable[[], object], seconds: float) -> list[float]:
    taken: list[float] = []
    start = time.perf_counter()
    while time.perf_counter() - start < seconds or len(taken) < 5:
        before = time.thread_time()
        run()
        taken.append(time.thread_time() - before)
    return taken


def _session(path: Path) -> Callable[[], object]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    feeds = {
        value.name: rng.standard_normal([n if isinstance(n, int) else 1 for n in value.shape]).astype(
            _TYPES.get(value.type, np.float32)
        )
        for value in session.get_inputs()
    }
    return lambda: session.run(None, feeds)


def _interpreter(path: Path) -> Callable[[], object]:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path), num_threads=1)
    interpreter.allocate_tensors()
    rng = np.random.default_rng(0)
    for detail in interpreter.get_input_details():
        values = rng.standard_normal(detail["shape"])
        interpreter.set_tensor(detail["index"], values.astype(detail["dtype"]))
    run: Callable[[], object] = interpreter.invoke
    return run


def _version(engine: str) -> str:
    with suppress(PackageNotFoundError):
        return version(engine)
    return ""
