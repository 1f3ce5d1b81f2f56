"""Text recognition: lines of text, read step by step along a picture, as CTC networks do.

Method: A. Graves et al., Connectionist temporal classification, ICML 2006: the best class of every step, repetitions taken
together, the blank left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from edgec.compiler.tasks.measure import Measure, over_samples, rate, ratio
from edgec.compiler.tasks.task import Truth

Array = np.ndarray[Any, np.dtype[Any]]
Line = tuple[int, ...]
"""Class numbers of what is read, without blanks."""


@dataclass(frozen=True)
class TextRecognition:
    """Output ``output`` is (samples, steps, classes): scores of the characters at every step along the line.

    The blank is the first class (PaddleOCR, PyTorch) or the last (Keras), whichever the source says at more steps.
    """

    output: int = 0
    name: Literal["text-recognition"] = "text-recognition"

    def tally(self) -> TextTally:
        return TextTally(self)

    def best(self, outputs: Sequence[Array]) -> Array:
        """(samples, steps): the best class of every step."""
        found: Array = np.argmax(outputs[self.output], axis=-1)
        return found

    def blank(self, outputs: Sequence[Array]) -> int:
        """The class that stands for no character, by how often it is the best one."""
        best, last = self.best(outputs), np.shape(outputs[self.output])[-1] - 1
        return last if int((best == last).sum()) > int((best == 0).sum()) else 0

    def lines(self, outputs: Sequence[Array], blank: int) -> list[Line]:
        """What is read in each sample."""
        return [_read(row, blank) for row in self.best(outputs)]

    def answers(self, outputs: Sequence[Array]) -> list[dict[str, Any]]:
        """Characters by their number in the alphabet, which has no blank."""
        blank = self.blank(outputs)
        return [{"text": [one - (one > blank) for one in line]} for line in self.lines(outputs, blank)]


def _read(row: Array, blank: int) -> Line:
    starts = np.concatenate([[True], row[1:] != row[:-1]])
    return tuple(int(one) for one in row[starts] if one != blank)


@dataclass
class TextTally:
    """The lines of both networks; the source's first batch says which class is the blank."""

    task: TextRecognition
    errors: list[float] = field(default_factory=list)
    changed: list[bool] = field(default_factory=list)
    edits: list[tuple[int, int]] = field(default_factory=list)
    """By line in which either network reads something: characters to be changed, and characters of the source's line."""
    blank: int | None = None

    def add(self, source: Sequence[Array], ours: Sequence[Array], truth: Truth | None) -> None:
        if self.blank is None:
            self.blank = self.task.blank(source)
        for wanted, made in zip(
            self.task.lines(source, self.blank), self.task.lines(ours, self.blank), strict=True
        ):
            apart = distance(wanted, made)
            self.errors.append(apart / max(1, len(wanted)))
            self.changed.append(wanted != made)
            if wanted or made:
                self.edits.append((apart, len(wanted)))

    def figures(self) -> dict[str, Any]:
        """Without a line in which anything is read there is nothing to say."""
        if not self.edits:
            return {"measures": ()}
        same = np.array([apart == 0 for apart, _ in self.edits])
        lost = int((~same).sum())
        measures: tuple[Measure, ...] = (
            rate("Lines that read the same as the original's", same, of="lines", lost=lost),
        )
        if any(length for _, length in self.edits):
            name = "Characters changed, of the original's"
            measures += (over_samples(name, self.edits, ratio, lower_is_better=True, best=0.0),)
        return {"measures": measures}


def distance(one: Line, other: Line) -> int:
    """Characters to insert, leave out or exchange to make one line of the other (V. Levenshtein, 1966)."""
    before = list(range(len(other) + 1))
    for row, mine in enumerate(one, 1):
        now = [row]
        for column, theirs in enumerate(other, 1):
            now.append(min(before[column] + 1, now[-1] + 1, before[column - 1] + (mine != theirs)))
        before = now
    return before[-1]
