"""The frames that the child writes and the parent reads, and errors as data.

A frame is one letter, eight bytes of length, and the content. The parent takes nothing from the child on trust: lengths are
bounded, texts are cut, the class of an error is looked up in a table.
"""

from __future__ import annotations

import json
import struct
from typing import Any, Protocol

from edgec.graph import errors
from edgec.graph.errors import EdgecError, ModelError

STAGE, SIZE, ERROR, DEFECT, RESULT = b"S", b"B", b"E", b"D", b"R"
_HEAD = struct.Struct("<cQ")
_MOST = {STAGE: 1 << 12, SIZE: 1 << 6, ERROR: 1 << 16, DEFECT: 1 << 16}
_TEXT = 2000
_KINDS = {
    kind.__name__: kind
    for kind in (
        errors.ModelError,
        errors.UnsupportedError,
        errors.UsageError,
        errors.DataError,
        errors.PassError,
        errors.DeviceError,
    )
}


class Sink(Protocol):
    """What frames are written to."""

    def write(self, data: bytes, /) -> Any: ...
    def flush(self) -> Any: ...


def send(sink: Sink, kind: bytes, content: bytes) -> None:
    """Write one frame; content above the bound of its kind is cut."""
    content = content[: _MOST.get(kind, len(content))]
    sink.write(_HEAD.pack(kind, len(content)))
    sink.write(content)
    sink.flush()


class Frames:
    """Collects bytes and gives the frames in them. ``most`` bounds a result."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._held = bytearray()

    def add(self, data: bytes) -> list[tuple[bytes, bytes]]:
        """The frames that ``data`` completes. Raises ValueError for what no child of ours would write."""
        self._held += data
        found = []
        while len(self._held) >= _HEAD.size:
            kind, length = _HEAD.unpack_from(self._held)
            if kind not in (*_MOST, RESULT) or length > _MOST.get(kind, self._most):
                raise ValueError("a frame that nobody writes")
            if len(self._held) < _HEAD.size + length:
                break
            found.append((kind, bytes(self._held[_HEAD.size : _HEAD.size + length])))
            del self._held[: _HEAD.size + length]
        return found


def encode_error(error: EdgecError) -> bytes:
    """An error as JSON."""
    kind = next((name for name, known in _KINDS.items() if type(error) is known), "ModelError")
    texts = {key: getattr(error, key) for key in ("what", "where", "why", "hint")}
    return json.dumps({"kind": kind, **{key: _cut(text) for key, text in texts.items()}}).encode()


def decode_error(content: bytes) -> EdgecError:
    """The error again, or a ModelError where the content is none."""
    try:
        values = json.loads(content)
        kind, texts = _KINDS[values["kind"]], {k: _cut(values[k]) for k in ("what", "where", "why", "hint")}
        return kind(texts.pop("what") or "the model cannot be read", **texts)
    except (ValueError, KeyError, TypeError, RecursionError):
        return ModelError("the model cannot be read", why="its reader sent an unreadable answer")


def encode_defect(error: BaseException, trace: str) -> bytes:
    """What went wrong in our own code, with the traceback."""
    return json.dumps({"what": _cut(f"{type(error).__name__}: {error}"), "trace": trace[-20_000:]}).encode()


def decode_defect(content: bytes) -> tuple[str, str]:
    """(what, traceback)."""
    try:
        values = json.loads(content)
        return str(values["what"])[:_TEXT], str(values["trace"])[:20_000]
    except (ValueError, KeyError, TypeError, RecursionError):
        return "an unreadable answer", ""


def _cut(text: object) -> str | None:
    if text is None:
        return None
    if not isinstance(text, str):
        raise TypeError("not a text")
    plain = text.encode("utf-8", "replace").decode("utf-8")  # a lone surrogate cannot be printed
    return plain if len(plain) <= _TEXT else plain[:_TEXT] + "..."
