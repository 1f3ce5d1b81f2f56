"""What edgec says where something is wrong: twelve set-ups of a real network, none of which may end in a green headline.

python bench/claims.py [NAME ...]      a table; needs ../shared/data

A headline is green where its words about accuracy are a claim: a tile that is good, or a rate without a word of doubt, while
nothing stands under 'problems'.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import onnx
from onnx import numpy_helper

import edgec
from edgec.graph.execute import session
from edgec.runtime.report import facts

Array = np.ndarray[Any, np.dtype[Any]]
Options = dict[str, Any]
DATA = Path(os.environ.get("EDGEC_SHARED", Path(__file__).resolve().parents[2] / "shared")) / "data"
RESNET = DATA / "models" / "resnet20_cifar10.onnx"
MEANS, STDS = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
PREPARED: Options = {"scale": "1/255", "mean": tuple(MEANS.tolist()), "std": tuple(STDS.tolist())}
RIGHT: Options = {"preprocess": PREPARED}
FLOAT: Options = {"passes": "normalise fold"}
INT8: Options = {"precision": "int8", "passes": "normalise fold quantize{correct=none}"}


@dataclass(frozen=True)
class Setup:
    """One set-up: arguments of `edgec.compile`, with data that ``make`` writes into a folder."""

    make: Callable[[Path], Options]
    wrong: str


def pixels(count: int = 200) -> Array:
    with np.load(DATA / "cifar10" / "calib.npz") as found:
        return np.asarray(found["x"][:count])


def scored(count: int = 200) -> tuple[Array, Array]:
    with np.load(DATA / "cifar10" / "eval.npz") as found:
        return found["x"][:count], found["y"][:count]


def saved(folder: Path, name: str, **arrays: Array) -> Path:
    np.savez(folder / f"{name}.npz", **arrays)
    return folder / f"{name}.npz"


def plain(preprocess: Options | None = None, data: Callable[[], Array] = pixels) -> Callable[[Path], Options]:
    return lambda folder: {
        "model": RESNET,
        "data": saved(folder, "d", x=data()),
        "preprocess": preprocess,
        **FLOAT,
    }


def labels_shifted(folder: Path) -> Options:
    x, y = scored()
    data, judged = saved(folder, "d", x=pixels()), saved(folder, "e", x=x, y=(y + 1) % 10)
    return {"model": RESNET, "data": data, "eval": judged, **RIGHT, **FLOAT}


def wrong_split(folder: Path) -> Options:
    """Judged on the very images that the run was fitted to."""
    x = ((pixels() / 255 - MEANS) / STDS).astype(np.float32).transpose(0, 3, 1, 2)
    y = session(onnx.load(RESNET)).run(None, {"input": x})[0].argmax(1)
    data = saved(folder, "d", x=pixels(), y=y)
    return {"model": RESNET, "data": data, "eval": data, **RIGHT, **FLOAT}


def five_outputs(folder: Path) -> Options:
    """Five outputs, of which the fifth is lost when it is quantised: its numbers are a thousandth of its largest."""
    model = onnx.load(RESNET)
    graph = model.graph
    source = graph.output[0].name
    for number in range(4):
        scale = numpy_helper.from_array(
            np.full((1, 10), 1.0 if number < 3 else 1e-4, np.float32), f"k{number}"
        )
        if number == 3:
            values = np.full((1, 10), 1e-4, np.float32)
            values[0, 0] = 1.0
            scale = numpy_helper.from_array(values, f"k{number}")
        graph.initializer.append(scale)
        graph.node.append(
            onnx.helper.make_node("Mul", [source, f"k{number}"], [f"out{number}"], name=f"m{number}")
        )
        graph.output.append(
            onnx.helper.make_tensor_value_info(f"out{number}", onnx.TensorProto.FLOAT, ["batch", 10])
        )
    onnx.save(model, folder / "five.onnx")
    return {"model": folder / "five.onnx", "data": saved(folder, "d", x=pixels()), **RIGHT, **INT8}


def head_ruined(folder: Path) -> Options:
    """A last layer whose weights int8 cannot hold: one is a thousand times the others."""
    model = onnx.load(RESNET)
    last = [node for node in model.graph.node if node.op_type in ("Gemm", "MatMul")][-1]
    weight = next(one for one in model.graph.initializer if one.name == last.input[1])
    values = numpy_helper.to_array(weight).copy()
    axis = 1 if values.shape[0] == 10 else 0
    values[(slice(None), 0) if axis else (0, slice(None))] += 300.0
    weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    onnx.save(model, folder / "ruined.onnx")
    return {"model": folder / "ruined.onnx", "data": saved(folder, "d", x=pixels()), **RIGHT, **INT8}


def channels_last_array(folder: Path) -> Options:
    """Prepared numbers as (N, 32, 3, 32): neither of the layouts, but a reshape away from one."""
    x = (pixels() / 255 - MEANS) / STDS
    return {
        "model": RESNET,
        "data": saved(folder, "d", x=x.astype(np.float32).reshape(-1, 3, 32, 32)),
        **FLOAT,
    }


SETUPS = {
    "right": Setup(plain(PREPARED), "nothing: what a run says that is as it should be"),
    "no scale": Setup(plain(), "--scale, --mean and --std forgotten"),
    "wrong mean": Setup(plain({"scale": "1/127.5", "mean": 1}), "prepared for a network of -1 to 1, after ImageNet's"),
    "BGR": Setup(plain({**PREPARED, "channels": "bgr"}), "blue first"),
    "NHWC array": Setup(channels_last_array, "numbers of an array channels last, taken as channels first"),
    "labels shifted": Setup(labels_shifted, "labels count from one"),
    "3 images": Setup(plain(PREPARED, lambda: pixels(3)), "3 images"),
    "all black": Setup(plain(PREPARED, lambda: np.zeros((200, 32, 32, 3), np.uint8)), "200 black images"),
    "duplicates": Setup(plain(PREPARED, lambda: np.repeat(pixels(4), 50, axis=0)), "4 images, 50 times each"),
    "one of five outputs ruined": Setup(five_outputs, "five outputs, one of which int8 cannot hold"),
    "wrong size": Setup(plain(PREPARED, lambda: pixels()[:, :28, :28]), "images of 28x28 for a network of 32x32"),
    "wrong split": Setup(wrong_split, "--eval is the calibration data"),
    "head ruined": Setup(head_ruined, "a last layer that int8 cannot hold"),
}  # fmt: skip


def said(setup: Setup) -> tuple[str, bool, float]:
    """(what edgec says, whether it is a green headline, seconds)."""
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        options = {key: value for key, value in setup.make(folder).items() if value is not None}
        try:
            report = edgec.compile(
                options.pop("model"),
                folder / "out",
                measure=False,
                quiet=True,
                isolated=False,
                threads=1,
                **options,
            )
        except edgec.EdgecError as error:
            return (
                f"exit {error.exit_code}: {' '.join(str(error).split())}",
                False,
                time.perf_counter() - begun,
            )
        seconds = time.perf_counter() - begun
        problems = facts.problems(report)
        tile = next(
            (one for one in facts.changes(report) if one.label not in ("Size", "Multiply-adds", "Latency")),
            None,
        )
        told = "; ".join([facts.sentence(report), *problems, *([tile.basis] if tile else [])])
        doubted = bool(problems) or tile is None or "too few" in tile.verdict or "dB" in tile.after_text
        low = tile is not None and tile.after_text.endswith("%") and float(tile.after_text[:-1]) < 90
        return told, not (doubted or low), seconds


def main() -> None:
    """Print the table."""
    chosen = sys.argv[1:] or list(SETUPS)
    print("| set-up | what is wrong | what edgec says | green | s |\n|---|---|---|---|---:|")
    for name in chosen:
        setup = SETUPS[name]
        told, green, seconds = said(setup)
        print(f"| {name} | {setup.wrong} | {told} | {'yes' if green else 'no'} | {seconds:.0f} |", flush=True)


if __name__ == "__main__":
    main()
