"""The report of a run: ``report.json``, the page ``report.html``, comparisons, and what the terminal shows.

    write(run_folder, report)            both files, atomically
    read(run_folder) -> Report
    summary_lines(report), render_terminal(report, console), render_layers(report, console)
    compare([(name, report), ...]) -> Comparison with .html() .markdown() .csv()

Everything is imported on first use: pydantic, jinja2, and matplotlib must not be loaded by ``edgec --help``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgec.runtime.report.comparison import RunComparison, compare
    from edgec.runtime.report.html import page
    from edgec.runtime.report.schema import Report
    from edgec.runtime.report.store import read, write
    from edgec.runtime.report.terminal import render_layers, render_terminal, summary_lines

__all__ = [
    "Report",
    "RunComparison",
    "compare",
    "page",
    "read",
    "render_layers",
    "render_terminal",
    "summary_lines",
    "write",
]

_HOME = {
    "Report": "schema",
    "RunComparison": "comparison",
    "compare": "comparison",
    "page": "html",
    "read": "store",
    "render_layers": "terminal",
    "render_terminal": "terminal",
    "summary_lines": "terminal",
    "write": "store",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'edgec.runtime.report' has no attribute {name!r}")
    return getattr(import_module(f"edgec.runtime.report.{_HOME[name]}"), name)
