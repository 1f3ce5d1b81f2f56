"""Prune, low rank, distil, and their pairs (SlimNets, arXiv 1808.00496), on the NIN of CIFAR-10, from unlabelled images only.

Every row is one pipeline on the same images (calib.npz). Each single method leaves about a quarter of the parameters, each pair
about an eighth. Bytes are those of the ONNX file, with --int8 also of the same network in int8. Labels are used for scoring only,
on 500 images: one image is 0.2 points, the standard error 1.3 to 1.5. Seconds are CPU seconds of this process.

    python bench/seed002.py [prune distil+prune ...] [--steps 150] [--images 500] [--seeds 0]

A seed draws the images and what learning does.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import onnx
import onnx_ir as ir
from remove_blocks import IMAGENET, accuracy, shared

from edgec.compiler.pipeline.run import run_pipeline
from edgec.graph.cost import cost
from edgec.graph.data import Dataset, open_data
from edgec.graph.load import load
from edgec.passes.base import Context
from edgec.passes.pipeline_string import parse_pipeline

HEADER = """\
| passes | seed | MACs | parameters | bytes | top-1 | int8: bytes | top-1 | CPU s |
|---|---|---|---|---|---|---|---|---|"""


def pipelines(steps: int) -> dict[str, str]:
    """By name: the seed's three methods and their pairs, in both orders."""
    learn = f"steps={steps}"

    def low_rank(first: str, share: str) -> str:
        """Tucker splits the k x k layers alone, which hold four fifths of the weights; then SVD, whatever is left."""
        return f"decompose-tucker{{params={first}}} decompose-svd{{params={share}}} recover-lsq"

    return {
        "source": "",
        "prune": "prune-channels{params=25%} recover-lsq",
        "low-rank": low_rank("40%", "25%"),
        "distil": f"distil{{narrow=0.5 {learn}}}",
        "prune+low-rank": f"prune-channels{{params=25%}} recover-lsq {low_rank('16%', '12.5%')}",
        "low-rank+prune": f"{low_rank('40%', '25%')} prune-channels{{params=12.5%}} recover-lsq",
        "prune+distil": f"prune-channels{{params=25%}} recover-lsq distil{{narrow=0.7 {learn}}}",
        "distil+prune": f"distil{{narrow=0.5 {learn}}} prune-channels{{params=12.5%}} recover-lsq",
        "low-rank+distil": f"{low_rank('40%', '25%')} distil{{narrow=0.7 {learn}}}",
        "distil+low-rank": f"distil{{narrow=0.5 {learn}}} {low_rank('16%', '12.5%')}",
        "prune+refine": f"prune-channels{{params=12.5%}} recover-lsq refine{{{learn}}}",
    }


def row(name: str, text: str, judge: Dataset, context: Context, *, int8: bool) -> str:
    """One line of the table."""
    teacher, folder = context.teacher, context.scratch
    start = time.process_time()
    passes = parse_pipeline(text) if text else ()
    # By the pipeline, which tells passes behind `distil` whose layers they re-fit.
    steps = run_pipeline(passes, teacher, context)
    model = steps[-1].model if steps else teacher
    spent = time.process_time() - start
    size, top1 = written(model, folder), accuracy(model, judge)
    codes = [" ", " "]
    if int8:
        (quantize,) = parse_pipeline("quantize")
        eight = quantize.run(model.clone(), context).model
        codes = [f"{written(eight, folder):,}", f"{accuracy(eight, judge):.1f}"]
    now, before = cost(model), cost(teacher)
    figures = [
        f"{100 * now.macs / before.macs:.1f}%",
        f"{100 * now.params / before.params:.1f}%",
        f"{size:,}",
        f"{top1:.1f}",
        *codes,
        f"{spent:.0f}",
    ]
    return f"| {name} | {context.seed} | {' | '.join(figures)} |"


def written(model: ir.Model, folder: Path) -> int:
    """Bytes of the ONNX file."""
    onnx.save(ir.to_proto(model), path := folder / "model.onnx")
    return path.stat().st_size


def main(arguments: argparse.Namespace) -> None:
    """Print the table, a row as soon as it is known."""
    teacher = load(shared() / "models" / "nin_cifar10.onnx")
    judge = open_data(shared() / "cifar10" / "eval.npz", teacher, IMAGENET)
    print(HEADER)
    known = pipelines(arguments.steps)
    for name, seed in product(arguments.rows or known, arguments.seeds):
        calibration = shared() / "cifar10" / "calib.npz"
        data = open_data(calibration, teacher, IMAGENET, samples=arguments.images, seed=seed)
        with tempfile.TemporaryDirectory() as folder:
            context = Context(teacher, Path(folder), data, seed=seed, task="classification")
            print(row(name, known[name], judge, context, int8=arguments.int8), flush=True)


def _arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("rows", nargs="*", metavar="ROW", help=", ".join(pipelines(1)))
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--int8", action="store_true", help="quantise each network too")
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    return parser.parse_args(given)


if __name__ == "__main__":
    main(_arguments())
