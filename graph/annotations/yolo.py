"""YOLO's data.yaml: pictures in ``images/``, and for each a text in ``labels/`` with a line for each object."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgec.graph.annotations.boxes import Row, TrueBoxes, boxes_of, by_name
from edgec.graph.data import PICTURES
from edgec.graph.errors import DataError
from edgec.graph.files import read_text
from edgec.graph.pictures import picture_size
from edgec.graph.preprocess import Preprocess
from edgec.graph.text import shortened
from edgec.graph.yaml_file import read_yaml

MOST_BYTES = 1 << 24


def read(path: Path, names: Sequence[str], preprocess: Preprocess) -> list[tuple[Path, TrueBoxes]]:
    """Every picture of the ``val`` set with its boxes. Raises DataError, naming file and line."""
    table, _ = read_yaml(path, "YOLO's data.yaml")
    classes = _classes(path, table.get("names"), names)
    if not isinstance(table.get("val"), (str, list)):
        raise DataError("no pictures to evaluate on", where=str(path), why="it has no key 'val'")
    root = path.parent / str(table.get("path") or ".")
    root = root if root.is_dir() else path.parent
    parts = table["val"] if isinstance(table["val"], list) else [table["val"]]
    found = []
    for part in parts:
        for picture in _pictures(path, root, str(part)):
            size = picture_size(picture)
            rows = list(_rows(_labels_of(picture), classes, size))
            found.append((picture, boxes_of(rows, preprocess, size)))
    return found


def _classes(path: Path, given: Any, names: Sequence[str]) -> dict[int, int]:
    """The network's class of each of the data's: by name where the network knows them all, else the same number."""
    if isinstance(given, Mapping):
        known = {int(key): str(value) for key, value in given.items() if str(key).isdigit()}
    elif isinstance(given, list):
        known = dict(enumerate(map(str, given)))
    else:
        raise DataError("no names of classes", where=str(path), why="it has no list under 'names'")
    found = by_name(known, names)
    return {key: key for key in known} if found is None else found


def _pictures(path: Path, root: Path, part: str) -> Iterator[Path]:
    place = root / part
    if place.is_dir():
        yield from sorted(one for one in place.rglob("*") if one.suffix.lower() in PICTURES)
        return
    if place.suffix != ".txt" or not place.is_file():
        raise DataError("no such folder or list of pictures", where=f"{path}: val", why=str(place))
    for line in read_text(place, MOST_BYTES, "a list of pictures").splitlines():
        if line.strip():
            yield root / line.strip()


def _labels_of(picture: Path) -> Path:
    parts = list(picture.parts)
    at = max((index for index, part in enumerate(parts) if part == "images"), default=None)
    if at is not None:
        parts[at] = "labels"
    return Path(*parts).with_suffix(".txt")


def _rows(path: Path, classes: Mapping[int, int], size: tuple[int, int]) -> Iterator[Row]:
    """Of each line: class, then centre and size, or the corners of a polygon, as shares of the picture."""
    if not path.is_file():
        return  # a picture without an object
    for number, line in enumerate(read_text(path, MOST_BYTES, "YOLO's labels").splitlines(), 1):
        words = line.split()
        if not words:
            continue
        try:
            label, numbers = classes[int(float(words[0]))], np.array(words[1:], np.float64)
        except (KeyError, ValueError):
            numbers, label = np.zeros(0), 0
        if numbers.size == 4:
            (x, y), half = numbers[:2], numbers[2:] / 2
            low, high = np.array([x, y]) - half, np.array([x, y]) + half
        elif numbers.size >= 6 and numbers.size % 2 == 0:
            low, high = numbers.reshape(-1, 2).min(axis=0), numbers.reshape(-1, 2).max(axis=0)
        else:
            why = shortened(line, 80)
            raise DataError("not a line of class x y width height", where=f"{path}:{number}", why=why)
        corners = np.concatenate([low, high]) * np.array(size * 2)
        area = float(np.prod((high - low) * np.array(size)))
        yield corners.tolist(), label, False, area
