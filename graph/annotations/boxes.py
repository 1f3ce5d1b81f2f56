"""The true boxes of one picture, and their classes by name: what forms of annotations have in common."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from edgec.graph.placement import Placement, placement_of
from edgec.graph.preprocess import Preprocess

Array = np.ndarray[Any, np.dtype[Any]]
Key = TypeVar("Key", bound=Hashable)
Row = tuple[list[float], int, bool, float]
"""Of one box: its corners, class, whether it is a crowd, and its area."""


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


def boxes_of(rows: Sequence[Row], preprocess: Preprocess, size: tuple[int, int]) -> TrueBoxes:
    """The boxes of a picture of this width and height."""
    return TrueBoxes(
        np.array([row[0] for row in rows], np.float64).reshape(-1, 4),
        np.array([row[1] for row in rows], np.int64),
        np.array([row[2] for row in rows], bool),
        np.array([row[3] for row in rows], np.float64),
        placement_of(preprocess, *size),
    )


def by_name(known: Mapping[Key, str], names: Sequence[str]) -> dict[Key, int] | None:
    """The network's class of each of the data's, whatever the case of its name; None where the network lacks one, or all."""
    places = {name.strip().lower(): number for number, name in enumerate(names)}
    wanted = {key: name.strip().lower() for key, name in known.items()}
    if not places or not all(name in places for name in wanted.values()):
        return None
    return {key: places[name] for key, name in wanted.items()}
