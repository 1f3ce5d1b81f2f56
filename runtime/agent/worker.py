"""The process that holds one engine and one model and infers when asked, and the parent's handle on it."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import re
import resource
import select
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Callable, List

from .base import AgentError, Json
from .engine import Engine
from .engines import PREFERRED, TFLITE_RESOLVERS, made_up_feeds, open_engine, read_feeds
from .machine import Machine

_PR_SET_PDEATHSIG = 1
_ANSWER_MOST = 2**28  # bytes of one answer: a burst of 5 s of the shortest inferences has 40 MB


def burst(invoke: Callable[[], None], runs: int, seconds: float, discard: int) -> List[int]:
    """Nanoseconds of each inference: until there are ``runs`` of them and ``seconds`` have passed."""
    clock = time.perf_counter_ns
    for _ in range(discard):
        invoke()
    times: List[int] = []
    end = clock() + int(seconds * 1e9)
    while True:
        start = clock()
        invoke()
        stop = clock()
        times.append(stop - start)
        if stop >= end and len(times) >= runs:
            return times


def memory_mb() -> tuple[float, float, float]:
    """(peak, present, swapped out) resident memory of this process in MB."""
    text = Machine().read("/proc/self/status")
    found = dict(re.findall(r"^(VmHWM|VmRSS|VmSwap):\s+(\d+) kB", text, re.MULTILINE))
    if not found:  # macOS: in bytes, and the peak only
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        return round(peak, 2), round(peak, 2), 0.0
    peak, now, swap = (int(found.get(key, "0")) / 1024.0 for key in ("VmHWM", "VmRSS", "VmSwap"))
    return round(peak, 2), round(now, 2), round(swap, 2)


def serve() -> int:
    """Body of the worker process: JSON lines come on stdin and are answered on the original stdout."""
    with contextlib.suppress(
        OSError, AttributeError
    ):  # Linux: die with the parent, so that no orphan keeps a core
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever an engine prints goes to stderr and cannot break the protocol

    def answer(data: Json) -> None:
        answers.write(json.dumps(data) + "\n")
        answers.flush()

    try:
        config = json.loads(sys.stdin.readline())
        if config["cores"]:
            os.sched_setaffinity(0, config["cores"])
        engine = _load(config, answer)
        gc.collect()
        gc.disable()
        for line in sys.stdin:
            answer(_burst_reply(engine, json.loads(line)))
    except AgentError as error:
        answer({"error": str(error), "kind": error.kind})
        return 3
    return 0


def _load(config: Json, answer: Callable[[Json], None]) -> Engine:
    """Load engine, model, and inputs, infer once, and answer with what that took."""
    start = time.perf_counter()
    name = config["engine"] or (PREFERRED.get(Path(config["path"]).suffix) or ["onnxruntime"])[0]
    with contextlib.suppress(ImportError, AttributeError):  # what is missing is said by open_engine, in full
        __import__(TFLITE_RESOLVERS[name][0] + ".interpreter" if name in TFLITE_RESOLVERS else "onnxruntime")
    imported = time.perf_counter()
    engine_rss_mb = memory_mb()[1]
    engine = open_engine(config["path"], config["engine"], config["threads"], config["shapes"])
    loaded = time.perf_counter()
    engine.feed(next(read_feeds(config["inputs"], engine)) if config["inputs"] else made_up_feeds(engine))
    first = burst(engine.invoke, 1, 0.0, 0)[0]
    answer(
        {
            "engine": engine.name,
            "engine_version": engine.version,
            "delegate": engine.delegate,
            "notices": engine.notices,
            "inputs": [[name, list(shape), str(dtype)] for name, shape, dtype in engine.inputs],
            "import_ms": round((imported - start) * 1e3, 3),
            "load_ms": round((loaded - imported) * 1e3, 3),
            "first_ms": round(first / 1e6, 4),
            "engine_rss_mb": engine_rss_mb,
        }
    )
    return engine


def _burst_reply(engine: Engine, request: Json) -> Json:
    faults = _hard_faults()
    times = burst(engine.invoke, request["runs"], request["seconds"], request["discard"])
    faults = _hard_faults() - faults
    peak, _, swap = memory_mb()
    return {"ns": times, "cpu": time.process_time(), "faults": faults, "peak_rss_mb": peak, "swap_mb": swap}


def _hard_faults() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_majflt


class Worker:
    """One artifact in its own process, seen from the parent.

    ``facts`` is what loading it told; ``cpu`` the CPU seconds that the process had used by its last answer.
    """

    def __init__(self, config: Json, timeout: float) -> None:
        self.config, self.timeout = config, timeout
        self.cpu, self.faults, self.peak_rss_mb, self.swap_mb = 0.0, 0, 0.0, 0.0
        self._buffer = b""
        self._log: Any = tempfile.TemporaryFile()  # noqa: SIM115  (closed in close)
        self._process: Any = subprocess.Popen(
            [*own_command(), "worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env={**os.environ, "OMP_NUM_THREADS": str(config["threads"])},
        )
        try:
            self.facts = self._ask(config)
        except BaseException:
            self.close()
            raise

    def burst(self, runs: int, seconds: float, discard: int = 0) -> list[float]:
        """Milliseconds of each inference of a burst."""
        reply = self._ask({"runs": runs, "seconds": seconds, "discard": discard})
        self.cpu = reply["cpu"]
        self.faults += reply["faults"]
        self.peak_rss_mb, self.swap_mb = reply["peak_rss_mb"], max(self.swap_mb, reply["swap_mb"])
        return [ns / 1e6 for ns in reply["ns"]]

    def _ask(self, request: Json) -> Json:
        end = time.monotonic() + self.timeout
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._failed() from None
        while b"\n" not in self._buffer:
            ready, _, _ = select.select([self._process.stdout], [], [], max(0.0, end - time.monotonic()))
            if not ready:
                raise AgentError("worker", f"no answer within {self.timeout:.0f} s; raise --timeout")
            chunk = os.read(self._process.stdout.fileno(), 1 << 20)
            if not chunk:
                raise self._failed()
            self._buffer += chunk
            if len(self._buffer) > _ANSWER_MOST:
                raise AgentError("worker", f"the engine's process answered more than {_ANSWER_MOST >> 20} MB")
        line, _, self._buffer = self._buffer.partition(b"\n")
        try:
            reply: Json = json.loads(line.decode("utf-8"))
        except ValueError:
            raise AgentError("worker", "the engine's process answered what is not JSON") from None
        if "error" in reply:
            raise AgentError(reply["kind"], reply["error"])
        return reply

    def _failed(self) -> AgentError:
        code = self._process.wait()
        self._log.seek(0)
        lines = self._log.read().decode("utf-8", "replace").splitlines()
        tail = " | ".join([line.strip() for line in lines if line.strip()][-3:])
        how, kind = f"ended with exit code {code}", "worker"
        if -code in (signal.SIGSEGV, signal.SIGFPE, signal.SIGABRT, signal.SIGBUS):
            kind = "model"  # an engine that works crashes over one model, not over all
        if code < 0:
            how = f"was killed by signal {-code}" + (" (out of memory?)" if code == -signal.SIGKILL else "")
        return AgentError(kind, f"the engine's process {how}" + (f": {tail}" if tail else ""))

    def close(self) -> None:
        """End the process and wait for it."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._log):
            with contextlib.suppress(OSError):
                stream.close()


def own_command() -> list[str]:
    """How to start this agent again: the one-file archive, or the package when it runs from a source tree."""
    archive = Path(sys.argv[0])
    if archive.suffix == ".pyz":
        return [sys.executable, str(archive.resolve())]
    return [sys.executable, "-m", __package__]
