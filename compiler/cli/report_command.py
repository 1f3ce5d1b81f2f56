"""`edgec report`."""

from __future__ import annotations

from pathlib import Path

import click

from edgec.compiler.cli import params
from edgec.compiler.cli.echo import echo, echo_lines
from edgec.compiler.cli.group import Command
from edgec.graph.errors import UsageError


@click.command("report", cls=Command)
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--md", "as_md", is_flag=True, help="Markdown, for a pull request.")
@click.option("--csv", "as_csv", is_flag=True, help="CSV.")
@click.option("--json", "as_json", is_flag=True, help="JSON.")
@click.option(
    "--layers", is_flag=True, help="On the terminal also every layer, and which pass made it from which."
)
@click.option(
    "-o",
    "--out",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Write a page (one run: report.html; several: a comparison).",
)
def command(
    runs: tuple[Path, ...], as_md: bool, as_csv: bool, as_json: bool, layers: bool, out: Path | None
) -> None:
    """Show a run's report, or compare several runs."""
    from edgec.compiler.cli.output import print_json, stdout
    from edgec.graph.disk import write_whole
    from edgec.runtime.report import compare, page, read, render_layers, render_terminal

    forms = params.given("as_md", "as_csv", "as_json")
    if len(forms) > 1:
        raise UsageError(f"{' and '.join(forms)} together", why="there is one output", hint="Choose one.")
    if layers and (forms or out is not None or len(runs) > 1):
        why = "the other forms always have them" if len(runs) == 1 else "several runs are compared as wholes"
        raise UsageError("--layers is about one run on the terminal", why=why, hint="Leave it out.")
    if out is not None:
        params.check_file(out)
    reports = [(run.name or str(run), read(run)) for run in runs]
    comparison = compare(reports)
    if out is not None:
        write_whole(out, page(reports[0][1], reports[0][0]) if len(reports) == 1 else comparison.html())
        echo(f"wrote {out}", err=True)
    if as_md:
        echo_lines(comparison.markdown())
    elif as_csv:
        echo_lines(comparison.csv(), end="")
    elif as_json:
        objects = {name: report.model_dump(mode="json", by_alias=True) for name, report in reports}
        print_json(objects if len(reports) > 1 else reports[0][1].model_dump(mode="json", by_alias=True))
    elif out is None and len(reports) == 1:
        render_terminal(reports[0][1], stdout())
        if layers:
            stdout().print()
            render_layers(reports[0][1], stdout())
    elif out is None:
        echo_lines(comparison.markdown())
