"""What all parts of the agent share."""

from __future__ import annotations

import sys
import unicodedata
from typing import Any, Dict

VERSION = 1
Json = Dict[str, Any]
_UNSEEN = ("Cc", "Cf", "Cs", "Zl", "Zp")
_JOINERS = "\u200c\u200d"


class AgentError(Exception):
    """What the person must know, in one line.

    ``kind`` is 'model', 'engine', 'accelerator' (TensorRT's part of the board), 'data', 'usage' or 'worker'.
    """

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


def visible(text: str, most: int = 1000) -> str:
    """``text`` of somebody else for a terminal: `edgec.graph.text.visible`, which is not at hand on a device.

    What is longer than ``most`` characters ends in three dots.
    """
    cut = text if len(text) <= most else text[: most - 3] + "..."
    return "".join(
        _written_out(c) if unicodedata.category(c) in _UNSEEN and c not in _JOINERS else c for c in cut
    )


def _written_out(char: str) -> str:
    code = ord(char)
    if char in "\n\r\t":
        return {"\n": "\\n", "\r": "\\r", "\t": "\\t"}[char]
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def first_line(error: BaseException) -> str:
    """The first line of an engine's error message, which may have forty."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__


def say(text: str) -> None:
    """Progress, for people: stdout carries the result alone."""
    print(text, file=sys.stderr, flush=True)
