"""`edgec verify`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgec.compiler.cli import params
from edgec.compiler.cli.echo import echo
from edgec.compiler.cli.group import Command
from edgec.compiler.cli.options import SETTINGS, data_options, loading, loading_options, preprocessing
from edgec.graph import values as admitted
from edgec.graph.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import onnx_ir as ir

    from edgec.compiler.verify.layers import Compared, Verdict
    from edgec.graph.data import Dataset


@click.command("verify", cls=Command)
@click.argument("a")
@click.argument("b")
@data_options
@params.input_shape
@click.option(
    "--seed",
    type=params.whole(admitted.SEED),
    metavar="NUMBER",
    default=0,
    help="For --samples and --data random.",
)
@click.option(
    "--bisect", is_flag=True, help="Name the first layer whose error is larger than its inputs explain."
)
@click.option(
    "--min-sqnr",
    type=params.number(admitted.Range(-300, 300)),
    default=None,
    metavar="DB",
    help="What 'wrong' means. [default: 20 for --bisect]",
)
@params.threads(1, "Of the engines that run A and B.")
@loading_options
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def command(a: str, b: str, **values: Any) -> int:
    """How far model B is from model A: per layer that both have, and at the outputs.

    Channels that equalisation rescaled are compared without their factors, and other layouts turned back. --bisect runs every layer
    of B on A's values too: an error shows where it arises. B may be a TFLite file: then outputs are compared, by running it.

    Exit code 1 when --min-sqnr (or --bisect) finds an output below it.
    """
    if values["data"] is None:
        params.refuse(params.given("skip_bad", *SETTINGS), "without --data")
    elif chosen := preprocessing(values):
        from edgec.graph.preprocess import Preprocess

        Preprocess(**chosen)  # what does not go together is said before a model is loaded
    if b.endswith(".tflite"):
        return _verify_tflite(a, b, values)
    from edgec.compiler.verify.layers import Verdict, compare_layers

    first = _as_it_runs(a, values)
    second = _as_it_runs(b, values)
    data = _inputs(first, values)
    found = compare_layers(first, second, data, threads=values["threads"])
    limit = values["min_sqnr"] if values["min_sqnr"] is not None else (20.0 if values["bisect"] else None)
    verdict = None if limit is None else Verdict.of(found, limit)
    if values["as_json"]:
        _print_json(data, found, verdict)
    else:
        _print(found, verdict, values)
    return 1 if verdict is not None and verdict.wrong is not None else 0


def _as_it_runs(path: str, values: dict[str, Any], beside: Callable[[], None] | None = None) -> ir.Model:
    """The network of a file, quantised where that is, which takes and gives real numbers. ``beside`` is done while it is read."""
    from edgec.graph.foreign import begin

    with begin(path, loading(values), input_shape=values["input_shape"], codes=True) as pending:
        from edgec.compiler.emit.codes import with_numbers
        from edgec.graph.selection import in_front

        if beside is not None:
            beside()
        return with_numbers(in_front(pending.model()), Path(path))


def _print_json(data: Dataset, found: Sequence[Compared], verdict: Verdict | None) -> None:
    from edgec.compiler.cli.output import print_json

    named = None if verdict is None else verdict.first or verdict.wrong
    print_json({
        "data": data.name,
        "samples": len(data),
        "layers": [one.to_dict() for one in found],
        "first_divergence": None if named is None else named.to_dict(),
        "verdict": None if verdict is None else verdict.words(),
    })  # fmt: skip


def _print(found: Sequence[Compared], verdict: Verdict | None, values: dict[str, Any]) -> None:
    from edgec.compiler.cli.output import stdout, table

    if not values["bisect"]:
        heads = ("value", "op", "max", "relative", "SQNR dB", "own dB", "cosine")
        stdout().print(table(None, heads, [_row(one) for one in found], right=(2, 3, 4, 5, 6)))
        scaled = [one for one in found if one.rescaled is not None]
        if scaled:
            low, high = min(one.rescaled[0] for one in scaled), max(one.rescaled[1] for one in scaled)  # type: ignore[index]
            echo(
                f"*: {B_SCALES} ({low:.2g} to {high:.2g} times), undone by what reads them; compared without that"
            )
        echo("own dB: what the layer itself adds, run on A's values")
    if not values["data"]:
        echo("compared on random noise; give --data for real inputs", err=True)
    if verdict is not None:
        echo(verdict.words())


B_SCALES = "channels that B holds at another scale"


def _row(one: Compared) -> tuple[str, ...]:
    total = one.total
    name = total.name + (" *" if one.rescaled is not None else "")
    figures = (
        f"{total.largest:.3g}",
        f"{total.relative:.2e}",
        f"{total.sqnr_db:.1f}",
        f"{one.own.sqnr_db:.1f}",
    )
    return (name, "output" if one.output else total.op, *figures, f"{total.cosine:.6f}")


def _inputs(model: ir.Model, values: dict[str, Any]) -> Dataset:
    """The inputs to compare on: --data, else noise."""
    from edgec.graph.data import InputSpec, open_data
    from edgec.graph.preprocess import Preprocess

    preprocess = Preprocess(**preprocessing(values))
    preprocess.check_inputs([spec.channels for spec in InputSpec.of(model) if spec.shape])
    return open_data(
        values["data"] or "random",
        model,
        preprocess,
        samples=values["samples"] or (None if values["data"] else 8),
        seed=values["seed"],
        skip_bad=values["skip_bad"],
    )


def _verify_tflite(a: str, b: str, values: dict[str, Any]) -> int:
    """Outputs of a TFLite file against those of the ONNX model ``a``: inner values of the two have nothing in common."""
    from edgec.compiler.cli.output import print_json, stdout, table
    from edgec.compiler.evaluate.tflite_quality import compare_file
    from edgec.runtime.trial import try_file

    if values["bisect"]:
        hint = "Bisect the ONNX twin; it holds the same table of scales."
        raise UsageError("--bisect needs two ONNX models", where=b, hint=hint)
    model = _as_it_runs(a, values, lambda: try_file(Path(b), None, loading(values)))
    data = _inputs(model, values)
    differences = compare_file(model, Path(b), data, threads=values["threads"])
    limit = values["min_sqnr"]
    wrong = next((d for d in differences if limit is not None and d.sqnr_db < limit), None)
    if values["as_json"]:
        found = {"data": data.name, "samples": len(data), "layers": [d.to_dict() for d in differences]}
        print_json({**found, "first_divergence": wrong.to_dict() if wrong is not None else None})
        return 1 if wrong is not None else 0
    rows = [
        (d.name, f"{d.largest:.3g}", f"{d.relative:.2e}", f"{d.sqnr_db:.1f}", f"{d.cosine:.6f}")
        for d in differences
    ]
    stdout().print(table(None, ("output", "max", "relative", "SQNR dB", "cosine"), rows, right=(1, 2, 3, 4)))
    if wrong is not None:
        echo(f"{wrong.name} is below {limit:g} dB")
    return 1 if wrong is not None else 0
