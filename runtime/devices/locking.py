"""One measurement at a time per device: an advisory lock on this host that names its holder."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from edgec.graph.errors import DeviceError


def lock_folder() -> Path:
    """Folder of this user's locks."""
    base = os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()
    return Path(base) / f"edgec-{os.getuid()}"


@contextlib.contextmanager
def file_lock(key: str, name: str, wait: float, notify: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock ``key``; the kernel frees it when the process ends, however it ends.

    Waits up to ``wait`` seconds, telling ``notify`` who holds it, then raises DeviceError.
    """
    folder = lock_folder()
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(folder / f"{key}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _acquire(descriptor, name, wait, notify)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()} ({' '.join(sys.argv)[:80]})".encode(), 0)
        yield
    finally:
        os.close(descriptor)  # closing frees the lock


def _acquire(descriptor: int, name: str, wait: float, notify: Callable[[str], None]) -> None:
    end, told = time.monotonic() + wait, False
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 200, 0).decode("utf-8", "replace") or "another process"
        else:
            return
        if time.monotonic() >= end:
            raise DeviceError(
                "the device is in use",
                where=name,
                why=f"{holder} measures on it",
                hint="Wait, or raise --wait.",
            )
        if not told:
            notify(f"{name} is in use by {holder}; waiting up to {wait:.0f} s")
            told = True
        time.sleep(0.1)
