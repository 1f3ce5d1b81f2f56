"""What `refine` wins back behind the closed forms: CIFAR-10 networks, unlabelled images only, one thread.

Each network is cut by the closed form on 500 calibration images and then distilled from its teacher on all unlabelled images that
are there (calib.npz and unlabelled_extra.npz, 6220). Labels are used for scoring only, on 500 evaluation images: one image is 0.2
points, the standard error 1.3 to 1.5 points. Seconds are CPU seconds of this process.

    python bench/learned.py [resnet20:35 resnet56:15] [--steps 300] [--seeds 0] [--options 'rate=0.01']
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from remove_blocks import IMAGENET, accuracy, shared

from edgec.graph.cost import cost
from edgec.graph.data import Dataset, open_data
from edgec.graph.load import load
from edgec.passes.base import Context, Progress
from edgec.passes.pipeline_string import parse_pipeline

HEADER = """\
| network | MACs | seed | images | steps | CPU s | top-1 | divergence, agreement (held out) |
|---|---|---|---|---|---|---|---|"""


class Lines(Progress):
    """Says how far it is, line by line."""

    def say(self, line: str) -> None:
        print(f"<!-- {line} -->", flush=True)


def unlabelled(teacher: ir.Model, folder: Path) -> Dataset:
    """All images without labels, as one file."""
    files = [shared() / "cifar10" / name for name in ("calib.npz", "unlabelled_extra.npz")]
    path = folder / "unlabelled.npz"
    np.savez(path, x=np.concatenate([np.load(file)["x"] for file in files if file.is_file()]))
    return open_data(path, teacher, IMAGENET)


def closed_form(teacher: ir.Model, name: str, macs: str, kept: Path | None) -> tuple[ir.Model, float]:
    """The network at ``macs`` percent and the CPU seconds that it took; read from the folder ``kept`` where it lies there."""
    file = None if kept is None else kept / f"{name}_{macs}.onnx"
    if file is not None and file.is_file():
        return ir.from_proto(onnx.load(file)), float("nan")
    data = open_data(shared() / "cifar10" / "calib.npz", teacher, IMAGENET, samples=500)
    start, model = time.process_time(), teacher.clone()
    with tempfile.TemporaryDirectory() as scratch:
        context = Context(teacher=teacher, scratch=Path(scratch), data=data)
        for one in parse_pipeline(f"compress{{macs={macs}%}} recover-lsq"):
            model = one.run(model, context).model
    spent = time.process_time() - start
    if file is not None:
        onnx.save(ir.to_proto(model), file)
    return model, spent


def rows(name: str, macs: str, arguments: argparse.Namespace, folder: Path) -> Iterator[str]:
    """One for the closed form, one for each seed behind it."""
    teacher = load(shared() / "models" / f"{name}_cifar10.onnx")
    judge = open_data(shared() / "cifar10" / "eval.npz", teacher, IMAGENET)
    closed, spent = closed_form(teacher, name, macs, arguments.kept)
    share = f"{100 * cost(closed).macs / cost(teacher).macs:.1f}%"
    yield f"| {name} | 100% | | | | | {accuracy(teacher, judge):.1f} | |"
    yield f"| closed form | {share} | | 500 | | {spent:.0f} | {accuracy(closed, judge):.1f} | |"
    data = unlabelled(teacher, folder)
    context = Context(teacher, folder, data, progress=Lines(), task="classification")
    for seed in arguments.seeds:
        (refine,) = parse_pipeline(f"refine{{steps={arguments.steps} {arguments.options}}}")
        start = time.process_time()
        result = refine.run(closed.clone(), replace(context, seed=seed))
        spent = time.process_time() - start
        figures = [result.data[when] for when in ("before", "after")]
        moved = " → ".join(f"{one['loss']:.3f}, {one['agreement']:.1%}" for one in figures)
        kept = "" if result.modified else " (taken back)"
        top1 = accuracy(result.model, judge)
        yield f"| + refine | {share} | {seed} | {len(data)} | {arguments.steps} | {spent:.0f} | {top1:.1f} | {moved}{kept} |"


def main(arguments: argparse.Namespace) -> None:
    """Print the table, a row as soon as it is known."""
    print(HEADER)
    with tempfile.TemporaryDirectory() as folder:
        for case in arguments.cases:
            for row in rows(*case.split(":"), arguments, Path(folder)):
                print(row, flush=True)


def _arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("cases", nargs="*", default=["resnet20:35", "resnet56:15"], metavar="NETWORK:PERCENT")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--options", default="", help="further options of refine")
    parser.add_argument(
        "--kept", type=Path, help="folder of networks that the closed form made, read and written"
    )
    return parser.parse_args(given)


if __name__ == "__main__":
    main(_arguments())
