"""`edgec bench`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgec.compiler.cli.echo import echo
from edgec.graph.errors import ModelError, UsageError

if TYPE_CHECKING:
    from edgec.runtime.measurement import Comparison, Measurement


@click.command("bench")
@click.argument("artifacts", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--target", default="host", show_default=True, help="Device class; its estimator answers --estimate."
)
@click.option(
    "--device", default="local", show_default=True, help="Where to measure: local, or ssh://user@host[:port]."
)
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True)
@click.option(
    "--engine", default=None, help="onnxruntime, litert, tflite-runtime, ... [default: by file type]"
)
@click.option(
    "--runs", type=click.IntRange(min=1), default=50, show_default=True, help="At least that many runs."
)
@click.option(
    "--seconds", type=click.FloatRange(min=0), default=2.0, show_default=True, help="And at least that long."
)
@click.option(
    "--compare", "as_comparison", is_flag=True, help="Interleave the artifacts and give ratios to the first."
)
@click.option(
    "--sustained", metavar="TIME", default=None, help="Run that long (90s, 30m) and show the course."
)
@click.option("--estimate", is_flag=True, help="Do not measure: estimate for --target.")
@click.option("--per-layer", is_flag=True, help="Time per layer.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def command(artifacts: tuple[Path, ...], **values: Any) -> None:
    """Measure the latency of ARTIFACTs (.onnx, .tflite), or estimate it for a target."""
    for artifact in artifacts:
        if not artifact.is_file():
            raise ModelError("no such file", where=str(artifact))
    if values["target"] != "host" and values["device"] == "local" and not values["estimate"]:
        hint = f"Add --estimate, or --device ssh://user@host of a {values['target']}."
        raise UsageError(f"{values['target']} is not this machine", hint=hint)
    if values["estimate"]:
        _estimate(artifacts, values)
    else:
        _measure(artifacts, values)


def _measure(artifacts: tuple[Path, ...], values: dict[str, Any]) -> None:
    from edgec.compiler.cli.output import print_json, stderr
    from edgec.runtime.bench import BenchOptions, bench, compare
    from edgec.runtime.devices import open_device

    options = BenchOptions(
        engine=values["engine"],
        threads=values["threads"],
        runs=values["runs"],
        seconds=values["seconds"],
        sustained=_seconds(values["sustained"]),
    )

    def notify(text: str) -> None:
        console = stderr()
        if console.is_terminal and not values["as_json"]:
            console.print(text)

    with open_device(values["device"]) as device:
        comparison = compare(artifacts, options, device, notify) if values["as_comparison"] else None
        measurements = comparison.measurements if comparison else bench(artifacts, options, device, notify)
        layers = [_layers(artifact, options, device) for artifact in artifacts] if values["per_layer"] else []
    if values["as_json"]:
        found: dict[str, Any] = {"measurements": [m.to_dict() for m in measurements]}
        if comparison is not None:
            found["ratios"] = comparison.to_dict()["ratios"]
        if layers:
            found["layers"] = {str(a): rows for a, rows in zip(artifacts, layers, strict=True)}
        print_json(found)
        return
    print_measurements(measurements, comparison)
    for artifact, rows in zip(artifacts, layers, strict=False):
        _print_layers(artifact, rows)


def _layers(artifact: Path, options: Any, device: Any) -> list[dict[str, Any]]:
    from dataclasses import asdict

    from edgec.compiler.layer_models import layer_models
    from edgec.runtime.bench import profile

    with layer_models(artifact) as models:
        return [asdict(layer) for layer in profile(artifact, options, device, models)]


def print_measurements(measurements: tuple[Measurement, ...], comparison: Comparison | None = None) -> None:
    """The table of a bench, its ratios, and whatever the measuring noticed."""
    from edgec.compiler.cli.output import size, stdout, table

    rows = [
        (
            Path(m.artifact).name, size(m.bytes), m.runtime, str(m.threads), f"{m.median_ms:.3f}", f"{m.p10_ms:.3f}",
            f"{m.p90_ms:.3f}", f"{m.p99_ms:.3f}", str(m.runs), f"{m.first_ms:.1f}", f"{m.peak_rss_mb:.0f}",
            "ok" if m.valid else "INVALID",
        )
        for m in measurements
    ]  # fmt: skip
    columns = (
        "artifact",
        "size",
        "runtime",
        "threads",
        "median ms",
        "p10",
        "p90",
        "p99",
        "runs",
        "first ms",
        "MB",
        "",
    )
    console = stdout()
    console.print(table(None, columns, rows, right=(1, 3, 4, 5, 6, 7, 8, 9, 10)))
    for ratio in comparison.ratios if comparison else ():
        names = f"{Path(ratio.artifact).name} / {Path(ratio.baseline).name}"
        console.print(
            f"{names}: {ratio.ratio:.3f} of the time ({ratio.p10:.3f} to {ratio.p90:.3f}, {ratio.rounds} rounds)"
        )
    for m in measurements:
        for reason in m.invalid:
            echo(f"INVALID {Path(m.artifact).name}: {reason}", err=True)
    for notice in dict.fromkeys(notice for m in measurements for notice in m.notices):
        who = [Path(m.artifact).name for m in measurements if notice in m.notices]
        echo(f"note {'all' if len(who) == len(measurements) else ', '.join(who)}: {notice}", err=True)


def _print_layers(artifact: Path, rows: list[dict[str, Any]]) -> None:
    from edgec.compiler.cli.output import stdout, table

    shown = [(row["name"], row["op"], f"{row['us']:.1f}", f"{100 * row['share']:.1f}%") for row in rows]
    console = stdout()
    console.print()
    console.print(table(artifact.name, ("layer", "op", "us", "share"), shown, right=(2, 3)))


def _estimate(artifacts: tuple[Path, ...], values: dict[str, Any]) -> None:
    from edgec.compiler.cli.output import print_json
    from edgec.compiler.estimates import estimate_file

    found = {
        str(a): estimate_file(a, values["target"], values["threads"], values["engine"]) for a in artifacts
    }
    if values["as_json"]:
        print_json({"estimates": {name: guess.to_dict() for name, guess in found.items()}})
        return
    for name, guess in found.items():
        echo(f"{Path(name).name}: {guess.text}")
        if values["per_layer"]:
            total = sum(guess.per_node_ms.values()) or 1.0
            rows = [
                {"name": n, "op": "", "us": 1000 * ms, "share": ms / total}
                for n, ms in guess.per_node_ms.items()
            ]
            _print_layers(Path(name), rows)


def _seconds(text: str | None) -> float:
    """``90s``, ``30m``, ``1h`` in seconds."""
    if text is None:
        return 0.0
    units = {"s": 1.0, "m": 60.0, "h": 3600.0}
    try:
        return float(text.rstrip("smh")) * units.get(text[-1:], 1.0)
    except ValueError:
        raise UsageError(f"not a time: {text!r}", hint="Write 90s, 30m or 1h.") from None
