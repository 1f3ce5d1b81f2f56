"""remove-blocks beside prune-channels: accuracy against MACs and measured latency, CIFAR-10 ResNets, 500 unlabelled images.

Latencies are of onnxruntime on this machine, one thread, batch 1, all models interleaved in one session, as ratios to
the teacher (the 10th percentile of rounds, which a busy machine disturbs least). Labels are used for scoring only.

    python bench/remove_blocks.py [--network resnet56_cifar10] [--macs 80% 70% 60% 50%]
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from edgec.graph.cost import cost
from edgec.graph.data import Dataset, open_data
from edgec.graph.execute import Executor
from edgec.graph.load import load
from edgec.graph.preprocess import Preprocess
from edgec.passes.base import Context
from edgec.passes.pipeline_string import parse_pipeline

IMAGENET = Preprocess(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), scale=1 / 255)
METHODS = {
    "remove-blocks": "remove-blocks{{macs={0}}} recover-lsq",
    "prune-channels": "prune-channels{{macs={0}}} recover-lsq",
    "prune-channels, multiple=8": "prune-channels{{macs={0} multiple=8}} recover-lsq",
}
ROUNDS = 300


def shared() -> Path:
    """The networks and inputs that no licence lets us ship."""
    root = Path(__file__).resolve().parent.parent
    return Path(os.environ.get("EDGEC_SHARED", root.parent / "shared")) / "data"


def accuracy(model: ir.Model, data: Dataset) -> float:
    """Top-1 in percent."""
    executor = Executor(model)
    logits = np.concatenate([executor.run(feeds)[executor.outputs[0]] for feeds in data.batches(100)])
    return 100 * float((logits.argmax(1) == data.labels).mean())


def run(text: str, teacher: ir.Model, data: Dataset) -> tuple[ir.Model, float]:
    """The pipeline's result and its seconds."""
    model, start = teacher.clone(), time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        context = Context(teacher=teacher, scratch=Path(folder), data=data)
        for one in parse_pipeline(text):
            model = one.run(model, context).model
    return model, time.perf_counter() - start


def latencies(models: Sequence[ir.Model], feeds: dict[str, Any]) -> list[float]:
    """Milliseconds, the 10th percentile of interleaved rounds."""
    executors = [Executor(model) for model in models]
    times = np.empty((ROUNDS, len(models)))
    for executor in executors:
        executor.run(feeds)
    for row in times:
        for number, executor in enumerate(executors):
            start = time.perf_counter()
            executor.run(feeds)
            row[number] = time.perf_counter() - start
    return [float(value) for value in 1000 * np.percentile(times, 10, axis=0)]


def main(network: str, shares: Sequence[str], images: int) -> None:
    """Print the table of one network."""
    teacher = load(shared() / "models" / f"{network}.onnx")
    data = open_data(shared() / "cifar10" / "calib.npz", teacher, IMAGENET, samples=images)
    judge = open_data(shared() / "cifar10" / "eval.npz", teacher, IMAGENET)
    rows: list[tuple[str, ir.Model, float]] = [("teacher", teacher, 0.0)]
    for share in shares:
        for name, text in METHODS.items():
            rows.append((name, *run(text.format(share), teacher, data)))
    times = latencies([model for _, model, _ in rows], next(iter(judge.batches(1))))
    print(
        f"| {network}, {images} images | nodes | MACs | latency | top-1 | seconds |\n|---|---|---|---|---|---|"
    )
    full = cost(teacher).macs
    for (name, model, seconds), ms in zip(rows, times, strict=True):
        share = cost(model).macs / full
        print(
            f"| {name} | {len(model.graph)} | {share:.1%} | {ms / times[0]:.2f} | {accuracy(model, judge):.1f}"
            f" | {seconds:.0f} |"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--network", default="resnet56_cifar10")
    parser.add_argument("--macs", nargs="+", default=["80%", "70%", "60%", "50%"])
    parser.add_argument("--images", type=int, default=500)
    given = parser.parse_args()
    main(given.network, given.macs, given.images)
