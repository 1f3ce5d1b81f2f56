"""The one way of words to the terminal: whatever names they hold, nothing in them steers it.

Commands say `echo` for a line and `echo_lines` for text that has lines of its own; tables and results go through the consoles of
`output`, which do the same.
"""

from __future__ import annotations

import click

from edgec.graph.text import visible


def echo(line: str = "", *, err: bool = False) -> None:
    """One line; a line end inside a name is written out."""
    click.echo(visible(line), err=err)


def echo_lines(text: str, *, err: bool = False, end: str = "\n") -> None:
    """Text of several lines, in which names with line ends have been written out already."""
    click.echo(visible(text, keep="\n") + end, err=err, nl=False)
