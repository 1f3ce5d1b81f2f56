"""Signals that ask the process to end: they end it like Ctrl-C, so that whatever is held is put away on the way out."""

from __future__ import annotations

import signal
import time
from contextlib import suppress
from types import FrameType
from typing import Any

_PATIENCE = 5.0
"""Seconds in which a repeated signal does not break the putting away."""


class Ending:
    """While entered, SIGINT, SIGTERM and SIGHUP raise KeyboardInterrupt once; ``number`` is the signal that came.

    Signals that were ignored when the process started (``nohup``) stay ignored.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self._last = 0.0
        self._before: dict[int, Any] = {}

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
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _end(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.number is not None and now - self._last < _PATIENCE:
            return
        self.number, self._last = self.number or number, now
        raise KeyboardInterrupt
