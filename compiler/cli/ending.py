"""Signals that ask the process to end: they end it like Ctrl-C, so that whatever is held is put away on the way out."""

from __future__ import annotations

import _thread
import signal
import sys
import threading
import time
from contextlib import suppress
from types import FrameType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

_PATIENCE = 5.0
"""Seconds in which a repeated signal does not break the putting away."""
_SOON = 0.01
"""Seconds until a signal that came where exceptions are dropped is told once more."""


class Ending:
    """While entered, SIGINT, SIGTERM and SIGHUP raise KeyboardInterrupt once; ``number`` is the signal that came.

    Signals that were ignored when the process started (``nohup``) stay ignored. Where a signal comes while C code calls back
    (threadpoolctl's look at the libraries, a finaliser), Python drops what is raised there: so it is raised again behind it.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self._last = 0.0
        self._before: dict[int, Any] = {}
        self._dropping = sys.unraisablehook

    @property
    def exit_code(self) -> int:
        """As shells have it: 130 for SIGINT, 143 for SIGTERM, 129 for SIGHUP."""
        return 128 + (self.number or signal.SIGINT)

    def __enter__(self) -> Ending:
        with suppress(
            ValueError
        ):  # only the main thread may set handlers; elsewhere signals are the caller's business
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._end)
        self._dropping, sys.unraisablehook = sys.unraisablehook, self._dropped
        return self

    def __exit__(self, *error: object) -> None:
        sys.unraisablehook = self._dropping
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _end(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.number is not None and now - self._last < _PATIENCE:
            return
        self.number, self._last = self.number or number, now
        raise KeyboardInterrupt

    def _dropped(self, what: UnraisableHookArgs) -> None:
        if self.number is None or not isinstance(what.exc_value, KeyboardInterrupt):
            self._dropping(what)
            return
        self._last = -_PATIENCE
        threading.Timer(_SOON, _tell, (self.number,)).start()


def _tell(number: int) -> None:
    """Send the main thread a signal, which ends a wait too; where threads get none, it comes behind that."""
    if hasattr(signal, "pthread_kill"):
        signal.pthread_kill(threading.main_thread().ident or 0, number)
    else:
        _thread.interrupt_main(signal.Signals(number))
