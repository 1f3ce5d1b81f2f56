"""`edgec deploy`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgec.compiler.cli import params
from edgec.compiler.cli.echo import echo
from edgec.compiler.cli.group import Command

if TYPE_CHECKING:
    from edgec.compiler.deploy.bundle import Bundle
    from edgec.compiler.deploy.device import Deployed


@click.command("deploy", cls=Command)
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "-o", "--out", required=True, metavar="DIR", type=click.Path(path_type=Path), help="The bundle folder."
)
@click.option("--target", type=params.TARGET, default=None, help="Device class. [default: the run's]")
@click.option(
    "--device",
    type=params.DEVICE,
    default=None,
    metavar="ADDRESS",
    help="ssh://user@host[:port] or local: push, install, self-test and bench there.",
)
@click.option(
    "--artifact",
    "artifacts",
    multiple=True,
    metavar="NAME",
    help="Only this file of the run (may be repeated).",
)
@click.option("--labels", metavar="FILE", type=params.FILE, help="One class name per line, for run.py.")
@click.option(
    "--wheels",
    type=params.SYSTEM,
    multiple=True,
    metavar="SYSTEM",
    help="Put the wheels for this system of the target into the bundle, for installing offline.",
)
@params.threads(None, "Of run.py and the bench. [default: the target's]")
@click.option("--force", is_flag=True, help="Replace a folder that is not an earlier bundle.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def command(run: Path, out: Path, **values: Any) -> int:
    """Make a folder that installs and runs RUN's artifacts on a device; with --device, do it there in one go.

    Exit code 1 when the self-test on the device fails.
    """
    from edgec.compiler.cli.output import print_json
    from edgec.compiler.deploy.bundle import DeployOptions, check_bundle, make_bundle

    options = DeployOptions(
        target=values["target"],
        artifacts=values["artifacts"],
        labels=values["labels"],
        wheels_for=values["wheels"],
        threads=values["threads"],
        force=values["force"],
    )
    check_bundle(run, out, options)
    if values["device"] is None:
        bundle = make_bundle(run, out, options, _notify)
        if values["as_json"]:
            print_json(bundle.to_dict())
        else:
            _print_bundle(bundle)
            readme = bundle.path / "README.md"
            echo(f"copy the folder to the device and run ./install.sh there; {readme} has the commands")
        return 0
    from edgec.compiler.deploy.device import deploy
    from edgec.runtime.devices import open_device

    with open_device(values["device"]) as device:
        deployed = deploy(run, out, options, device, notify=_notify)
    print_json(deployed.to_dict()) if values["as_json"] else _print_deployed(deployed, run)
    return 0 if deployed.passed else 1


def _notify(text: str) -> None:
    echo(text, err=True)


def _print_bundle(bundle: Bundle) -> None:
    from edgec.compiler.cli.output import size

    echo(f"{bundle.path}: {', '.join(bundle.artifacts)} for {bundle.target}, {size(bundle.bytes)}")


def _print_deployed(deployed: Deployed, run: Path) -> None:
    from edgec.compiler.cli.bench_command import print_measurements

    _print_bundle(deployed.bundle)
    echo(f"installed in {deployed.folder} on {deployed.device}")
    for line in deployed.engines.lines():
        echo(line)
    for tested in deployed.selftest.artifacts:
        on = " on the GPU" if tested.accelerated else ""
        echo(f"self-test {tested.artifact}{on}: {tested.result}")
    if deployed.selftest.picture is not None:
        echo(f"self-test of a picture: {deployed.selftest.picture.result}")
    print_measurements(deployed.measurements)
    echo(f"the latencies are in {run / 'report.html'} now")
    example = "x.npy" if deployed.selftest.picture is None else "picture.jpg"
    echo(f"use it there: cd {shlex.quote(deployed.folder)} && .venv/bin/python run.py {example}")
