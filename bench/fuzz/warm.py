"""The processes that read a model, forked from this one while it has no thread, in place of Pythons that import everything.

A case is then four times as fast. They do the same, `edgec.graph.foreign.child.main`, with the same pipes, session, signals and
limits. Cases that run through the true command start true ones (`worker.TRUE_SHARE`).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

SPARE = "fuzz-spare"
"""The name of a process that waits: its memory is nobody's."""


class Spare:
    """A process that waits until it is asked to be a child; it ends when its pipe closes. Made before any thread."""

    def __init__(self, earlier: list[Spare]) -> None:
        asked, ask = os.pipe()
        told, tell = os.pipe()
        pid = os.fork()
        if pid == 0:
            for one in earlier:
                one.stdin.close()
                one.stdout.close()
            os.close(ask)
            os.close(told)
            _wait(asked, tell)
        os.close(asked)
        os.close(tell)
        self.pid = pid
        self.returncode: int | None = None
        self._lock = threading.Lock()
        self.stdin: BinaryIO = os.fdopen(ask, "wb")
        self.stdout: BinaryIO = os.fdopen(told, "rb", buffering=0)
        self.stdout.read(1)  # it has a session of its own now, and can be killed by it

    def begin(self, environment: Mapping[str, str]) -> None:
        self.stdin.write(json.dumps(dict(environment)).encode() + b"\n")
        self.stdin.flush()

    def poll(self) -> int | None:
        with self._lock:  # edgec asks from two threads, as it may ask a Popen
            if self.returncode is None:
                ended, status = os.waitpid(self.pid, os.WNOHANG)
                self.returncode = os.waitstatus_to_exitcode(status) if ended else None
            return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """As `subprocess.Popen.wait` does."""
        end = None if timeout is None else time.monotonic() + timeout
        while (code := self.poll()) is None:
            if end is not None and time.monotonic() > end:
                raise subprocess.TimeoutExpired("a spare process", timeout or 0.0)
            time.sleep(0.002)
        return code


def install(count: int) -> None:
    """From here on the first ``count`` children of `edgec.graph.foreign.process` are spare processes; later ones are true."""
    import edgec.graph.foreign.process as process

    spares: list[Spare] = []
    for _ in range(count):
        spares.append(Spare(spares))

    def start(command: list[str], **given: Any) -> Any:
        if not spares:
            return subprocess.Popen(command, **given)
        one = spares.pop()
        one.begin(given["env"])
        return one

    process.subprocess = types.SimpleNamespace(**{**vars(subprocess), "Popen": start})  # type: ignore[assignment]


def _be_called(name: str) -> None:
    Path("/proc/self/comm").write_text(name, encoding="ascii")


def _wait(asked: int, tell: int) -> NoReturn:
    try:
        os.setsid()
        _be_called(SPARE)
        os.write(tell, b".")
        line = b""
        while not line.endswith(b"\n"):
            byte = os.read(asked, 1)
            if not byte:
                os._exit(0)
            line += byte
        _be_called("edgec")
        os.environ.clear()
        os.environ.update(json.loads(line))
        tempfile.tempdir = None
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for here, there in ((asked, 0), (tell, 1), (nowhere, 2)):
            os.dup2(here, there)
            os.close(here)
        sys.stdin, sys.stdout, sys.stderr = (
            os.fdopen(n, "r" if n == 0 else "w", closefd=False) for n in range(3)
        )
        from edgec.graph.foreign.child import main

        main()
    finally:
        os._exit(1)
