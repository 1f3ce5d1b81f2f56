"""How well a network does: top-1 against labels, and everything else against the teacher, without labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir

from edgec.graph.compare import Difference, by_sample, kl_divergence
from edgec.graph.data import Dataset
from edgec.graph.execute import Executor
from edgec.graph.labels import check_classes, is_classifier

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass
class Tally:
    """Running sums of one network against the teacher; `figures` gives the quality object of report.json."""

    label_offset: int = 0
    images: int = 0
    hits: int = 0
    labelled: int = 0
    agreed: int = 0
    kl: float = 0.0
    classified: bool = True
    outputs: dict[str, Difference] = field(default_factory=dict)
    overall: Difference = field(default_factory=lambda: Difference("outputs"))

    def add(
        self, count: int, teacher: Mapping[str, Array], student: Mapping[str, Array], labels: Array | None
    ) -> None:
        """One batch of ``count`` samples; outputs are matched by position."""
        self.images += count
        for (name, reference), value in zip(teacher.items(), student.values(), strict=True):
            self.outputs.setdefault(name, Difference(name)).add(reference, value)
            self.overall.add(reference, value)
        reference, value = next(iter(teacher.values())), next(iter(student.values()))
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
        """The quality object: images, and what applies of top1, agreement, kl, sqnr_db, cosine, outputs."""
        figures: dict[str, Any] = {
            "images": self.images,
            "sqnr_db": self.overall.sqnr_db,
            "cosine": self.overall.cosine,
        }
        if self.classified and self.images:
            figures["agreement"] = self.agreed / self.images
            figures["kl"] = max(0.0, self.kl / self.images)
            if self.labelled:
                figures["top1"] = self.hits / self.labelled
        if len(self.outputs) > 1:
            figures["outputs"] = {name: one.sqnr_db for name, one in self.outputs.items()}
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
    tallies = {name: Tally(label_offset) for name in ("teacher", *students)}
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
