"""What learning wins behind the closed forms: CIFAR-10 networks, unlabelled images only, one thread.

Each network is cut by the forms that are named, on 500 calibration images (`learn-structure` learns on all), and then distilled
from its teacher (`refine`) on all unlabelled images that are there (calib.npz and unlabelled_extra.npz, 6220). Labels are used
for scoring only, on 500 evaluation images: one image is 0.2 points, the standard error 1.3 to 1.5 points. Seconds are CPU seconds
of this process.

    python bench/learned.py [resnet20:35 nin:params=20] [--forms compress widths] [--steps 300] [--structure 300] [--seeds 0]

A case is a network and its budget: percent of its multiply-adds, or what stands there. `--whole`: each seed draws the calibration
images and what a form learns too; without it only what `refine` does.
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
from portfolio import NETWORKS as PREPARED
from remove_blocks import accuracy, shared

import edgec
from edgec.graph.cost import cost
from edgec.graph.data import Dataset, open_data
from edgec.graph.load import load
from edgec.graph.preprocess import Preprocess
from edgec.passes.base import Context, Progress
from edgec.passes.pipeline_string import parse_pipeline

HEADER = """\
| network | MACs, parameters | seed | images | steps | CPU s | top-1 | divergence, agreement (held out) |
|---|---|---|---|---|---|---|---|"""
FORMS = {
    "compress": ("closed form", "compress{{{budget}}} recover-lsq"),
    "channels": ("channels alone", "prune-channels{{{budget}}} recover-lsq"),
    "widths": ("learned widths", "learn-structure{{{budget} steps={steps} weights=source {options}}}"),
    "weights": (
        "learned widths and weights",
        "learn-structure{{{budget} steps={steps} {options}}}",
    ),
    "usual": ("what a compile makes for this machine", ""),
    "portfolio": ("the portfolio's choice", ""),
}
"""What a row is called, and the passes behind it; none: `edgec compile` chooses them."""
LEARNED = ("widths", "weights")


class Lines(Progress):
    """Says how far it is, line by line."""

    def say(self, line: str) -> None:
        print(f"<!-- {line} -->", flush=True)


def unlabelled(teacher: ir.Model, prepared: Preprocess, folder: Path) -> Dataset:
    """All images without labels, as one file."""
    files = [shared() / "cifar10" / name for name in ("calib.npz", "unlabelled_extra.npz")]
    path = folder / "unlabelled.npz"
    np.savez(path, x=np.concatenate([np.load(file)["x"] for file in files if file.is_file()]))
    return open_data(path, teacher, prepared)


def cut(
    teacher: ir.Model, name: str, budget: str, form: str, arguments: argparse.Namespace, context: Context
) -> tuple[ir.Model, float, list[str]]:
    """The network within ``budget`` by the seed of ``context``, the CPU seconds that it took, and what the passes said; read from
    the folder ``--kept`` where it lies there."""
    kept = f"{name}_{budget.strip('%')}_{form}_{context.seed}.onnx"
    file = None if arguments.kept is None else arguments.kept / kept
    if file is not None and file.is_file():
        return ir.from_proto(onnx.load(file)), float("nan"), []
    if not FORMS[form][1]:
        return compiled(name, budget, form, context)
    text = FORMS[form][1].format(
        budget=budget, steps=arguments.structure, options=arguments.structure_options
    )
    prepared = Preprocess(**PREPARED[name])
    few = open_data(shared() / "cifar10" / "calib.npz", teacher, prepared, samples=500, seed=context.seed)
    start, model, said = time.process_time(), teacher.clone(), []
    for one in parse_pipeline(text):
        data = context.data if one.name == "learn-structure" else few
        result = one.run(model, replace(context, data=data))
        model = result.model
        said += [note.text for note in result.notes if note.node is None]
    spent = time.process_time() - start
    if file is not None:
        onnx.save(ir.to_proto(model), file)
    return model, spent, said


def compiled(name: str, budget: str, form: str, context: Context) -> tuple[ir.Model, float, list[str]]:
    """As `cut`, by a whole compile for this machine, with or without `--portfolio`."""
    start, out = time.process_time(), context.scratch / form
    report = edgec.compile(
        shared() / "models" / f"{name}_cifar10.onnx", out, data=shared() / "cifar10" / "calib.npz", samples=500,
        preprocess=PREPARED[name], budget=budget, precision="fp32", formats="onnx", portfolio=form == "portfolio",
        measure=False, threads=1, quiet=True, force=True, seed=context.seed,
    )  # fmt: skip
    points = report.portfolio.points if report.portfolio else ()
    said = [f"{one.title}: {one.loss if one.loss is not None else one.why}" for one in points]
    said += [f"taken: {report.portfolio.chosen}"] if report.portfolio else []
    return load(out / report.artifacts[0].path), time.process_time() - start, said


def rows(name: str, amount: str, arguments: argparse.Namespace, folder: Path) -> Iterator[str]:
    """For each form one, and one for each seed behind it."""
    budget = f"{amount if '=' in amount else f'macs={amount}'}%"
    teacher = load(shared() / "models" / f"{name}_cifar10.onnx")
    prepared = Preprocess(**PREPARED[name])
    judge = open_data(shared() / "cifar10" / "eval.npz", teacher, prepared)
    data = unlabelled(teacher, prepared, folder)
    context = Context(teacher, folder, data, progress=Lines(), task="classification")
    yield f"| {name} | | | | | | {accuracy(teacher, judge):.1f} | |"
    draws = {seed: [seed] for seed in arguments.seeds} if arguments.whole else {0: arguments.seeds}
    for form in arguments.forms:
        for draw, seeds in draws.items():
            drawn = replace(context, seed=draw)
            closed, spent, said = cut(teacher, name, budget, form, arguments, drawn)
            yield from (f"<!-- {line} -->" for line in said)
            share = shares(closed, teacher)
            images, steps = (len(data), arguments.structure) if form in LEARNED else (500, "")
            stays = (
                " (the closed form stays)" if any("the closed form stays" in line for line in said) else ""
            )
            yield (
                f"| {FORMS[form][0]}{stays} | {share} | {draw} | {images} | {steps} | {spent:.0f} "
                f"| {accuracy(closed, judge):.1f} | |"
            )
            for seed in seeds if arguments.steps else ():
                yield refined(closed, share, replace(context, seed=seed), judge, arguments)


def shares(model: ir.Model, teacher: ir.Model) -> str:
    """Multiply-adds and parameters that are left."""
    now, full = cost(model), cost(teacher)
    return f"{now.macs / full.macs:.1%}, {now.params / full.params:.1%}"


def refined(
    closed: ir.Model, share: str, context: Context, judge: Dataset, arguments: argparse.Namespace
) -> str:
    """The row of `refine` behind a form, by the seed of ``context``."""
    (refine,) = parse_pipeline(f"refine{{steps={arguments.steps} {arguments.options}}}")
    start = time.process_time()
    result = refine.run(closed.clone(), context)
    spent = time.process_time() - start
    figures = [result.data[when] for when in ("before", "after")]
    moved = " → ".join(f"{one['loss']:.3f}, {one['agreement']:.1%}" for one in figures)
    kept = "" if result.modified else " (taken back)"
    return (
        f"| + refine | {share} | {context.seed} | {len(context.data or ())} | {arguments.steps} | {spent:.0f} "
        f"| {accuracy(result.model, judge):.1f} | {moved}{kept} |"
    )


def main(arguments: argparse.Namespace) -> None:
    """Print the table, a row as soon as it is known."""
    print(HEADER)
    with tempfile.TemporaryDirectory() as folder:
        for case in arguments.cases:
            for row in rows(*case.split(":"), arguments, Path(folder)):
                print(row, flush=True)


def _arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("cases", nargs="*", default=["resnet20:35", "resnet56:15"], metavar="NETWORK:BUDGET")
    parser.add_argument("--forms", nargs="+", default=["compress"], choices=tuple(FORMS))
    parser.add_argument("--steps", type=int, default=300, help="of refine; 0: leave it out")
    parser.add_argument("--structure", type=int, default=300, help="steps of learn-structure")
    parser.add_argument("--structure-options", default="", help="further options of learn-structure")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--whole", action="store_true", help="seeds draw calibration images and forms too")
    parser.add_argument("--options", default="", help="further options of refine")
    parser.add_argument("--kept", type=Path, help="folder of networks that the forms made, read and written")
    return parser.parse_args(given)


if __name__ == "__main__":
    main(_arguments())
