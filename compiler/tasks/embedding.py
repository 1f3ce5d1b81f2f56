"""Embeddings: vectors whose directions say what is alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from edgec.compiler.tasks.measure import Measure, hits_change, over_samples, rate
from edgec.compiler.tasks.task import Truth
from edgec.graph.compare import by_sample

Array = np.ndarray[Any, np.dtype[Any]]

MOST = 4000
"""Vectors that each is compared with."""


@dataclass(frozen=True)
class Embedding:
    """Output ``output`` is a vector for each sample."""

    output: int = 0
    name: Literal["embedding"] = "embedding"

    def tally(self) -> EmbeddingTally:
        return EmbeddingTally(self)

    def vectors(self, outputs: Sequence[Array]) -> Array:
        """(samples, size), each of length 1."""
        rows = by_sample(np.asarray(outputs[self.output], np.float64))
        return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12))

    def answers(self, outputs: Sequence[Array]) -> list[dict[str, Any]]:
        return [{"vector": row[:8].tolist(), "size": row.size} for row in self.vectors(outputs)]


@dataclass
class EmbeddingTally:
    """The vectors of both networks."""

    task: Embedding
    errors: list[float] = field(default_factory=list)
    changed: list[bool] = field(default_factory=list)
    source: list[Array] = field(default_factory=list)
    ours: list[Array] = field(default_factory=list)
    truth: list[int] = field(default_factory=list)

    def add(self, source: Sequence[Array], ours: Sequence[Array], truth: Truth | None) -> None:
        wanted, made = self.task.vectors(source), self.task.vectors(ours)
        self.errors += (1 - (wanted * made).sum(axis=1)).tolist()
        self.source += list(wanted)
        self.ours += list(made)
        self.truth += [] if truth is None else [int(one) for one in truth]

    def figures(self) -> dict[str, Any]:
        wanted, made = np.array(self.source[:MOST]), np.array(self.ours[:MOST])
        found = (made @ wanted.T).argmax(axis=1) == np.arange(len(made))
        self.changed = [*(~found).tolist(), *[False] * (len(self.ours) - len(found))]
        measures: list[Measure] = []
        if self.truth:
            measures += [_same_label(wanted, made, np.array(self.truth[:MOST]))]
        measures += [
            rate("Nearest of the original's vectors is its own (recall@1)", found, lost=int((~found).sum())),
            over_samples("Cosine with the original's vectors", [1 - error for error in self.errors], unit=""),
        ]
        return {"measures": tuple(measures)}


def _same_label(wanted: Array, made: Array, labels: Array) -> Measure:
    """Whether the nearest other sample has the same label, of those whose label another one has."""
    known = (labels[:, None] == labels[None]).sum(axis=1) > 1
    hits = []
    for vectors in (made, wanted):
        alike = vectors @ vectors.T
        np.fill_diagonal(alike, -np.inf)
        hits.append((labels[alike.argmax(axis=1)] == labels)[known])
    ours, theirs = hits
    return rate("Nearest has the same label (recall@1)", ours, against="labels", **hits_change(ours, theirs))
