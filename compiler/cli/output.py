"""What commands share in talking to people: tables, progress on a terminal, JSON for machines."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import IO, Any

import click
from rich.console import Console, ConsoleOptions
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from edgec.graph.text import size, visible
from edgec.passes.base import Progress

__all__ = ["count", "finite", "print_json", "progress", "size", "stderr", "stdout", "table"]


class PlainConsole(Console):
    """Words are words: no markup and no emoji codes in them is obeyed, and what could steer the terminal is written out.

    A str is one line, so a line end in it is part of a name. A `rich.text.Text` has lines of its own.
    """

    def __init__(self, file: IO[str]) -> None:
        super().__init__(file=file, highlight=False, markup=False, emoji=False)

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(visible(text), **options)

    def render(self, renderable: Any, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        for segment in super().render(renderable, options):
            shown = segment.text if segment.control else visible(segment.text, keep="\n")
            yield segment if shown == segment.text else Segment(shown, segment.style)


def stdout() -> Console:
    """For results. Width is generous where the output is no terminal, so that tables are not cut."""
    console = PlainConsole(sys.stdout)
    if not console.is_terminal:
        console.width = 160
    return console


def stderr() -> Console:
    """For progress and remarks."""
    return PlainConsole(sys.stderr)


def print_json(value: Any) -> None:
    """One JSON object on stdout; not-a-number and infinities become null."""
    click.echo(json.dumps(finite(value), indent=1, default=str))


def finite(value: Any) -> Any:
    """``value`` with floats that JSON cannot hold replaced by None."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return value


def table(
    title: str | None, columns: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()
) -> Table:
    """A plain table; ``right`` are the columns set flush right."""
    made = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for index, column in enumerate(columns):
        made.add_column(column, justify="right" if index in right else "left", overflow="fold")
    for row in rows:
        made.add_row(*row)  # as str: a `PlainConsole` keeps each to one line
    return made


def count(value: float) -> str:
    """12345678 -> 12.3 M."""
    for limit, suffix in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if abs(value) >= limit:
            return f"{value / limit:.3g}{suffix}"
    return f"{value:.0f}"


def _has_widgets(console: Console) -> bool:
    """In a notebook that can show what moves; without ipywidgets, rich would complain in every cell."""
    from importlib.util import find_spec

    return console.is_jupyter and find_spec("ipywidgets") is not None


class _BarProgress(Progress):
    def __init__(self, bars: Bars) -> None:
        self._bars = bars
        self._tasks: dict[str, Any] = {}

    def step(self, label: str, done: int, total: int) -> None:
        if label not in self._tasks:
            if done >= total:
                return
            self._tasks[label] = self._bars.add_task(label, total=total)
        self._bars.update(self._tasks[label], completed=done, total=total)
        if done >= total:
            self._bars.remove_task(self._tasks.pop(label))

    def say(self, line: str) -> None:
        self._bars.console.print(line, markup=False, highlight=False, soft_wrap=True)


class _LineProgress(Progress):
    """Where no bar can be drawn: lines alone."""

    def say(self, line: str) -> None:
        stderr().print(line, markup=False, highlight=False, soft_wrap=True)


@contextmanager
def progress(quiet: bool) -> Iterator[Progress]:
    """Progress bars with the time left, on a terminal or in a notebook only."""
    console = stderr()
    if quiet or not (console.is_terminal or _has_widgets(console)):
        yield Progress() if quiet else _LineProgress()
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Bars(*columns, console=console, transient=True) as bars:
        yield _BarProgress(bars)
