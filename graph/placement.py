"""Where the pixels of a picture come to lie in the network's input, and back: the geometry of `preprocess.Preprocess`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from edgec.graph.preprocess import Preprocess

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Placement:
    """``x' = x * scale[0] + offset[0]``, and so for y; ``size``: the picture's own width and height."""

    scale: tuple[float, float]
    offset: tuple[float, float]
    size: tuple[int, int]

    def into(self, corners: Array) -> Array:
        """(n, 4) corners of the picture in pixels of the input."""
        return np.asarray(corners * (self.scale * 2) + np.array(self.offset * 2))

    def back(self, corners: Array) -> Array:
        """(n, 4) corners of the input in pixels of the picture, cut where it ends."""
        found = (corners - np.array(self.offset * 2)) / np.array(self.scale * 2)
        return np.asarray(np.clip(found, 0, np.array(self.size * 2)))


def placement_of(preprocess: Preprocess, width: int, height: int) -> Placement:
    """Of a picture of this size, turned upright."""
    wide, high = width, height
    scale, offset = (1.0, 1.0), (0.0, 0.0)
    if preprocess.resize is not None or preprocess.zooms:
        (wide, high), (left, top), canvas = preprocess.resized_to(width, height)
        scale, offset = (wide / width, high / height), (float(left), float(top))
        wide, high = canvas
    if preprocess.crop is not None:
        offset = (offset[0] - (wide - preprocess.crop[1]) // 2, offset[1] - (high - preprocess.crop[0]) // 2)
    return Placement(scale, offset, (width, height))
