"""`edgec passes list|show`."""

from __future__ import annotations

import inspect
import sys

import click

from edgec.compiler.cli import params
from edgec.compiler.cli.echo import echo, echo_lines
from edgec.compiler.cli.group import Group


@click.group("passes", cls=Group)
def command() -> None:
    """List the passes, or explain one."""


@command.command("list")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def list_passes(as_json: bool) -> None:
    """All passes with one line each."""
    from edgec.compiler.cli.output import print_json, stdout, table
    from edgec.graph.errors import UsageError
    from edgec.passes.table import pass_class, pass_names

    classes = []
    for name in pass_names():
        try:
            classes.append(pass_class(name))
        except UsageError as error:  # of a plug-in
            echo_lines(f"skipped: {error}", err=True)
    if as_json:
        print_json({"passes": [{"name": c.name, "summary": c.summary, "needs": _needs(c)} for c in classes]})
        return
    rows = [
        (c.name, ", ".join(_needs(c)) or "-", "no" if not c.changes_function else "yes", c.summary)
        for c in classes
    ]
    stdout().print(table(None, ("pass", "needs", "changes the function", "what it does"), rows))


@command.command("show")
@click.argument("name", type=params.PASS)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def show(name: str, as_json: bool) -> None:
    """Method, source, cases, and options of a pass."""
    from edgec.compiler.cli.output import print_json, stdout, table
    from edgec.passes.pipeline_string import option_table
    from edgec.passes.table import pass_class

    cls = pass_class(name)
    method = inspect.cleandoc(sys.modules[cls.__module__].__doc__ or cls.__doc__ or "")
    options = option_table(cls)
    if as_json:
        keys = ("name", "type", "default", "help")
        listed = [dict(zip(keys, option, strict=True)) for option in options]
        facts = {
            "name": name,
            "summary": cls.summary,
            "needs": _needs(cls),
            "changes_function": cls.changes_function,
        }
        print_json({**facts, "method": method, "options": listed})
        return
    echo_lines(f"{name}: {cls.summary}\n\n{method}\n")
    echo(f"needs: {', '.join(_needs(cls)) or 'nothing but the model'}")
    if options:
        console = stdout()
        console.print()
        console.print(table(None, ("option", "type", "default", "meaning"), options))


def _needs(cls: type) -> list[str]:
    return sorted(need.value for need in cls.needs)  # type: ignore[attr-defined]
