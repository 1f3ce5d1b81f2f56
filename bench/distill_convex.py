"""distill-convex beside a ReLU student of the same size trained with Adam, CIFAR-10 ResNets, unlabelled images.

The students replace the same region, get the same images and the same targets (the teacher's activations behind the region), and
have the same multiplications; Adam (torch, one thread, cosine schedule over its time) gets the seconds of the pass, and ten times
as many. Seconds are processor seconds of one thread, so that a busy machine treats both alike. 5000 images are the 1000
calibration images with flips and shifts. Labels are used for scoring only.

    python bench/distill_convex.py [--network resnet56_cifar10] [--images 500] [--seeds 5] [--long-seeds 2] [--certificate]
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from torch import nn

from edgec.graph.cost import cost
from edgec.graph.data import ArraySource, Dataset, InputSpec, open_data
from edgec.graph.execute import Executor
from edgec.graph.load import load
from edgec.graph.preprocess import Preprocess
from edgec.passes.base import Context
from edgec.passes.blocks.gated.gates import from_patches
from edgec.passes.pipeline_string import parse_pipeline
from edgec.passes.solvers.gated import Whitening
from edgec.passes.solvers.gated_convex import gate_gram, solve_convex
from edgec.passes.solvers.gram import Patches, targets_at

Array = np.ndarray[Any, np.dtype[Any]]

IMAGENET = Preprocess(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), scale=1 / 255)
BATCH = 50


@dataclass(frozen=True)
class Task:
    """A region: its ends in the teacher, its blocks' channels, and the blocks that replace it."""

    network: str
    region: str
    blocks: int
    start: str
    end: str
    strided: bool


TASKS = {
    "resnet56_cifar10": Task("resnet56_cifar10", "block19..block27", 3, "relu_36", "add_1016", True),
    "resnet20_cifar10": Task("resnet20_cifar10", "block8..block9", 1, "relu_14", "add_368", False),
}
CHANNELS = 64
RELU_WIDTH = 121
"""Inner channels at which a ReLU block costs what a gated block of 64 costs."""
GATED, SAMPLED, CONVEX = "gated", "gated, follow=0 gates=patches", "gated, solver=convex gates=patches"
RELU = f"lower=relu width={RELU_WIDTH}"


def shared() -> Path:
    """The networks and inputs that no licence lets us ship."""
    root = Path(__file__).resolve().parent.parent
    return Path(os.environ.get("EDGEC_SHARED", root.parent / "shared")) / "data"


def images(teacher: ir.Model, count: int, seed: int) -> Dataset:
    """``count`` of the calibration images; above 1000, flips and shifts by up to 4 pixels of them."""
    pictures = np.load(shared() / "cifar10" / "calib.npz")["x"]
    rng = np.random.default_rng(seed)
    if count <= len(pictures):
        pictures = pictures[np.sort(rng.permutation(len(pictures))[:count])]
    else:
        pictures = np.concatenate(
            [pictures, *(shifted(pictures, rng) for _ in range(count // len(pictures) - 1))]
        )
    source = ArraySource({teacher.graph.inputs[0].name or "": pictures}, IMAGENET, InputSpec.of(teacher))
    return Dataset("calibration", source, tuple(range(len(pictures))))


def shifted(pictures: Array, rng: np.random.Generator) -> Array:
    """Each picture (n, h, w, c) mirrored or not, and moved by up to 4 pixels, its border repeated."""
    padded = np.pad(pictures, ((0, 0), (4, 4), (4, 4), (0, 0)), mode="edge")
    size = pictures.shape[1]
    found = np.empty_like(pictures)
    for number, (y, x, turn) in enumerate(rng.integers((9, 9, 2), size=(len(pictures), 3))):
        one = padded[number, y : y + size, x : x + size]
        found[number] = one[:, ::-1] if turn else one
    return found


def run(model: ir.Model, data: Dataset, names: Sequence[str], *, flips: bool = False) -> list[Array]:
    """Values of ``names`` for all samples; with ``flips`` for the mirrored ones too, as the pass does."""
    executor = Executor(model, outputs=list(names))
    parts = []
    for feeds in data.batches(BATCH):
        parts.append(executor.run(feeds))
        if flips:
            parts.append(
                executor.run({name: np.ascontiguousarray(x[..., ::-1]) for name, x in feeds.items()})
            )
    return [np.concatenate([part[name] for part in parts]) for name in names]


class Student(nn.Module):
    """Residual blocks conv 3x3, ReLU, conv 1x1; the first with stride 2 and a padded skip where ``strided``."""

    def __init__(self, blocks: int, strided: bool) -> None:
        super().__init__()
        first = CHANNELS // 2 if strided else CHANNELS
        self.strided = strided
        self.one = nn.ModuleList(
            nn.Conv2d(
                CHANNELS if i else first, RELU_WIDTH, 3, stride=2 if strided and not i else 1, padding=1
            )
            for i in range(blocks)
        )
        self.two = nn.ModuleList(nn.Conv2d(RELU_WIDTH, CHANNELS, 1) for _ in range(blocks))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for number, (one, two) in enumerate(zip(self.one, self.two, strict=True)):
            made = two(torch.relu(one(x)))
            if self.strided and not number:
                x = nn.functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, CHANNELS // 4, CHANNELS // 4))
            x = torch.relu(made + x)
        return x


def adam(task: Task, z: Array, target: Array, seconds: float, seed: int, rate: float = 3e-3) -> Student:
    """A student trained for ``seconds`` to make ``target`` behind its ReLU."""
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    student = Student(task.blocks, task.strided)
    x, y = torch.from_numpy(z), torch.from_numpy(np.maximum(target, 0))
    optimiser = torch.optim.Adam(student.parameters(), lr=rate)
    rng = np.random.default_rng(seed)
    start = time.process_time()
    while (share := (time.process_time() - start) / seconds) < 1:
        for group in optimiser.param_groups:
            group["lr"] = rate * 0.5 * (1 + np.cos(np.pi * share))
        chosen = torch.from_numpy(rng.integers(len(x), size=64))
        loss = ((student(x[chosen]) - y[chosen]) ** 2).mean()
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    return student


@dataclass
class Case:
    """The teacher with the evaluation images, and its activations there."""

    task: Task

    def __post_init__(self) -> None:
        self.teacher = load(shared() / "models" / f"{self.task.network}.onnx")
        self.evaluation = open_data(shared() / "cifar10" / "eval.npz", self.teacher, IMAGENET)
        self.logits = self.teacher.graph.outputs[0].name or ""
        self.z, self.end = run(self.teacher, self.evaluation, [self.task.start, self.task.end])
        gemm = list(self.teacher.graph)[-1]
        self.head = [
            np.asarray(v.const_value.numpy()) for v in gemm.inputs[1:] if v is not None and v.const_value
        ]

    def score(self, behind: Array) -> tuple[float, float]:
        """(relative error, top-1) of what a student makes behind the region's ReLU."""
        wanted = np.maximum(self.end, 0)
        error = float(np.square(behind - wanted).sum() / np.square(wanted).sum())
        scores = behind.mean((2, 3)) @ self.head[0].T + self.head[1]
        return error, 100 * float((scores.argmax(1) == np.asarray(self.evaluation.labels)).mean())

    def edgec(self, text: str, data: Dataset, seed: int) -> tuple[ir.Model, float, dict[str, Any]]:
        """The pipeline's model, its seconds, and the figures of its first pass."""
        model, begin, figures = self.teacher.clone(), time.process_time(), {}
        with tempfile.TemporaryDirectory() as folder:
            context = Context(self.teacher, Path(folder), data, seed=seed)
            for one in parse_pipeline(text):
                result = one.run(model, context)
                model, figures = result.model, figures or dict(result.data)
        return model, time.process_time() - begin, figures

    def judged(self, model: ir.Model) -> tuple[float, float]:
        """(relative error behind the region, top-1 of the whole network)."""
        end, scores = run(model, self.evaluation, [self.task.end, self.logits])
        error, _ = self.score(np.maximum(end, 0))
        return error, 100 * float((scores.argmax(1) == np.asarray(self.evaluation.labels)).mean())

    def trained(self, data: Dataset, seconds: float, seed: int) -> tuple[float, float]:
        """Adam's student."""
        z, target = run(self.teacher, data, [self.task.start, self.task.end], flips=len(data) <= 1000)
        student = adam(self.task, z, target, seconds, seed)
        with torch.no_grad():
            return self.score(student(torch.from_numpy(self.z)).numpy())


def methods(task: Task, extra: str) -> dict[str, str]:
    """The pipelines of a task. The ReLU block of twice the width costs what the gated block costs."""
    base = f"region={task.region} blocks={task.blocks}{extra}"
    return {
        GATED: f"distill-convex{{{base}}}",
        SAMPLED: f"distill-convex{{{base} follow=0 gates=patches}}",
        CONVEX: f"distill-convex{{{base} solver=convex gates=patches}}",
        RELU: f"distill-convex{{{base} lower=relu width={RELU_WIDTH}}}",
    }


@dataclass
class Table:
    """Rows of (error, top-1, seconds, share of MACs) per method, one for every seed."""

    rows: dict[str, list[tuple[float, float, float, float]]]

    def add(self, name: str, error: float, top1: float, seconds: float, macs: float) -> None:
        self.rows.setdefault(name, []).append((error, top1, seconds, macs))
        print(f"  {name}: error {error:.3f}, top-1 {top1:.1f}, {seconds:.0f} s", file=sys.stderr, flush=True)

    def print(self, title: str) -> None:
        print(
            f"\n| {title} | seeds | MACs | error behind the region | top-1 | seconds |\n|---|---|---|---|---|---|"
        )
        for name, found in self.rows.items():
            columns = np.array(found)
            mean, spread = columns.mean(axis=0), columns.std(axis=0)
            print(
                f"| {name} | {len(found)} | {mean[3]:.1%} | {mean[0]:.3f} ± {spread[0]:.3f} "
                f"| {mean[1]:.1f} ± {spread[1]:.1f} | {mean[2]:.0f} |"
            )
        print(flush=True)


def compare(task: Task, count: int, seeds: int, long_seeds: int, convex_seeds: int) -> None:
    """One table: the pass in its variants, Adam for the same time and for ten times as long."""
    case, table = Case(task), Table({})
    full = cost(case.teacher).macs
    extra = "" if count <= 1000 else " hflip=no"
    pipelines = methods(task, extra)
    gaps: list[float] = []
    spent: dict[int, float] = {}

    def passes(seed: int, names: Sequence[str]) -> None:
        for name in names:
            model, spent[seed], figures = case.edgec(pipelines[name], images(case.teacher, count, seed), seed)
            table.add(name, *case.judged(model), spent[seed], cost(model).macs / full)
            gaps.extend(part["gap"] for part in figures.get("parts", []) if part["gap"] is not None)

    def student(seed: int, name: str, times: int) -> None:
        found = case.trained(images(case.teacher, count, seed), times * spent[seed], seed)
        share = table.rows[RELU][0][3]
        table.add(f"ReLU student, Adam, {name}", *found, times * spent[seed], share)

    for seed in range(seeds):
        passes(seed, (GATED, RELU))
        student(seed, "same time", 1)
    relu = dict(spent)
    for seed in range(convex_seeds):
        passes(seed, (SAMPLED, CONVEX))
    spent.update(relu)
    for seed in range(long_seeds):
        student(seed, "ten times", 10)
    table.print(f"{task.network}, {task.region} by {task.blocks}, {count} images")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    print(
        f"largest relative duality gap {max(gaps, default=float('nan')):.1e}; peak memory, Adam included, {peak:.0f} MB"
    )


def certificate() -> None:
    """One block's convex problem: 64 channels, 3 x 3, 500 images of 8 x 8; two starts, time, gap, and peak memory."""
    task = TASKS["resnet20_cifar10"]
    teacher = load(shared() / "models" / f"{task.network}.onnx")
    z, target = run(teacher, images(teacher, 500, 0), ["relu_16", "add_368"])
    patches = Patches(CHANNELS, (3, 3), (1, 1), (1,) * 4, (1, 1))
    places = np.arange(len(z) * 64)
    print("| penalty | start | seconds | of these statistics | iterations | relative gap | objective |")
    print("|---|---|---|---|---|---|---|")
    for penalty in ("group-lasso", "nuclear", "ridge"):
        begin = time.process_time()
        p = np.concatenate([tile[0] for _, tile in patches.tiles(z, places)])
        root = Whitening.of(np.asarray(p.T @ p, np.float64), len(p), 1e-4)
        rng = np.random.default_rng(0)
        gates = (p @ from_patches(p, 8, rng).astype(np.float32) > 0).astype(np.float32)
        gram = gate_gram(root.apply(p), gates, targets_at(target - z, places, 1)[0])
        statistics = time.process_time() - begin
        for name in ("zero", "random"):
            begin = time.process_time()
            start = (
                None
                if name == "zero"
                else rng.standard_normal(gram.s.shape) * np.abs(gram.s).mean() / len(p) * 10
            )
            found = solve_convex(gram, penalty, 1e-3 * gram.scale, start=start)
            seconds = statistics + time.process_time() - begin
            print(
                f"| {penalty} | {name} | {seconds:.1f} | {statistics:.1f} | {found.iterations} | {found.gap:.1e} "
                f"| {found.objective:.6g} |",
                flush=True,
            )
            if penalty == "ridge":
                break
    print(f"\npeak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3:.0f} MB")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--network", default="resnet56_cifar10", choices=list(TASKS))
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--long-seeds", type=int, default=2, help="seeds that also get ten times the time")
    parser.add_argument("--convex-seeds", type=int, default=5, help="seeds that also run solver=convex")
    parser.add_argument(
        "--certificate", action="store_true", help="one block's convex problem, and nothing else"
    )
    given = parser.parse_args()
    if given.certificate:
        certificate()
    else:
        compare(TASKS[given.network], given.images, given.seeds, given.long_seeds, given.convex_seeds)
