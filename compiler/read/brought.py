"""What a run starts from: its recipe, and what a Python program holds in memory beside it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from edgec.compiler.read.recipe import Recipe
from edgec.graph.foreign import Loading, Pending


@dataclass(frozen=True)
class Brought:
    """The recipe with files in place of what was in memory, its model where it is on the way, and what came beside the evaluation
    data (None where that came from a file): class labels, or anything that the caller's metric compares with.
    """

    recipe: Recipe
    pending: Pending | None
    targets: Any = None


class InMemory(Protocol):
    """What a Python program holds in memory, in place of files."""

    def bring(self, recipe: Recipe, loading: Loading, folder: Path) -> Brought:
        """Write it into ``folder``. Raises EdgecError for what cannot be exported, or does not fit the model."""
