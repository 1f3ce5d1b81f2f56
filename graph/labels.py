"""Labels of a folder of samples: a table of ``file,label``, as spreadsheets and scripts write it."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from edgec.graph.errors import DataError
from edgec.graph.files import read_text
from edgec.graph.text import shortened

MOST_BYTES = 1 << 26
"""Of a table: more than a million lines."""
_LABEL = re.compile(r"\s*[+-]?[0-9]{1,18}\s*")
_SEPARATORS = ",;\t"


def read_labels(
    folder: Path, files: Sequence[Path], table: str | Path | None
) -> np.ndarray[Any, np.dtype[np.int64]] | None:
    """The label of each of ``files``, which lie in ``folder``; None where no ``table`` is named and none lies beside the folder.

    The table is UTF-8 (or UTF-16 with its mark), separated by commas, semicolons or tabs, with or without a heading. Files are
    named by their path in the folder, or by their name alone where that leaves no doubt. Raises DataError with the line.
    """
    path = Path(table) if table is not None else _beside(folder)
    if path is None:
        return None
    rows = _rows(path)
    names = _by_name(rows)
    found: list[int] = []
    lacking: list[Path] = []
    for file in files:
        inside = file.relative_to(folder).as_posix()
        labels = {rows[inside]} if inside in rows else names.get(file.name, set())
        if len(labels) > 1:
            why = f"{file.name} stands in it with several labels, and {inside} does not"
            raise DataError("the labels do not fit the folder", where=str(path), why=why)
        found += labels
        lacking += [] if labels else [file]
    if lacking:
        why = f"{len(files)} files, {len(found)} of them labelled; {lacking[0].name} has no label"
        raise DataError("the labels do not fit the folder", where=str(path), why=why)
    return np.asarray(found, np.int64)


def _beside(folder: Path) -> Path | None:
    places = (
        folder / "labels.csv",
        folder.with_name(f"{folder.name}.csv"),
        folder.with_name(f"{folder.name}_labels.csv"),
    )
    return next((path for path in places if path.is_file()), None)


def _rows(path: Path) -> dict[str, int]:
    """Label by path in the folder; a path that stands twice with two labels is refused."""
    text = read_text(path, MOST_BYTES, "a table of labels")
    first = text.partition("\n")[0]
    separator = next((one for one in _SEPARATORS if one in first), ",")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    rows: dict[str, int] = {}
    try:
        for row in reader:
            if not row or (reader.line_num == 1 and not _is_number(row[-1])):
                continue
            where = f"{path}:{reader.line_num}"
            if len(row) != 2 or not _LABEL.fullmatch(row[1]):
                why = shortened(separator.join(row), 80)
                raise DataError(
                    "not a line of file,label", where=where, why=why, hint="A label is a whole number."
                )
            name, label = row[0].strip().replace("\\", "/").removeprefix("./"), int(row[1])
            if rows.setdefault(name, label) != label:
                why = f"{shortened(name, 80)} has the label {rows[name]} above"
                raise DataError("two labels for one file", where=where, why=why)
    except csv.Error as error:
        where = f"{path}:{reader.line_num}"
        raise DataError("not a line of file,label", where=where, why=str(error)) from None
    return rows


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _by_name(rows: dict[str, int]) -> dict[str, set[int]]:
    """Labels by the file's name alone: several where files of one name lie in several folders."""
    names: dict[str, set[int]] = {}
    for inside, label in rows.items():
        names.setdefault(inside.rpartition("/")[2], set()).add(label)
    return names


def check_classes(model: ir.Model, labels: np.ndarray[Any, np.dtype[Any]]) -> None:
    """Raise DataError for labels that the first output of ``model``, (N, classes), has no place for."""
    shape = model.graph.outputs[0].shape
    classes = shape[1] if shape is not None and len(shape) > 1 else None
    if isinstance(classes, int) and len(labels) and not (labels.min() >= 0 and labels.max() < classes):
        why = f"labels run from {labels.min()} to {labels.max()}, the model has {classes} classes"
        hint = "Shift them with --label-offset if the model counts differently."
        raise DataError("the labels do not fit the model", why=why, hint=hint)


def is_classifier(shape: Sequence[int | None]) -> bool:
    """Whether an output of this shape is one vector of at least two scores per sample."""
    return len(shape) >= 2 and (shape[1] is None or shape[1] >= 2) and all(size == 1 for size in shape[2:])
