"""How much a network lost, by sample, against its source: in the task's own terms, without labels.

==============  ===========================================================================================================
classes         KL divergence from the source's probabilities, at the temperature that makes the network's own least:
                smaller pictures and fewer channels make a network less sure of the same answers, which changes none of them.
                Where sizes are compared: from the mean of the source's answers over `views`, less the source's own
boxes           of the boxes that either network finds, the share that only one of them does
everything else relative squared error of the worst part of the outputs (`graph.parts`)
==============  ===========================================================================================================

Networks that take their picture at another size get the same pictures at that size; their answers are laid over the source's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx_ir as ir

from edgec.compiler.evaluate.quality import Judge
from edgec.compiler.search.divergence import calibrated_divergence
from edgec.compiler.search.views import BATCH, Size, Views
from edgec.compiler.tasks.classification import Classification
from edgec.compiler.tasks.detection import Detection
from edgec.compiler.tasks.task import Task
from edgec.graph.compare import by_sample
from edgec.graph.data import Dataset
from edgec.graph.execute import Executor
from edgec.graph.resolution.resize import size_of
from edgec.graph.resolution.restore import same_places

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Reference:
    """What ``source`` answers to some samples."""

    source: ir.Model
    task: Task | None
    data: Dataset
    threads: int
    answers: tuple[Array, ...]
    views: Views | None = None
    """Of a classifier, where networks for other sizes are compared."""

    @staticmethod
    def of(source: ir.Model, task: Task | None, data: Dataset, threads: int) -> Reference:
        """Run it once. ``task``: what the network does, None where nobody knows."""
        return Reference(source, task, data, threads, _answers(source, data, threads))

    def over(self, sizes: Sequence[Size]) -> Reference:
        """The reference for networks that take their picture at one of ``sizes``."""
        task = self.task
        if not isinstance(task, Classification) or task.binary or len(self.answers) > 1:
            return self
        return replace(self, views=Views.of(self.source, self.data, sizes, self.threads))

    @property
    def measure(self) -> str:
        """What `losses` counts."""
        if self.views is not None:
            return "KL divergence from the source's mean answer over moved and resized pictures, above its own, nats"
        if isinstance(self.task, Classification):
            return "KL divergence at the best temperature, nats"
        return "share of boxes that differ" if isinstance(self.task, Detection) else "relative squared error"

    def losses(self, network: ir.Model) -> Array:
        """(samples,) losses of ``network``, which was made of the source."""
        judge = Judge.of(self.source, network, self.task)
        made = _answers(network, self.data.at(network), self.threads)
        if self.views is not None:
            mean = self.views.without(size_of(network))
            own = calibrated_divergence(mean, by_sample(self.answers[0]))
            return calibrated_divergence(mean, by_sample(made[0])) - own
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


def _relative(wanted: Array, made: Array) -> Array:
    """Squared errors by sample, over the mean energy of a sample around the mean of all."""
    wide = wanted.astype(np.float64)
    energy = float(np.square(wide - wide.mean(axis=0)).sum(axis=1).mean())
    return np.asarray(np.square(made.astype(np.float64) - wide).sum(axis=1) / (energy or 1.0))


def _answers(model: ir.Model, data: Dataset, threads: int) -> tuple[Array, ...]:
    runner = Executor(model, threads=threads)
    parts = [list(runner.run(feeds).values()) for feeds in data.batches(BATCH)]
    return tuple(np.concatenate([np.atleast_1d(one) for one in rows]) for rows in zip(*parts, strict=True))
