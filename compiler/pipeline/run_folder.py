"""The output folder of a run: nothing half-written, nothing of the user's overwritten.

Files are written into ``.part`` inside the folder. When the run is complete, ``.part`` becomes ``.ready`` in one step, and what
is in it is moved into place, the report last. A run that was killed before that step leaves the old files as they were, and the
next run removes its ``.part``; one that was killed behind it is finished by the next run.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from pathlib import Path
from types import TracebackType
from typing import Any

from edgec.graph.disk import disk_errors, refuse_foreign, write_new
from edgec.graph.errors import UsageError

MARK = ".edgec"
PART = ".part"
READY = ".ready"
CACHE = ".cache"
LOG = "log.jsonl"
RESUME = "Free some space and run again with --resume."


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
        """Create and lock. Raises UsageError for a folder that is no run, EdgecError where it cannot be written or holds folders
        of somebody else.
        """
        check_folder(self.path, force=self._force)
        with disk_errors(self.path, hint=RESUME):
            self._created = not self.path.exists()
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self.path / MARK, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW, 0o644)
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(self._lock)
                self._lock = None
                raise UsageError("another run is writing into this folder", where=str(self.path)) from None
            try:
                self._tidy()
            except BaseException:
                os.close(self._lock)
                raise
        return self

    def _tidy(self) -> None:
        """Finish or remove what a killed run left."""
        for name in (PART, READY, CACHE):
            if os.path.lexists(self.path / name):
                refuse_foreign(self.path / name)
        self._move()
        shutil.rmtree(self.part, ignore_errors=True)
        self.part.mkdir()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._move()
            shutil.rmtree(self.part, ignore_errors=True)
            if kind is not None and self._created and not self.cache.exists():
                (self.path / MARK).unlink(missing_ok=True)
                (self.path / LOG).unlink(missing_ok=True)
                if not any(self.path.iterdir()):
                    self.path.rmdir()
        finally:
            if self._lock is not None:
                os.close(self._lock)

    @property
    def part(self) -> Path:
        """Where files are written first."""
        return self.path / PART

    @property
    def _ready(self) -> Path:
        return self.path / READY

    @property
    def cache(self) -> Path:
        """Where finished passes are kept for ``--resume``."""
        return self.path / CACHE

    def write(self, name: str, data: bytes | str) -> Path:
        """Write one file into ``part`` and flush it to the disk."""
        target = self.part / name
        write_new(target, data, hint=RESUME, durable=True)
        return target

    def publish(self, stale: tuple[str, ...]) -> None:
        """Move everything in ``part`` into place; ``stale`` files of an older run that were not written again go."""
        with disk_errors(self.path):
            gone = {self.path / name for name in stale if not (self.part / name).exists()}
            self.part.rename(self._ready)
            self._move()
            for path in gone:
                path.unlink(missing_ok=True)

    def _move(self) -> None:
        """Move what is ready into place, also where an earlier run was killed while it did that."""
        if not self._ready.exists():
            return
        with disk_errors(self.path):
            for path in sorted(self._ready.iterdir(), key=lambda path: path.name.startswith("report")):
                path.replace(self.path / path.name)
            self._ready.rmdir()

    def log(self, entry: dict[str, Any]) -> None:
        """Append one line to ``log.jsonl``."""
        path = self.path / LOG
        with disk_errors(path, hint=RESUME):
            # A pipe that somebody put there would hold up the opening: without a reader it is refused instead.
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
            handle = os.open(path, flags, 0o666)
            with os.fdopen(handle, "a", encoding="utf-8") as stream:
                stream.write(json.dumps(entry, default=str) + "\n")

    def forget(self) -> None:
        """Start anew: the log of an earlier run goes."""
        with disk_errors(self.path):
            (self.path / LOG).unlink(missing_ok=True)
