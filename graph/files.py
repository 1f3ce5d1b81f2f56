"""Opening a file that somebody else named or wrote: a plain file of a bounded size, and nothing that blocks or never ends."""

from __future__ import annotations

import codecs
import errno
import hashlib
import os
import stat
from pathlib import Path
from typing import BinaryIO, Protocol

from edgec.graph.errors import DataError, EdgecError
from edgec.graph.text import size

_BOMS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}


class Digest(Protocol):
    """What hashlib's objects do."""

    def update(self, data: bytes, /) -> None: ...


def open_regular(path: str | Path) -> BinaryIO:
    """Open for reading. Raises OSError, for a folder, a FIFO, a socket or a device too; opening a FIFO does not wait."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | getattr(os, "O_NONBLOCK", 0))
    except ValueError:  # a NUL in the name
        raise OSError(errno.EINVAL, "no file can have such a name") from None
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    raise OSError(
        errno.EINVAL, "it is a folder" if stat.S_ISDIR(mode) else f"it is no plain file but {_kind(mode)}"
    )


def read_bounded(path: str | Path, limit: int, what: str, error: type[EdgecError] = DataError) -> bytes:
    """All bytes of a plain file of at most ``limit`` bytes; memory never holds more than that.

    ``what`` the file should be, for the message: 'a recipe'. Raises ``error`` for anything else: missing, unreadable, a FIFO or
    device, or larger; also for a file without an end, such as some of /proc.
    """
    try:
        with open_regular(path) as stream:
            length = os.fstat(stream.fileno()).st_size
            data = stream.read(limit + 1) if length <= limit else b""
    except FileNotFoundError:
        raise error("no such file", where=str(path)) from None
    except OSError as problem:
        raise error(f"{what} cannot be read", where=str(path), why=reason(problem)) from problem
    if max(length, len(data)) > limit:
        held = size(length) if length > limit else f"more than {size(limit)}"
        raise error(f"too large for {what}", where=str(path), why=f"{held}; {size(limit)} are allowed")
    return data


def read_text(path: str | Path, limit: int, what: str, error: type[EdgecError] = DataError) -> str:
    """The text of a plain file of at most ``limit`` bytes: UTF-8, or UTF-16 with a byte order mark; without NUL characters.

    Raises ``error`` as `read_bounded` does, and for another encoding, with the line.
    """
    data = read_bounded(path, limit, what, error)
    mark = next((bom for bom in _BOMS if data.startswith(bom)), b"")
    try:
        text = data[len(mark) :].decode(_BOMS.get(mark, "utf-8"))
    except UnicodeDecodeError as problem:
        line = data.count(b"\n", 0, problem.start) + 1
        raise error(
            f"{what} is not UTF-8 text",
            where=f"{path}:{line}",
            why=f"byte 0x{data[len(mark) + problem.start]:02x} cannot be read",
            hint="Save it as UTF-8.",
        ) from None
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise error(f"{what} is not text", where=f"{path}:{line}", why="it holds a NUL character")
    return text


def update_digest(digest: Digest, path: Path) -> None:
    """Hash a plain file block by block. Raises DataError, naming the file."""
    try:
        with open_regular(path) as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    except OSError as problem:
        raise DataError("cannot be read", where=str(path), why=reason(problem)) from problem


def reason(problem: OSError) -> str:
    """Why the system refused, in its words, without the path."""
    return problem.strerror or str(problem) or type(problem).__name__


def _kind(mode: int) -> str:
    if stat.S_ISFIFO(mode):
        return "a FIFO"
    return "a socket" if stat.S_ISSOCK(mode) else "a device"


def identity(path: str, weights: str | None) -> tuple[str, int]:
    """(sha256, bytes) of a model's file; of the weights for a torch factory; of the name where there is no file."""
    file = Path(weights or path)
    digest = hashlib.sha256()
    if not file.is_file():
        digest.update(path.encode())
        return digest.hexdigest(), 0
    update_digest(digest, file)
    return digest.hexdigest(), file.stat().st_size


def is_factory(text: str) -> bool:
    """``module:function`` or ``file.py:function`` rather than the path of a file."""
    try:
        return ":" in text and not Path(text).exists()
    except (OSError, ValueError):  # a name too long for any file, or with a null byte
        return False
