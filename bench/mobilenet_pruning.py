"""Prune MobileNetV1-0.75/ImageNet label-free and print top-1, agreement and KL against MACs (issue 3, point 4).

512 unlabelled images; labels of the 650 evaluation images are used for scoring only. "calib. KL" is that of 64 calibration
images which no pass has seen: methods are to be chosen by it, not by the columns behind it.

    python bench/mobilenet_pruning.py [--macs 90% 80% 70% 46%] [--passes "prune-channels{{macs={0}}} recover-lsq"] [--threads 2]
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from edgec.compiler.pipeline.run import Step, run_pipeline
from edgec.graph.compare import kl_divergence
from edgec.graph.cost import cost
from edgec.graph.data import Dataset, open_data
from edgec.graph.execute import Executor
from edgec.graph.load import load
from edgec.graph.preprocess import Preprocess
from edgec.passes.base import Context, Progress
from edgec.passes.pipeline_string import parse_pipeline

Array = np.ndarray[Any, np.dtype[Any]]

NETWORK = "mobilenet_v1_0.75_224"
PREPROCESS = Preprocess(mean=(1.0,), scale=1 / 127.5, crop=(224, 224))
PASSES = "prune-channels{{macs={0}}} recover-lsq"


def shared() -> Path:
    """The networks and inputs that no licence lets us ship."""
    root = Path(__file__).resolve().parent.parent
    return Path(os.environ.get("EDGEC_SHARED", root.parent / "shared")) / "data"


@dataclass(frozen=True)
class Judge:
    """Evaluation images with the teacher's logits on them."""

    data: Dataset
    reference: Array

    @staticmethod
    def of(data: Dataset, teacher: ir.Model, threads: int) -> Judge:
        return Judge(data, logits(teacher, data, threads))

    def score(self, model: ir.Model, threads: int) -> tuple[float, float, float]:
        """(drop of top-1 in points, agreement with the teacher in percent, mean KL); the drop is nan without labels."""
        mine, theirs = logits(model, self.data, threads), self.reference
        labels = self.data.labels
        drop = float("nan")
        if labels is not None:
            drop = 100 * float((theirs.argmax(1) == labels).mean() - (mine.argmax(1) == labels).mean())
        agree = 100 * float((mine.argmax(1) == theirs.argmax(1)).mean())
        return drop, agree, float(np.mean(kl_divergence(theirs, mine)))


class Loud(Progress):
    """Steps on a terminal's second channel."""

    def __init__(self) -> None:
        self.start = time.perf_counter()

    def step(self, label: str, done: int, total: int) -> None:
        print(f"{time.perf_counter() - self.start:7.1f} s  {label} {done}/{total}", flush=True)


def logits(model: ir.Model, data: Dataset, threads: int) -> Array:
    """All class scores."""
    executor = Executor(model, threads=threads)
    return np.concatenate([executor.run(feeds)[executor.outputs[0]] for feeds in data.batches(25)])


def compress(
    text: str, teacher: ir.Model, data: Dataset, threads: int, *, loud: bool
) -> tuple[ir.Model, float, Sequence[Step]]:
    """The pipeline's result, its seconds, and what each pass said."""
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        progress = Loud() if loud else Progress()
        context = Context(
            teacher=teacher, scratch=Path(folder), data=data, threads=threads, progress=progress
        )
        steps = run_pipeline(parse_pipeline(text), teacher, context)
    return steps[-1].model, time.perf_counter() - start, steps


def main(given: argparse.Namespace) -> None:
    """Print the table."""
    teacher = load(shared() / "models" / f"{NETWORK}.onnx")
    calibration = open_data(shared() / "imagenet" / "calib", teacher, PREPROCESS, samples=given.images)
    seen, unseen = calibration, None
    if given.unseen:
        seen, held = calibration.split(given.unseen / len(calibration), 7)
        unseen = Judge.of(held, teacher, given.threads)
    folder = shared() / "imagenet"
    judge = Judge.of(labelled(folder, teacher), teacher, given.threads)
    full = cost(teacher).macs
    print("| passes | MACs | drop, points | agreement | KL | calib. KL | seconds | peak GB |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    for share in given.macs:
        text = given.passes.format(share)
        model, seconds, results = compress(text, teacher, seen, given.threads, loud=given.verbose)
        if given.verbose:
            report(results)
        drop, agree, kl = judge.score(model, given.threads)
        apart = unseen.score(model, given.threads)[2] if unseen is not None else float("nan")
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        print(
            f"| `{text}` | {cost(model).macs / full:.1%} | {drop:.2f} | {agree:.1f} | {kl:.3f} | {apart:.3f}"
            f" | {seconds:.0f} | {peak:.1f} |",
            flush=True,
        )
        if given.save:
            ir.save(model, Path(given.save) / f"mobilenet-{share.rstrip('%')}.onnx")


def labelled(folder: Path, teacher: ir.Model) -> Dataset:
    """The evaluation images with their labels."""
    return open_data(folder / "eval", teacher, PREPROCESS, labels=folder / "eval_labels.csv")


def report(results: Sequence[Step]) -> None:
    """Notes and fitted layers."""
    for result in results:
        for note in result.notes:
            print("note:", note.node or "", note.text)
        for layer in result.layers:
            print(
                f"{layer.node}: {layer.error_before:.4f} -> {layer.error_after:.4f} rows {layer.rows} {layer.note}"
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--macs", nargs="+", default=["90%", "80%", "70%", "46%"])
    parser.add_argument("--passes", default=PASSES, help="pipeline; {0} is the share of MACs")
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument(
        "--unseen", type=int, default=0, help="calibration images kept from the passes, to choose by"
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--save", default="", help="folder for the pruned models")
    parser.add_argument("--verbose", action="store_true")
    main(parser.parse_args())
