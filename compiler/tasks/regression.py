"""Numbers: one, several, or one for every pixel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from edgec.compiler.tasks.measure import Measure, over_samples, with_labels
from edgec.compiler.tasks.task import Truth
from edgec.graph.compare import by_sample

Array = np.ndarray[Any, np.dtype[Any]]

APART = 64
"""So many numbers of a sample are each a quantity of its own; more are one quantity at many places."""


@dataclass(frozen=True)
class Regression:
    """Output ``output`` holds numbers in the units of what they are."""

    output: int = 0
    name: Literal["regression"] = "regression"

    def tally(self) -> RegressionTally:
        return RegressionTally(self)

    def numbers(self, outputs: Sequence[Array]) -> Array:
        """(samples, numbers)."""
        return by_sample(np.asarray(outputs[self.output], np.float64))

    def answers(self, outputs: Sequence[Array]) -> list[dict[str, Any]]:
        return [{"numbers": row[:APART].tolist()} for row in self.numbers(outputs)]


@dataclass
class RegressionTally:
    """By sample and quantity: squared error, the wanted number, its square."""

    task: Regression
    errors: list[float] = field(default_factory=list)
    changed: list[bool] = field(default_factory=list)
    rows: list[Array] = field(default_factory=list)
    right: list[Array] = field(default_factory=list)
    source_right: list[Array] = field(default_factory=list)

    def add(self, source: Sequence[Array], ours: Sequence[Array], truth: Truth | None) -> None:
        wanted, made = self.task.numbers(source), self.task.numbers(ours)
        self.rows += list(_terms(wanted, made))
        self.errors += np.sqrt(((wanted - made) ** 2).mean(axis=1)).tolist()
        if truth is not None:
            labels = np.stack([np.asarray(one, np.float64).ravel() for one in truth])
            self.right += list(_terms(labels, made))
            self.source_right += list(_terms(labels, wanted))

    def figures(self) -> dict[str, Any]:
        rows = np.array(self.rows)
        against: list[Measure] = []
        if self.right:
            against = _pair("the labels", with_labels, self.right, self.source_right)
        measures = (*against, *_pair("the original's numbers", over_samples, rows))
        spread = _spread(rows)
        self.changed = [error > 0.1 * spread for error in self.errors]
        return {"measures": measures}


def _terms(wanted: Array, made: Array) -> Array:
    """(samples, 3 x quantities)."""
    terms = np.stack([(wanted - made) ** 2, wanted, wanted**2])
    if wanted.shape[1] > APART:
        terms = terms.mean(axis=2, keepdims=True)
    return np.asarray(np.concatenate(list(terms), axis=1))


def _pair(what: str, over: Callable[..., Measure], *rows: Sequence[Array] | Array) -> list[Measure]:
    """Of ``rows`` as ``over`` takes them."""
    error = f"Error against {what} (RMS)"
    return [
        over(f"R² with {what}", *rows, r_squared, unit=""),
        over(error, *rows, rms, unit="", lower_is_better=True, best=0.0),
    ]


def r_squared(values: Array) -> Array:
    """One minus squared error over variance, averaged over the quantities; 0 at least, and of what never varies 1 or 0."""
    error, mean, square = np.split(values, 3, axis=1)
    variance = square - mean**2
    there = variance > 1e-12 * np.maximum(square, 1e-30)
    share = np.divide(error, variance, out=np.where(error > 0, 1.0, 0.0), where=there)
    return np.asarray(np.maximum(1 - share, 0).mean(axis=1))


def rms(values: Array) -> Array:
    """Root of the mean squared error, in the units of the numbers."""
    return np.asarray(np.sqrt(np.split(values, 3, axis=1)[0].mean(axis=1)))


def _spread(rows: Array) -> float:
    _, mean, square = np.split(rows.mean(axis=0)[None], 3, axis=1)
    return float(np.sqrt(np.maximum(square - mean**2, 0).mean()))
