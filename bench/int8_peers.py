"""int8 beside its peers: what each costs, and what its file keeps of the network, on the same images.

Every quantiser gets the float graph that edgec loads (BatchNorm folded) and the same prepared calibration images, in a process
of its own (`int8_peer`), one thread. Seconds are user and system time of that process, the import of its packages included;
memory is its peak. edgec's is the pass alone, as theirs is: no evaluation, no report; weights of 8 bits, as theirs. Runs of all
alternate over ``--repeats``, and the median counts. Files are judged on onnxruntime, with exact products of int8 codes, and on
LiteRT.

``--time 3``: each peer's file and edgec's run in turns on one engine for so many seconds (`edgec bench`), batch 1, one thread;
those for LiteRT with int8 codes at both ends. Of the float network edgec's file runs beside the source's.

usage: python bench/int8_peers.py [NETWORK...] [--images 128] [--repeats 1] [--time 0]
                                  [--nncf PYTHON] [--modelopt PYTHON] [--ai-edge PYTHON]

A peer whose interpreter is not named is left out, but for onnxruntime, which edgec has.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from int8_peer import WHO
from quantisation import codes
from tflite_networks import DATA, MODELS, Network, by_name, interpreter

from edgec.compiler.emit import tflite
from edgec.compiler.emit.onnx import emit
from edgec.graph.compare import sqnr_db
from edgec.graph.data import Dataset, open_data
from edgec.graph.execute import session
from edgec.runtime.bench import BenchOptions, compare
from edgec.runtime.devices import open_device

Array = np.ndarray[Any, np.dtype[Any]]
NAMES = (
    "resnet8_cifar10", "resnet20_cifar10", "resnet56_cifar10", "nin_cifar10", "mobilenet_v1_0.75_224",
    "mobilenet_v2_1.0_224_dequantised",
)  # fmt: skip
WORKER = Path(__file__).with_name("int8_peer.py")
LABELS = {
    "edgec": "**edgec**",
    "onnxruntime": "onnxruntime, per channel",
    "nncf": "NNCF, defaults",
    "nncf_accurate": "NNCF, mixed preset, bias correction",
    "modelopt": "ModelOpt, entropy",
    "ai_edge": "ai-edge-quantizer, static int8",
}
ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "ORT_DISABLE_TELEMETRY": "1"}


@dataclass(frozen=True)
class Cost:
    """Of one process."""

    seconds: float
    gigabytes: float
    wall: float


def run(python: str, who: str, *files: Path) -> Cost | str:
    """What quantising cost; the last line of what it says where it fails."""
    command = [python, str(WORKER), who, *map(str, files)]
    root = Path(__file__).resolve().parents[1]
    env = {**os.environ, **ONE_THREAD, **({"PYTHONPATH": str(root)} if who == "edgec" else {})}
    cores = sorted(os.sched_getaffinity(0))
    started = time.perf_counter()
    with tempfile.TemporaryFile("w+") as said:
        made = subprocess.Popen(
            command, env=env, stdout=said, stderr=said, preexec_fn=lambda: os.sched_setaffinity(0, cores[-1:])
        )
        _, status, used = os.wait4(made.pid, 0)
        made.returncode = os.waitstatus_to_exitcode(status)
        said.seek(0)
        lines = said.read().strip().splitlines()
    if made.returncode:
        return lines[-1] if lines else f"exit {made.returncode}"
    return Cost(used.ru_utime + used.ru_stime, used.ru_maxrss / 1e6, time.perf_counter() - started)


def prepared(network: Network, images: int, folder: Path) -> Dataset:
    """Float files in both formats and calibration data go into ``folder``; what judges comes back."""
    model = network.load()
    (folder / "float.onnx").write_bytes(emit(model))
    (folder / "float.tflite").write_bytes(tflite.emit(model, precision="fp32", batch=1, io_layout="nhwc"))
    calibration = network.calibration_data(model, images)
    batches = list(calibration.batches(1))
    arrays = {name: np.concatenate([one[name] for one in batches]) for name in batches[0]}
    np.savez(folder / "data.onnx.npz", **arrays)
    (taken,) = interpreter((folder / "float.tflite").read_bytes(), "litert").get_input_details()
    np.savez(folder / "data.tflite.npz", **{name: laid_out(array, taken) for name, array in arrays.items()})
    place = DATA / str(network.evaluation)
    labels = place.parent / "eval_labels.csv" if place.is_dir() else None
    return open_data(place, model, network.preprocess, labels=labels)


def laid_out(array: Array, taken: dict[str, Any]) -> Array:
    """Samples as an interpreter takes them: channels behind the pixels, where the network has them in front."""
    return (
        array
        if array.shape[1:] == tuple(taken["shape"][1:])
        else np.ascontiguousarray(np.moveaxis(array, 1, -1))
    )


def answers(file: Path, data: Dataset) -> Array:
    """(samples, classes) scores of a file on its engine."""
    ask = _onnx(file) if file.suffix == ".onnx" else _tflite(file)
    return np.concatenate([ask(feeds).reshape(1, -1) for feeds in data.batches(1)])


def _onnx(file: Path) -> Callable[[dict[str, Array]], Array]:
    running = session(file.read_bytes())
    return lambda feeds: np.asarray(running.run(None, feeds)[0])


def _tflite(file: Path) -> Callable[[dict[str, Array]], Array]:
    made = interpreter(file.read_bytes(), "litert")
    (source,), (result,) = made.get_input_details(), made.get_output_details()

    def ask(feeds: dict[str, Array]) -> Array:
        (x,) = (laid_out(one, source) for one in feeds.values())
        made.set_tensor(source["index"], codes(x, source) if source["dtype"] == np.int8 else x)
        made.invoke()
        scale, zero = result["quantization"]
        found = np.asarray(made.get_tensor(result["index"]))
        return scale * (found.astype(np.float32) - zero) if result["dtype"] == np.int8 else found

    return ask


def rows(name: str, pythons: dict[str, str], given: argparse.Namespace, folder: Path) -> Iterator[str]:
    """One network's lines."""
    network = by_name(name)
    data = prepared(network, given.images, folder)
    source, labels = answers(folder / "float.onnx", data), np.asarray(data.labels) + network.class_offset
    yield f"| float | | | | {100 * (source.argmax(1) == labels).mean():.1f} | | |"
    costs: dict[str, list[Cost]] = {}
    failed: dict[str, str] = {}
    for _ in range(given.repeats):
        for who, python in pythons.items():
            form = "tflite" if who == "ai_edge" else "onnx"
            files = (folder / f"float.{form}", folder / f"data.{form}.npz", folder / f"{who}.{form}")
            found = run(python, who, *files)
            if isinstance(found, Cost):
                costs.setdefault(who, []).append(found)
            else:
                failed[who] = found
    for who in pythons:
        if who in failed:
            yield f"| {LABELS[who]} | failed: {failed[who][:80]} | | | | | |"
            continue
        file = folder / f"{who}.{'tflite' if who == 'ai_edge' else 'onnx'}"
        made = answers(file, data)
        cost = [
            statistics.median(getattr(one, what) for one in costs[who]) for what in ("seconds", "gigabytes")
        ]
        top1, same = (100 * (made.argmax(1) == right).mean() for right in (labels, source.argmax(1)))
        kept = f"{top1:.1f} | {same:.1f} | {sqnr_db(source, made):.1f}"
        yield f"| {LABELS[who]} | {cost[0]:.1f} | {cost[1]:.2f} | {file.stat().st_size:,} | {kept} |"


def timings(name: str, folder: Path, seconds: float) -> Iterator[str]:
    """edgec's file in turns with each other one, on the engine that runs both."""
    pairs = [("float", folder / "float.onnx", MODELS / f"{name}.onnx", "the source's file")]
    for who in WHO:
        form = "tflite" if who == "ai_edge" else "onnx"
        pairs += [("int8", folder / f"edgec.{form}", folder / f"{who}.{form}", LABELS[who])]
    with open_device("local") as device:
        for what, mine, other, label in pairs:
            if mine == other or not other.exists():
                continue
            found = compare([other, mine], BenchOptions(seconds=seconds, restarts=3), device)
            theirs, ours = found.measurements
            (ratio,) = found.ratios
            spread = f"{ratio.ratio:.2f} ({ratio.p10:.2f} to {ratio.p90:.2f})"
            engine = "onnxruntime" if mine.suffix == ".onnx" else "LiteRT"
            yield f"| {what}, {engine} | {label} | {ours.median_ms:.3f} | {theirs.median_ms:.3f} | {spread} |"


def main() -> None:
    """A table per network."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("networks", nargs="*", default=NAMES)
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--time", type=float, default=0.0, help="seconds a file; 0: none is timed")
    for peer in ("nncf", "modelopt", "ai-edge"):
        parser.add_argument(f"--{peer}", help="the interpreter that has it")
    given = parser.parse_args()
    named = {
        "nncf": given.nncf,
        "nncf_accurate": given.nncf,
        "modelopt": given.modelopt,
        "ai_edge": given.ai_edge,
    }
    pythons = {who: named.get(who, sys.executable) for who in WHO}
    for name in given.networks:
        print(f"\n## {name}, {given.images} images\n")
        print(
            "| | processor s | GB | bytes | top-1 | same answer | SQNR, dB |\n|---|---:|---:|---:|---:|---:|---:|"
        )
        with tempfile.TemporaryDirectory() as folder:
            there = {who: python for who, python in pythons.items() if python}
            for line in rows(name, there, given, Path(folder)):
                print(line, flush=True)
            if given.time:
                print(
                    "\n| | beside | edgec, ms | it, ms | edgec's share of its time |\n|---|---|---:|---:|---|"
                )
                for line in timings(name, Path(folder), given.time):
                    print(line, flush=True)


if __name__ == "__main__":
    main()
