"""A process that has imported everything once and forks for every case. It never touches a hostile input itself.

Requests come as JSON lines on stdin, outcomes go as JSON lines to stdout. The fork happens before any library has made a thread.
Some cases run through the true command instead, as a check that the fork changes nothing.
"""

from __future__ import annotations

import faulthandler
import gc
import importlib
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import watch
from cell import Cell, Plan, Stock
from classify import KILL_SECONDS, MEMORY_MB, Outcome, Seen, verdict

WARM = (
    "numpy", "scipy.linalg", "onnx", "onnxruntime", "onnx_ir", "onnxscript", "onnxsim", "yaml", "PIL.Image", "rich.table",
    "jinja2", "edgec.compiler.driver", "edgec.compiler.deploy.bundle", "edgec.compiler.cli.compile_command",
    "edgec.compiler.cli.inspect_command", "edgec.compiler.cli.bench_command", "edgec.compiler.cli.verify_command",
    "edgec.compiler.cli.deploy_command", "edgec.compiler.cli.report_command", "edgec.compiler.cli.targets_command",
    "edgec.graph.tflite.read", "edgec.graph.load", "edgec.graph.channels", "edgec.graph.compare",
    "edgec.runtime.bench", "edgec.runtime.report", "edgec.targets", "edgec.passes.table", "doors", "kind_models",
    "kind_arrays", "kind_pictures", "kind_programs", "kind_texts", "kind_runs", "warm", "edgec.graph.foreign.child",
    "edgec.graph.foreign.tasks", "edgec.graph.foreign.probe", "edgec.runtime.trial",
)  # fmt: skip
TRUE_SHARE = 20
"""One case in so many runs through the true command."""
SPARES = 3
"""Processes that wait to read a model: what most commands need."""
GRACE = 1.0
"""Seconds that a process of the command may outlive it."""
WAIT = 0.02


def makers() -> dict[str, Callable[[random.Random, Cell, Stock], Plan]]:
    """The kinds of input."""
    import kind_arrays
    import kind_models
    import kind_pictures
    import kind_programs
    import kind_runs
    import kind_texts

    return {
        "onnx": kind_models.changed,
        "op": kind_models.sweep,
        "pt2": kind_programs.program,
        "tflite": kind_programs.flat,
        "recipe": kind_texts.recipe,
        "card": kind_texts.card,
        "labels": kind_texts.labels,
        "picture": kind_pictures.picture,
        "array": kind_arrays.array,
        "reply": kind_runs.reply,
        "run": kind_runs.run_folder,
        "cache": kind_runs.cache,
    }


class Worker:
    """One cell, used for one case after the other."""

    def __init__(self, out: Path, number: int, seed: int, limits: tuple[str, ...]) -> None:
        self._cell = Cell(out / "cells" / str(number))
        self._stock = Stock(out / "stock")
        self._seed = seed
        self._limits = limits
        self._findings = out / "findings"
        self._makers = makers()

    def run(self, request: dict[str, Any]) -> Outcome:
        """One case, from making its input to its class."""
        kind, number = request["kind"], request["number"]
        self._cell.make(self._stock.home)
        plan, true, seen = self._fork(request)
        name, where, also = verdict(seen)
        if true and name in ("traceback", "signal", "hang"):  # once more where its stack can be seen
            self._cell.make(self._stock.home)
            _, _, inner = self._fork({**request, "inside": True})
            where = verdict(inner)[1] or where
        said = seen.stderr[-1500:].decode("utf-8", "replace").strip()
        outcome = Outcome(
            kind, number, plan.argv, plan.done, name, where, seen.code, round(seen.seconds, 2), round(seen.cpu, 2), seen.rss_mb,
            said[-600:], true, also,
        )  # fmt: skip
        if name not in ("right", "clear error") and not request.get("quiet"):
            self._keep(f"{kind}-{number}", outcome, seen)
        return outcome

    def _keep(self, name: str, outcome: Outcome, seen: Seen) -> None:
        """The case's folder, what it said, and where it was: for a person to look at, and for `minimise`."""
        folder = self._findings / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for part in ("case", "home"):
            if watch.small(self._cell.root / part):
                shutil.copytree(
                    self._cell.root / part,
                    folder / part,
                    symlinks=True,
                    ignore=watch.no_files,
                    ignore_dangling_symlinks=True,
                )
        (folder / "outcome.json").write_text(json.dumps(outcome.to_dict(), indent=1), encoding="utf-8")
        (folder / "trace.txt").write_text(seen.trace, encoding="utf-8", errors="replace")
        (folder / "stdout.txt").write_bytes(seen.stdout[:100_000])
        (folder / "stderr.txt").write_bytes(seen.stderr[-100_000:])

    def _fork(self, request: dict[str, Any]) -> tuple[Plan, bool, Seen]:
        told, tell = os.pipe()
        wait, go = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(told)
            os.close(go)
            self._child(request, tell, wait)
        os.close(tell)
        os.close(wait)
        with os.fdopen(told, "rb") as stream:
            message = stream.read()
        plan, true = Plan((), ()), False
        if message:
            fields = json.loads(message)
            plan, true = Plan(tuple(fields["argv"]), tuple(fields["done"])), fields["true"]
        before = watch.Listing.of(self._cell)
        os.close(go)
        seen = self._watch(pid, bool(message), before, plan)
        return plan, true, seen

    def _watch(self, pid: int, made: bool, before: watch.Listing, plan: Plan) -> Seen:
        start, peak, killed, delays, seconds = time.monotonic(), 0, "", dict[int, float](), 0.0
        while True:
            ended, status, spent = os.wait4(pid, os.WNOHANG)
            if ended == pid:
                break
            running = watch.descendants(os.getpid())
            peak = max(peak, watch.resident(running))
            elapsed = time.monotonic() - start
            seconds = elapsed - watch.starved(running, delays)
            if not killed and (seconds > KILL_SECONDS or peak > 1.5 * MEMORY_MB * 2**20):
                killed = "hang" if seconds > KILL_SECONDS else "memory"
                self._stop(pid)
            time.sleep(WAIT if elapsed < 2 else 3 * WAIT)
        code, cpu = os.waitstatus_to_exitcode(status), spent.ru_utime + spent.ru_stime
        seconds = max(cpu, seconds, time.monotonic() - start - sum(delays.values()))
        left = self._survivors()
        after = watch.Listing.of(self._cell)
        changed = [
            name
            for name in before.changed(after)
            if name.split("/")[0] not in ("out.txt", "err.txt", "trace.txt")
        ]
        written = [name for name in changed if name in after.files]
        allowed = _may_write(plan.argv)
        root = self._cell.root
        return Seen(
            code=code,
            seconds=seconds,
            cpu=cpu,
            rss_mb=max(peak >> 20, spent.ru_maxrss >> 10),
            stdout=_head(root / "out.txt"),
            stderr=_head(root / "err.txt"),
            trace=_head(root / "trace.txt").decode("utf-8", "replace"),
            made=made,
            outside=tuple(name for name in changed if not name.startswith(allowed)),
            leaked=tuple(watch.leaks(self._cell, written)),
            left=(*left, *watch.litter(written)) if not killed else left,
            killed=killed,
        )

    def _stop(self, pid: int) -> None:
        """Ask for the stack, then kill everything."""
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGUSR1)
        time.sleep(0.3)
        watch.end_all([*watch.descendants(os.getpid())])

    def _survivors(self) -> tuple[str, ...]:
        """Processes that the command left running, by their command lines; they are ended here."""
        end = time.monotonic() + GRACE
        watch.end_all([pid for pid in watch.descendants(os.getpid()) if watch.is_spare(pid)])
        while True:
            with suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
            alive = watch.descendants(os.getpid())
            if not alive:
                return ()
            working = [pid for pid in alive if watch.words_of(pid)]  # one that is ending has no words left
            if time.monotonic() > end and (working or time.monotonic() > end + KILL_SECONDS):
                break
            time.sleep(WAIT)
        names = tuple(f"process {watch.words_of(pid)}" for pid in alive)
        watch.end_all(alive)
        with suppress(ChildProcessError):
            while True:
                os.waitpid(-1, 0)
        return names

    def _child(self, request: dict[str, Any], tell: int, wait: int) -> NoReturn:
        """Never returns."""
        code = 99
        try:
            code = self._make_and_run(request, tell, wait)
        except BaseException:
            with (self._cell.root / "trace.txt").open("a", encoding="utf-8") as stream:
                traceback.print_exc(file=stream)
        finally:
            with suppress(Exception):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)

    def _make_and_run(self, request: dict[str, Any], tell: int, wait: int) -> int:
        cell = self._cell
        os.setsid()
        os.chdir(cell.case)
        environment = cell.environment()
        os.environ.clear()
        os.environ.update(environment)
        tempfile.tempdir = None
        plan = self._plan(request)
        argv = _limited(plan.argv, self._limits)
        true = (
            not request.get("inside")
            and request["number"] % TRUE_SHARE == 7
            and argv[0] != "fuzz-data"
            and request["kind"] != "reply"
            and not any("\0" in word for word in argv)
        )
        words = [word.encode("utf-8", "backslashreplace").decode() for word in (*argv, *plan.done)]
        message = {"argv": words[: len(argv)], "done": words[len(argv) :], "true": true}
        os.write(
            tell,
            json.dumps(message).encode()[:60_000]
            if len(json.dumps(message)) < 60_000
            else json.dumps({**message, "done": ["long"]}).encode(),
        )
        os.close(tell)
        os.read(wait, 1)
        os.close(wait)
        self._redirect()
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (4 << 30, 4 << 30))
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
        if true:
            os.execve(Path(sys.executable).parent / "edgec", ["edgec", *argv], environment)
        return _command(argv, cell.root / "trace.txt", lies=request["kind"] == "reply")

    def _plan(self, request: dict[str, Any]) -> Plan:
        if "replay" in request:
            source = Path(request["replay"])
            for part in ("case", "home"):
                if (source / part).is_dir():
                    shutil.rmtree(self._cell.root / part)
                    shutil.copytree(source / part, self._cell.root / part, symlinks=True)
            os.chdir(self._cell.case)
            return Plan(tuple(request["argv"]), ("replayed",))
        if "given" in request:
            import kind_models

            shutil.copyfile(request["given"], self._cell.case / Path(request["given"]).name)
            return kind_models.given(Path(request["given"]), request["number"] % kind_models.GIVEN_TURNS)
        rng = random.Random(f"{self._seed}/{request['kind']}/{request['number']}")
        return self._makers[request["kind"]](rng, self._cell, self._stock)

    def _redirect(self) -> None:
        nowhere = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nowhere, 0)
        for descriptor, name in ((1, "out.txt"), (2, "err.txt")):
            file = os.open(self._cell.root / name, os.O_CREAT | os.O_WRONLY | os.O_TRUNC | os.O_APPEND)
            os.dup2(file, descriptor)
            os.close(file)
        sys.stdout = os.fdopen(1, "w", encoding="utf-8", errors="surrogateescape", closefd=False)
        sys.stderr = os.fdopen(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False)


def _command(argv: tuple[str, ...], trace: Path, *, lies: bool) -> int:
    """The command line in this process; where it dies, the stack goes to ``trace``."""
    import doors
    import warm

    import edgec.runtime.devices
    from edgec.compiler import cli

    if argv[0] in ("inspect", "compile", "verify", "bench"):
        warm.install(SPARES)
    stream = trace.open("w", encoding="utf-8", errors="replace")
    faulthandler.enable(stream)
    faulthandler.register(signal.SIGUSR1, stream)
    cli.COMMANDS[doors.NAME] = ("doors", "of the fuzzer")
    if lies:
        edgec.runtime.devices.open_device = doors.open_liar  # type: ignore[assignment]
    sys.argv = ["edgec", *argv]
    try:
        cli.main()
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 0 if ended.code is None else 1
        cause = ended.__context__
        if code == 70 and cause is not None:
            traceback.print_exception(type(cause), cause, cause.__traceback__, file=stream)
            stream.flush()
        return code
    return 0


def _limited(argv: tuple[str, ...], limits: tuple[str, ...]) -> tuple[str, ...]:
    """With the limits for loading, where this command takes them."""
    if not limits or argv[0] not in ("inspect", "compile", "verify", "bench", "deploy"):
        return argv
    command = importlib.import_module(f"edgec.compiler.cli.{argv[0]}_command").command
    known = {word for parameter in command.params for word in parameter.opts}
    pairs = [limits[i : i + 2] for i in range(0, len(limits), 2)]
    return (argv[0], *(word for pair in pairs if pair[0] in known for word in pair), *argv[1:])


def _may_write(argv: tuple[str, ...]) -> tuple[str, ...]:
    """Prefixes of names below the cell that this command may write."""
    allowed = ["tmp/", "home/.config", "home/.cache", "home/.local"]
    if "-o" in argv and "--dry-run" not in argv:
        allowed.append(f"case/{argv[argv.index('-o') + 1]}")
    return tuple(allowed)


def _head(path: Path, most: int = 25_000_000) -> bytes:
    with suppress(OSError), path.open("rb") as stream:
        return stream.read(most)
    return b""


def main() -> None:
    settings = json.loads(sys.stdin.readline())
    for name in WARM:
        importlib.import_module(name)
    with suppress(ImportError):
        importlib.import_module("torch")
    threads = next(
        line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("Threads")
    )
    if threads.split()[1] != "1":
        raise SystemExit("a library made a thread when it was imported; forks would be unsound")
    gc.collect()
    gc.freeze()
    watch.adopt_orphans()
    worker = Worker(Path(settings["out"]), settings["worker"], settings["seed"], tuple(settings["limits"]))
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        outcome = worker.run(json.loads(line))
        print(json.dumps(outcome.to_dict()), flush=True)


if __name__ == "__main__":
    main()
