"""What a network's answers hold about its inputs, in nats (see `evaluate.plausibility`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import onnx_ir as ir

from edgec.compiler.evaluate.preparations import Change
from edgec.compiler.tasks.boxes import matched
from edgec.compiler.tasks.classification import Classification
from edgec.compiler.tasks.detection import SAME, Detection, boxes_of
from edgec.compiler.tasks.segmentation import Segmentation
from edgec.compiler.tasks.task import Task
from edgec.compiler.tasks.text_recognition import TextRecognition, distance
from edgec.graph.compare import by_sample, probabilities
from edgec.graph.execute import Executor
from edgec.graph.inputs import InputSpec
from edgec.graph.parts import parts_of
from edgec.passes.incremental.executor import batch_size

Array = np.ndarray[Any, np.dtype[Any]]

BATCH = 8
"""Samples that run together, where their maps are small enough."""
MOST_SCORES = 50_000
_PROBABILITIES = ("Sigmoid", "HardSigmoid", "Softmax")


Kind = Literal["classes", "scores", "objects", "characters"]


@dataclass(frozen=True)
class Information:
    """What each sample's answer is worth: the nats that it holds about it, or, of a detector, how well its objects stand, or,
    of a reader of text, its characters.

    ``classes`` are the answers of a classifier of ``kinds`` classes. With two of them an answer holds too little to compare.
    """

    each: Array
    kind: Kind
    classes: Array | None = None
    kinds: int = 0
    stands: float = 1.0
    """Of a map: the share of the nats that is left where the mirrored picture's map is laid over it. Of a detector: of all
    objects together, the share that is found in the mirrored picture too, 0 where there is none. Of a reader of text: of all
    characters, the share that is read in the moved picture too."""

    @property
    def mean(self) -> float:
        """Over the samples."""
        return float(self.each.mean())

    def ahead_of(self, other: Information) -> float:
        """By how many standard errors of the paired difference it is more than ``other``."""
        difference = self.each - other.each
        error = float(difference.std(ddof=1)) / len(difference) ** 0.5
        return float(difference.mean() / max(error, 1e-6))


class Judge:
    """Runs the network and reads its answers, as ``task`` says what they are."""

    def __init__(self, model: ir.Model, spec: InputSpec, threads: int, task: Task | None) -> None:
        self.spec, self.executor, self.task = spec, Executor(model, threads=threads), task
        self.size: int = batch_size(model.graph, most=BATCH)
        ops = {node.name: node.op_type for node in model.graph}
        self.scores = tuple(part for part in parts_of(model) if ops.get(part.source) in _PROBABILITIES)

    @property
    def runs(self) -> int:
        """How often the network runs for one look at a preparation, without changes."""
        return 2 if isinstance(self.task, Detection | Segmentation | TextRecognition) else 1

    @property
    def has_two_classes(self) -> bool:
        """Whether no preparation can be told from another: the network runs once for each sample, and no more."""
        return isinstance(self.task, Classification) and self.task.classes == 2

    @property
    def may_be_numbers(self) -> bool:
        """Whether the vector that is taken for classes may be any other: no Softmax or Sigmoid makes it."""
        known = {part.output for part in self.scores}
        return isinstance(self.task, Classification) and self.task.output not in known

    def information(self, x: Array | Mapping[str, Array], changes: tuple[Change, ...]) -> Information | None:
        """Of the answers to ``x`` (also changed by each of ``changes``); None where the outputs are no answers."""
        feeds = dict(x) if isinstance(x, Mapping) else {self.spec.name: x}
        if isinstance(self.task, Detection):
            each, stands = self._standing(feeds, self.task)
            return Information(each, "objects", stands=stands)
        if isinstance(self.task, TextRecognition):
            each, stands = self._read_twice(feeds, self.task)
            return Information(each, "characters", stands=stands)
        versions = [feeds, *(self._changed(feeds, change) for change in changes)]
        if isinstance(self.task, Classification):
            return _of_classes([self._run(one)[self.task.output] for one in versions], self.task)
        if not self.scores:
            return None
        if isinstance(self.task, Segmentation) and self.task.axis is not None:
            return self._laid_over(feeds, self.task.output, -1 if self.task.axis == 1 else -2)
        p = np.mean([self._scores(self._run(one)) for one in versions], axis=0)
        moving = np.flatnonzero(p.std(axis=0) > 0)
        if p.shape[1] < 2 or len(moving) < 0.01 * p.shape[1]:
            return None
        return Information(_bits(_some(p[:, moving])), "scores")

    def _standing(self, feeds: Mapping[str, Array], task: Detection) -> tuple[Array, float]:
        """Of each picture's objects, those that are found in the mirrored picture too: 1 where both have the same, 0 for none;
        and of all objects together.

        The sum of scores says nothing here: a network fed 255 times too much sees a hundred things that are not there.
        """
        wide = -2 if self.spec.channels_last else -1
        both = (feeds, self._changed(feeds, lambda x: np.flip(x, wide)))
        found, mirrored = (boxes_of(task.head, self._run(one), task.head.threshold) for one in both)
        width = task.head.size[1]
        twice, all_ = [], []
        for one, other in zip(found, mirrored, strict=True):
            left, top, right, bottom = other.corners.T
            back = replace(other, corners=np.stack([width - right, top, width - left, bottom], axis=1))
            twice.append(2 * len(matched(one, back, SAME)))
            all_.append(len(one) + len(other))
        return np.array(twice) / np.maximum(all_, 1), sum(twice) / max(sum(all_), 1)

    def _read_twice(self, feeds: Mapping[str, Array], task: TextRecognition) -> tuple[Array, float]:
        """Of each line's characters, those that are read in a picture that is moved a little too: 1 where all are, 0 for none;
        and of all lines together. Mirrored, nothing can be read."""
        wide = -2 if self.spec.channels_last else -1
        moved = self._changed(feeds, lambda x: _to_the_right(x, wide))
        first, second = self._run(feeds), self._run(moved)
        blank = task.blank(first)
        lines = list(zip(task.lines(first, blank), task.lines(second, blank), strict=True))
        apart = np.array([distance(one, other) for one, other in lines])
        longest = np.array([max(len(one), len(other)) for one, other in lines])
        each = np.where(longest > 0, 1 - apart / np.maximum(longest, 1), 0.0)
        return each, float(1 - apart.sum() / longest.sum()) if longest.any() else 0.0

    def _laid_over(self, feeds: Mapping[str, Array], output: int, wide: int) -> Information | None:
        """Of a map, averaged with that of the mirrored picture, turned back: ``wide`` is the axis of its width."""
        if output not in {part.output for part in self.scores}:
            return None
        across = -2 if self.spec.channels_last else -1
        one = self._run(feeds)[output]
        other = self._run(self._changed(feeds, lambda x: np.flip(x, across)))[output]
        both = _bits(_some(by_sample(np.clip((one + np.flip(other, wide)) / 2, 0, 1))))
        alone = _bits(_some(by_sample(np.clip(one, 0, 1))))
        return Information(both, "scores", stands=float(both.sum() / max(alone.sum(), 1e-9)))

    def _scores(self, outputs: Sequence[Array]) -> Array:
        return np.clip(np.concatenate([part.of(outputs) for part in self.scores], axis=1), 0, 1)

    def _changed(self, feeds: Mapping[str, Array], change: Change) -> dict[str, Array]:
        return {**feeds, self.spec.name: change(feeds[self.spec.name])}

    def _held(self, x: Array) -> Array:
        """Changed inputs in the input's own type: the nearest numbers that it has."""
        if self.spec.dtype.kind != "f":
            limits = np.iinfo(self.spec.dtype) if self.spec.dtype.kind in "iu" else np.iinfo(np.uint8)
            x = np.clip(np.rint(x), limits.min, limits.max)
        return np.ascontiguousarray(x, self.spec.dtype)

    def _run(self, feeds: Mapping[str, Array]) -> list[Array]:
        feeds = {**feeds, self.spec.name: self._held(feeds[self.spec.name])}
        starts = range(0, len(feeds[self.spec.name]), self.size)
        parts = [
            list(
                self.executor.run({name: array[i : i + self.size] for name, array in feeds.items()}).values()
            )
            for i in starts
        ]
        return [np.concatenate(one).astype(np.float64) for one in zip(*parts, strict=True)]


def _to_the_right(x: Array, wide: int) -> Array:
    """A picture moved by an eightieth of its width; the first column fills what comes free."""
    step = max(1, x.shape[wide] // 80)
    at = np.maximum(np.arange(x.shape[wide]) - step, 0)
    return np.take(x, at, axis=wide)


def _of_classes(answers: Sequence[Array], task: Classification) -> Information:
    if task.binary:
        middle = 0.5 if task.binary == "probability" else 0.0
        chosen = (np.mean([by_sample(one)[:, 0] for one in answers], axis=0) > middle).astype(np.int64)
        return Information(np.zeros(len(chosen)), "classes", chosen, 2)
    p = np.mean([probabilities(one) for one in answers], axis=0)
    each = (p * (np.log(p + 1e-12) - np.log(p.mean(axis=0) + 1e-12))).sum(axis=1)
    return Information(each, "classes", p.argmax(axis=1), p.shape[1])


def _some(p: Array) -> Array:
    return p[:, :: max(1, p.shape[1] // MOST_SCORES)]


def _bits(p: Array) -> Array:
    """Information of scores that each are a yes or a no, summed."""
    mean, tiny = p.mean(axis=0), 1e-9
    yes = p * (np.log(p + tiny) - np.log(mean + tiny))
    no = (1 - p) * (np.log(1 - p + tiny) - np.log(1 - mean + tiny))
    return np.asarray((yes + no).sum(axis=1))
