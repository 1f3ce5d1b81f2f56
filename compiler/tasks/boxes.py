"""Boxes with scores and classes: overlap, suppression, and which boxes of two networks are the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Boxes:
    """Boxes of one picture: ``corners`` (n, 4) as x1, y1, x2, y2, ``scores`` (n,), ``classes`` (n,)."""

    corners: Array
    scores: Array
    classes: Array

    def __len__(self) -> int:
        return len(self.scores)

    def take(self, index: Array) -> Boxes:
        """Those that ``index`` names, in its order."""
        return Boxes(self.corners[index], self.scores[index], self.classes[index])


def corners_of(centres: Array, sizes: Array) -> Array:
    """(..., 4) corners of boxes given by centre and size, (..., 2) each."""
    return np.concatenate([centres - sizes / 2, centres + sizes / 2], axis=-1)


def paired_overlaps(a: Array, b: Array) -> Array:
    """Intersection over union of every box of ``a`` (..., 4) with the one at its place in ``b``: (...)."""
    low, high = np.maximum(a[..., :2], b[..., :2]), np.minimum(a[..., 2:], b[..., 2:])
    shared = np.prod(np.clip(high - low, 0, None), axis=-1)
    areas = [np.prod(np.clip(one[..., 2:] - one[..., :2], 0, None), axis=-1) for one in (a, b)]
    return np.asarray(shared / np.maximum(areas[0] + areas[1] - shared, 1e-12))


def overlaps(a: Array, b: Array) -> Array:
    """Intersection over union of every box of ``a`` (n, 4) with every one of ``b`` (m, 4): (n, m)."""
    return paired_overlaps(a[:, None], b[None])


def suppressed(boxes: Boxes, limit: float, most: int = 300) -> Boxes:
    """What is left of ``boxes`` when each takes away those of its class that overlap it by more than ``limit``, best first."""
    order = np.argsort(-boxes.scores, kind="stable")
    kept: list[int] = []
    while len(order) and len(kept) < most:
        best, order = order[0], order[1:]
        kept.append(int(best))
        shared = overlaps(boxes.corners[best][None], boxes.corners[order])[0]
        order = order[(shared <= limit) | (boxes.classes[order] != boxes.classes[best])]
    return boxes.take(np.asarray(kept, np.intp))


def matched(reference: Boxes, found: Boxes, least: float) -> list[tuple[int, int]]:
    """Pairs (of ``reference``, of ``found``) of one class that overlap by ``least`` or more: each once, best scores first."""
    shared = overlaps(reference.corners, found.corners)
    shared[reference.classes[:, None] != found.classes[None, :]] = 0.0
    pairs = []
    for one in np.argsort(-reference.scores, kind="stable"):
        if not shared.shape[1]:
            break
        other = int(shared[one].argmax())
        if shared[one, other] >= least:
            pairs.append((int(one), other))
            shared[:, other] = 0.0
    return pairs
