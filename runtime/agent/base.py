"""What all parts of the agent share."""

from __future__ import annotations

import sys
from typing import Any, Dict

VERSION = 1
Json = Dict[str, Any]


class AgentError(Exception):
    """What the person must know, in one line; ``kind`` is 'model', 'engine', 'data', 'usage' or 'worker'."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


def first_line(error: BaseException) -> str:
    """The first line of an engine's error message, which may have forty."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__


def say(text: str) -> None:
    """Progress, for people: stdout carries the result alone."""
    print(text, file=sys.stderr, flush=True)
