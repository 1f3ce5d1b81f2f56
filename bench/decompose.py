"""Decomposition, whitened and plain, before and after the re-fit, beside pruning and both together: docs/decompose.md.

Times are medians of processor time in onnxruntime, one thread, all models of a network in turn, as shares of the teacher's.

usage: python bench/decompose.py [resnet20] [resnet56] [nin] [--images 500] [--threads 1] [--macs 50% 35%]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir
from pruning import IMAGENET, Case, kl_divergence, logits

from edgec.compiler.emit.onnx import emit
from edgec.compiler.pipeline.run import run_pipeline
from edgec.graph.cost import cost
from edgec.graph.execute import session
from edgec.passes.base import Context
from edgec.passes.pipeline_string import parse_pipeline

NETWORKS = {"resnet20": "resnet20_cifar10", "resnet56": "resnet56_cifar10", "nin": "nin_cifar10"}
FORMS = ("channel", "spatial", "tucker", "depthwise")
HEAD = (
    "| | MACs | drop | agreement | KL | re-fitted: drop | agreement | KL | seconds | time |\n"
    + "|---" * 10
    + "|"
)
ROUNDS = 200


@dataclass(frozen=True)
class Row:
    """One pipeline's results, before and after the re-fit."""

    label: str
    cells: str
    model: ir.Model


def run(case: Case, label: str, text: str) -> Row:
    """Both models of a pipeline of two passes, judged."""
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        context = Context(case.teacher, Path(folder), case.calibration, threads=case.threads)
        steps = run_pipeline(parse_pipeline(text), case.teacher, context)
    seconds = time.perf_counter() - start
    share = cost(steps[-1].model).macs / cost(case.teacher).macs
    cells = f"{share:.1%} | {judged(case, steps[0].model)} | {judged(case, steps[-1].model)} | {seconds:.0f}"
    print(f"... {label} | {cells}", flush=True)
    return Row(label, cells, steps[-1].model)


def judged(case: Case, model: ir.Model) -> str:
    """Drop of top-1, agreement and KL on the evaluation images."""
    mine = logits(model, case.evaluation, case.threads)
    drop = case.top1(case.logits) - case.top1(mine)
    agree = 100 * float((mine.argmax(1) == case.logits.argmax(1)).mean())
    return f"{drop:.1f} | {agree:.1f} | {float(np.mean(kl_divergence(case.logits, mine))):.3f}"


def times(case: Case, models: Sequence[ir.Model]) -> list[float]:
    """Processor time of each model as a share of the teacher's, one image, all in turn."""
    sides = [session(emit(one)) for one in (case.teacher, *models)]
    feeds = {key: array[:1] for key, array in next(iter(case.calibration.batches(1))).items()}
    found: list[list[float]] = [[] for _ in sides]
    for _ in range(ROUNDS):
        for side, taken in zip(sides, found, strict=True):
            start = time.process_time()
            side.run(None, feeds)
            taken.append(time.process_time() - start)
    medians = [float(np.median(taken[20:])) for taken in found]
    return [one / medians[0] for one in medians[1:]]


def table(case: Case, share: str, more: str) -> None:
    """All methods at one budget."""
    forms = [
        (f"{form}, {label}", f"decompose-{form}{{macs={share} whitened={choice}{more}}}")
        for form in FORMS
        for choice, label in (("yes", "whitened"), ("no", "plain"))
    ]
    combined = [("compress", ""), ("compress, `pieces=all`", " pieces=all")]
    texts = [
        *forms,
        ("prune-channels", f"prune-channels{{macs={share}{more}}}"),
        *((label, f"compress{{macs={share}{option}{more}}}") for label, option in combined),
    ]
    rows = [run(case, label, f"{text} recover-lsq") for label, text in texts]
    print(HEAD)
    for row, taken in zip(rows, times(case, [row.model for row in rows]), strict=True):
        print(f"| {row.label} | {row.cells} | {taken:.0%} |", flush=True)


def main() -> None:
    """Print a table per network and budget."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("networks", nargs="*", help=", ".join(NETWORKS))
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--macs", nargs="+", default=["50%", "35%"])
    parser.add_argument("--multiple", type=int, default=0, help="round widths and ranks to this")
    given = parser.parse_args()
    more = f" multiple={given.multiple}" if given.multiple else ""
    for network in given.networks or NETWORKS:
        case = Case.of(NETWORKS[network], "cifar10", IMAGENET, given.images, given.threads)
        for share in given.macs:
            print(f"\n## {network}, {share} of the MACs, {given.images} images{more}\n", flush=True)
            table(case, share, more)


if __name__ == "__main__":
    main()
