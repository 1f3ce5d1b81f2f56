"""How well a network does: top-1 against labels, and everything else against the teacher, without labels.

Errors are figures of parts (`graph.parts`): boxes and scores are never one number, and the worst part speaks for the network.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
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
from edgec.graph.resolution.axes import Axes
from edgec.graph.resolution.resize import size_of
from edgec.graph.resolution.restore import output_axes, same_places

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Judge:
    """What answers of a network are compared by: the parts and the head of its source, and how they lie at another size.

    ``size``: of the picture that the network takes; ``axes``: of its outputs, empty where its size is the source's.
    """

    parts: Sequence[Part]
    head: Head | None = None
    student_head: Head | None = None
    axes: tuple[Axes, ...] = ()

    @staticmethod
    def of(source: ir.Model, student: ir.Model) -> Judge:
        """For what was made of ``source``."""
        parts, head = parts_of(source), find_head(source)
        if [value.shape for value in source.graph.inputs] == [value.shape for value in student.graph.inputs]:
            return Judge(parts, head)
        size = size_of(student)
        theirs = None if head is None else replace(head, size=size)
        return Judge(parts, head, theirs, output_axes(source, size))


@dataclass
class Tally:
    """Running sums of one network against the teacher; `figures` gives the quality object of report.json."""

    judge: Judge
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
        self.differences = tuple(Difference(part.name) for part in self.judge.parts)
        head = self.judge.head
        self.boxes = None if head is None else DetectionTally(head, self.judge.student_head)

    def add(
        self, count: int, teacher: Mapping[str, Array], student: Mapping[str, Array], labels: Array | None
    ) -> None:
        """One batch of ``count`` samples; outputs are matched by position."""
        self.images += count
        wanted, given = list(teacher.values()), list(student.values())
        made = same_places(given, self.judge.axes)
        for (name, reference), value in zip(teacher.items(), made, strict=True):
            same_shape(value, reference, name)
        for part, difference in zip(self.judge.parts, self.differences, strict=True):
            difference.add(part.of(wanted), part.of(made))
        if self.boxes is not None:
            self.boxes.add(wanted, given)
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
    """Quality objects of the teacher and of each student, from one pass over ``data``. Raises DataError on odd labels.

    A student that takes its picture at another size gets the same pictures at that size.
    """
    runner = Executor(teacher, threads=threads)
    runners = {name: Executor(model, threads=threads) for name, model in students.items()}
    everyone = {"teacher": teacher, **students}
    tallies = {name: Tally(Judge.of(teacher, model), label_offset) for name, model in everyone.items()}
    labels = data.labels
    if labels is not None:
        check_classes(teacher, labels + label_offset)
    done = 0
    for feeds, theirs in _at_their_sizes(data, students, batch_size):
        reference = runner.run(feeds)
        count = len(next(iter(feeds.values())))
        batch_labels = None if labels is None else labels[done : done + count]
        tallies["teacher"].add(count, reference, reference, batch_labels)
        for name, student in runners.items():
            tallies[name].add(count, reference, student.run(theirs[name]), batch_labels)
        done += count
    return {name: tally.figures() for name, tally in tallies.items()}


Feeds = dict[str, Array]


def _at_their_sizes(
    data: Dataset, students: Mapping[str, ir.Model], size: int
) -> Iterator[tuple[Feeds, Mapping[str, Feeds]]]:
    """Batches of ``data``, and the same samples as each student takes them; read once for each size."""
    sized = {name: data.at(model) for name, model in students.items()}
    others = {one.specs: one for one in sized.values() if one is not data}
    for feeds, *more in zip(data.batches(size), *(one.batches(size) for one in others.values()), strict=True):
        known = dict(zip(others, more, strict=True))
        yield feeds, {name: known.get(one.specs, feeds) for name, one in sized.items()}
