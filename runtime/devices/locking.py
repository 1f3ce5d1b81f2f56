"""One measurement at a time on this host: an advisory lock that names its holder."""

from __future__ import annotations

import fcntl
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from edgec.graph.disk import disk_errors, private_folder
from edgec.graph.text import visible
from edgec.runtime.devices.base import busy


class FileLock:
    """The lock ``key``, held from creation to ``release``; the kernel frees it when the process ends anyhow.

    Waits up to ``wait`` seconds, telling ``notify`` who holds it, then raises DeviceError.
    """

    def __init__(self, key: str, wait: float, notify: Callable[[str], None]) -> None:
        root = Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir())
        folder = private_folder(
            root / f"edgec-{os.geteuid()}", hint="Set XDG_RUNTIME_DIR to a folder of your own."
        )
        path = folder / f"{key}.lock"
        with disk_errors(path):
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
            self._file = os.open(path, flags, 0o600)
        try:
            self._acquire(key, wait, notify)
        except BaseException:
            os.close(self._file)
            raise
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, f"process {os.getpid()} ({' '.join(sys.argv)[:80]})".encode(), 0)

    def _acquire(self, key: str, wait: float, notify: Callable[[str], None]) -> None:
        end, told = time.monotonic() + wait, False
        while True:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = visible(os.pread(self._file, 200, 0).decode("utf-8", "replace")) or "another process"
            else:
                return
            text = f"{holder} measures on it"
            if time.monotonic() >= end:
                raise busy(key, text)
            if not told:
                notify(f"{key} is in use: {text}; waiting up to {wait:.0f} s")
                told = True
            time.sleep(0.1)

    def release(self) -> None:
        """Let others in."""
        os.close(self._file)
