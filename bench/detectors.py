"""int8 detectors, judged by the boxes of the source that they keep, on pictures that nothing was fitted on.

usage: python bench/detectors.py [yolox] [ultraface] [nudenet=320n.onnx] [--passes quantize] [--threads 1]

Half of coco_val100 calibrates, the other half judges. nudenet is YOLOv8n, from the wheel of that name
(`pip download nudenet`); its file has open sizes, which are set to 1x3x320x320 here.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import onnx
from tflite_networks import shared

from edgec.compiler.evaluate.quality import judge
from edgec.compiler.pipeline.run import run_pipeline
from edgec.graph.data import open_data
from edgec.graph.load import load
from edgec.graph.preprocess import Preprocess
from edgec.passes.base import Context
from edgec.passes.pipeline_string import parse_pipeline

SETTINGS = {
    "yolox": Preprocess(channels="bgr", resize=(416, 416), letterbox=114),
    "ultraface": Preprocess(mean=(127,), std=(128,), resize=(240, 320)),
    "nudenet": Preprocess(scale=1 / 255, resize=(320, 320), letterbox=0),
}
FILES = {"yolox": "yolox_nano.onnx", "ultraface": "ultraface_rfb320.onnx"}


def row(name: str, file: Path, passes: str, threads: int) -> str:
    """One network's row of the table."""
    model = load(file)
    fit, held = open_data(shared() / "detect" / "coco_val100", model, SETTINGS[name]).split(0.5, 0)
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        step = run_pipeline(
            parse_pipeline(passes), model, Context(model, Path(folder), fit, threads=threads)
        )[-1]
    seconds = time.perf_counter() - begun
    figures = judge(model, {"int8": step.model}, held, threads=threads)["int8"]
    boxes = figures["detection"]
    parts = ", ".join(f"`{part}` {decibels:.1f}" for part, decibels in figures["outputs"].items())
    return (
        f"| {name} | {boxes['boxes']} | {boxes['lost']} ({boxes['lost'] / max(boxes['boxes'], 1):.1%}) | {boxes['new']} | "
        f"{boxes['score_shift']:.3f} | {parts} | {len(step.data['float_nodes'])} of {len(model.graph)} | {seconds:.0f} |"
    )


def fixed(file: Path, shape: Sequence[int], folder: Path) -> Path:
    """A copy whose input has this shape."""
    model = onnx.load(file)
    for dimension, size in zip(model.graph.input[0].type.tensor_type.shape.dim, shape, strict=True):
        dimension.dim_value = size
    path = folder / file.name
    onnx.save(model, path)
    return path


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("networks", nargs="*", default=list(FILES))
    parser.add_argument("--passes", default="quantize")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    print("| network | boxes | lost | new | score shift | SQNR of parts, dB | nodes in float | seconds |")
    print("|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for text in given.networks:
            name, _, path = text.partition("=")
            file = (
                fixed(Path(path), (1, 3, 320, 320), Path(folder))
                if path
                else shared() / "models" / FILES[name]
            )
            print(row(name, file, given.passes, given.threads), flush=True)


if __name__ == "__main__":
    main()
