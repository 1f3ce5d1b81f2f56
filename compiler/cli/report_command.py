"""`edgec report`."""

from __future__ import annotations

from pathlib import Path

import click

from edgec.compiler.cli.echo import echo, echo_lines


@click.command("report")
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--md", "form", flag_value="md", help="Markdown, for a pull request.")
@click.option("--csv", "form", flag_value="csv", help="CSV.")
@click.option("--json", "form", flag_value="json", help="JSON.")
@click.option(
    "-o",
    "--out",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Write a page (one run: report.html; several: a comparison).",
)
def command(runs: tuple[Path, ...], form: str | None, out: Path | None) -> None:
    """Show a run's report, or compare several runs."""
    from edgec.compiler.cli.output import print_json, stdout
    from edgec.runtime.report import compare, page, read, render_terminal, write_text

    reports = [(run.name or str(run), read(run)) for run in runs]
    comparison = compare(reports)
    if out is not None:
        write_text(out, page(reports[0][1], reports[0][0]) if len(reports) == 1 else comparison.html())
        echo(f"wrote {out}", err=True)
    if form == "md":
        echo_lines(comparison.markdown())
    elif form == "csv":
        echo_lines(comparison.csv(), end="")
    elif form == "json":
        objects = {name: report.model_dump(mode="json", by_alias=True) for name, report in reports}
        print_json(objects if len(reports) > 1 else reports[0][1].model_dump(mode="json", by_alias=True))
    elif out is None and len(reports) == 1:
        render_terminal(reports[0][1], stdout())
    elif out is None:
        echo_lines(comparison.markdown())
