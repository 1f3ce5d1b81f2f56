"""Whether machines decide alike: every kept, reverted, width and piece of six compiles, under other BLAS kernels and threads.

    python bench/decisions.py --out A.json                 one run, as this machine adds
    python bench/decisions.py --kernels all --threads 1 2  a run in a process of its own for each of them, then the table; files
                                                           go to --folder, and are not made again
    python bench/decisions.py --compare A.json B.json ...  the table alone; the others are compared with the first

OPENBLAS_CORETYPE is set for each process alone, and threadpoolctl says inside it what took effect (kernels.py). A kept or
reverted decision comes with its margin (gain over what the guard asked for) and its floor (the arithmetic's noise in that unit):
where two runs differ, the margin should lie within the floor of 1. Widths and pieces come with the error that the
allocation predicted.
Networks and inputs are those of EDGEC_SHARED, or `../shared` beside the repository; ``digits`` and ``se`` need neither.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from kernels import NAMES, runnable
from threadpoolctl import threadpool_info

from edgec.compiler.pipeline.run import Step, run_pipeline
from edgec.graph.canonicalise import canonicalise
from edgec.graph.data import ArraySource, Dataset, InputSpec, open_data
from edgec.graph.execute import Executor
from edgec.graph.load import load
from edgec.graph.preprocess import Preprocess
from edgec.passes.base import Context
from edgec.passes.pipeline_string import parse_pipeline

ROOT = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get("EDGEC_SHARED", ROOT.parent / "shared")) / "data"
RAW = Preprocess()
CIFAR = Preprocess(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), scale=1 / 255)


@dataclass(frozen=True)
class Compile:
    """A network with its data, relative to `SHARED` where it is no absolute path, and the passes to run."""

    network: Path
    calibration: Path
    evaluation: Path
    passes: str
    preprocess: Preprocess = RAW


def _shared(network: str, data: str, passes: str, preprocess: Preprocess = RAW) -> Compile:
    folder = SHARED / data
    model = SHARED / "models" / f"{network}.onnx"
    return Compile(model, folder / "calib.npz", folder / "eval.npz", passes, preprocess)


COMPILES = {
    "digits": Compile(
        ROOT / "examples/digits.onnx",
        ROOT / "examples/digits/calib.npz",
        ROOT / "examples/digits/eval.npz",
        "compress{macs=50%} recover-lsq quantize",
    ),
    "kws": _shared("kws_dscnn", "kws", "compress{macs=70%} recover-lsq quantize"),
    "resnet8": _shared("resnet8_cifar10", "cifar10", "compress{macs=70%} recover-lsq quantize"),
    "resnet20": _shared("resnet20_cifar10", "cifar10", "compress{macs=50%} recover-lsq quantize", CIFAR),
    "resnet56": _shared("resnet56_cifar10", "cifar10", "compress{macs=50%} recover-lsq", CIFAR),
}
SE = "prune-channels{macs=60%} recover-lsq quantize"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--networks", nargs="+", default=["se", *COMPILES], choices=["se", *COMPILES])
    parser.add_argument("--threads", nargs="+", type=int, default=[1])
    parser.add_argument("--out", type=Path, help="run here, and write the decisions")
    parser.add_argument(
        "--kernels", nargs="+", help="run each in a process of its own; all: those that run here"
    )
    parser.add_argument(
        "--folder", type=Path, default=Path(".build/decisions"), help="where --kernels puts its files"
    )
    parser.add_argument("--compare", nargs="+", type=Path)
    given = parser.parse_args()
    if given.compare:
        compare(given.compare)
    elif given.kernels:
        compare(list(run_kernels(given)))
    else:
        found = run(given.networks, given.threads[0])
        text = json.dumps(found, indent=1)
        given.out.write_text(text) if given.out else print(text)


def run_kernels(given: argparse.Namespace) -> Iterator[Path]:
    """One file per kernel and number of threads. Files that are there are not made again."""
    given.folder.mkdir(parents=True, exist_ok=True)
    for word, kernel in runnable(names=NAMES if given.kernels == ["all"] else given.kernels):
        for threads in given.threads:
            path = given.folder / f"{kernel}-{threads}.json"
            if not path.exists():
                command = [sys.executable, __file__, "--networks", *given.networks]
                command += ["--threads", str(threads), "--out", str(path)]
                subprocess.run(command, check=True, env={**os.environ, "OPENBLAS_CORETYPE": word})
            yield path


def kernel() -> str:
    """What numpy multiplies with, after it has."""
    square = np.random.default_rng(0).standard_normal((300, 300))
    assert np.isfinite(np.linalg.inv(square) @ square).all()
    loaded = [one for one in threadpool_info() if one["internal_api"] == "openblas"]
    # scipy brings a copy of its own, which may lack a kernel.
    return str(next((one for one in loaded if "numpy" in one["filepath"]), loaded[0])["architecture"])


def run(networks: Sequence[str], threads: int) -> dict[str, Any]:
    """Compile ``networks`` and collect all decisions."""
    found: dict[str, Any] = {"kernel": kernel(), "threads": threads, "decisions": {}, "results": {}}
    for name in networks:
        start = time.process_time()
        teacher, data, evaluation, passes = _case(name)
        with tempfile.TemporaryDirectory() as folder:
            context = Context(teacher, Path(folder), data, threads=threads)
            steps = run_pipeline(parse_pipeline(passes), teacher, context)
        for key, decision in _decisions(steps):
            found["decisions"][f"{name} {key}"] = decision
        found["results"][name] = {
            **_quality(teacher, steps[-1].model, evaluation, threads),
            "cpu_seconds": round(time.process_time() - start, 1),
            "sha256": hashlib.sha256(ir.to_proto(steps[-1].model).SerializeToString()).hexdigest()[:16],
        }
        print(f"{name}: {found['results'][name]}", file=sys.stderr, flush=True)
    return found


def _case(name: str) -> tuple[ir.Model, Dataset, Dataset, str]:
    """(teacher, calibration, evaluation, passes)"""
    if name == "se":
        model = squeeze_excite()
        return model, _noise(model, 96, 0), _noise(model, 256, 1), SE
    one = COMPILES[name]
    model = load(one.network)
    calibration = open_data(one.calibration, model, one.preprocess, samples=500)
    return model, calibration, open_data(one.evaluation, model, one.preprocess), one.passes


def _decisions(steps: Sequence[Step]) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, step in enumerate(steps):
        head = f"{number} {step.one.name}"
        whole = [*step.data.get("choices", ())]
        whole += [step.data["whole"]["choice"]] if "whole" in step.data else []
        for choice in whole:
            yield f"{head}: {choice['what']}", choice
        for layer in step.layers:
            for index, choice in enumerate(layer.choices):
                what = choice.what.split(" (")[0]
                yield f"{head} {layer.node}: {index} {what}", asdict(choice)
        for kind in ("widths", "cuts"):
            for group, value in step.data.get(kind, {}).items():
                yield f"{head} {kind} {group}", {"value": value, "predicted": step.data["predicted_error"]}


def _quality(teacher: ir.Model, model: ir.Model, data: Dataset, threads: int) -> dict[str, float]:
    wanted, made = (
        np.concatenate([executor.run(feeds)[executor.outputs[0]] for feeds in data.batches(50)])
        for executor in (Executor(one, threads=threads) for one in (teacher, model))
    )
    noise = float(np.square(made - wanted, dtype=np.float64).sum())
    found = {"output_db": round(10 * np.log10(float(np.square(wanted, dtype=np.float64).sum()) / noise), 2)}
    if data.labels is not None:
        hits = made.reshape(len(made), -1).argmax(axis=1) == np.asarray(data.labels)
        found["top1"] = round(100 * float(hits.mean()), 2)
    return found


def compare(paths: Sequence[Path]) -> None:
    """Print what differs between the first run and each of the others, and how near the decisions were."""
    runs = [json.loads(path.read_text()) for path in paths]
    first = runs[0]
    networks = list(first["results"])
    print(
        f"| kernel, threads | decisions | differ | {' | '.join(networks)} |\n|---|---|---|{'---|' * len(networks)}"
    )
    lines: list[str] = []
    for one in runs:
        shared = first["decisions"].keys() & one["decisions"].keys()
        differing = [key for key in first["decisions"] if key in shared and not _same(first, one, key)]
        alone = first["decisions"].keys() ^ one["decisions"].keys()
        label = f"{one['kernel']}, {one['threads']}"
        cells = " | ".join(_result(first["results"][name], one["results"][name]) for name in networks)
        print(f"| {label} | {len(shared)} | {len(differing)}, {len(alone)} in one only | {cells} |")
        lines += [f"- {label}: {_difference(first, one, key)}" for key in differing]
        if alone:
            lines.append(f"- {label}: {len(alone)} were asked in one run only, behind one that differs")
    print("\n" + "\n".join(lines or ["All decisions are the same."]))
    near = [key for key, choice in first["decisions"].items() if "margin" in choice and _within(choice)]
    print(
        f"\n{len(first['decisions'])} decisions; {len(near)} margins lie within the floor of 1 in the first run."
    )


def _same(first: dict[str, Any], other: dict[str, Any], key: str) -> bool:
    a, b = first["decisions"][key], other["decisions"][key]
    return bool(a["kept"] == b["kept"] if "kept" in a else a["value"] == b["value"])


def _within(choice: dict[str, Any]) -> bool:
    return bool(abs(choice["margin"] - 1) <= choice["floor"])


def _difference(first: dict[str, Any], other: dict[str, Any], key: str) -> str:
    a, b = first["decisions"][key], other["decisions"][key]
    if "kept" in a:
        word = "within" if _within(a) or _within(b) else "BEYOND"
        return f"{key}: margins {a['margin']} and {b['margin']}, {word} the floor ({a['floor']})"
    apart = abs(a["predicted"] - b["predicted"]) / max(a["predicted"], 1e-30)
    return f"{key}: {a['value']} and {b['value']}, predicted errors {apart:.1e} apart"


def _result(first: dict[str, Any], one: dict[str, Any]) -> str:
    same = "same bytes" if first["sha256"] == one["sha256"] else "other bytes"
    top1 = f"{one['top1']}%, " if "top1" in one else ""
    return f"{top1}{one['output_db']} dB, {same}, {one['cpu_seconds']:.0f} s"


def _noise(model: ir.Model, count: int, seed: int) -> Dataset:
    rng = np.random.default_rng(seed)
    specs = InputSpec.of(model)
    arrays = {spec.name: rng.standard_normal((count, *spec.shape)).astype(np.float32) for spec in specs}
    return Dataset("noise", ArraySource(arrays, Preprocess(layout="nchw"), specs), tuple(range(count)))


def squeeze_excite(blocks: int = 3, width: int = 8, wide: int = 24, seed: int = 1) -> ir.Model:
    """An untrained MobileNetV3 of a few blocks: expand, depthwise, a gate from the pooled map, project."""
    import onnx
    from onnx import helper

    rng = np.random.default_rng(seed)
    nodes, weights = [], []

    def conv(x: str, name: str, inputs: int, outputs: int, kernel: int, group: int = 1) -> str:
        fan = inputs // group * kernel**2
        for suffix, array in (
            ("w", rng.standard_normal((outputs, inputs // group, kernel, kernel)) * 2 / np.sqrt(fan)),
            ("b", 0.3 * rng.standard_normal(outputs)),
        ):
            weights.append(onnx.numpy_helper.from_array(array.astype(np.float32), name + suffix))
        pads = [kernel // 2] * 4
        nodes.append(
            helper.make_node("Conv", [x, f"{name}w", f"{name}b"], [name], name, pads=pads, group=group)
        )
        return name

    def apply(op: str, *inputs: str, **attributes: Any) -> str:
        name = f"{op.lower()}{len(nodes)}"
        nodes.append(helper.make_node(op, list(inputs), [name], name, **attributes))
        return name

    x = apply("Relu", conv("x", "stem", 3, width, 3))
    for number in range(blocks):
        inner = apply("Relu", conv(x, f"expand{number}", width, wide, 1))
        inner = apply("Relu", conv(inner, f"depthwise{number}", wide, wide, 3, wide))
        gate = apply("GlobalAveragePool", inner)
        gate = apply("Relu", conv(gate, f"squeeze{number}", wide, 6, 1))
        gate = apply("HardSigmoid", conv(gate, f"excite{number}", 6, wide, 1), alpha=1 / 6, beta=0.5)
        branch = conv(apply("Mul", inner, gate), f"project{number}", wide, width, 1)
        x = apply("Add", x, branch)
    flat = apply("Flatten", apply("GlobalAveragePool", x))
    last = rng.standard_normal((10, width)).astype(np.float32)
    weights.append(onnx.numpy_helper.from_array(last, "last"))
    nodes.append(helper.make_node("Gemm", [flat, "last"], ["y"], "classify", transB=1))
    x_info = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["N", 3, 16, 16])
    y_info = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["N", 10])
    graph = helper.make_graph(nodes, "squeeze_excite", [x_info], [y_info], weights)
    return canonicalise(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10))


if __name__ == "__main__":
    main()
