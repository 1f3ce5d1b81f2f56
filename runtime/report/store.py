"""``report.json`` and ``report.html`` in a run folder: written whole or not at all, read strictly."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from edgec.graph.errors import DataError, EdgecError
from edgec.graph.files import read_text
from edgec.runtime.report.schema import SCHEMA, Report

JSON_NAME = "report.json"
HTML_NAME = "report.html"
_MOST_BYTES = 1 << 26
"""Of a report; one has some 100 kB."""


def write(run_folder: Path, report: Report, name: str | None = None) -> None:
    """Write ``report.json`` and ``report.html`` into ``run_folder``, each to a temporary name, then renamed.

    ``name`` is the run's on the page; by default the folder's, or its parent's when ``run_folder`` is a hidden one
    in which a run is being built. Raises EdgecError where the folder cannot be written; old reports are then untouched.
    """
    from edgec.runtime.report.html import page

    write_text(run_folder / JSON_NAME, report.to_json())
    folder = run_folder.resolve()
    visible = folder.parent if folder.name.startswith(".") else folder
    write_text(run_folder / HTML_NAME, page(report, name or visible.name))


def write_text(path: Path, text: str) -> None:
    """Replace ``path`` with ``text`` in one step. Raises EdgecError when the disk or the folder refuses."""
    part = path.with_name(path.name + ".part")
    try:
        with part.open("w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise EdgecError("cannot write", where=str(path), why=error.strerror or str(error)) from error


def read(run_folder: Path) -> Report:
    """The report of a run, given its folder or the path of its ``report.json``.

    Raises DataError when there is none, or it is damaged, or another version of edgec wrote it.
    """
    path = run_folder / JSON_NAME if run_folder.is_dir() else run_folder
    if not path.exists():
        raise DataError(
            "no report", where=str(path), hint="A run folder is what `edgec compile … -o DIR` makes."
        )
    text = read_text(path, _MOST_BYTES, "a report")
    try:
        raw = json.loads(text)
    except json.JSONDecodeError as error:
        why = f"line {error.lineno}: {error.msg}"
        raise DataError(
            "damaged report", where=str(path), why=why, hint="Run `edgec compile` again."
        ) from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits; lists in lists in lists
        raise DataError("damaged report", where=str(path), why=str(error)) from error
    _check_version(raw, path)
    try:
        return Report.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(step) for step in first["loc"])
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        raise DataError("damaged report", where=str(path), why=f"{key}: {first['msg']}{more}") from error


def _check_version(raw: Any, path: Path) -> None:
    version = raw.get("schema") if isinstance(raw, dict) else None
    if version is None:
        raise DataError("not a report of edgec", where=str(path), why="it has no 'schema'")
    if version != SCHEMA:
        raise DataError(
            f"a report of schema {version!r}, and this edgec reads schema {SCHEMA}",
            where=str(path),
            hint=f"Use edgec {raw.get('edgec', 'of the version that wrote it')}.",
        )
