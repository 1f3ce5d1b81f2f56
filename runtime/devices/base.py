"""What edgec asks of a device: run a command, move files, run a long job that survives a lost link."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from edgec.graph.errors import DeviceError
from edgec.runtime.replies import REPLY_MOST

FILE_MOST = 2**32
"""Bytes of a file that a device may send back."""


@dataclass(frozen=True)
class Completed:
    """A command that ended: exit code (negative: killed by that signal) and what it printed.

    ``stdout`` has at most REPLY_MOST bytes. ``stderr`` is the last part of it, and its lines can be shown to people.
    """

    returncode: int
    stdout: str
    stderr: str


@dataclass(frozen=True)
class JobState:
    """A job as last seen: ``completed`` is None while it runs; ``progress`` is its last line on stderr, for people."""

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

    def use_python(self, python: str) -> None:
        """Run the agent with this interpreter from now on: the one that has the engines."""

    def push(self, path: Path) -> str:
        """Bring a file there, whole or not at all, and return its path there."""

    def pull(self, remote: str, path: Path, *, most: int = FILE_MOST) -> None:
        """Bring a file of at most ``most`` bytes from there to ``path``, whole or not at all."""

    def temporary(self, name: str) -> str:
        """A path there, ending in ``name``, for a file that a command makes; ``close`` removes it."""

    def run(self, command: Sequence[str], *, timeout: float = 60.0) -> Completed:
        """Run a short command and wait for it."""

    def start(
        self, command: Sequence[str], *, timeout: float, wait: float | None, notify: Callable[[str], None]
    ) -> str:
        """Start a job that outlives the connection and is ended after ``timeout`` seconds; its identifier.

        With ``wait`` the job is the only one of its kind on the device: it waits that many seconds for
        another to end (``notify`` or the job's progress tells whose), and then ends with BUSY, or DeviceError
        is raised.
        """

    def poll(self, job: str) -> JobState:
        """Look at a job."""

    def stop(self, job: str) -> None:
        """End a job with all its processes and remove its files; nothing happens when it is gone."""

    def close(self) -> None:
        """Give up the connection."""


TIMED_OUT = 124  # what timeout(1) exits with
BUSY = 75  # EX_TEMPFAIL: another job held the device for as long as this one would wait


def run_job(
    device: Device,
    command: Sequence[str],
    *,
    timeout: float,
    wait: float | None = None,
    notify: Callable[[str], None] = lambda text: None,
    period: float = 0.2,
) -> Completed:
    """Run a job to its end; an interrupt or an error here ends it there too.

    ``notify`` gets each new progress line. Raises DeviceError when the job took longer than ``timeout`` seconds
    or when, with ``wait``, another job held the device for longer than that.
    """
    job = device.start(command, timeout=timeout, wait=wait, notify=notify)
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
        text = f"the run took longer than {timeout:.0f} s and was ended"
        raise DeviceError(text, where=device.name, hint="Raise --timeout.")
    if wait is not None and state.completed.returncode == BUSY:
        raise busy(device.name, said)
    return state.completed


def too_much(name: str, most: int = REPLY_MOST) -> DeviceError:
    """A command printed without end."""
    why = f"more than {most / 2**20:.0f} MB where an answer was expected; it was ended"
    return DeviceError("the device sends too much", where=name, why=why)


def busy(name: str, why: str) -> DeviceError:
    """Another job holds the device."""
    return DeviceError("the device is in use", where=name, why=why, hint="Try again later, or raise --wait.")
