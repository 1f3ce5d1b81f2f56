"""A folder of pictures and one of what is right for them: masks, or pictures, by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgec.graph.data import PICTURES
from edgec.graph.errors import DataError
from edgec.graph.pictures import decode_mask, decode_picture
from edgec.graph.preprocess import Preprocess

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Pair:
    """What is right for one picture, in a file that is read when it is needed; ``preprocess`` is that of the inputs."""

    path: Path
    preprocess: Preprocess

    def mask(self) -> Array:
        """(height, width) of class numbers, as the input lies; what no pixel covers is 255."""
        return decode_mask(self.path, self.preprocess)

    def picture(self) -> Array:
        """(channels, height, width), as numbers of the size that the input's are, without mean and deviation."""
        plain = Preprocess(channels=self.preprocess.channels)
        pixels = decode_picture(self.path, plain).astype(np.float32)
        return np.asarray(np.moveaxis(pixels * np.float32(self.preprocess.scale), -1, 0))


def paired(pictures: Sequence[Path], folder: Path, other: Path) -> tuple[Path, ...]:
    """The file of ``other`` for each of ``pictures``: of the same path in the folder, whatever it ends in. Raises DataError."""
    there = {
        one.relative_to(other).with_suffix("").as_posix(): one
        for one in sorted(other.rglob("*"))
        if one.suffix.lower() in PICTURES
    }
    found = []
    for picture in pictures:
        name = picture.relative_to(folder).with_suffix("").as_posix()
        if name not in there:
            why = f"{len(there)} pictures in it, none of the name {name}"
            raise DataError("the labels do not fit the folder", where=str(other), why=why)
        found.append(there[name])
    return tuple(found)
