"""How much a network lost, by sample, against its source: in the task's own terms, without labels.

==============  ===========================================================================================================
classes         KL divergence from the source's probabilities, at the temperature that makes the network's own least:
                smaller pictures and fewer channels make a network less sure of the same answers, which changes none of them
boxes           of the boxes that either network finds, the share that only one of them does
everything else relative squared error of the worst part of the outputs (`graph.parts`)
==============  ===========================================================================================================

Networks that take their picture at another size get the same pictures at that size; their answers are laid over the source's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from edgec.compiler.evaluate.quality import Judge
from edgec.compiler.tasks.classification import Classification
from edgec.compiler.tasks.detection import Detection
from edgec.compiler.tasks.task import Task
from edgec.graph.data import Dataset
from edgec.graph.execute import Executor
from edgec.graph.resolution.restore import same_places

Array = np.ndarray[Any, np.dtype[Any]]
BATCH = 8
TINY = 1e-12
TEMPERATURES = np.geomspace(0.25, 4.0, 65)


@dataclass(frozen=True)
class Reference:
    """What ``source`` answers to some samples."""

    source: ir.Model
    task: Task | None
    data: Dataset
    threads: int
    answers: tuple[Array, ...]

    @staticmethod
    def of(source: ir.Model, task: Task | None, data: Dataset, threads: int) -> Reference:
        """Run it once. ``task``: what the network does, None where nobody knows."""
        return Reference(source, task, data, threads, _answers(source, data, threads))

    @property
    def measure(self) -> str:
        """What `losses` counts."""
        if isinstance(self.task, Classification):
            return "KL divergence at the best temperature, nats"
        return "share of boxes that differ" if isinstance(self.task, Detection) else "relative squared error"

    def losses(self, network: ir.Model) -> Array:
        """(samples,) losses of ``network``, which was made of the source."""
        judge = Judge.of(self.source, network, self.task)
        made = _answers(network, self.data.at(network), self.threads)
        if isinstance(self.task, Classification):
            scores, places = self.task.scores, (self.task.output, *self.task.twins)
            tried = [calibrated_divergence(scores(self.answers, one), scores(made, one)) for one in places]
            return max(tried, key=lambda one: float(one.mean()))
        if isinstance(self.task, Detection):
            return self._boxes(self.task, judge, made)
        moved = same_places(made, judge.axes)
        parts = [
            _relative(part.of(self.answers, len(self.data)), part.of(moved, len(self.data)))
            for part in judge.parts
        ]
        return max(parts, key=lambda one: float(one.mean()))

    def _boxes(self, task: Detection, judge: Judge, made: Sequence[Array]) -> Array:
        found = []
        for index in range(len(self.data)):
            tally = task.tally(judge.student_head)
            one = slice(index, index + 1)
            tally.add([value[one] for value in self.answers], [value[one] for value in made])
            kept, wanted, theirs = tally.rows[0]
            apart, all_ = wanted + theirs - 2 * kept, wanted + theirs
            found.append(apart / all_ if all_ else 0.0)
        return np.asarray(found)


def calibrated_divergence(reference: Array, value: Array) -> Array:
    """(samples,) of logits or probabilities (samples, classes), in nats; the temperature is one for all samples."""
    p = np.exp(_log_probabilities(reference))
    logs = _log_probabilities(value)
    entropy = (p * np.log(p + TINY)).sum(axis=1)

    def at(temperature: float) -> Array:
        scaled = logs / temperature
        shifted = scaled - scaled.max(axis=1, keepdims=True)
        normal = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        return np.asarray(entropy - (p * normal).sum(axis=1))

    tried: list[Array] = [at(float(one)) for one in TEMPERATURES]
    return min(tried, key=lambda one: float(one.mean()))


def _log_probabilities(scores: Array) -> Array:
    wide = scores.astype(np.float64)
    if (wide >= 0).all() and np.allclose(wide.sum(axis=1), 1.0, atol=1e-3):
        return np.asarray(np.log(wide + TINY))
    shifted = wide - wide.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def _relative(wanted: Array, made: Array) -> Array:
    """Squared errors by sample, over the mean energy of a sample around the mean of all."""
    wide = wanted.astype(np.float64)
    energy = float(np.square(wide - wide.mean(axis=0)).sum(axis=1).mean())
    return np.asarray(np.square(made.astype(np.float64) - wide).sum(axis=1) / (energy or 1.0))


def _answers(model: ir.Model, data: Dataset, threads: int) -> tuple[Array, ...]:
    runner = Executor(model, threads=threads)
    parts = [list(runner.run(feeds).values()) for feeds in data.batches(BATCH)]
    return tuple(np.concatenate([np.atleast_1d(one) for one in rows]) for rows in zip(*parts, strict=True))
