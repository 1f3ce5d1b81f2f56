"""An array that does not fit in memory, in a file: written whole or with an error, never cut short in silence."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from edgec.graph.disk import disk_errors
from edgec.graph.errors import EdgecError
from edgec.graph.scratch import MORE_SPACE

Array = np.ndarray[Any, np.dtype[Any]]


class Spill:
    """One array in one file. ``tofile`` and ``np.save`` lose a full disk's error; this does not.

    Another array may take its place: the system finds no new pages for bytes that are written over, which costs it several times
    as much as to copy them. So the file of a smaller one keeps its length.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = 0
        """Bytes on the disk: of the largest array so far."""
        self._shape: tuple[int, ...] = ()
        self._dtype: np.dtype[Any] = np.dtype(np.uint8)

    def write(self, array: Array) -> None:
        """Hold this array from now on. Raises EdgecError where the disk refuses it or took less than it was given."""
        flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        written = 0
        with disk_errors(self.path, needed=flat.nbytes, hint=MORE_SPACE):
            try:
                with self.path.open("r+b" if self.size else "wb", buffering=0) as stream:
                    while count := stream.write(flat.data[written:]):
                        written += count
            except OSError:
                self.remove()
                raise
        if written != flat.nbytes:
            self.remove()
            why = f"{written} bytes where {flat.nbytes} were given"
            raise EdgecError("a temporary file was cut short", where=str(self.path), why=why, hint=MORE_SPACE)
        self.size, self._shape, self._dtype = max(self.size, written), array.shape, array.dtype

    def read(self) -> Array:
        """The array. Raises EdgecError where the file is gone or no longer whole."""
        count = math.prod(self._shape)
        with disk_errors(self.path, verb="read"):
            flat = np.fromfile(self.path, self._dtype, count)
        if flat.size != count:
            raise EdgecError("a temporary file was cut short", where=str(self.path), hint=MORE_SPACE)
        return flat.reshape(self._shape)

    def remove(self) -> None:
        """Delete the file."""
        self.path.unlink(missing_ok=True)
        self.size = 0
