"""Writing to disks: whole or not at all, and one clear message where a disk refuses."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from edgec.graph.errors import EdgecError
from edgec.graph.text import size

_REASONS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file is larger than the limit for files here",
    errno.EIO: "the disk reports an error",
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
    errno.EROFS: "it is read-only",
    errno.ELOOP: "it is a symbolic link",
    errno.ENOTDIR: "a part of its path is no folder",
    errno.ENOENT: "no such folder",
    errno.EISDIR: "it is a folder",
}
_HINTS = {
    errno.ENOSPC: "Free some space and run it again.",
    errno.EDQUOT: "Remove some files, or ask for a larger quota, and run it again.",
    errno.EFBIG: "Raise the limit (ulimit -f) and run it again.",
}


@contextmanager
def disk_errors(
    path: Path, *, needed: int | None = None, hint: str | None = None, verb: str = "write"
) -> Iterator[None]:
    """Turn an OSError into an EdgecError that says where and why.

    ``needed``: bytes that were to be written, said beside the free ones where the disk is full. ``hint``: what to do where space
    is short, in place of the usual words.
    """
    try:
        yield
    except OSError as error:
        raise disk_error(error, path, needed=needed, hint=hint, verb=verb) from error


def disk_error(
    error: OSError,
    path: Path | None,
    *,
    needed: int | None = None,
    hint: str | None = None,
    verb: str = "write",
) -> EdgecError:
    """The message for ``error``, which came up while ``path`` was written; None: the standard output."""
    code = error.errno or 0
    why = _REASONS.get(code, error.strerror or str(error))
    free = free_bytes(path) if path is not None and code == errno.ENOSPC else None
    if free is not None:
        need = f"{size(needed)} needed, " if needed is not None else ""
        why = f"{why} ({need}{size(free)} free)"
    named = next(
        (str(name) for name in (error.filename2, error.filename) if isinstance(name, (str, Path))), None
    )
    advice = hint if hint is not None and code in _HINTS else _HINTS.get(code)
    return EdgecError(f"cannot {verb}", where=named or str(path or "standard output"), why=why, hint=advice)


def is_disk_error(error: OSError) -> bool:
    """Whether a disk refused: full, over quota or a limit, read-only, or broken."""
    return error.errno in _HINTS or error.errno in (errno.EROFS, errno.EIO)


def free_bytes(path: Path) -> int | None:
    """Bytes that this user may still write where ``path`` is or would be; None where the system does not say."""
    for folder in (path, *path.absolute().parents):
        try:
            return shutil.disk_usage(folder).free
        except FileNotFoundError:
            continue
        except OSError:
            return None
    return None


def write_new(path: Path, data: bytes | str, *, hint: str | None = None, durable: bool = False) -> None:
    """Write a file where nobody looks yet; ``durable``: it is on the disk when this returns. Nothing is left of it where the disk
    refuses: raises EdgecError then.
    """
    raw = data.encode() if isinstance(data, str) else data
    with disk_errors(path, needed=len(raw), hint=hint):
        try:
            with path.open("wb") as stream:
                stream.write(raw)
                stream.flush()
                if durable:
                    os.fsync(stream.fileno())
        except OSError:
            path.unlink(missing_ok=True)
            raise


def write_whole(path: Path, data: bytes | str, *, hint: str | None = None, mode: int = 0o666) -> None:
    """Replace ``path`` by ``data`` in one step: it is whole on the disk, or stays as it was.

    What is written first lies beside it as ``.NAME.part``, locked; what a killed process left there is written over.
    ``mode`` is what the umask is taken from. Raises EdgecError where the disk refuses.
    """
    if path.exists() and not path.is_file():
        raise EdgecError("cannot write", where=str(path), why="it is there and is no file")
    raw = data.encode() if isinstance(data, str) else data
    part = path.with_name(f".{path.name}.part")
    with disk_errors(path, needed=len(raw), hint=hint), _claimed(part, mode) as stream:
        stream.write(raw)
        stream.flush()
        os.fsync(stream.fileno())
        part.replace(path)


@contextmanager
def _claimed(part: Path, mode: int) -> Iterator[IO[bytes]]:
    """``part``, empty, open for this process alone; removed where it was not renamed."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
    while True:
        stream = os.fdopen(os.open(part, flags, mode), "wb")
        if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
            stream.close()
            raise OSError(errno.EACCES, "it is no file", str(part))
        fcntl.flock(stream, fcntl.LOCK_EX)
        if _is_at(stream, part):
            break
        stream.close()  # while we waited, another process renamed it into place
    with stream:
        try:
            stream.truncate(0)
            yield stream
        finally:
            if _is_at(stream, part):
                part.unlink(missing_ok=True)


def _is_at(stream: IO[bytes], path: Path) -> bool:
    try:
        there = path.lstat()
    except FileNotFoundError:
        return False
    here = os.fstat(stream.fileno())
    return (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)


def refuse_foreign(folder: Path, *, hint: str = "Remove it, or choose another place.") -> None:
    """Raise EdgecError unless ``folder`` is a real folder of this user: no symbolic link, nobody else's."""
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode):
        why = "it is a symbolic link" if stat.S_ISLNK(found.st_mode) else "it is no folder"
        raise EdgecError("folder refused", where=str(folder), why=why, hint=hint)
    if found.st_uid != os.geteuid():
        raise EdgecError("folder refused", where=str(folder), why="it belongs to another user", hint=hint)


def private_folder(folder: Path, *, hint: str = "Remove it, or choose another place.") -> Path:
    """``folder``, made where it is missing, for this user alone. Raises EdgecError where it is not this user's own."""
    with disk_errors(folder, hint=hint):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        refuse_foreign(folder, hint=hint)
        folder.chmod(0o700)
    return folder


@contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[None]:
    """The lock file ``path``, held; the kernel frees it when the process ends, however that comes.

    Raises BlockingIOError where another process holds it and ``wait`` is off, OSError where there can be no such file.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield
    finally:
        os.close(handle)
