"""``report.json`` and ``report.html`` in a run folder: written whole or not at all, read strictly."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from edgec.graph.disk import write_whole
from edgec.graph.errors import DataError
from edgec.graph.text import shortened, visible
from edgec.graph.version import __version__
from edgec.runtime.report.inside import file_inside
from edgec.runtime.report.schema import SCHEMA, Report

JSON_NAME = "report.json"
HTML_NAME = "report.html"
REPORT_MOST = 16 * 2**20
"""Bytes of a report.json that are read; that of a network of 1000 layers has 1 MB."""
VALUES_MOST = 400_000
"""Values in it: each that is wrong costs the checker a kilobyte."""


def write(run_folder: Path, report: Report, name: str | None = None) -> None:
    """Write ``report.json`` and ``report.html`` into ``run_folder``, each to a temporary name, then renamed.

    ``name`` is the run's on the page; by default the folder's, or its parent's when ``run_folder`` is a hidden one
    in which a run is being built. Raises EdgecError where the folder cannot be written; old reports are then untouched.
    """
    from edgec.runtime.report.html import page

    write_whole(run_folder / JSON_NAME, report.to_json())
    folder = run_folder.resolve()
    shown = folder.parent if folder.name.startswith(".") else folder
    write_whole(run_folder / HTML_NAME, page(report, name or shown.name))


def read(run_folder: Path) -> Report:
    """The report of a run, given its folder or the path of its ``report.json``.

    Raises DataError when there is none, or it is damaged, or another version of edgec wrote it.
    """
    folder, name = (run_folder, JSON_NAME) if run_folder.is_dir() else (run_folder.parent, run_folder.name)
    path = folder / name
    try:
        text = file_inside(folder, name, REPORT_MOST).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise DataError(
            "no report", where=str(path), hint="A run folder is what `edgec compile … -o DIR` makes."
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError("cannot read the report", where=str(path), why=str(error)) from error
    raw = _parsed(text, path)
    _check_version(raw, path)
    try:
        return Report.model_validate_json(json.dumps(raw))
    except ValidationError as error:
        first = error.errors()[0]
        key = shortened(".".join(str(step) for step in first["loc"]), 200)
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        raise _damaged(path, f"{key}: {shortened(first['msg'], 200)}{more}") from None


def _parsed(text: str, path: Path) -> Any:
    """The JSON value, for people: texts visible, numbers neither infinite nor of a thousand digits."""
    if text.count(",") > VALUES_MOST:
        raise _damaged(path, f"more than {VALUES_MOST} values")
    try:
        return _shown(json.loads(text, parse_float=_float, parse_int=_int, parse_constant=_constant))
    except json.JSONDecodeError as error:
        raise _damaged(path, f"line {error.lineno}: {error.msg}") from None
    except (ValueError, RecursionError) as error:
        why = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise _damaged(path, why) from None


def _shown(value: Any) -> Any:
    """``value`` with nothing in its texts that a terminal would obey; lines stay lines."""
    if isinstance(value, str):
        return visible(value, keep="\n")
    if isinstance(value, dict):
        return {_shown(key): _shown(item) for key, item in value.items()}
    return [_shown(item) for item in value] if isinstance(value, list) else value


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:40]} is no figure")
    return value


def _int(text: str) -> int:
    if len(text) > 19:
        raise ValueError(f"{text[:40]}... is no figure")
    return int(text)


def _constant(text: str) -> float:
    raise ValueError(f"{text} is no figure")


def _damaged(path: Path, why: str) -> DataError:
    return DataError("damaged report", where=str(path), why=why, hint="Run `edgec compile` again.")


def _check_version(raw: Any, path: Path) -> None:
    """Refuse by name what another version of edgec wrote."""
    version = raw.get("schema") if isinstance(raw, dict) else None
    if version is None:
        raise DataError("not a report of edgec", where=str(path), why="it has no 'schema'")
    if type(version) is not int:
        raise _damaged(path, f"schema: not a number, {shortened(repr(version), 40)}")
    if version != SCHEMA:
        maker = shortened(str(raw.get("edgec") or "of an unknown version"), 40)
        newer = version > SCHEMA
        raise DataError(
            f"made by edgec {maker}, schema {version}; edgec {__version__} reads schema {SCHEMA}",
            where=str(path),
            hint="Use that version or a later one." if newer else "Run `edgec compile` again.",
        )
