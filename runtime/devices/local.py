"""This machine as a device: the same agent, in a process group of its own."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from edgec.graph.errors import DeviceError
from edgec.graph.scratch import scratch_folder
from edgec.runtime.agent.watch import STARTER
from edgec.runtime.devices.base import FILE_MOST, TIMED_OUT, Completed, JobState, too_much
from edgec.runtime.devices.locking import FileLock
from edgec.runtime.pack import write_agent
from edgec.runtime.replies import ERRORS_MOST, REPLY_MOST, said

_GRACE = 3.0  # seconds between asking a process group to end and killing it


@dataclass
class _Job:
    process: subprocess.Popen[bytes]
    folder: Path
    deadline: float
    lock: FileLock | None


class LocalDevice:
    """This machine. Files stay where they are: ``push`` returns the path itself."""

    name = "local"

    def __init__(self, python: str = sys.executable) -> None:
        self._python = python
        self._jobs: dict[str, _Job] = {}
        self._scratch = ExitStack()
        self._folder: Path | None = None
        self._count = itertools.count()
        self._agent: Path | None = None

    def __enter__(self) -> LocalDevice:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def agent_command(self) -> tuple[str, ...]:
        if (
            self._agent is None
        ):  # into a new folder that only this user can enter: nobody can put another in its place
            self._agent = write_agent(self._home())
        return (self._python, str(self._agent))

    def use_python(self, python: str) -> None:
        self._python = python

    def push(self, path: Path) -> str:
        return str(path.resolve())

    def pull(self, remote: str, path: Path, *, most: int = FILE_MOST) -> None:
        if Path(remote).stat().st_size > most:
            raise too_much(self.name, most)
        if Path(remote).resolve() != path.resolve():
            part = path.with_name(path.name + ".part")
            shutil.copyfile(remote, part)
            part.replace(path)

    def temporary(self, name: str) -> str:
        return str(self._home() / f"{next(self._count)}-{name}")

    def _home(self) -> Path:
        """The folder of all that this device needs while it is open."""
        if self._folder is None:
            self._folder = self._scratch.enter_context(scratch_folder())
        return self._folder

    def run(self, command: Sequence[str], *, timeout: float = 60.0) -> Completed:
        job = self.start(command, timeout=timeout, wait=None, notify=lambda text: None)
        try:
            while (done := self.poll(job).completed) is None:
                time.sleep(0.02)
            return done
        finally:
            self.stop(job)

    def start(
        self, command: Sequence[str], *, timeout: float, wait: float | None, notify: Callable[[str], None]
    ) -> str:
        lock = FileLock(self.name, wait, notify) if wait is not None else None
        folder = self._home() / f"{next(self._count)}-job"
        try:
            folder.mkdir()
            with (folder / "out").open("wb") as out, (folder / "err").open("wb") as err:
                # A session of its own: Ctrl-C reaches only us, and we end the whole group in order. Its temporary files lie
                # among ours, so that they go with them whatever ends it.
                process = subprocess.Popen(
                    list(command),
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=err,
                    start_new_session=True,
                    env={**os.environ, "TMPDIR": str(folder), STARTER: str(os.getpid())},
                )
        except OSError as error:
            shutil.rmtree(folder, ignore_errors=True)
            if lock is not None:
                lock.release()
            raise DeviceError(f"cannot start {command[0]}", where=self.name, why=str(error)) from error
        self._jobs[str(process.pid)] = _Job(process, folder, time.monotonic() + timeout, lock)
        return str(process.pid)

    def poll(self, job: str) -> JobState:
        entry = self._jobs[job]
        code = entry.process.poll()
        if code is None and time.monotonic() > entry.deadline:
            _end_group(entry.process)
            code = TIMED_OUT
        out = entry.folder / "out"
        if out.stat().st_size > REPLY_MOST:
            raise too_much(self.name)
        stderr = said(_end_of(entry.folder / "err"))
        progress = stderr.strip().rpartition("\n")[2]
        if code is None:
            return JobState(None, progress)
        if code != 0 and not stderr:
            stderr = f"it said nothing in {entry.folder}: is that disk full?"
        return JobState(Completed(code, out.read_text(encoding="utf-8", errors="replace"), stderr), progress)

    def stop(self, job: str) -> None:
        entry = self._jobs.pop(job, None)
        if entry is not None:
            _end_group(entry.process)
            shutil.rmtree(entry.folder, ignore_errors=True)
            if entry.lock is not None:
                entry.lock.release()

    def close(self) -> None:
        for job in list(self._jobs):
            self.stop(job)
        self._scratch.close()
        self._folder = self._agent = None


def _end_of(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - ERRORS_MOST))
        return file.read(ERRORS_MOST)


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """Ask the process's group to end, then kill what is left of it; also when the leader is gone already."""
    for number, patience in ((signal.SIGTERM, _GRACE), (signal.SIGKILL, _GRACE)):
        try:
            os.killpg(process.pid, number)
        except (ProcessLookupError, PermissionError):  # macOS answers EPERM for a group of zombies
            break
        end = time.monotonic() + patience
        while process.poll() is None and time.monotonic() < end:
            time.sleep(0.02)
    process.wait()
