"""Classification: one class of several, or yes and no."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from edgec.compiler.tasks.measure import Measure, hits_change, rate
from edgec.compiler.tasks.task import Truth
from edgec.graph.compare import by_sample, kl_divergence, paired_probabilities, probabilities

Array = np.ndarray[Any, np.dtype[Any]]

FIVE = 10
"""Classes from which top-5 says something."""


@dataclass(frozen=True)
class Classification:
    """Output ``output`` holds a score for each class; or one number for yes, as ``binary`` says.

    ``twins``: outputs of classes beside it, of as many or of others. Labels are for ``output`` alone; an answer is the same
    where all of them say so.
    """

    output: int = 0
    classes: int = 2
    binary: Literal["", "probability", "logit"] = ""
    twins: tuple[int, ...] = ()
    name: Literal["classification"] = "classification"

    def tally(self) -> ClassificationTally:
        return ClassificationTally(self)

    def scores(self, outputs: Sequence[Array], output: int | None = None) -> Array:
        """(samples, classes): scores whose order is that of the classes; of ``output``, one of the twins."""
        rows = by_sample(np.asarray(outputs[self.output if output is None else output], np.float64))
        if not self.binary:
            return rows
        yes = rows if self.binary == "probability" else 1 / (1 + np.exp(-np.clip(rows, -60, 60)))
        return np.concatenate([1 - yes, yes], axis=1)

    def answers(self, outputs: Sequence[Array]) -> list[dict[str, Any]]:
        found = probabilities(self.scores(outputs))
        return [{"class": int(row.argmax()), "score": float(row.max())} for row in found]


@dataclass
class ClassificationTally:
    """Counts of equal and of right answers."""

    task: Classification
    errors: list[float] = field(default_factory=list)
    changed: list[bool] = field(default_factory=list)
    kl: float = 0.0
    hits: list[bool] = field(default_factory=list)
    source_hits: list[bool] = field(default_factory=list)
    five: list[bool] = field(default_factory=list)

    def add(self, source: Sequence[Array], ours: Sequence[Array], truth: Truth | None) -> None:
        wanted, made = self.task.scores(source), self.task.scores(ours)
        answers = made.argmax(axis=1)
        pairs = [(wanted, made)]
        pairs += [(self.task.scores(source, one), self.task.scores(ours, one)) for one in self.task.twins]
        self.changed += np.any([theirs.argmax(1) != own.argmax(1) for theirs, own in pairs], axis=0).tolist()
        self.kl += kl_divergence(wanted, made) * len(wanted)
        self.errors += np.max([_moved(theirs, own) for theirs, own in pairs], axis=0).tolist()
        if truth is None:
            return
        labels = np.asarray(truth)
        self.hits += (answers == labels).tolist()
        self.source_hits += (wanted.argmax(axis=1) == labels).tolist()
        if self.task.classes >= FIVE:
            above = (made > np.take_along_axis(made, labels[:, None], axis=1)).sum(axis=1)
            self.five += (above < 5).tolist()

    def figures(self) -> dict[str, Any]:
        count = len(self.changed)
        same = ~np.asarray(self.changed, bool)
        found: dict[str, Any] = {
            "agreement": float(same.sum()) / count,
            "kl": max(0.0, self.kl / count),
        }
        measures = []
        if self.hits:
            found["top1"] = sum(self.hits) / len(self.hits)
            measures += [_right(self.hits, self.source_hits)]
            measures += [rate("Top-5 accuracy", self.five, against="labels")] if self.five else []
        measures.append(rate("Same answer as the original", same, lost=count - int(same.sum())))
        return {**found, "measures": tuple(measures)}


def _moved(wanted: Array, made: Array) -> Array:
    """By sample, the probability that went to other classes."""
    theirs, ours = paired_probabilities(wanted, made)
    return np.asarray(np.abs(theirs - ours).sum(axis=1) / 2)


def _right(hits: Sequence[bool], source: Sequence[bool]) -> Measure:
    ours, theirs = np.asarray(hits, bool), np.asarray(source, bool)
    return rate("Top-1 accuracy", ours, against="labels", **hits_change(ours, theirs))
