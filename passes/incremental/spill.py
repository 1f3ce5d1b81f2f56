"""Arrays that do not fit in memory, in a file: written whole or with an error, never cut short in silence."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import numpy as np

from edgec.graph.disk import disk_errors
from edgec.graph.errors import EdgecError
from edgec.graph.scratch import MORE_SPACE

Array = np.ndarray[Any, np.dtype[Any]]


class Spill:
    """Arrays in one file, one behind another. ``tofile`` and ``np.save`` lose a full disk's error; this does not."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._places: list[tuple[int, tuple[int, ...], np.dtype[Any]]] = []
        self._end = 0

    def __len__(self) -> int:
        return len(self._places)

    def append(self, array: Array) -> None:
        """Write one more. Raises EdgecError where the disk refuses it or took less than it was given."""
        flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        with disk_errors(self.path, needed=flat.nbytes, hint=MORE_SPACE):
            try:
                with self.path.open("ab") as stream:
                    stream.write(flat.data)
                    stream.flush()
                    size = os.fstat(stream.fileno()).st_size
            except OSError:
                self.remove()
                raise
        if size != self._end + flat.nbytes:
            why = f"{size} bytes where {self._end + flat.nbytes} were written"
            raise EdgecError("a temporary file was cut short", where=str(self.path), why=why, hint=MORE_SPACE)
        self._places.append((self._end, array.shape, array.dtype))
        self._end = size

    def read(self, index: int) -> Array:
        """Array number ``index``. Raises EdgecError where the file is gone or no longer whole."""
        offset, shape, dtype = self._places[index]
        count = math.prod(shape)
        with disk_errors(self.path, verb="read"):
            flat = np.fromfile(self.path, dtype, count, offset=offset)
        if flat.size != count:
            raise EdgecError("a temporary file was cut short", where=str(self.path), hint=MORE_SPACE)
        return flat.reshape(shape)

    def remove(self) -> None:
        """Delete the file."""
        self.path.unlink(missing_ok=True)
