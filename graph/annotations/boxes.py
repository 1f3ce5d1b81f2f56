"""The true boxes of one picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from edgec.graph.placement import Placement

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class TrueBoxes:
    """Of one picture: ``corners`` (n, 4) as x1, y1, x2, y2 in its own pixels, ``classes`` (n,) as the network counts them.

    ``crowd`` (n,): many objects in one box, which a finder may or may not split; ``areas`` (n,) in square pixels.
    ``placement``: where the picture's pixels come to lie in the network's input.
    """

    corners: Array
    classes: Array
    crowd: Array
    areas: Array
    placement: Placement

    def __len__(self) -> int:
        return len(self.classes)

    def of(self) -> dict[str, Any]:
        """For a metric of the user's: boxes in pixels of the input, classes, and which are crowds."""
        return {"boxes": self.placement.into(self.corners), "classes": self.classes, "crowd": self.crowd}
