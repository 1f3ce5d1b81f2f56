"""What edgec asks of a device: run a command, move files, run a long job that survives a lost link."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from edgec.graph.errors import DeviceError


@dataclass(frozen=True)
class Completed:
    """A command that ended: exit code (negative: killed by that signal) and what it printed."""

    returncode: int
    stdout: str
    stderr: str


@dataclass(frozen=True)
class JobState:
    """A job as last seen: ``completed`` is None while it runs; ``progress`` is its last line on stderr."""

    completed: Completed | None
    progress: str = ""


class Device(Protocol):
    """A machine to measure on. Every method raises DeviceError when the machine cannot be reached."""

    @property
    def name(self) -> str:
        """Address that a person would give: 'local' or 'ssh://pi@raspberrypi'."""

    def __enter__(self) -> Device: ...

    def __exit__(self, *exc: object) -> None: ...

    def agent_command(self) -> tuple[str, ...]:
        """The command line that starts the measuring agent there; uploads the agent when it is not there."""

    def push(self, path: Path) -> str:
        """Bring a file there, whole or not at all, and return its path there."""

    def pull(self, remote: str, path: Path) -> None:
        """Bring a file from there to ``path``, whole or not at all."""

    def temporary(self, name: str) -> str:
        """A path there, ending in ``name``, for a file that a command makes; ``close`` removes it."""

    def run(self, command: Sequence[str], *, timeout: float = 60.0) -> Completed:
        """Run a short command and wait for it."""

    def start(self, command: Sequence[str], *, timeout: float) -> str:
        """Start a job that outlives the connection and is ended after ``timeout`` seconds; its identifier."""

    def poll(self, job: str) -> JobState:
        """Look at a job."""

    def stop(self, job: str) -> None:
        """End a job with all its processes and remove its files; nothing happens when it is gone."""

    def lock(self, wait: float, notify: Callable[[str], None]) -> AbstractContextManager[None]:
        """Be the only one who measures there.

        Waits up to ``wait`` seconds for another holder (``notify`` is told who that is), then raises
        DeviceError naming the holder.
        """

    def close(self) -> None:
        """Give up the connection."""


def run_job(
    device: Device,
    command: Sequence[str],
    *,
    timeout: float,
    notify: Callable[[str], None] = lambda text: None,
    period: float = 0.2,
) -> Completed:
    """Run a job to its end; an interrupt or an error here ends it there too.

    ``notify`` gets each new progress line. Raises DeviceError when the job took longer than ``timeout``.
    """
    job = device.start(command, timeout=timeout)
    said = ""
    try:
        while True:
            state = device.poll(job)
            if state.progress and state.progress != said:
                said = state.progress
                notify(said)
            if state.completed is not None:
                break
            time.sleep(period)
    finally:
        device.stop(job)
    if state.completed.returncode == TIMED_OUT:
        raise DeviceError(
            f"the run took longer than {timeout:.0f} s and was ended",
            where=device.name,
            hint="Raise --timeout.",
        )
    return state.completed


TIMED_OUT = 124  # what timeout(1) exits with
