"""`edgec targets list|show|check|add`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from edgec.compiler.cli import params
from edgec.compiler.cli.echo import echo, echo_lines
from edgec.compiler.cli.group import Group
from edgec.graph import values as admitted

if TYPE_CHECKING:
    from edgec.targets import Target


@click.group("targets", cls=Group)
def command() -> None:
    """Device classes: list them, show one, check a device against one, add your own."""


@command.command("list")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def list_targets(as_json: bool) -> None:
    """All targets with one line each."""
    from edgec.compiler.cli.output import print_json, stdout, table
    from edgec.targets import usable_targets

    found, refused = usable_targets()
    for error in refused:
        echo_lines(f"skipped: {error}", err=True)
    if as_json:
        print_json(
            {"targets": [{"name": t.name, "title": t.title, "soc": t.soc, "cores": t.cores} for t in found]}
        )
        return
    rows = [
        (
            t.name,
            t.title,
            str(t.cores),
            str(t.clock_mhz or "?"),
            _gain(t),
            t.default_engine,
        )
        for t in found
    ]
    columns = ("target", "what", "cores", "MHz", "int8 pays", "engine")
    stdout().print(table(None, columns, rows, right=(2, 3)))


def _gain(target: Target) -> str:
    """Whether int8 is worth it there: on an accelerator that edgec makes files for, or on a processor, much less without dot
    products of codes."""
    if any(
        one.precisions.int8.supported and one.precisions.int8.pays
        for one in target.accelerators
        if one.runtimes
    ):
        return "yes"
    if not target.precisions.int8.pays:
        return "no"
    return "yes" if target.dot_product else "a little"


@command.command("show")
@click.argument("name", type=params.TARGET)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def show(name: str, as_json: bool) -> None:
    """Everything that is known about a target, and where from."""
    from edgec.compiler.cli.output import print_json
    from edgec.graph.yaml_file import write_yaml
    from edgec.targets import target

    values = target(name).model_dump(mode="json", exclude_none=True)
    if as_json:
        print_json(values)
    else:
        echo_lines(write_yaml(values, width=110), end="")


@command.command("check")
@click.argument("name", type=params.TARGET)
@click.option(
    "--device",
    type=params.DEVICE,
    default="local",
    show_default=True,
    help="local, or ssh://user@host[:port].",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def check(name: str, device: str, as_json: bool) -> int:
    """Read a live device and say what differs from the target. Exit code 1 when something serious does."""
    from edgec.compiler.cli.output import print_json, stdout, table
    from edgec.runtime.bench import device_info
    from edgec.runtime.check import check_target
    from edgec.runtime.devices import open_device
    from edgec.targets import target

    described = target(name)
    with open_device(device) as opened:
        found = check_target(device_info(opened), described)
    if as_json:
        print_json(found.to_dict())
    elif not found.differences:
        echo(f"{device} is as {name} says (system: {found.system or 'none of the known ones'})")
    else:
        rows = [
            (d.what, d.target, d.device, "serious" if d.serious else "", d.advice) for d in found.differences
        ]
        stdout().print(
            table(f"{device} against {name}", ("what", "target", "device", "", "what to do"), rows)
        )
    return 0 if found.fits else 1


@command.command("add")
@click.argument("file", type=click.Path(dir_okay=False))
def add(file: str) -> None:
    """Check a target FILE (see `edgec targets show NAME` for the form) and keep it among your own targets."""
    from edgec.targets import add_target

    echo(f"added: {add_target(file).name}")


@command.command("calibrate")
@click.option(
    "--probes",
    default=180,
    show_default=True,
    type=params.whole(admitted.Range(40, 10_000)),
    help="Networks to measure.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def calibrate(probes: int, as_json: bool) -> None:
    """Measure this machine for a few minutes, so that latency can be estimated for the target `host`."""
    from edgec.compiler.cli.output import print_json, progress, stdout, table
    from edgec.compiler.latency.calibrate import calibrate as run
    from edgec.targets.estimator.coefficients import host_file

    with progress(as_json) as bars:
        found = run(probes, progress=bars)
    if as_json:
        print_json({"file": str(host_file()), "entries": [entry.to_dict() for entry in found.entries]})
        return
    rows = [
        (e.runtime, e.version, e.precision, str(e.networks), f"{100 * (e.error or 0):.1f}%")
        for e in found.entries
    ]
    stdout().print(table(None, ("engine", "version", "precision", "networks", "error"), rows, right=(3, 4)))
    echo(f"kept in {host_file()}")
