"""The parent's side of a child process: start it, watch its time and memory, take its answer as data."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from edgec.graph.errors import EdgecError, ModelError, UsageError
from edgec.graph.foreign import wire
from edgec.graph.foreign.loading import MOST_MODEL, print_memory
from edgec.graph.listener import STARTING
from edgec.graph.scratch import scratch_folder

PATIENCE = 5
TICK = 0.02
"""Seconds between two looks at the child's memory."""
_CODE = "import sys; sys.path[:] = sys.argv[1:]; from edgec.graph.foreign.child import main; main()"
"""The first statements import nothing: `-c` would look into the current folder, which may be the hostile file's."""


class DefectError(RuntimeError):
    """Our own code failed in the child; ``trace`` is the traceback there, which Python shows as this error's cause."""

    def __init__(self, what: str, trace: str) -> None:
        super().__init__(what)
        self.trace = trace
        self.__cause__ = RuntimeError(f"in the child process:\n{trace}")


class CrashError(ModelError):
    """The child ended without an answer: a signal, the memory limit, or the time limit. ``stage`` is its last word."""

    def __init__(self, what: str, *, stage: str, timed_out: bool = False, **more: str | None) -> None:
        super().__init__(what, **more)
        self.stage = stage
        self.timed_out = timed_out


class Child:
    """A task in a child process. The limits are functions of the bytes that the child says it reads, bounded by a model's most.

    ``task`` is 'module:function' of a function (arguments, listener) -> bytes; ``arguments`` must be JSON. ``litters``: its
    libraries leave temporary files, so it gets a temporary folder of its own, which goes when it ends, however that comes.
    ``patient``: on a busy machine the clock may show `PATIENCE` times as much, as long as it has not computed for so long.
    """

    def __init__(
        self,
        task: str,
        arguments: Mapping[str, Any],
        *,
        where: str,
        seconds: Callable[[int], float],
        memory: Callable[[int], int],
        litters: bool = False,
        patient: bool = False,
    ) -> None:
        if not sys.executable:
            raise UsageError(
                "no Python to start",
                where=where,
                why="sys.executable is empty",
                hint="Load with isolated=False.",
            )
        self._where, self._seconds, self._memory, self._patient = where, seconds, memory, patient
        self._began = time.monotonic()
        self._stage, self._size = STARTING, 0
        self._answer: tuple[bytes, bytes] | None = None
        self._failure: EdgecError | None = None
        path = [entry for entry in sys.path if isinstance(entry, str)]
        self._held = ExitStack()
        own = {"TMPDIR": str(self._held.enter_context(scratch_folder()))} if litters else {}
        self._process = subprocess.Popen(
            [sys.executable, "-c", _CODE, *path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "ORT_DISABLE_TELEMETRY": "1", **own},
            start_new_session=True,
        )
        request = {"task": task, "arguments": dict(arguments), "parent": os.getpid()}
        self._ask(json.dumps(request).encode() + b"\n")
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()

    @property
    def seconds_left(self) -> float:
        """Of the time limit, for the size known so far."""
        return self._seconds(self._size) - (time.monotonic() - self._began)

    def result(self) -> bytes:
        """Wait for the task's bytes. Raises its EdgecError, CrashError for a death or a broken limit, DefectError."""
        try:
            self._watcher.join()
        finally:
            self.close()
        if self._failure is not None:
            raise self._failure
        if self._answer is None:
            raise self._ended()
        kind, content = self._answer
        if kind == wire.ERROR:
            error = wire.decode_error(content)
            error.where = error.where or self._where
            raise error
        if kind == wire.DEFECT:
            raise DefectError(*wire.decode_defect(content))
        return content

    def close(self) -> None:
        """End the child, whatever it does."""
        self._kill()
        self._process.wait()
        self._watcher.join()
        for stream in (self._process.stdin, self._process.stdout):
            with suppress(OSError):
                if stream is not None:
                    stream.close()
        self._held.close()

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ask(self, line: bytes) -> None:
        stream = self._process.stdin
        if stream is not None:
            with suppress(BrokenPipeError):
                stream.write(line)
                stream.flush()  # it stays open: the child ends when it closes

    def _watch(self) -> None:
        """Read frames until the answer or the end of the pipe; kill the child when it breaks a limit."""
        stream = self._process.stdout
        if stream is None:
            return
        frames = wire.Frames(MOST_MODEL)
        while self._answer is None and self._failure is None:
            ready, _, _ = select.select([stream], [], [], TICK)
            data = os.read(stream.fileno(), 1 << 20) if ready else None
            if data == b"":  # it is about to end, or it closed the pipe: which, a moment tells
                with suppress(subprocess.TimeoutExpired):
                    self._process.wait(timeout=1.0)
                return
            try:
                self._take(frames.add(data or b""))
            except ValueError as error:
                self._failure = ModelError("the model cannot be read", where=self._where, why=str(error))
            self._check()
        self._kill()

    def _take(self, frames: list[tuple[bytes, bytes]]) -> None:
        for kind, content in frames:
            if kind == wire.STAGE:
                self._stage = content.decode("utf-8", "replace")
            elif kind == wire.SIZE:
                self._size = max(0, min(MOST_MODEL, int(content)))
                if self._fits():
                    self._ask(b"\n")
            else:
                self._answer = (kind, content)

    def _fits(self) -> bool:
        return 2 * self._size <= self._memory(self._size)

    def _check(self) -> None:
        if self._answer is not None:
            return
        seconds, memory = self._seconds(self._size), self._memory(self._size)
        if not self._fits():
            hint = "Raise --load-memory (load_memory=) if the model is sound."
            self._fail(f"a model of {self._size >> 20} MB does not fit into {print_memory(memory)}", hint)
        elif self._took(seconds):
            hint = "Raise --load-timeout (load_timeout=) if the model is sound."
            self._fail(f"reading it took more than {seconds:g} s", hint, timed_out=True)
        elif resident_bytes(self._process.pid) > memory:
            hint = "Raise --load-memory (load_memory=) if the model is sound."
            self._fail(f"reading it takes more than {print_memory(memory)} of memory", hint)

    def _took(self, seconds: float) -> bool:
        """Whether the child had more than that."""
        waited = time.monotonic() - self._began
        if waited <= seconds or not self._patient or waited > PATIENCE * seconds:
            return waited > seconds
        return processor_seconds(self._process.pid) > seconds

    def _fail(self, what: str, hint: str, *, timed_out: bool = False) -> None:
        why = f"while {self._stage}"
        self._failure = CrashError(
            what, stage=self._stage, timed_out=timed_out, where=self._where, why=why, hint=hint
        )

    def _ended(self) -> Exception:
        """The child ended by itself, without an answer."""
        code = self._process.returncode
        if self._stage == STARTING and code > 0:  # it never came as far as the file
            return DefectError(f"the child process could not start (exit code {code})", "")
        if code == -signal.SIGKILL:
            how = "killed by the system, for want of memory perhaps"
        elif code < 0:
            how = signal.strsignal(-code) or f"signal {-code}"
        else:
            how = f"exit code {code}"
        why = f"{how[0].lower()}{how[1:]} while {self._stage}"
        return CrashError("reading the model crashed", stage=self._stage, where=self._where, why=why)

    def _kill(self) -> None:
        if self._process.poll() is None:
            with suppress(OSError):
                os.killpg(self._process.pid, signal.SIGKILL)


def processor_seconds(pid: int) -> float:
    """What a process computed for, its threads and ended children together; endless where the system does not tell."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return float("inf")
    ticks = [int(word) for word in text.rpartition(")")[2].split()[11:15]]
    return sum(ticks) / os.sysconf("SC_CLK_TCK")


def resident_bytes(pid: int) -> int:
    """Memory that a process holds, in RAM or swapped out; address space that it only reserves does not count."""
    try:
        text = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    except FileNotFoundError:
        return 0 if Path("/proc/self").exists() else _resident_by_ps(pid)
    except OSError:
        return 0
    fields = [line.split() for line in text.splitlines() if line.startswith(("VmRSS:", "VmSwap:"))]
    return sum(int(words[1]) << 10 for words in fields)


def _resident_by_ps(pid: int) -> int:
    done = subprocess.run(["ps", "-o", "rss=", "-p", str(pid)], capture_output=True, text=True, check=False)
    words = done.stdout.split()
    return int(words[0]) << 10 if words and words[0].isdigit() else 0
