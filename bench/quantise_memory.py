"""Memory, disk and time of int8 calibration against the number of images: a table of docs/quantise.md.

Every run is a process of its own. "disk" is the largest size of its scratch folder. CIFAR-10 images are repeated beyond 1000.

usage: python bench/quantise_memory.py [--network resnet20_cifar10] [--images 64 256 1024 2048]
"""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import numpy as np
import onnx_ir as ir
from tflite_networks import DATA, by_name

from edgec.compiler.emit.onnx import emit
from edgec.compiler.pipeline.run import run_pipeline
from edgec.graph.data import ArraySource, Dataset, InputSpec
from edgec.passes.base import Context
from edgec.passes.pipeline_string import parse_pipeline

WAYS = {
    "edgec, ranges only": "quantize{correct=none equalize=off}",
    "edgec, default": "quantize",
    "onnxruntime, entropy": "",
}


def data_of(network: str, images: int) -> tuple[ir.Model, Dataset]:
    """The network, and so many images, repeated where there are not enough."""
    known = by_name(network)
    model = known.load()
    pictures = np.load(DATA / known.calibration)["x"]
    chosen = np.resize(pictures, (images, *pictures.shape[1:]))
    source = ArraySource({"input": chosen}, known.preprocess, InputSpec.of(model))
    return model, Dataset("calibration", source, tuple(range(images)))


def watch(folder: Path, peak: list[int], stop: threading.Event) -> None:
    """Keep the largest size that ``folder`` reaches."""
    while not stop.wait(0.05):
        size = 0
        for path in folder.rglob("*"):
            try:
                size += path.stat().st_size
            except FileNotFoundError:  # removed while we looked
                continue
        peak[0] = max(peak[0], size)


def once(way: str, network: str, images: int) -> None:
    """Prints seconds of processor time, peak MB of memory, and peak MB of disk."""
    model, data = data_of(network, images)
    peak, stop = [0], threading.Event()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        watcher = threading.Thread(target=watch, args=(folder, peak, stop))
        watcher.start()
        start = time.process_time()
        if WAYS[way]:
            run_pipeline(parse_pipeline(WAYS[way]), model, Context(model, folder, data))
        else:
            entropy(model, data, folder)
        seconds = time.process_time() - start
        stop.set()
        watcher.join()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    print(seconds, memory, peak[0] / 1e6)


def entropy(model: ir.Model, data: Dataset, folder: Path) -> None:
    """onnxruntime's entropy calibration, as its documentation calls it."""
    from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.rows = data.batches(1)

        def get_next(self) -> object:
            return next(self.rows, None)

    (folder / "float.onnx").write_bytes(emit(model))
    method = CalibrationMethod.Entropy
    with contextlib.redirect_stdout(io.StringIO()):
        quantize_static(
            folder / "float.onnx", folder / "int8.onnx", Reader(), calibrate_method=method, per_channel=True
        )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--network", default="resnet20_cifar10")
    parser.add_argument("--images", nargs="+", type=int, default=[64, 256, 1024, 2048])
    parser.add_argument("--once", nargs=2, metavar=("WAY", "IMAGES"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.once:
        logging.getLogger().setLevel(logging.ERROR)
        once(given.once[0], given.network, int(given.once[1]))
        return
    print("| | images | CPU seconds | peak memory, MB | peak disk, MB |\n|---|---|---|---|---|")
    for way in WAYS:
        for images in given.images:
            command = [sys.executable, __file__, "--network", given.network, "--once", way, str(images)]
            found = subprocess.check_output(command, text=True, stderr=subprocess.DEVNULL).split()[-3:]
            seconds, memory, disk = (float(part) for part in found)
            print(f"| {way} | {images} | {seconds:.1f} | {memory:.0f} | {disk:.0f} |", flush=True)


if __name__ == "__main__":
    main()
