"""Anchors of MediaPipe's detectors (faces, palms, bodies), which no file holds: they follow from its settings.

Their boxes are offsets in pixels from the middle of a cell, not scaled by any prior (``fixed_anchor_size``), so that a row needs
only its cell. Strides and anchors of a cell: the graphs of ``mediapipe/modules/*_detection`` (SsdAnchorsCalculator).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Layout:
    """Strides of the levels, in the order of the rows, and how many anchors each cell of a level has."""

    strides: tuple[int, ...]
    anchors: tuple[int, ...]

    def rows(self, size: tuple[int, int]) -> int:
        """How many rows a network of this picture (height, width) has."""
        cells = (-(-size[0] // stride) * -(-size[1] // stride) for stride in self.strides)
        return sum(count * each for count, each in zip(cells, self.anchors, strict=True))

    def middles(self, size: tuple[int, int]) -> Array:
        """(rows, 2): x and y of the middle of each row's cell, in pixels."""
        found = []
        for stride, each in zip(self.strides, self.anchors, strict=True):
            y, x = np.mgrid[: -(-size[0] // stride), : -(-size[1] // stride)]
            cells = np.stack([x.ravel(), y.ravel()], axis=1)
            found.append((np.repeat(cells, each, axis=0) + 0.5) * stride)
        return np.concatenate(found)


LAYOUTS = (
    Layout((8, 16), (2, 6)),  # faces at short range, palms
    Layout((16, 32), (2, 6)),  # faces of the camera at the back
    Layout((8, 16, 32), (2, 2, 6)),  # bodies
    Layout((4,), (1,)),  # faces at full range
)


def layout_of(rows: int, size: tuple[int, int]) -> Layout | None:
    """The one that gives a picture of this (height, width) so many rows; None where none does."""
    return next((one for one in LAYOUTS if one.rows(size) == rows), None)
