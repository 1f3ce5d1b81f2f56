"""What a rule found, and a rule."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar, get_args

import numpy as np

Level = Literal["error", "warning", "note"]
"""error: the runtime refuses the file or computes something else; warning: it runs slower than it could; note: good to know."""
LEVELS: tuple[Level, ...] = get_args(Level)
V = TypeVar("V")


@dataclass(frozen=True)
class Finding:
    """``node`` is the name of a node or tensor of the file; empty: the file as a whole."""

    rule: str
    level: Level
    node: str
    text: str

    def __str__(self) -> str:
        where = f"{self.node}: " if self.node else ""
        return f"{self.level}: {where}{self.text} [{self.rule}]"


@dataclass(frozen=True)
class Rule(Generic[V]):
    """One rule of a table: its name, what it demands, and how it is looked for in a file."""

    name: str
    demand: str
    look: Callable[[V], Iterable[tuple[Level, str, str]]]
    """Yields (level, node, text)."""

    def check(self, view: V) -> list[Finding]:
        return [Finding(self.name, level, node, text) for level, node, text in self.look(view)]


def worst_first(found: Iterable[Finding]) -> tuple[Finding, ...]:
    """By level; those of one level in the order of the rules."""
    return tuple(sorted(found, key=lambda one: LEVELS.index(one.level)))


def bad_scale(scale: Sequence[float] | np.ndarray[Any, np.dtype[Any]]) -> str | None:
    """What is wrong with the scales of a tensor, in every runtime; None where nothing is."""
    found = np.asarray(scale)
    if np.isfinite(found).all() and (found > 0).all():
        return None
    return f"a scale of {float(found.min()):g}: every scale must be positive and finite"
