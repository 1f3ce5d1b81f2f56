"""Temporary folders that do not outlive their process, even where it is killed outright.

All of them lie in ``$TMPDIR/edgec-<user id>``, which only this user may enter. Each has a lock beside it that its process holds:
the kernel frees it when the process ends, however that came, and the next process removes what nobody holds.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from edgec.graph.disk import disk_errors, locked, private_folder, write_new
from edgec.graph.errors import EdgecError

MORE_SPACE = "Free some space there, or set TMPDIR to a folder on a larger disk."
"""What to do where temporary files do not fit."""
_ELSEWHERE = "Set TMPDIR to a folder of your own."
_NAME = re.compile(r"\d+-[0-9a-f]{8}")
_LOCK = ".lock"


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """An empty folder for this process, gone at the end. Raises EdgecError where none can be made."""
    root = scratch_root()
    folder = root / f"{os.getpid()}-{secrets.token_hex(4)}"
    held = ExitStack()
    try:
        with disk_errors(folder, hint=MORE_SPACE), locked(root / _LOCK):
            _remove_stale(root)
            held.enter_context(locked(folder.with_suffix(_LOCK)))
            folder.mkdir(mode=0o700)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        folder.with_suffix(_LOCK).unlink(missing_ok=True)
        held.close()


def write_scratch(path: Path, data: bytes | str) -> None:
    """Write a file of a temporary folder. Raises EdgecError where it does not fit."""
    write_new(path, data, hint=MORE_SPACE)


def scratch_root() -> Path:
    """The folder that holds all temporary ones of this user. Raises EdgecError where it cannot be used."""
    return private_folder(temporary_folder() / f"edgec-{os.geteuid()}", hint=_ELSEWHERE)


def temporary_folder() -> Path:
    """Where temporary files of all programs lie: TMPDIR, else the system's. Raises EdgecError where TMPDIR is no folder."""
    named = os.environ.get("TMPDIR")
    if named and not Path(named).is_dir():
        raise EdgecError("TMPDIR is no folder", where=named, hint="Make it, or unset TMPDIR.")
    return Path(named or tempfile.gettempdir()).absolute()


def _remove_stale(root: Path) -> None:
    """Remove folders whose process is gone; ``root``'s own lock is held, so none is just being made."""
    for name in sorted({entry.name.removesuffix(_LOCK) for entry in root.iterdir()}):
        lock = root / f"{name}{_LOCK}"
        if not _NAME.fullmatch(name):
            continue
        with suppress(BlockingIOError), locked(lock, wait=False):
            shutil.rmtree(root / name, ignore_errors=True)
            lock.unlink(missing_ok=True)
