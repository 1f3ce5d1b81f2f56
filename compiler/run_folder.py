"""The output folder of a run: nothing half-written, nothing of the user's overwritten.

Files are written into ``.part`` inside the folder and renamed into place at the end, the report last. A killed run leaves the
old artifacts as they were; its ``.part`` is removed by the next run.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from edgec.graph.errors import EdgecError, UsageError

MARK = ".edgec"
PART = ".part"
CACHE = ".cache"
LOG = "log.jsonl"


def check_folder(path: Path, *, force: bool) -> None:
    """Raise UsageError where a run cannot be written into ``path``; nothing is written."""
    if path.exists() and not path.is_dir():
        raise UsageError("this is a file, not a folder", where=str(path))
    above = next(folder for folder in (path, *path.parents) if folder.exists())
    if not above.is_dir():
        raise UsageError("cannot write", where=str(path), why=f"{str(above)!r} is a file, not a folder")
    if not os.access(above, os.W_OK | os.X_OK):
        raise UsageError("cannot write", where=str(path), why=f"permission denied in {str(above)!r}")
    if path.is_dir() and any(path.iterdir()) and not (path / MARK).exists() and not force:
        why = "it is not empty and is not a run of edgec"
        raise UsageError(
            "output folder refused", where=str(path), why=why, hint="Choose another, or add --force."
        )


class RunFolder:
    """A run's folder, locked while the run lasts. Use as a context manager."""

    def __init__(self, path: Path, *, force: bool = False) -> None:
        self.path = path
        self._force = force
        self._created = False
        self._lock: int | None = None

    def __enter__(self) -> RunFolder:
        """Create and lock. Raises UsageError for a folder that is no run, EdgecError where it cannot be written."""
        check_folder(self.path, force=self._force)
        with disk_errors(self.path):
            self._created = not self.path.exists()
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self.path / MARK, os.O_CREAT | os.O_RDWR, 0o644)
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(self._lock)
                self._lock = None
                raise UsageError("another run is writing into this folder", where=str(self.path)) from None
            shutil.rmtree(self.part, ignore_errors=True)
            self.part.mkdir()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        shutil.rmtree(self.part, ignore_errors=True)
        if kind is not None and self._created and not (self.path / CACHE).exists():
            (self.path / MARK).unlink(missing_ok=True)
            (self.path / LOG).unlink(missing_ok=True)
            if not any(self.path.iterdir()):
                self.path.rmdir()
        if self._lock is not None:
            os.close(self._lock)

    @property
    def part(self) -> Path:
        """Where files are written first."""
        return self.path / PART

    @property
    def cache(self) -> Path:
        """Where finished passes are kept for ``--resume``."""
        return self.path / CACHE

    def write(self, name: str, data: bytes | str) -> Path:
        """Write one file into ``part`` and flush it to the disk."""
        target = self.part / name
        with disk_errors(self.path), target.open("wb") as stream:
            stream.write(data.encode() if isinstance(data, str) else data)
            stream.flush()
            os.fsync(stream.fileno())
        return target

    def publish(self, stale: tuple[str, ...]) -> None:
        """Rename everything in ``part`` into place; ``stale`` files of an older run that were not written again go."""
        with disk_errors(self.path):
            fresh = {entry.name for entry in self.part.iterdir()}
            for name in sorted(fresh, key=lambda name: name.startswith("report")):
                (self.part / name).replace(self.path / name)
            for name in stale:
                if name not in fresh:
                    (self.path / name).unlink(missing_ok=True)

    def log(self, entry: dict[str, Any]) -> None:
        """Append one line to ``log.jsonl``."""
        with disk_errors(self.path), (self.path / LOG).open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(entry, default=str) + "\n")


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn what the file system says into one clear message."""
    try:
        yield
    except OSError as error:
        reasons = {
            errno.ENOSPC: "the disk is full",
            errno.EACCES: "permission denied",
            errno.EROFS: "it is read-only",
        }
        why = reasons.get(error.errno or 0, str(error.strerror or error))
        hint = "Free some space and run again with --resume." if error.errno == errno.ENOSPC else None
        raise EdgecError("cannot write", where=str(error.filename or path), why=why, hint=hint) from error
