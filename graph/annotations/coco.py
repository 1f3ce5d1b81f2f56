"""COCO's json: pictures, categories and the boxes of objects."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgec.graph.annotations.boxes import Row, TrueBoxes, boxes_of, by_name
from edgec.graph.errors import DataError
from edgec.graph.files import read_text
from edgec.graph.pictures import picture_size
from edgec.graph.preprocess import Preprocess
from edgec.graph.text import shortened

MOST_BYTES = 1 << 30
"""Of a json; COCO's own for 118,287 pictures has 450 MB."""


def read(
    path: Path, folder: Path | None, names: Sequence[str], preprocess: Preprocess
) -> list[tuple[Path, TrueBoxes]]:
    """Every picture of ``path`` with its boxes; ``folder``: where the pictures are, None: to be found. Raises DataError."""
    table = _table(path)
    classes = _classes(path, table["categories"], names)
    by_picture: dict[Any, list[Row]] = {}
    for one in table["annotations"]:
        try:
            x, y, width, height = map(float, one["bbox"])
            row = ([x, y, x + width, y + height], classes[one["category_id"]], bool(one.get("iscrowd", 0)))
            by_picture.setdefault(one["image_id"], []).append((*row, float(one.get("area", width * height))))
        except (KeyError, TypeError, ValueError) as error:
            raise _bad(path, "an annotation", one, error) from None
    found = []
    for one in table["images"]:
        try:
            name, told = str(one["file_name"]), (one.get("width"), one.get("height"))
            rows = by_picture.get(one["id"], [])
        except (KeyError, TypeError) as error:
            raise _bad(path, "a picture", one, error) from None
        picture = _place(path, folder, name)
        size = picture_size(picture)
        if None not in told and told != size:
            why = f"{told[0]}x{told[1]} in {path.name}, {size[0]}x{size[1]} in the file as it is shown"
            raise DataError("the picture has another size", where=str(picture), why=why)
        found.append((picture, boxes_of(rows, preprocess, size)))
    return found


def _table(path: Path) -> Mapping[str, list[Any]]:
    try:
        found = json.loads(read_text(path, MOST_BYTES, "COCO's json"))
    except (ValueError, RecursionError) as error:
        raise DataError("not a json", where=str(path), why=shortened(str(error), 120)) from None
    keys = ("images", "annotations", "categories")
    lacking = [key for key in keys if not isinstance(found, dict) or not isinstance(found.get(key), list)]
    if lacking:
        why = f"it has no list of {', '.join(lacking)}"
        raise DataError("not COCO's json of objects", where=str(path), why=why)
    table: Mapping[str, list[Any]] = found
    return table


def _classes(path: Path, categories: Sequence[Any], names: Sequence[str]) -> dict[Any, int]:
    """The network's class of each category: by name where it knows them all, else in the order of their numbers."""
    try:
        known = {one["id"]: str(one["name"]) for one in categories}
        order = sorted(known)
    except (KeyError, TypeError) as error:
        raise _bad(path, "a category", categories, error) from None
    found = by_name(known, names)
    return {key: number for number, key in enumerate(order)} if found is None else found


def _place(path: Path, folder: Path | None, name: str) -> Path:
    relative = Path(name)
    if relative.is_absolute() or ".." in relative.parts:
        raise DataError("a picture outside the data", where=str(path), why=shortened(name, 120))
    above = path.parent.parent
    split = path.stem.rpartition("_")[2]
    near = [
        path.parent,
        path.parent / "images",
        above,
        above / "images",
        above / split,
        above / "images" / split,
    ]
    places = [folder] if folder is not None else near
    for place in places:
        if (place / relative).is_file():
            return place / relative
    looked = ", ".join(str(place) for place in dict.fromkeys(places))
    hint = None if folder is not None else f"Name their folder: --eval FOLDER --eval-labels {path.name}"
    raise DataError("no such picture", where=f"{path.name}: {name}", why=f"looked for in {looked}", hint=hint)


def _bad(path: Path, what: str, one: Any, error: Exception) -> DataError:
    why = f"{type(error).__name__} {error}: {shortened(str(one), 120)}"
    return DataError(f"{what} is not as COCO has it", where=str(path), why=why)
