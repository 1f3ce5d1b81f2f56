"""`edgec bench`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgec.compiler.cli import params
from edgec.compiler.cli.echo import echo
from edgec.compiler.cli.group import Command
from edgec.compiler.cli.options import loading, loading_options
from edgec.graph import values as admitted
from edgec.graph.errors import DataError, ModelError, UsageError

RUNS = admitted.Range(1, 1_000_000)

if TYPE_CHECKING:
    from edgec.runtime.measurement import Comparison, Measurement


@click.command("bench", cls=Command)
@click.argument("artifacts", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--target",
    type=params.TARGET,
    default="host",
    show_default=True,
    help="Device class; its estimator answers --estimate.",
)
@click.option(
    "--device",
    type=params.DEVICE,
    default="local",
    show_default=True,
    help="Where to measure: local, or ssh://user@host[:port].",
)
@params.threads(1, "Of the engine.")
@click.option(
    "--engine",
    type=params.ENGINE,
    default=None,
    help="onnxruntime, litert, tflite-runtime, ... [default: by file type]",
)
@click.option(
    "--runs",
    type=params.whole(RUNS),
    metavar="NUMBER",
    default=50,
    show_default=True,
    help="At least that many runs.",
)
@click.option(
    "--seconds",
    type=params.seconds(),
    metavar="TIME",
    default="2s",
    show_default=True,
    help="And at least that long (500ms, 2s, 1m; a number alone is seconds).",
)
@click.option(
    "--compare", "as_comparison", is_flag=True, help="Interleave the artifacts and give ratios to the first."
)
@click.option(
    "--sustained",
    type=params.seconds(params.SUSTAINED),
    metavar="TIME",
    default=None,
    help="Run that long (90s, 30m; at least 1s) and show the course.",
)
@click.option("--estimate", is_flag=True, help="Do not measure: estimate for --target.")
@click.option("--per-layer", is_flag=True, help="Time per layer.")
@loading_options
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def command(artifacts: tuple[Path, ...], **values: Any) -> None:
    """Measure the latency of ARTIFACTs (.onnx, .tflite, or all of a run folder), or estimate it for a target."""
    artifacts = tuple(file for given in artifacts for file in _files(given))
    _check(artifacts, values)
    if values["target"] != "host" and values["device"] == "local" and not values["estimate"]:
        hint = f"Add --estimate, or --device ssh://user@host of a {values['target']}."
        raise UsageError(f"{values['target']} is not this machine", hint=hint)
    if values["estimate"]:
        _estimate(artifacts, values)
    else:
        _measure(artifacts, values)


def _check(artifacts: tuple[Path, ...], values: dict[str, Any]) -> None:
    """Refuse what cannot be measured, and options that would do nothing, before a device is asked."""
    from edgec.runtime.bench import check_engine

    for artifact in artifacts:
        if artifact.suffix not in (".onnx", ".tflite"):
            raise ModelError("neither .onnx nor .tflite", where=str(artifact))
        if not values["estimate"]:
            check_engine(artifact, values["engine"])
    if values["as_comparison"] and len(artifacts) < 2:
        raise UsageError("--compare needs at least two artifacts", why=f"there is {artifacts[0]} alone")
    if values["engine"] == "tensorrt" and not values["estimate"]:
        unused = params.given("threads", "as_comparison")
        params.refuse(
            unused,
            "does nothing with --engine tensorrt",
            "trtexec measures each engine by itself, on the GPU.",
        )
    if values["estimate"]:
        unused = params.given("device", "runs", "seconds", "as_comparison", "sustained")
        params.refuse(unused, "does nothing with --estimate", "Leave one of the two out.")


def _files(given: Path) -> list[Path]:
    """A file as it is; of a run folder its artifacts, the one that its headline speaks of first."""
    if given.is_dir():
        from edgec.compiler.deploy.bundle import artifact_file
        from edgec.runtime.report import read

        report = read(given)
        found = sorted(report.artifacts, key=lambda artifact: artifact.path != report.headline)
        if not found:
            raise DataError("the run has no artifacts", where=str(given))
        for artifact in found:
            artifact_file(given, artifact)
        return [given / artifact.path for artifact in found]
    if not given.is_file():
        raise ModelError("no such file", where=str(given))
    return [given]


def _measure(artifacts: tuple[Path, ...], values: dict[str, Any]) -> None:
    from edgec.compiler.cli.output import print_json, stderr
    from edgec.runtime.bench import BenchOptions, bench, compare
    from edgec.runtime.devices import open_device
    from edgec.runtime.trial import try_file

    settings = loading(values)
    options = BenchOptions(
        engine=values["engine"],
        threads=values["threads"],
        runs=values["runs"],
        seconds=values["seconds"],
        sustained=values["sustained"] or 0.0,
    )

    def notify(text: str) -> None:
        console = stderr()
        if console.is_terminal and not values["as_json"]:
            console.print(text, markup=False)

    for artifact in artifacts:
        try_file(artifact, values["engine"], settings)
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

    from edgec.compiler.latency.layer_models import layer_models
    from edgec.runtime.bench import profile

    if options.engine == "tensorrt":
        from edgec.compiler.latency.engine_layers import mapped

        return [asdict(layer) for layer in mapped(profile(artifact, options, device), artifact)]
    with layer_models(artifact) as models:
        return [asdict(layer) for layer in profile(artifact, options, device, models)]


def print_measurements(measurements: tuple[Measurement, ...], comparison: Comparison | None = None) -> None:
    """The table of a bench, its ratios, and whatever the measuring noticed."""
    from edgec.compiler.cli.output import size, stdout, table

    rows = [
        (
            Path(m.artifact).name, size(m.bytes), m.runtime, str(m.threads), f"{m.median_ms:.3f}", f"{m.p10_ms:.3f}",
            f"{m.p90_ms:.3f}", f"{m.p99_ms:.3f}", str(m.runs), "–" if m.first_ms is None else f"{m.first_ms:.1f}",
            f"{m.peak_rss_mb:.0f}",
            "INVALID" if not m.valid else "host busy" if m.host_busy else "ok",
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
        echo(
            f"{names}: {ratio.ratio:.3f} of the time ({ratio.p10:.3f} to {ratio.p90:.3f}, {ratio.rounds} rounds)"
        )
    for m in measurements:
        if m.power_w:
            watts = ", ".join(f"{rail} {value:.2f} W" for rail, value in m.power_w.items())
            echo(f"power {Path(m.artifact).name} ({m.engine}): {watts}")
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
    from edgec.compiler.latency.estimates import estimate_file

    settings = loading(values)
    found = {
        str(a): estimate_file(a, values["target"], values["threads"], values["engine"], settings)
        for a in artifacts
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
