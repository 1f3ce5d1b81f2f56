"""One measurement at a time on this host: an advisory lock that names its holder."""

from __future__ import annotations

import fcntl
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from edgec.runtime.devices.base import busy


class FileLock:
    """The lock ``key``, held from creation to ``release``; the kernel frees it when the process ends anyhow.

    Waits up to ``wait`` seconds, telling ``notify`` who holds it, then raises DeviceError.
    """

    def __init__(self, key: str, wait: float, notify: Callable[[str], None]) -> None:
        folder = Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()) / f"edgec-{os.getuid()}"
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._file = os.open(folder / f"{key}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
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
                holder = os.pread(self._file, 200, 0).decode("utf-8", "replace") or "another process"
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
