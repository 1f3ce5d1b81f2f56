"""How well a network does: top-1 against labels, and everything else against the teacher, without labels.

Errors are figures of parts (`graph.parts`): boxes and scores are never one number, and the worst part speaks for the network.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir

from edgec.compiler.evaluate.tasks.detection import DetectionTally
from edgec.compiler.evaluate.tasks.heads import Head, find_head
from edgec.graph.compare import Difference, by_sample, kl_divergence, same_shape
from edgec.graph.data import Dataset
from edgec.graph.execute import Executor
from edgec.graph.labels import check_classes, is_classifier
from edgec.graph.parts import Part, parts_of

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass
class Tally:
    """Running sums of one network against the teacher; `figures` gives the quality object of report.json."""

    parts: Sequence[Part]
    head: Head | None = None
    label_offset: int = 0
    images: int = 0
    hits: int = 0
    labelled: int = 0
    agreed: int = 0
    kl: float = 0.0
    classified: bool = True
    differences: tuple[Difference, ...] = field(init=False)
    boxes: DetectionTally | None = field(init=False)

    def __post_init__(self) -> None:
        self.differences = tuple(Difference(part.name) for part in self.parts)
        self.boxes = None if self.head is None else DetectionTally(self.head)

    def add(
        self, count: int, teacher: Mapping[str, Array], student: Mapping[str, Array], labels: Array | None
    ) -> None:
        """One batch of ``count`` samples; outputs are matched by position."""
        self.images += count
        wanted, made = list(teacher.values()), list(student.values())
        for (name, reference), value in zip(teacher.items(), made, strict=True):
            same_shape(value, reference, name)
        for part, difference in zip(self.parts, self.differences, strict=True):
            difference.add(part.of(wanted), part.of(made))
        if self.boxes is not None:
            self.boxes.add(wanted, made)
        reference, value = wanted[0], made[0]
        if len(teacher) > 1 or len(by_sample(reference)) != count or not is_classifier(reference.shape):
            self.classified = False
            return
        flat, mine = by_sample(reference), by_sample(value)
        answers = mine.argmax(axis=1)
        self.agreed += int((answers == flat.argmax(axis=1)).sum())
        self.kl += kl_divergence(flat, mine) * count
        if labels is not None:
            self.labelled += count
            self.hits += int((answers == labels + self.label_offset).sum())

    def figures(self) -> dict[str, Any]:
        """The quality object: images, and what applies of the others; ``outputs`` has the worst part first."""
        ranked = sorted(self.differences, key=lambda one: one.sqnr_db)
        figures: dict[str, Any] = {
            "images": self.images,
            "sqnr_db": ranked[0].sqnr_db,
            "cosine": min(one.cosine for one in ranked),
        }
        if self.classified and self.images:
            figures["agreement"] = self.agreed / self.images
            figures["kl"] = max(0.0, self.kl / self.images)
            if self.labelled:
                figures["top1"] = self.hits / self.labelled
        if self.boxes is not None:
            figures["detection"] = self.boxes.figures()
        if len(ranked) > 1:
            figures["outputs"] = {one.name: one.sqnr_db for one in ranked}
        return figures


def judge(
    teacher: ir.Model,
    students: Mapping[str, ir.Model],
    data: Dataset,
    *,
    threads: int,
    label_offset: int = 0,
    batch_size: int = 8,
) -> dict[str, dict[str, Any]]:
    """Quality objects of the teacher and of each student, from one pass over ``data``. Raises DataError on odd labels."""
    runner = Executor(teacher, threads=threads)
    runners = {name: Executor(model, threads=threads) for name, model in students.items()}
    parts, head = parts_of(teacher), find_head(teacher)
    tallies = {name: Tally(parts, head, label_offset) for name in ("teacher", *students)}
    labels = data.labels
    if labels is not None:
        check_classes(teacher, labels + label_offset)
    done = 0
    for feeds in data.batches(batch_size):
        reference = runner.run(feeds)
        count = len(next(iter(feeds.values())))
        batch_labels = None if labels is None else labels[done : done + count]
        tallies["teacher"].add(count, reference, reference, batch_labels)
        for name, student in runners.items():
            tallies[name].add(count, reference, student.run(feeds), batch_labels)
        done += count
    return {name: tally.figures() for name, tally in tallies.items()}
