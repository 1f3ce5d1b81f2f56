"""Several labels at once: each output is a yes or a no of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from edgec.compiler.tasks.measure import Measure, over_samples, ratio, with_labels
from edgec.compiler.tasks.task import Truth
from edgec.graph.compare import by_sample

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class MultiLabel:
    """A label holds where its score is ``threshold`` or more: 0.5 of a probability, 0 of a logit."""

    output: int = 0
    classes: int = 2
    threshold: float = 0.5
    name: Literal["multi-label"] = "multi-label"

    def tally(self) -> MultiLabelTally:
        return MultiLabelTally(self)

    def labels(self, outputs: Sequence[Array]) -> Array:
        """(samples, labels) of bool."""
        return np.asarray(by_sample(np.asarray(outputs[self.output])) >= self.threshold)

    def answers(self, outputs: Sequence[Array]) -> list[dict[str, Any]]:
        scores = by_sample(np.asarray(outputs[self.output], np.float64))
        return [
            {
                "labels": np.flatnonzero(row >= self.threshold).tolist(),
                "scores": row[row >= self.threshold].tolist(),
            }
            for row in scores
        ]


@dataclass
class MultiLabelTally:
    """Counts by sample and by label."""

    task: MultiLabel
    errors: list[float] = field(default_factory=list)
    changed: list[bool] = field(default_factory=list)
    same: list[Array] = field(default_factory=list)
    f1: list[Array] = field(default_factory=list)
    right: list[Array] = field(default_factory=list)
    source_right: list[Array] = field(default_factory=list)

    def add(self, source: Sequence[Array], ours: Sequence[Array], truth: Truth | None) -> None:
        wanted, made = self.task.labels(source), self.task.labels(ours)
        equal = wanted == made
        self.same += list(equal)
        self.changed += (~equal.all(axis=1)).tolist()
        self.errors += (~equal).sum(axis=1).astype(float).tolist()
        self.f1 += list(_terms(wanted, made))
        if truth is not None:
            labels = np.asarray(truth).astype(bool)
            self.right += list(_terms(labels, made))
            self.source_right += list(_terms(labels, wanted))

    def figures(self) -> dict[str, Any]:
        measures: list[Measure] = []
        if self.right:
            measures.append(with_labels("Labels right (F1)", self.right, self.source_right, ratio))
        same = np.array(self.same, float)
        worst = int(np.argmin(same.mean(axis=0)))
        measures += [
            over_samples("Same labels as the original (F1)", self.f1, ratio),
            over_samples("Same yes or no, over all labels", same.mean(axis=1)),
            over_samples(f"Same yes or no, label {worst}, the worst", same[:, worst]),
        ]
        return {"measures": tuple(measures)}


def _terms(wanted: Array, made: Array) -> Array:
    """(samples, 2): twice the labels that both have, and all labels of both: their ratio is F1."""
    return np.stack([2.0 * (wanted & made).sum(axis=1), wanted.sum(axis=1) + made.sum(axis=1)], axis=1)
