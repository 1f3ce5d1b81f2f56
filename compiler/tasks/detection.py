"""Detection: which of the source network's boxes another network still finds, and, with labels, mean average precision.

Both networks' outputs become boxes by one decoder and one suppression, outside of either. A box of the source is *lost* where the
other has no box of its class, above the same score, that overlaps it by half.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from edgec.compiler.tasks.average_precision import Scored, against_labels
from edgec.compiler.tasks.boxes import Boxes, matched, paired_overlaps, suppressed
from edgec.compiler.tasks.heads import Head
from edgec.compiler.tasks.measure import over_samples, ratio
from edgec.compiler.tasks.task import Truth

Array = np.ndarray[Any, np.dtype[Any]]

SUPPRESSION = 0.45
"""Boxes of one class that overlap by more are one."""
LEAST, LOOSE = 0.001, 0.65
"""Score and overlap of boxes that mean average precision is of: it weighs scores itself (as `val` of Ultralytics and YOLOX)."""
MOST = 1000
"""Boxes of a picture, the best, that are looked at for suppression."""
SAME = 0.5
"""Overlap from which two networks' boxes are the same object."""


@dataclass(frozen=True)
class Detection:
    """A head that is known, at its working threshold."""

    head: Head
    name: Literal["detection"] = "detection"

    def tally(self, theirs: Head | None = None) -> DetectionTally:
        """A comparison of nothing yet; ``theirs``: the head of the other network, where its picture has another size."""
        return DetectionTally(self.head, theirs)

    def energies(self, source: Sequence[Array], ours: Sequence[Array]) -> tuple[Array, Array]:
        """(what counts, what is wrong with it), each (samples,): row by row, without a threshold that small changes step over.

        What counts are the squared scores, and one box at the working threshold, so that pictures without objects have a measure
        too. Wrong are the differences of the scores, and of every box as much as does not overlap, at its score.
        """
        (corners, scores), (moved, theirs) = self.head.rows(source), self.head.rows(ours)
        best = scores.max(axis=2)
        counts = np.square(best).sum(axis=1) + self.head.threshold**2
        shifts = np.square(scores - theirs).sum(axis=(1, 2))
        misses = np.square(best * (1 - paired_overlaps(corners, moved))).sum(axis=1)
        return counts, shifts + misses

    def kept(self, source: Sequence[Array], ours: Sequence[Array]) -> tuple[int, int]:
        """(boxes of ``source`` that ``ours`` has too, boxes of ``source``), above the working threshold."""
        wanted, made = (boxes_of(self.head, one, self.head.threshold) for one in (source, ours))
        pairs = sum(len(matched(a, b, SAME)) for a, b in zip(wanted, made, strict=True))
        return pairs, sum(map(len, wanted))

    def at(self, size: tuple[int, int]) -> Detection:
        """The same head of a network for pictures of this (height, width)."""
        return replace(self, head=replace(self.head, size=size))

    def answers(self, outputs: Sequence[Array]) -> list[dict[str, Any]]:
        return [
            {
                "boxes": boxes.corners.tolist(),
                "scores": boxes.scores.tolist(),
                "classes": boxes.classes.tolist(),
            }
            for boxes in boxes_of(self.head, outputs, self.head.threshold)
        ]


def boxes_of(
    head: Head, outputs: Sequence[Array], threshold: float, limit: float = SUPPRESSION
) -> list[Boxes]:
    """The boxes of each sample from ``threshold`` on, in pixels of the input, after suppression."""
    return [suppressed(_best(boxes), limit) for boxes in head.decode(outputs, threshold)]


def _best(boxes: Boxes) -> Boxes:
    if len(boxes) <= MOST:
        return boxes
    return boxes.take(np.argsort(-boxes.scores, kind="stable")[:MOST])


@dataclass
class DetectionTally:
    """Running counts over batches of two networks' outputs; `figures` gives the detection object of report.json."""

    head: Head
    theirs: Head | None = None
    """Of the other network, where its picture has another size."""
    errors: list[float] = field(default_factory=list)
    changed: list[bool] = field(default_factory=list)
    rows: list[tuple[int, int, int]] = field(default_factory=list)
    """By sample: boxes that are kept, boxes of the source, boxes of the other."""
    shifts: list[float] = field(default_factory=list)
    scored: Scored = field(default_factory=Scored)
    source_scored: Scored = field(default_factory=Scored)

    def add(self, source: Sequence[Array], ours: Sequence[Array], truth: Truth | None = None) -> None:
        found = self._found(ours, self.head.threshold)
        wanted_boxes = boxes_of(self.head, source, self.head.threshold)
        if truth is not None:
            self.scored.add(self._found(ours, LEAST, LOOSE), found, truth)
            self.source_scored.add(boxes_of(self.head, source, LEAST, LOOSE), wanted_boxes, truth)
        for wanted, made in zip(wanted_boxes, found, strict=True):
            pairs = matched(wanted, made, SAME)
            self.rows.append((len(pairs), len(wanted), len(made)))
            moved = [abs(float(made.scores[b] - wanted.scores[a])) for a, b in pairs]
            self.shifts += moved
            apart = len(wanted) + len(made) - 2 * len(pairs)
            self.changed.append(apart > 0)
            self.errors.append((apart + sum(moved)) / max(apart + len(pairs), 1))

    def _found(self, outputs: Sequence[Array], threshold: float, limit: float = SUPPRESSION) -> list[Boxes]:
        """The other network's boxes, in pixels of the source's input."""
        theirs = self.theirs or self.head
        scale = theirs.to_pixels_of(self.head)
        return [
            replace(one, corners=one.corners * scale) for one in boxes_of(theirs, outputs, threshold, limit)
        ]

    def figures(self) -> dict[str, Any]:
        """Boxes of the source above the threshold, how many of them are lost, how many are new, and how scores moved."""
        table = np.asarray(self.rows, np.float64).reshape(-1, 3)
        kept, wanted, made = (int(one) for one in table.sum(axis=0))
        detection = {
            "threshold": self.head.threshold,
            "boxes": wanted,
            "lost": wanted - kept,
            "new": made - kept,
            "score_shift": float(np.mean(self.shifts)) if self.shifts else None,
        }
        found = over_samples(
            "Boxes of the original still found",
            table[:, :2],
            ratio,
            of="boxes",
            count=wanted,
            lost=wanted - kept,
        )
        measures = (found,) if wanted else ()
        labelled = against_labels(self.scored, self.source_scored) if self.scored.truth else ()
        return {"detection": detection, "measures": (*labelled, *measures)}
