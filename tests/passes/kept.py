"""A checkpoint for tests of passes that learn."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Kept:
    """A checkpoint in memory; the run is cut off at the write number ``cut``."""

    cut: int
    data: bytes | None = None
    writes: int = 0

    def read(self) -> bytes | None:
        return self.data

    def write(self, data: bytes) -> None:
        self.data, self.writes = data, self.writes + 1
        if self.writes == self.cut:
            raise KeyboardInterrupt
