"""What `refine-quantized` wins back behind `quantize`: CIFAR-10 networks, unlabelled images only, one thread.

Each network is quantised on calibration images (calib.npz) and then learns from its float source with the rounding in the loop.
Labels are used for scoring only, on 500 evaluation images: one image is 0.2 points, the standard error 1.3 to 1.5 points.
Networks are run as onnxruntime runs them. Seconds are CPU seconds of this process.

    python bench/refine_quantized.py [resnet8 resnet20] [--quantize 'per-channel=false'] [--steps 200] [--seeds 0]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from remove_blocks import IMAGENET, accuracy, shared

from edgec.graph.data import open_data
from edgec.graph.load import load
from edgec.graph.preprocess import Preprocess
from edgec.passes.base import Context
from edgec.passes.pipeline_string import parse_pipeline

PREPARED = {"resnet8": Preprocess()}
"""Of MLPerf Tiny: pixels as they are."""
HEADER = """\
| network | passes | seed | CPU s | top-1 | divergence, agreement (held out, as the engine runs it) |
|---|---|---|---|---|---|"""


def rows(name: str, arguments: argparse.Namespace, folder: Path) -> Iterator[str]:
    """One for the float network, one for the int8 one, one for each seed behind it."""
    teacher = load(shared() / "models" / f"{name}_cifar10.onnx")
    prepared = PREPARED.get(name, IMAGENET)
    judge = open_data(shared() / "cifar10" / "eval.npz", teacher, prepared)
    data = open_data(shared() / "cifar10" / "calib.npz", teacher, prepared, samples=arguments.images)
    yield f"| {name} | | | | {accuracy(teacher, judge):.1f} | |"
    context = Context(teacher, folder, data, task="classification")
    text = f"quantize{{{arguments.quantize}}}"
    (quantize,) = parse_pipeline(text)
    start = time.process_time()
    eight = quantize.run(teacher.clone(), context).model
    yield f"| | {text} | | {time.process_time() - start:.0f} | {accuracy(eight, judge):.1f} | |"
    (refine,) = parse_pipeline(f"refine-quantized{{steps={arguments.steps} {arguments.options}}}")
    for seed in arguments.seeds:
        start = time.process_time()
        result = refine.run(eight.clone(), replace(context, reference=teacher, seed=seed))
        spent = time.process_time() - start
        figures = [result.data["engine"][when] for when in ("before", "after")]
        moved = " → ".join(f"{one['loss']:.4f}, {one['agreement']:.1%}" for one in figures)
        kept = "" if result.modified else " (taken back)"
        yield f"| | + refine-quantized | {seed} | {spent:.0f} | {accuracy(result.model, judge):.1f} | {moved}{kept} |"


def main(arguments: argparse.Namespace) -> None:
    """Print the table, a row as soon as it is known."""
    print(HEADER)
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.networks:
            for row in rows(name, arguments, Path(folder)):
                print(row, flush=True)


def _arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("networks", nargs="*", default=["resnet8"], metavar="NETWORK")
    parser.add_argument("--quantize", default="", help="options of quantize")
    parser.add_argument("--options", default="", help="further options of refine-quantized")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    return parser.parse_args(given)


if __name__ == "__main__":
    main(_arguments())
