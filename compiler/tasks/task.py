"""What every task has: how its answers are read from outputs, and how two networks' answers are compared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from edgec.compiler.tasks.names import Name

Array = np.ndarray[Any, np.dtype[Any]]
Truth = Sequence[Any] | Array
"""What is right for each sample, in the form of the task."""


class TaskTally(Protocol):
    """Running comparison of one network with the source (and with labels, where there are some), batch by batch."""

    errors: list[float]
    """By sample: how far the answer is from the source's, in the task's own terms; 0 where it is the same."""
    changed: list[bool]
    """By sample: whether the answer is another one."""

    def add(self, source: Sequence[Array], ours: Sequence[Array], truth: Truth | None) -> None:
        """One batch: outputs of both networks, in the source's layout, samples first; labels by sample."""

    def figures(self) -> dict[str, Any]:
        """Parts of the quality object of report.json, ``measures`` among them: the one that says most comes first."""


class Task(Protocol):
    """One reading of a network's outputs."""

    @property
    def name(self) -> Name:
        """The task's name, as in ``--task``."""

    def tally(self) -> TaskTally:
        """A comparison of nothing yet."""

    def answers(self, outputs: Sequence[Array]) -> list[dict[str, Any]]:
        """What the network answers to each sample, in JSON types: to be drawn."""
