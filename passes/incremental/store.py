"""Activations of all samples, batch by batch: in memory up to a limit, then on disk."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np

from edgec.passes.incremental.spill import Spill

Array = np.ndarray[Any, np.dtype[Any]]

_numbers = itertools.count()


class ActivationStore:
    """Arrays by (name, batch). What exceeds ``limit`` bytes is written to ``folder`` and read back when asked for.

    Files of arrays that were dropped take the next ones, until `clear`. As a context it is empty at the end, whatever happened.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder, self.limit = folder, limit
        self.held = 0
        self.spilled = 0
        self._arrays: dict[tuple[str, int], Array | Spill] = {}
        self._free: list[Spill] = []
        self._prefix = f"activations-{next(_numbers)}"

    def __len__(self) -> int:
        return len(self._arrays)

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
        spill = self._file(array.nbytes)
        self._arrays[name, batch] = spill
        spill.write(array)
        self.spilled += array.nbytes

    def get(self, name: str, batch: int) -> Array:
        """The batch; raises KeyError where it was never put."""
        found = self._arrays[name, batch]
        return found.read() if isinstance(found, Spill) else found

    def drop_one(self, name: str, batch: int) -> None:
        found = self._arrays.pop((name, batch), None)
        if isinstance(found, Spill):
            self._free.append(found)
        elif found is not None:
            self.held -= found.nbytes

    def clear(self) -> None:
        """Drop everything, and the files with it."""
        for name, batch in list(self._arrays):
            self.drop_one(name, batch)
        while self._free:
            self._free.pop().remove()

    def _file(self, size: int) -> Spill:
        """For ``size`` bytes: of the free ones the smallest that is large enough, else the largest; where none is, a new one."""
        if not self._free:
            return Spill(self.folder / f"{self._prefix}-{next(_numbers)}.bin")
        best = min(self._free, key=lambda one: (one.size < size, abs(one.size - size)))
        self._free.remove(best)
        return best
