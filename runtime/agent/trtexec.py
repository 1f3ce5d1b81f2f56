"""NVIDIA's ``trtexec``: where it is, which TensorRT it belongs to, what its options are called there, and how it is run.

Options as in samples/common/sampleOptions.cpp of each release (NVIDIA/TensorRT): ``--workspace`` became ``--memPoolSize`` in 8.4,
``--buildOnly`` became ``--skipInference`` in 8.6, both old names went in 10, ``--int8`` and ``--fp16`` in 11. 11 also leaves the
copies out of the times, uses CUDA graphs and spins while it waits unless told otherwise: up to 10 it is told to.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any, Callable, List, Sequence, Tuple

from .base import AgentError

PLACE = "/usr/src/tensorrt/bin/trtexec"
"""Where JetPack puts it; it is not on PATH there."""
OLDEST = (8, 2)
_LOG_MOST = 2**24  # bytes of a log that are looked at, from its end
_PACKAGES = ("libnvinfer-bin", "tensorrt", "libnvinfer8", "libnvinfer10", "libnvinfer11")
Version = Tuple[int, int, int]


class Trtexec:
    """The program at ``path``, of TensorRT ``version``."""

    def __init__(self, path: str, version: Version) -> None:
        self.path, self.version = path, version

    @property
    def name(self) -> str:
        """The version as people write it: '8.5.2'."""
        return ".".join(map(str, self.version))

    def precisions(self, quantised: bool) -> List[str]:
        """Options for a file with or without Q/DQ. From 11 on the types in the file are the only way."""
        if self.version >= (11,):
            return []
        # int8 alone would be int8 and fp32: what stays float is to be fp16.
        return ["--int8", "--fp16"] if quantised else ["--fp16"]

    def build(self, workspace_mb: int, quantised: bool) -> List[str]:
        """Options of a build but for the files."""
        old = self.version < (8, 4)
        return [
            f"--workspace={workspace_mb}" if old else f"--memPoolSize=workspace:{workspace_mb}",
            "--buildOnly" if self.version < (8, 6) else "--skipInference",
            "--nvtxMode=verbose" if old else "--profilingVerbosity=detailed",
            *self.precisions(quantised),
        ]

    def equal_terms(self, graph: bool = True) -> List[str]:
        """Options that make every version measure the same: no copies, CUDA graphs, a thread that spins."""
        if self.version >= (11,):
            return []
        return ["--noDataTransfers", "--useSpinWait", *(["--useCudaGraph"] if graph else [])]

    def run(self, options: Sequence[str], log: Path, sample: Callable[[], Any], seconds: float) -> "Ended":
        """Run it to its end with everything it prints in ``log``; ``sample`` is called meanwhile, ten times a second.

        Raises AgentError where it cannot be started or takes longer than ``seconds``.
        """
        none = subprocess.DEVNULL
        with log.open("wb") as out:
            try:
                process = subprocess.Popen([self.path, *options], stdin=none, stdout=out, stderr=out)
            except OSError as error:
                raise AgentError(
                    "accelerator", f"{self.path} does not start: {error.strerror or error}"
                ) from error
            return _wait(process, log, sample, seconds)


class Ended:
    """How a run ended: exit code (negative: a signal), its log, peak memory in MB, hard faults, CPU seconds."""

    def __init__(self, code: int, text: str, used: Any) -> None:
        self.code, self.text = code, text
        self.peak_mb, self.faults = round(used.ru_maxrss / 1024, 1), used.ru_majflt
        self.cpu = used.ru_utime + used.ru_stime

    @property
    def killed(self) -> bool:
        """Whether the system ended it: for want of memory, as a rule."""
        return self.code == -signal.SIGKILL


def find() -> Trtexec:
    """The board's trtexec. Raises AgentError (kind 'accelerator') where there is none, or one that is too old."""
    path = PLACE if os.access(PLACE, os.X_OK) else shutil.which("trtexec")
    if path is None:
        why = f"no TensorRT here: neither {PLACE} nor a trtexec on PATH"
        raise AgentError("accelerator", f"{why}; on a Jetson: sudo apt install tensorrt")
    version = installed(path)
    if version[:2] < OLDEST:
        raise AgentError(
            "accelerator", f"TensorRT {'.'.join(map(str, version))} is too old: 8.2 is the oldest known"
        )
    return Trtexec(path, version)


def installed(path: str) -> Version:
    """The version of the program itself, which its banner tells; the package's where it tells none.

    Two versions can be installed beside each other (NVIDIA/TensorRT#3912), so the program's word is taken first.
    """
    banner = re.search(r"\[TensorRT v(\d{4,6})\]", _said([path, "--help"]))
    if banner:
        return decoded(int(banner[1]))
    listed = _said(["dpkg-query", "-W", "-f", "${Package} ${Version}\\n", *_PACKAGES])
    for package in _PACKAGES:
        found = re.search(rf"^{package} (\d+)\.(\d+)\.(\d+)", listed, re.MULTILINE)
        if found:
            return int(found[1]), int(found[2]), int(found[3])
    raise AgentError("accelerator", f"{path} does not say which TensorRT it is of, and neither does dpkg")


def decoded(number: int) -> Version:
    """8502 is 8.5.2; from 10 on 101303 is 10.13.3."""
    if number < 10000:
        return number // 1000, number // 100 % 10, number % 100
    return number // 10000, number // 100 % 100, number % 100


def _said(command: Sequence[str]) -> str:
    pipe, none = subprocess.PIPE, subprocess.DEVNULL
    try:
        done = subprocess.run(
            command, stdin=none, stdout=pipe, stderr=subprocess.STDOUT, timeout=60, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout[:_LOG_MOST].decode("utf-8", "replace")


def _wait(process: Any, log: Path, sample: Callable[[], Any], seconds: float) -> Ended:
    """Wait with ``wait4``, which tells what memory this one process took."""
    end = time.monotonic() + seconds
    try:
        while True:
            pid, status, used = os.wait4(process.pid, os.WNOHANG)
            if pid:
                break
            if time.monotonic() > end:
                raise AgentError("worker", f"trtexec took longer than {seconds:.0f} s and was ended")
            sample()
            time.sleep(0.1)
    except BaseException:
        process.kill()
        process.wait()
        raise
    process.returncode = code = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
    return Ended(code, read_end(log), used)


def read_end(log: Path) -> str:
    """The last part of a log."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _LOG_MOST))
        return file.read().decode("utf-8", "replace")
