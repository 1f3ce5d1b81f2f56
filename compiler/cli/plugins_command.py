"""`edgec plugins`."""

from __future__ import annotations

import click

from edgec.compiler.cli.echo import echo
from edgec.compiler.cli.group import Command


@click.command("plugins", cls=Command)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def command(as_json: bool) -> int:
    """Passes, targets, channel rules and metrics that other packages bring. Exit code 1 when one cannot be used."""
    from edgec.compiler.cli.output import print_json, stdout, table
    from edgec.compiler.plugins import survey

    found = [one.to_dict() for one in survey()]
    if as_json:
        print_json({"plugins": found})
    elif not found:
        echo("no plug-ins are installed")
    else:
        rows = [
            (one["kind"], one["name"], f"{one['distribution']} {one['version']}", one["problem"] or "ok")
            for one in found
        ]
        stdout().print(table(None, ("kind", "name", "package", "state"), rows))
    return int(any(one["problem"] for one in found))
