"""How a foreign file is read: the limits, and what it is trusted with."""

from __future__ import annotations

import re
from dataclasses import dataclass

from edgec.graph.errors import UsageError
from edgec.graph.memory import free_memory
from edgec.graph.values import NotAdmitted, Range
from edgec.graph.values import seconds as read_seconds

MB, GB = 1 << 20, 1 << 30
LEAST_MEMORY = 256 * MB
"""Less than that cannot hold the libraries that read a model."""
MOST_MODEL = (1 << 31) - 1
"""Bytes of the largest model: what one protobuf message can hold."""
_UNITS = {"": 1, "k": 1 << 10, "m": MB, "g": GB, "t": 1 << 40}


@dataclass(frozen=True)
class Loading:
    """Settings for reading model files. They belong to a call, never to a recipe, which is a file from elsewhere too.

    ``timeout``: seconds, and ``memory``: resident bytes, that reading one file may take; None: by the file's size and the
    free memory. ``trust``: run what the file asks for, such as a pickle in a .pt2. ``isolated``: read it in a child process;
    without, a hostile file can end this one.
    """

    timeout: float | None = None
    memory: int | None = None
    trust: bool = False
    isolated: bool = True

    def __post_init__(self) -> None:
        if self.timeout is not None:
            try:
                object.__setattr__(self, "timeout", read_seconds(self.timeout, Range(0, 1e7, above=True)))
            except NotAdmitted as error:
                raise UsageError(f"load timeout: {error}") from None
        if self.memory is not None:
            memory = self.memory if isinstance(self.memory, int) else parse_memory(str(self.memory))
            if memory < LEAST_MEMORY:
                why = f"{memory} bytes; the libraries that read a model need 256M"
                raise UsageError("the load memory is too small", why=why, hint="Write 512M or 2G.")
            object.__setattr__(self, "memory", memory)

    def seconds(self, size: int, *, torch: bool = False) -> float:
        """The time limit for a model of ``size`` bytes: two minutes and 2 s per MB, ten for what needs torch."""
        if self.timeout is not None:
            return self.timeout
        return (600.0 if torch else 120.0) + 2.0 * size / MB

    def bytes(self, size: int, *, torch: bool = False) -> int:
        """The memory limit for a model of ``size`` bytes: 2 GB (torch: 4 GB) and 24 times the size, or 80% of what is free."""
        if self.memory is not None:
            return self.memory
        wanted = (4 if torch else 2) * GB + 24 * min(size, MOST_MODEL)
        return max(LEAST_MEMORY, min(wanted, int(0.8 * free_memory())))


def parse_memory(text: str) -> int:
    """``2G``, ``512M`` in bytes. Raises UsageError."""
    match = re.fullmatch(r"(\d{1,12}(?:\.\d{1,6})?)\s*([kmgt]?)(?:i?b)?", text.strip().lower())
    if match is None:
        raise UsageError(f"not an amount of memory: {text!r}", hint="Write 512M or 2G.")
    return int(float(match[1]) * _UNITS[match[2]])


def print_memory(count: int) -> str:
    """Bytes as one would write them for --load-memory."""
    return f"{count / GB:.1f}G" if count >= GB else f"{count // MB}M"
