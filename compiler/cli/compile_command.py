"""`edgec compile`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgec.compiler.cli import params
from edgec.compiler.cli.echo import echo, echo_lines
from edgec.compiler.cli.group import Command
from edgec.compiler.cli.options import data_options, loading, loading_options, preprocessing
from edgec.compiler.tasks.names import METRIC_NAMES, NAMES
from edgec.graph import values as admitted
from edgec.graph.errors import UsageError
from edgec.graph.files import is_factory
from edgec.graph.foreign import Pending, begin

if TYPE_CHECKING:
    from edgec.compiler.pipeline.run import Step
    from edgec.compiler.read.recipe import Recipe
    from edgec.passes.base import Progress


@click.command("compile", cls=Command)
@click.argument("model", required=False)
@click.option(
    "-o", "--out", metavar="DIR", type=click.Path(path_type=Path), help="The run's folder. [required]"
)
@click.option("--weights", metavar="FILE", help="state_dict for a MODEL given as file.py:factory.")
@params.input_shape
@data_options
@click.option(
    "--eval",
    "eval_path",
    metavar="PATH",
    help="For scoring: .npz with x and y, a folder of pictures (labels: a CSV beside it), COCO's json, YOLO's data.yaml.",
)
@click.option(
    "--eval-labels",
    metavar="PATH",
    help="Labels for --eval where they lie apart: lines of file,label, COCO's json, or a folder of masks or pictures.",
)
@click.option(
    "--label-offset",
    type=params.whole(admitted.OFFSET),
    metavar="NUMBER",
    default=None,
    help="Added to each label of --eval (1 where class 0 is 'background').",
)
@click.option(
    "--task",
    type=params.TASK,
    metavar="NAME",
    default=None,
    help="What the network does, where its metadata and outputs do not say: " + ", ".join(NAMES) + ".",
)
@click.option(
    "--metric",
    type=params.METRIC,
    metavar="FILE.PY:FUNC",
    default=None,
    help="Judge by func(predict, samples), or by a name: " + ", ".join(METRIC_NAMES) + ".",
)
@click.option(
    "--target",
    type=params.TARGET,
    default=None,
    help="Device class; see `edgec targets list`. [default: host]",
)
@click.option(
    "--jetpack",
    type=params.JETPACK,
    metavar="RELEASE",
    help="Of a Jetson: its JetPack, e.g. 5.1, which decides what its TensorRT reads. [default: the target's]",
)
@click.option(
    "--budget",
    type=params.BUDGET,
    metavar="UNIT=AMOUNT",
    help="macs=50%, macs=150M, params=1.2M, size=4MB, or latency=25ms; percentages are of the source.",
)
@click.option(
    "--precision",
    type=params.word(("fp32", "fp16", "int8")),
    help="Of the artifact to ship (fp32 is always written too). [default: fp32]",
)
@click.option(
    "--format",
    "formats",
    type=params.FORMATS,
    metavar="LIST",
    help="onnx, tflite, or both: onnx,tflite. [default: onnx]",
)
@click.option(
    "--resolution",
    type=params.RESOLUTION,
    metavar="keep|auto|SIZE",
    default=None,
    help="Of the input: the model's, one named (160: the shorter side; 160x192), or what meets the budget best. [default: keep]",
)
@click.option(
    "--portfolio",
    is_flag=True,
    help="Compare forms of the default compression under the budget and keep what loses least; takes some five times as long.",
)
@click.option(
    "--learn",
    type=params.LEARN,
    metavar="off|on|auto",
    default=None,
    help="Distil what was compressed from the source, without labels (needs torch); auto: where enough was lost. [default: off]",
)
@click.option(
    "--time",
    type=params.TIME,
    metavar="TIME",
    default=None,
    help="That --learn may take: 90s, 5m, 1h. [default: 5m]",
)
@click.option(
    "--passes",
    type=params.PIPELINE,
    metavar="PIPELINE",
    help="The pipeline, e.g. 'prune-channels{macs=50%} recover-lsq'; see `edgec passes list`.",
)
@click.option(
    "--recipe", "recipe_path", metavar="FILE", help="Run this recipe; the other options override it."
)
@click.option(
    "--max-drop",
    type=params.SHARE,
    metavar="SHARE",
    help="Gate: the metric (--metric, else the task's own) may drop by that much, e.g. 1%.",
)
@click.option(
    "--seed",
    type=params.whole(admitted.SEED),
    metavar="NUMBER",
    default=None,
    help="For every random choice. [default: 0]",
)
@params.threads(None, "Threads that compiling may use. [default: all cores]")
@click.option(
    "--keep-quantized",
    is_flag=True,
    help="A source that came quantised keeps its own scales; needs --precision int8.",
)
@click.option(
    "--io-layout",
    type=params.word(("nchw", "nhwc")),
    default=None,
    help="Layout of TFLite inputs and outputs. [default: nhwc]",
)
@click.option(
    "--io-type",
    type=params.word(("float", "int8", "uint8")),
    default=None,
    help="Of the inputs and outputs of int8 files: real numbers, or codes. [default: float]",
)
@click.option(
    "--batch",
    type=params.whole(admitted.BATCH),
    metavar="NUMBER",
    default=None,
    help="Fix the batch size of TFLite files.",
)
@click.option(
    "--split-unsupported", is_flag=True, help="Where TFLite cannot take a node, emit the part before it."
)
@click.option(
    "--bench/--no-bench", "measure", default=True, help="Measure latency when the target is this host."
)
@click.option("--force", is_flag=True, help="Write into a folder that is not empty and is no run.")
@click.option("--resume", is_flag=True, help="Take finished passes from the folder's last, interrupted run.")
@click.option(
    "--dry-run",
    is_flag=True,
    help="Load and check everything, the free disk too; print the plan, write nothing.",
)
@click.option(
    "--print-after", type=params.PASS, metavar="PASS", help="Print the graph after this pass (stderr)."
)
@click.option("--time-passes", is_flag=True, help="Print time and memory of each pass (stderr).")
@loading_options
@click.option("--json", "as_json", is_flag=True, help="Print report.json's object and nothing else.")
@click.option("-v", "--verbose", count=True, help="More words; -vv shows tracebacks.")
@click.option("-q", "--quiet", is_flag=True, help="Errors only.")
def command(**values: Any) -> int:
    """Make MODEL smaller and faster for a target, without labels and without training.

    MODEL is an ONNX or TFLite file, a .pt2 file, or a torch factory such as net.py:make with --weights.
    """
    if values["out"] is None and not values["dry_run"]:
        raise UsageError("no output folder", hint="Add -o DIR.")
    with _begun(values) as begun:
        recipe = build_recipe(values)
        _check_plan(recipe, values)
        if values["dry_run"]:
            return _dry_run(recipe, values, begun)
        return _run(recipe, values, begun)


@contextmanager
def _begun(values: dict[str, Any]) -> Iterator[Pending | None]:
    """The model of the command line, which loads while this process reads recipe and options and imports what it needs."""
    if values["model"] is None:
        yield None
        return
    settings = loading(values)
    with begin(
        values["model"], settings, weights=values["weights"], input_shape=values["input_shape"]
    ) as pending:
        yield pending


def build_recipe(values: dict[str, Any]) -> Recipe:
    """The recipe that the command line asks for; with --recipe, that one with the given options in place of its own."""
    from edgec.compiler.read.fields import is_code
    from edgec.compiler.read.recipe import make_recipe, read_recipe

    base: dict[str, Any] = {}
    if values["recipe_path"] is not None:
        base = read_recipe(values["recipe_path"]).model_dump()
    if values["model"] is not None:
        base["model"] = {"path": values["model"]}
    if "model" not in base:
        raise UsageError("no model", hint="edgec compile MODEL -o DIR, or --recipe FILE.")
    changed = {key: values[key] for key in ("weights", "input_shape") if values[key] is not None}
    if changed:
        base["model"] = {**base["model"], **changed, "sha256": None}
    _add_data(base, values)
    _add_plan(base, values)
    recipe = make_recipe(base)
    if values["model"] is None and is_factory(recipe.model.path) and not values["trust"]:
        hint = "Name it as MODEL on the command line, or add --trust, if the code is yours."
        what = "this recipe's model is Python code, which loading it runs"
        raise UsageError(what, where=values["recipe_path"], why=recipe.model.path, hint=hint)
    if values["metric"] is None and is_code(recipe.metric or "") and not values["trust"]:
        hint = "Name it as --metric on the command line, or add --trust, if the code is yours."
        what = "this recipe's metric is Python code, which judging runs"
        raise UsageError(what, where=values["recipe_path"], why=recipe.metric, hint=hint)
    return recipe


def _check_plan(recipe: Recipe, values: dict[str, Any]) -> None:
    """Raise UsageError for options that would do nothing in this run, before anything is loaded."""
    from edgec.compiler.pipeline.run_folder import check_folder
    from edgec.compiler.read.asked import resolve_passes

    if values["io_layout"] is not None and "tflite" not in recipe.formats:
        raise UsageError("--io-layout is about TFLite files", hint="Add tflite to --format, or leave it out.")
    names = [one.name for one in resolve_passes(recipe)]
    if values["print_after"] is not None and values["print_after"] not in names:
        why = f"the run has {', '.join(names) or 'no passes'}"
        raise UsageError(f"--print-after {values['print_after']}: no such pass in this run", why=why)
    if values["out"] is not None:
        check_folder(values["out"], force=values["force"])


def _add_data(base: dict[str, Any], values: dict[str, Any]) -> None:
    if values["data"] is not None:
        base["data"] = {"path": values["data"]}
    given = {key: values[key] for key in ("samples", "skip_bad") if values[key]}
    if given and not base.get("data"):
        raise UsageError(f"--{next(iter(given)).replace('_', '-')} without --data")
    if given:
        base["data"] = {**base["data"], **given, "fingerprint": None}
    if values["eval_path"] is not None:
        base["eval"] = {"path": values["eval_path"]}
    scoring = {"labels": values["eval_labels"], "label_offset": values["label_offset"]}
    scoring = {key: value for key, value in scoring.items() if value is not None}
    if scoring and not base.get("eval"):
        option = "--eval-labels" if "labels" in scoring else "--label-offset"
        raise UsageError(f"{option} without --eval", why="it is about the data for scoring")
    if scoring:
        base["eval"] = {**base["eval"], **scoring, "fingerprint": None}
    settings = preprocessing(values)
    if settings:
        base["preprocess"] = {**(base.get("preprocess") or {}), **settings}


def _add_plan(base: dict[str, Any], values: dict[str, Any]) -> None:
    import os

    known = (
        "task",
        "metric",
        "target",
        "jetpack",
        "budget",
        "precision",
        "seed",
        "threads",
        "io_layout",
        "io_type",
        "batch",
        "resolution",
        "learn",
        "time",
    )
    for key in known:
        if values[key] is not None:
            base[key] = values[key]
    base.setdefault("threads", os.cpu_count() or 1)
    for key in ("split_unsupported", "keep_quantized", "portfolio"):
        if values[key]:
            base[key] = True
    if values["formats"] is not None:
        base["formats"] = values["formats"]
    changed = [
        key for key in ("budget", "precision", "resolution", "learn", "time") if values[key] is not None
    ]
    if values["passes"] is not None:
        base["passes"] = [values["passes"]]
    elif changed and base.get("passes") is not None:
        raise UsageError(
            f"--{changed[0]} cannot change a recipe that names its passes",
            hint="Give --passes too, or edit the recipe.",
        )
    if values["max_drop"] is not None:
        base["gates"] = {"max_drop": values["max_drop"]}


def _dry_run(recipe: Recipe, values: dict[str, Any], begun: Pending | None) -> int:
    from edgec.compiler.cli.output import count, print_json, size
    from edgec.compiler.dry_run import dry_run

    plan = dry_run(recipe, loading(values), begun, out=values["out"])
    if values["as_json"]:
        print_json(plan)
        return 0
    echo(
        f"model    {plan['model']['path']}: {count(plan['model']['macs'])}MACs, {count(plan['model']['params'])}params"
    )
    echo(f"target   {plan['target']}")
    if plan["data"]:
        echo(f"data     {plan['data']['name']}: {plan['data']['samples']} samples")
    echo_lines("passes   " + ("\n         ".join(plan["passes"]) or "none"))
    for line in plan["remarks"]:
        echo(f"note     {line}")
    disk = [
        f"{size(one['needed'])} of {'?' if one['free'] is None else size(one['free'])} free in {one['folder']}"
        for one in plan["disk"]
    ]
    echo("disk     at most " + ", ".join(disk))
    echo("writes   " + ", ".join([*plan["artifacts"], "recipe.yaml", "report.html", "report.json"]))
    return 0


def _run(recipe: Recipe, values: dict[str, Any], begun: Pending | None) -> int:
    from edgec.compiler.cli.output import print_json, progress, stdout
    from edgec.compiler.driver import compile_recipe
    from edgec.compiler.pipeline.workspace import Settings
    from edgec.runtime.report import render_terminal

    quiet = values["quiet"] or values["as_json"]
    with progress(quiet) as bars:
        settings = Settings(
            out=values["out"],
            force=values["force"],
            resume=values["resume"],
            measure=values["measure"],
            loading=loading(values),
            pending=begun,
            progress=bars,
            after_pass=_after_pass(values, bars),
        )
        report = compile_recipe(recipe, settings)
    if values["as_json"]:
        print_json(report.model_dump(mode="json", by_alias=True))
    elif not values["quiet"]:
        render_terminal(report, stdout())
        echo()
        echo(f"report: {values['out'] / 'report.html'}")
    for gate in report.gates:
        if not gate.passed:
            echo(f"gate failed: {gate.name}: {gate.value} against {gate.limit} ({gate.why})", err=True)
    return 0 if report.passed else 1


def _after_pass(values: dict[str, Any], bars: Progress) -> Any:
    wanted = values["print_after"]

    def after(step: Step) -> None:
        if wanted == step.one.name:
            echo_lines(str(step.model), err=True)
        if values["time_passes"] or values["verbose"]:
            cached = " (cached)" if step.cached else ""
            line = f"{step.one.name:20} {step.seconds:7.2f} s {step.peak_rss_mb:7.0f} MB{cached}"
            echo(line, err=True)
        if values["verbose"]:
            for note in step.notes:
                echo(f"  {note.level}: {note.text}", err=True)

    return after
