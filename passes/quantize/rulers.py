"""What tells how far a network's outputs are from its float original's: the errors of their parts, or its task's own terms.

Where it is known what the outputs mean (`Context.answers`), that decides. Logits of -600 and of -12320 are the same answer, and
an error of the scores that all rows share weighs nothing beside one of the few rows that hold an object.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from edgec.graph.compare import Difference, by_sample
from edgec.graph.parts import Part
from edgec.passes.base import Answers

Array = np.ndarray[Any, np.dtype[Any]]


class Ruler(Protocol):
    """Running comparison of two networks' outputs, batch by batch."""

    def add(self, wanted: Sequence[Array], made: Sequence[Array], labels: Array | None) -> None:
        """One batch: the outputs of the original and of the other, and the labels of its samples."""

    def sqnr_db(self) -> float:
        """Signal to noise over all samples."""

    def decibels(self) -> Array:
        """(parts, samples): the same of every sample."""

    def agreement(self) -> tuple[float, float]:
        """The share of answers that are the original's, and by how many percent fewer are right."""


@dataclass
class ByParts:
    """Errors of the values, part by part; answers are the arg-max of the first output."""

    parts: Sequence[Part]
    differences: list[Difference] = field(init=False)
    rows: list[list[float]] = field(init=False)
    equal: int = 0
    seen: int = 0
    right: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        self.differences = [Difference(part.name) for part in self.parts]
        self.rows = [[] for _ in self.parts]

    def add(self, wanted: Sequence[Array], made: Sequence[Array], labels: Array | None) -> None:
        for part, difference, values in zip(self.parts, self.differences, self.rows, strict=True):
            mine, theirs = part.of(wanted), part.of(made)
            difference.add(mine, theirs)
            a, b = mine.astype(np.float64), theirs.astype(np.float64)
            values.extend(decibels((a * a).sum(axis=1), ((a - b) ** 2).sum(axis=1)))
        before, after = _classes(wanted[0]), _classes(made[0])
        self.equal += int((before == after).all(axis=1).sum())
        self.seen += len(before)
        if labels is not None:
            old, new = self.right or (0, 0)
            old, new = old + int((before[:, 0] == labels).sum()), new + int((after[:, 0] == labels).sum())
            self.right = old, new

    def sqnr_db(self) -> float:
        return min(one.sqnr_db for one in self.differences)

    def decibels(self) -> Array:
        return np.array(self.rows)

    def agreement(self) -> tuple[float, float]:
        seen = max(self.seen, 1)
        agreement = self.equal / seen
        drop = 1.0 - agreement if self.right is None else (self.right[0] - self.right[1]) / seen
        return agreement, 100.0 * drop


@dataclass
class ByAnswers:
    """Energies of right and wrong answers, as the task weighs them."""

    answers: Answers
    signals: list[float] = field(default_factory=list)
    errors: list[float] = field(default_factory=list)
    kept: int = 0
    all: int = 0

    def add(self, wanted: Sequence[Array], made: Sequence[Array], labels: Array | None) -> None:
        signals, errors = self.answers.energies(wanted, made)
        self.signals += signals.tolist()
        self.errors += errors.tolist()
        kept, count = self.answers.kept(wanted, made)
        self.kept += kept
        self.all += count

    def sqnr_db(self) -> float:
        noise, signal = sum(self.errors), sum(self.signals)
        return math.inf if noise == 0 else 10 * math.log10(max(signal / noise, 1e-30))

    def decibels(self) -> Array:
        return np.array([decibels(np.array(self.signals), np.array(self.errors))])

    def agreement(self) -> tuple[float, float]:
        share = self.kept / self.all if self.all else 1.0
        return share, 100.0 * (1.0 - share)


def decibels(signal: Array, noise: Array) -> list[float]:
    """Signal to noise of each sample, within [-20, 100] dB so that exact or meaningless ones do not swamp the mean."""
    ratio = np.clip(signal / np.maximum(noise, np.maximum(signal * 1e-10, 1e-300)), 1e-2, 1e10)
    return [float(v) for v in 10.0 * np.log10(ratio)]


def _classes(output: Array) -> Array:
    """The arg-max along the last axis, one row per sample."""
    flat = by_sample(output)
    places = (
        flat.reshape(len(flat), output.shape[1], math.prod(output.shape[2:])) if output.ndim > 2 else flat
    )
    return by_sample(np.asarray(places.argmax(axis=1)))
