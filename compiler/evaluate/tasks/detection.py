"""Detection without labels: which of the source network's boxes another network still finds.

Both networks' outputs become boxes by one decoder and one suppression, outside of either. A box of the source is *lost* where the
other has no box of its class, above the same score, that overlaps it by half.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from edgec.compiler.evaluate.tasks.boxes import Boxes, matched, suppressed
from edgec.compiler.evaluate.tasks.heads import Head

Array = np.ndarray[Any, np.dtype[Any]]

THRESHOLD = 0.25
"""The working threshold: a box counts from this score on (Ultralytics' default)."""
SUPPRESSION = 0.45
"""Boxes of one class that overlap by more are one."""
SAME = 0.5
"""Overlap from which two networks' boxes are the same object."""


@dataclass
class DetectionTally:
    """Running counts over batches of two networks' outputs; `figures` gives the detection object of report.json."""

    head: Head
    theirs: Head | None = None
    """Of the other network, where its picture has another size."""
    threshold: float = THRESHOLD
    source: int = 0
    found: int = 0
    kept: int = 0
    shifts: list[float] = field(default_factory=list)

    def add(self, teacher: Sequence[Array], student: Sequence[Array]) -> None:
        """One batch of the outputs of both, in the source's layout; boxes are compared in the source's pixels."""
        theirs = self.theirs or self.head
        found, scale = self._boxes(student, theirs), theirs.to_pixels_of(self.head, teacher)
        for wanted, other in zip(self._boxes(teacher, self.head), found, strict=True):
            made = replace(other, corners=other.corners * scale)
            pairs = matched(wanted, made, SAME)
            self.source += len(wanted)
            self.found += len(made)
            self.kept += len(pairs)
            self.shifts += [float(made.scores[b] - wanted.scores[a]) for a, b in pairs]

    def _boxes(self, outputs: Sequence[Array], head: Head) -> list[Boxes]:
        decoded = head.decode(outputs)
        above = [boxes.take(np.flatnonzero(boxes.scores >= self.threshold)) for boxes in decoded]
        return [suppressed(boxes, SUPPRESSION) for boxes in above]

    def figures(self) -> dict[str, Any]:
        """Boxes of the source above the threshold, how many of them are lost, how many are new, and how scores moved."""
        shifts = np.asarray(self.shifts)
        return {
            "threshold": self.threshold,
            "boxes": self.source,
            "lost": self.source - self.kept,
            "new": self.found - self.kept,
            "score_shift": float(np.abs(shifts).mean()) if len(shifts) else None,
        }
