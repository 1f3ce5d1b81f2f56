"""How well a network does: its answers in the task's own terms, against labels and against the source, and its errors.

Errors are figures of parts (`graph.parts`): boxes and scores are never one number, and the worst part speaks for the network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import onnx_ir as ir

from edgec.compiler.tasks.classification import Classification
from edgec.compiler.tasks.detection import Detection
from edgec.compiler.tasks.heads import Head, find_head
from edgec.compiler.tasks.task import Task, TaskTally, Truth
from edgec.graph.compare import Difference, same_shape
from edgec.graph.data import Dataset
from edgec.graph.execute import Executor
from edgec.graph.parts import Part, parts_of
from edgec.graph.resolution.axes import Axes
from edgec.graph.resolution.resize import size_of
from edgec.graph.resolution.restore import output_axes, same_places

Array = np.ndarray[Any, np.dtype[Any]]


Watch = Callable[[str, Sequence[Array], Sequence[Array]], None]
"""Told of the student's name, the source's outputs, and the student's, batch by batch."""


@dataclass(frozen=True)
class Judge:
    """What answers of a network are compared by: the parts and the head of its source, and how they lie at another size.

    ``size``: of the picture that the network takes; ``axes``: of its outputs, empty where its size is the source's.
    """

    parts: Sequence[Part]
    head: Head | None = None
    student_head: Head | None = None
    axes: tuple[Axes, ...] = ()
    task: Task | None = None

    @staticmethod
    def of(source: ir.Model, student: ir.Model, task: Task | None = None) -> Judge:
        """For what was made of ``source``."""
        parts, head = parts_of(source), find_head(source)
        if [value.shape for value in source.graph.inputs] == [value.shape for value in student.graph.inputs]:
            return Judge(parts, head, task=task)
        size = size_of(student)
        theirs = None if head is None else replace(head, size=size)
        return Judge(parts, head, theirs, output_axes(source, size), task)


@dataclass
class Tally:
    """Running sums of one network against the source; `figures` gives the quality object of report.json."""

    judge: Judge
    images: int = 0
    differences: tuple[Difference, ...] = field(init=False)
    answers: TaskTally | None = field(init=False)

    def __post_init__(self) -> None:
        self.differences = tuple(Difference(part.name) for part in self.judge.parts)
        task = self.judge.task
        if isinstance(task, Detection):
            self.answers = task.tally(self.judge.student_head)
        else:
            self.answers = None if task is None else task.tally()

    def add(
        self,
        count: int,
        teacher: Mapping[str, Array],
        student: Mapping[str, Array],
        truth: Truth | None,
    ) -> None:
        """One batch of ``count`` samples; outputs are matched by position."""
        self.images += count
        wanted, given = list(teacher.values()), list(student.values())
        made = same_places(given, self.judge.axes)
        for (name, reference), value in zip(teacher.items(), made, strict=True):
            same_shape(value, reference, name)
        for part, difference in zip(self.judge.parts, self.differences, strict=True):
            difference.add(part.of(wanted), part.of(made))
        if self.answers is not None and all(len(np.atleast_1d(one)) == count for one in wanted):
            # a head decodes what its own size means; all else is compared where it lies in the source's outputs
            self.answers.add(wanted, given if isinstance(self.judge.task, Detection) else made, truth)

    def figures(self) -> dict[str, Any]:
        """The quality object: images, and what applies of the others; ``outputs`` has the worst part first."""
        ranked = sorted(self.differences, key=lambda one: one.sqnr_db)
        figures: dict[str, Any] = {
            "images": self.images,
            "sqnr_db": ranked[0].sqnr_db,
            "cosine": min(one.cosine for one in ranked),
        }
        if self.answers is not None and self.answers.errors:
            found = self.answers.figures()
            figures |= {**found, "measures": tuple(asdict(one) for one in found["measures"])}
        if len(ranked) > 1:
            figures["outputs"] = {one.name: one.sqnr_db for one in ranked}
        figures |= self._beside()
        return figures

    def _beside(self) -> dict[str, Any]:
        """The worst part that no answer is read from: nothing else says whether it is ruined."""
        if self.judge.task is None or self.answers is None or not self.answers.errors:
            return {}
        read = _read_by(self.judge.task)
        pairs = zip(self.judge.parts, self.differences, strict=True)
        others = [difference for part, difference in pairs if part.output not in read]
        worst = min(others, key=lambda one: one.sqnr_db, default=None)
        return {} if worst is None else {"beside": worst.name}


def _read_by(task: Task) -> tuple[int, ...]:
    """Positions of the outputs that answers are read from."""
    if isinstance(task, Detection):
        return task.head.read
    if isinstance(task, Classification):
        return (task.output, *task.twins)
    return (task.output,)  # type: ignore[attr-defined]


def judge(
    teacher: ir.Model,
    students: Mapping[str, ir.Model],
    data: Dataset,
    *,
    threads: int,
    task: Task | None = None,
    truth: Truth | None = None,
    batch_size: int = 8,
    watch: Watch | None = None,
) -> dict[str, Tally]:
    """Tallies of the teacher and of each student, from one pass over ``data``; ``truth``: what is right for each sample.

    A student that takes its picture at another size gets the same pictures at that size. ``watch`` sees every batch of outputs.
    A student that is the teacher, byte for byte, as where nothing but numbers' types changed, is not run once more.
    """
    runner, same = Executor(teacher, threads=threads), _equal_to(teacher, students)
    runners = {
        name: None if name in same else Executor(model, threads=threads) for name, model in students.items()
    }
    everyone = {"teacher": teacher, **students}
    tallies = {name: Tally(Judge.of(teacher, model, task)) for name, model in everyone.items()}
    done = 0
    for feeds, theirs in _at_their_sizes(data, students, batch_size):
        reference = runner.run(feeds)
        count = len(next(iter(feeds.values())))
        right = None if truth is None else truth[done : done + count]
        tallies["teacher"].add(count, reference, reference, right)
        for name, student in runners.items():
            made = reference if student is None else student.run(theirs[name])
            tallies[name].add(count, reference, made, right)
            if watch is not None:
                watch(name, tuple(reference.values()), tuple(made.values()))
        done += count
    return tallies


Feeds = dict[str, Array]


def _equal_to(teacher: ir.Model, students: Mapping[str, ir.Model]) -> set[str]:
    source = ir.to_proto(teacher).graph
    return {name for name, model in students.items() if ir.to_proto(model).graph == source}


def _at_their_sizes(
    data: Dataset, students: Mapping[str, ir.Model], size: int
) -> Iterator[tuple[Feeds, Mapping[str, Feeds]]]:
    """Batches of ``data``, and the same samples as each student takes them; read once for each size."""
    sized = {name: data.at(model) for name, model in students.items()}
    others = {one.specs: one for one in sized.values() if one is not data}
    for feeds, *more in zip(data.batches(size), *(one.batches(size) for one in others.values()), strict=True):
        known = dict(zip(others, more, strict=True))
        yield feeds, {name: known.get(one.specs, feeds) for name, one in sized.items()}
