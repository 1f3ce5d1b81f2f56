"""Activations of all samples, batch by batch: in memory up to a limit, then on disk."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from edgec.passes.incremental.spill import Spill

Array = np.ndarray[Any, np.dtype[Any]]

_numbers = itertools.count()


class ActivationStore:
    """Arrays by (name, batch). What exceeds ``limit`` bytes is written to ``folder`` and read back when asked for.

    As a context it is empty at the end, whatever happened.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder, self.limit = folder, limit
        self.held = 0
        self.spilled = 0
        self._arrays: dict[tuple[str, int], Array | Spill] = {}
        self._prefix = f"activations-{next(_numbers)}"

    def __enter__(self) -> ActivationStore:
        return self

    def __exit__(self, *error: object) -> None:
        self.clear()

    def put(self, name: str, batch: int, array: Array) -> None:
        """Keep one batch of one tensor, replacing what was there."""
        self.drop_one(name, batch)
        if self.held + array.nbytes <= self.limit:
            self.held += array.nbytes
            self._arrays[name, batch] = array
            return
        spill = Spill(self.folder / f"{self._prefix}-{next(_numbers)}.bin")
        self._arrays[name, batch] = spill
        spill.append(array)
        self.spilled += array.nbytes

    def get(self, name: str, batch: int) -> Array:
        """The batch; raises KeyError where it was never put."""
        found = self._arrays[name, batch]
        return found.read(0) if isinstance(found, Spill) else found

    def drop_one(self, name: str, batch: int) -> None:
        found = self._arrays.pop((name, batch), None)
        if isinstance(found, Spill):
            found.remove()
        elif found is not None:
            self.held -= found.nbytes

    def keep_only(self, names: Iterable[str]) -> None:
        """Drop every tensor that is not named."""
        wanted = set(names)
        for name, batch in list(self._arrays):
            if name not in wanted:
                self.drop_one(name, batch)

    def clear(self) -> None:
        """Drop everything."""
        self.keep_only(())
