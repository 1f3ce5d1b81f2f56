"""`edgec targets list|show`."""

from __future__ import annotations

import click


@click.group("targets")
def command() -> None:
    """Device classes: list them, show one."""


@command.command("list")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def list_targets(as_json: bool) -> None:
    """All targets with one line each."""
    from edgec.compiler.cli.output import print_json, stdout, table
    from edgec.targets import targets

    found = targets()
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
            "yes" if t.precisions.int8.pays else "no",
            t.default_engine,
        )
        for t in found
    ]
    stdout().print(table(None, ("target", "what", "cores", "MHz", "int8 pays", "engine"), rows, right=(2, 3)))


@command.command("show")
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def show(name: str, as_json: bool) -> None:
    """Everything that is known about a target, and where from."""
    import yaml

    from edgec.compiler.cli.output import print_json
    from edgec.targets import target

    values = target(name).model_dump(mode="json", exclude_none=True)
    if as_json:
        print_json(values)
    else:
        click.echo(yaml.safe_dump(values, sort_keys=False, width=110, allow_unicode=True), nl=False)
