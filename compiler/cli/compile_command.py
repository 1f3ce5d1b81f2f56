"""`edgec compile`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgec.compiler.cli.echo import echo, echo_lines
from edgec.compiler.cli.options import data_options, parse_percent, parse_shape, preprocessing
from edgec.graph.errors import UsageError

if TYPE_CHECKING:
    from edgec.compiler.pipeline import Step
    from edgec.compiler.recipe import Recipe
    from edgec.passes.base import Progress


@click.command("compile")
@click.argument("model", required=False)
@click.option(
    "-o", "--out", metavar="DIR", type=click.Path(path_type=Path), help="The run's folder. [required]"
)
@click.option("--weights", metavar="FILE", help="state_dict for a MODEL given as file.py:factory.")
@click.option("--input-shape", metavar="SHAPE", help="Shape of one input without the batch, e.g. 3,224,224.")
@data_options
@click.option(
    "--eval",
    "eval_path",
    metavar="PATH",
    help="For scoring: .npz with x and y, or a folder of pictures (labels: a CSV beside it).",
)
@click.option("--eval-labels", metavar="CSV", help="Lines of file,label for --eval.")
@click.option(
    "--label-offset", type=int, default=0, help="Added to each label (1 where class 0 is 'background')."
)
@click.option("--target", default=None, help="Device class; see `edgec targets list`. [default: host]")
@click.option("--budget", metavar="UNIT=AMOUNT", help="macs=50%, params=40%, size=4MB, or latency=25ms.")
@click.option(
    "--precision",
    type=click.Choice(["fp32", "fp16", "int8"]),
    help="Of the artifact to ship (fp32 is always written too). [default: fp32]",
)
@click.option(
    "--format", "formats", metavar="LIST", help="onnx, tflite, or both: onnx,tflite. [default: onnx]"
)
@click.option(
    "--passes",
    metavar="STR",
    help="The pipeline, e.g. 'prune-channels{macs=50%} recover-lsq'; see `edgec passes list`.",
)
@click.option(
    "--recipe", "recipe_path", metavar="FILE", help="Run this recipe; the other options override it."
)
@click.option("--max-drop", metavar="SHARE", help="Gate: top-1 may drop by that much, e.g. 1%.")
@click.option("--seed", type=int, default=None, help="For every random choice. [default: 0]")
@click.option(
    "--threads",
    type=click.IntRange(min=1),
    default=None,
    help="Threads that compiling may use. [default: all cores]",
)
@click.option(
    "--io-layout",
    type=click.Choice(["nchw", "nhwc"]),
    default=None,
    help="Layout of TFLite inputs and outputs. [default: nhwc]",
)
@click.option("--batch", type=click.IntRange(min=1), default=None, help="Fix the batch size of TFLite files.")
@click.option(
    "--split-unsupported", is_flag=True, help="Where TFLite cannot take a node, emit the part before it."
)
@click.option(
    "--bench/--no-bench", "measure", default=True, help="Measure latency when the target is this host."
)
@click.option("--force", is_flag=True, help="Write into a folder that is not empty and is no run.")
@click.option("--resume", is_flag=True, help="Take finished passes from the folder's last, interrupted run.")
@click.option("--dry-run", is_flag=True, help="Load and check everything, print the plan, write nothing.")
@click.option("--print-after", metavar="PASS", help="Print the graph after this pass (stderr).")
@click.option("--time-passes", is_flag=True, help="Print time and memory of each pass (stderr).")
@click.option("--json", "as_json", is_flag=True, help="Print report.json's object and nothing else.")
@click.option("-v", "--verbose", count=True, help="More words; -vv shows tracebacks.")
@click.option("-q", "--quiet", is_flag=True, help="Errors only.")
def command(**values: Any) -> int:
    """Make MODEL smaller and faster for a target, without labels and without training.

    MODEL is an ONNX file, a .pt2 file, or a torch factory such as net.py:make with --weights.
    """
    if values["out"] is None and not values["dry_run"]:
        raise UsageError("no output folder", hint="Add -o DIR.")
    recipe = build_recipe(values)
    if values["dry_run"]:
        return _dry_run(recipe, values["as_json"])
    return _run(recipe, values)


def build_recipe(values: dict[str, Any]) -> Recipe:
    """The recipe that the command line asks for; with --recipe, that one with the given options in place of its own."""
    from pydantic import ValidationError

    from edgec.compiler.recipe import Recipe, read_recipe

    base: dict[str, Any] = {}
    if values["recipe_path"] is not None:
        base = read_recipe(values["recipe_path"]).model_dump()
    if values["model"] is not None:
        shape = parse_shape(values["input_shape"])
        base["model"] = {"path": values["model"], "weights": values["weights"], "input_shape": shape}
    if "model" not in base:
        raise UsageError("no model", hint="edgec compile MODEL -o DIR, or --recipe FILE.")
    _add_data(base, values)
    _add_plan(base, values)
    try:
        return Recipe.model_validate(base)
    except ValidationError as error:
        problem = error.errors()[0]
        key = ".".join(str(part) for part in problem["loc"])
        raise UsageError(f"{key}: {problem['msg']}") from None


def _add_data(base: dict[str, Any], values: dict[str, Any]) -> None:
    if values["data"] is not None:
        base["data"] = {"path": values["data"]}
    given = {key: values[key] for key in ("samples", "skip_bad") if values[key]}
    if given and not base.get("data"):
        raise UsageError(f"--{next(iter(given)).replace('_', '-')} without --data")
    if given:
        base["data"] = {**base["data"], **given, "fingerprint": None}
    if values["eval_path"] is not None:
        base["eval"] = {"path": values["eval_path"], "labels": values["eval_labels"]}
        base["eval"]["label_offset"] = values["label_offset"]
    elif values["eval_labels"] is not None:
        raise UsageError("--eval-labels without --eval")
    settings = preprocessing(values)
    if settings:
        base["preprocess"] = {**(base.get("preprocess") or {}), **settings}


def _add_plan(base: dict[str, Any], values: dict[str, Any]) -> None:
    import os

    for key in ("target", "budget", "precision", "seed", "threads", "io_layout", "batch"):
        if values[key] is not None:
            base[key] = values[key]
    base.setdefault("threads", os.cpu_count() or 1)
    if values["split_unsupported"]:
        base["split_unsupported"] = True
    if values["formats"] is not None:
        base["formats"] = [part.strip() for part in values["formats"].split(",") if part.strip()]
    changed = [key for key in ("budget", "precision") if values[key] is not None]
    if values["passes"] is not None:
        base["passes"] = [values["passes"]]
    elif changed and base.get("passes") is not None:
        raise UsageError(
            f"--{changed[0]} cannot change a recipe that names its passes",
            hint="Give --passes too, or edit the recipe.",
        )
    drop = parse_percent(values["max_drop"])
    if drop is not None:
        base["gates"] = {"max_drop": drop}


def _dry_run(recipe: Recipe, as_json: bool) -> int:
    from edgec.compiler.cli.output import count, print_json
    from edgec.compiler.prepare import dry_run

    plan = dry_run(recipe)
    if as_json:
        print_json(plan)
        return 0
    echo(
        f"model    {plan['model']['path']}: {count(plan['model']['macs'])}MACs, {count(plan['model']['params'])}params"
    )
    echo(f"target   {plan['target']}")
    if plan["data"]:
        echo(f"data     {plan['data']['name']}: {plan['data']['samples']} samples")
    echo_lines("passes   " + ("\n         ".join(plan["passes"]) or "none"))
    echo("writes   " + ", ".join([*plan["artifacts"], "recipe.yaml", "report.html", "report.json"]))
    return 0


def _run(recipe: Recipe, values: dict[str, Any]) -> int:
    from edgec.compiler.cli.output import print_json, progress, stdout
    from edgec.compiler.driver import Settings, compile_recipe
    from edgec.runtime.report import render_terminal

    quiet = values["quiet"] or values["as_json"]
    with progress(quiet) as bars:
        settings = Settings(
            out=values["out"],
            force=values["force"],
            resume=values["resume"],
            measure=values["measure"],
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
    from edgec.passes.table import PASSES

    wanted = values["print_after"]
    if wanted is not None and wanted not in PASSES:
        from edgec.graph.errors import did_you_mean

        raise UsageError(f"--print-after: unknown pass {wanted!r}", hint=did_you_mean(wanted, PASSES))

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
