"""Bytes of int8 ONNX files of small networks, beside those of onnxruntime's own quantiser.

    python bench/file_size.py [NETWORK ...] [--samples 16]

edgec's file is that of `edgec compile --precision int8 --format onnx`, nothing pruned, a scale for each channel. onnxruntime's
are those of `quantize_static` with a scale for each channel and with one for each tensor, min/max, on the same file behind
`quant_pre_process` (which folds BatchNorm), with the same inputs.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import numpy as np
from tflite_networks import DATA, MODELS, NETWORKS

from edgec.graph.data import open_data
from edgec.graph.load import load
from edgec.graph.preprocess import Preprocess

ROOT = Path(__file__).resolve().parent.parent
Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Small:
    """A network's file and inputs."""

    file: Path
    data: Path
    how: Preprocess


SMALL = {
    "digits": Small(ROOT / "examples/digits.onnx", ROOT / "examples/digits/calib.npz", Preprocess()),
    **{
        one.name: Small(MODELS / f"{one.name}.onnx", DATA / one.calibration, one.preprocess)
        for one in NETWORKS
    },
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("networks", nargs="*", default=[], metavar="NETWORK")
    parser.add_argument("--samples", type=int, default=16)
    given = parser.parse_args()
    logging.disable(logging.WARNING)
    wanted = given.networks or sorted(SMALL, key=lambda name: SMALL[name].file.stat().st_size)
    print(
        "| network | source | edgec | onnxruntime, per channel | per tensor | edgec / per channel | / per tensor |"
    )
    print("|---|---:|---:|---:|---:|---:|---:|")
    for name in wanted:
        one = SMALL[name]
        with tempfile.TemporaryDirectory() as folder:
            ours = len(by_edgec(one, given.samples, Path(folder)))
            channels, tensors = (len(made) for made in by_peer(one, given.samples, Path(folder)))
        sizes = f"{one.file.stat().st_size:,} | {ours:,} | {channels:,} | {tensors:,}"
        print(f"| {name} | {sizes} | {ours / channels:.2f} | {ours / tensors:.2f} |", flush=True)


def by_edgec(one: Small, samples: int, folder: Path) -> bytes:
    """The file that the command leaves."""
    command = [sys.executable, "-m", "edgec", "compile", one.file, "--data", one.data, "--samples", samples]
    command += ["--precision", "int8", "--format", "onnx", "--no-bench", "-o", folder / "run"]
    done = subprocess.run(
        [*map(str, command), *one.how.words()], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    return next((folder / "run").rglob("*int8*.onnx")).read_bytes()


def by_peer(one: Small, samples: int, folder: Path) -> tuple[bytes, bytes]:
    """onnxruntime's files: per channel, per tensor."""
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    data = open_data(one.data, load(one.file), one.how, samples=samples)

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.rows: Iterator[dict[str, Array]] = data.batches(1)

        def get_next(self) -> dict[str, Array] | None:
            return next(self.rows, None)

    plain = folder / "plain.onnx"

    def made(per_channel: bool) -> bytes:
        file = folder / f"{per_channel}.onnx"
        quantize_static(plain, file, Reader(), per_channel=per_channel, weight_type=QuantType.QInt8)
        return file.read_bytes()

    with contextlib.redirect_stdout(io.StringIO()):
        quant_pre_process(one.file, plain, skip_symbolic_shape=True)
        return made(True), made(False)


if __name__ == "__main__":
    main()
