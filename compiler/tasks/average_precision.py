"""Mean average precision against labels, by a named evaluator of the field: faster-coco-eval (extra ``metrics``)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any

import numpy as np

from edgec.compiler.tasks.boxes import Boxes, matched
from edgec.compiler.tasks.measure import Measure
from edgec.compiler.tasks.task import Truth
from edgec.graph.annotations.boxes import TrueBoxes
from edgec.graph.errors import UsageError

Array = np.ndarray[Any, np.dtype[Any]]

FOUND = 0.5
"""Overlap from which a true object is found."""


@dataclass
class Scored:
    """The boxes of one network beside the true ones, picture by picture, in each picture's own pixels."""

    boxes: list[Boxes] = field(default_factory=list)
    truth: list[TrueBoxes] = field(default_factory=list)
    found: list[Array] = field(default_factory=list)
    """By picture: of each true object that is no crowd, whether a box above the working threshold is on it."""

    def add(self, boxes: Sequence[Boxes], working: Sequence[Boxes], truth: Truth) -> None:
        """One batch: all ``boxes``, and those above the ``working`` threshold, in pixels of the input."""
        for every, some, true in zip(boxes, working, truth, strict=True):
            self.boxes.append(_back(every, true))
            self.truth.append(true)
            alone = np.flatnonzero(~true.crowd)
            objects = Boxes(true.corners[alone], np.ones(len(alone)), true.classes[alone])
            hits = np.zeros(len(alone), bool)
            hits[[one for one, _ in matched(objects, _back(some, true), FOUND)]] = True
            self.found.append(hits)


def _back(boxes: Boxes, true: TrueBoxes) -> Boxes:
    return Boxes(true.placement.back(boxes.corners), boxes.scores, boxes.classes)


def against_labels(ours: Scored, source: Scored) -> tuple[Measure, ...]:
    """Mean average precision over overlaps of 0.50 to 0.95, and at 0.50, with the true objects that were lost and won."""
    mine, theirs = average_precision(ours), average_precision(source)
    hits, before = np.concatenate(ours.found), np.concatenate(source.found)
    shared: dict[str, Any] = {"against": "labels", "evaluator": evaluator()}
    counts: dict[str, Any] = {
        "of": "objects",
        "count": len(hits),
        "lost": int((before & ~hits).sum()),
        "won": int((hits & ~before).sum()),
    }
    names = ("mAP, IoU 0.50 to 0.95", "mAP, IoU 0.50")
    first, second = (
        Measure(name, value, len(ours.truth), change=value - old, **shared)
        for name, value, old in zip(names, mine, theirs, strict=True)
    )
    return Measure(**{**vars(first), **counts}), second


def average_precision(scored: Scored) -> tuple[float, float]:
    """(mAP of IoU 0.50 to 0.95, mAP of 0.50), 100 boxes a picture at most, as COCO has it; 0 without a true object."""
    from faster_coco_eval import COCO, COCOeval_faster

    rows = [row for number, true in enumerate(scored.truth, 1) for row in _true_rows(number, true)]
    for number, row in enumerate(rows, 1):
        row["id"] = number
    found = [row for number, boxes in enumerate(scored.boxes, 1) for row in _found_rows(number, boxes)]
    classes = sorted({row["category_id"] for row in rows})
    if not rows or not found:
        return 0.0, 0.0
    truth = COCO(
        {
            "images": [{"id": number} for number in range(1, len(scored.truth) + 1)],
            "annotations": rows,
            "categories": [{"id": one, "name": str(one)} for one in classes],
        }
    )
    run = COCOeval_faster(truth, truth.loadRes(found), iouType="bbox")
    run.evaluate()
    run.accumulate()
    run.summarize()
    return max(float(run.stats[0]), 0.0), max(float(run.stats[1]), 0.0)


def _true_rows(number: int, true: TrueBoxes) -> list[dict[str, Any]]:
    return [
        {
            "image_id": number,
            "category_id": int(label) + 1,
            "bbox": _box(corners),
            "area": float(area),
            "iscrowd": int(crowd),
        }
        for corners, label, area, crowd in zip(
            true.corners, true.classes, true.areas, true.crowd, strict=True
        )
    ]


def _found_rows(number: int, boxes: Boxes) -> list[dict[str, Any]]:
    return [
        {"image_id": number, "category_id": int(label) + 1, "bbox": _box(corners), "score": float(score)}
        for corners, label, score in zip(boxes.corners, boxes.classes, boxes.scores, strict=True)
    ]


def _box(corners: Array) -> list[float]:
    return [float(one) for one in (*corners[:2], *(corners[2:] - corners[:2]))]


def evaluator() -> str:
    """Name and version. Raises UsageError where it is not installed."""
    try:
        return f"faster-coco-eval {metadata.version('faster-coco-eval')}"
    except metadata.PackageNotFoundError:
        hint = "pip install 'edgec[metrics]', or judge with a function of yours: --metric file.py:func"
        raise UsageError("mean average precision needs faster-coco-eval", hint=hint) from None
