"""Runs that do not come to their end: a disk that refuses, a signal, a folder that somebody else filled."""

from __future__ import annotations

import ctypes
import errno
import io
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from edgec.compiler import cli
from edgec.compiler.cli import ending
from edgec.compiler.cli.ending import Ending
from edgec.compiler.pipeline.run_folder import RunFolder
from edgec.graph.errors import EdgecError
from tests.compiler.conftest import compile_args, write_files

Edgec = Callable[..., tuple[int, str, str]]
INT8 = ("--precision", "int8", "--passes", "fold quantize{correct=none}")
"""Two passes: one that is quick, and one that keeps tensors on the disk."""


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the temporary folders of these runs lie."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder


def leftovers(scratch: Path) -> list[str]:
    return [str(p.relative_to(scratch)) for p in scratch.rglob("*") if p.is_file() and p.name != ".lock"]


def artifacts(out: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in out.glob("model*")}


class Faulty(io.FileIO):
    """A file on a disk with room for so many more bytes, all files together."""

    room: float = 0
    code = errno.ENOSPC
    written = 0

    def write(self, data: Any) -> int:
        size = memoryview(data).nbytes
        fits = int(min(size, Faulty.room))
        if size and not fits:
            raise OSError(Faulty.code, os.strerror(Faulty.code))
        Faulty.room -= fits
        Faulty.written += fits
        return super().write(memoryview(data).cast("B")[:fits])


@contextmanager
def room_for(count: float, code: int = errno.ENOSPC) -> Iterator[None]:
    """Files that Python writes meanwhile lie on a disk with ``count`` free bytes."""
    real = io.open

    def opened(
        file: Any, mode: str = "r", buffering: int = -1, encoding: str | None = None, *rest: Any, **more: Any
    ) -> Any:
        if not set(mode) & set("wax+") or "r" in mode:
            return real(file, mode, buffering, encoding, *rest, **more)
        buffered = io.BufferedWriter(Faulty(file, mode.replace("b", "").replace("t", "")))
        return buffered if "b" in mode else io.TextIOWrapper(buffered, encoding=encoding)

    Faulty.room, Faulty.code, Faulty.written = count, code, 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(io, "open", opened)
        if hasattr(pathlib, "_NormalAccessor"):  # Python 3.10 holds on to io.open here
            patch.setattr(pathlib._NormalAccessor, "open", staticmethod(opened))
        yield


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The artifacts of a run with `INT8` that nothing disturbs; `Faulty.written` is what it writes."""
    folder = tmp_path_factory.mktemp("undisturbed")
    write_files(folder)
    with pytest.MonkeyPatch.context() as patch, room_for(float("inf")):
        patch.setattr(sys, "argv", ["edgec", *map(str, compile_args(folder, *INT8))])
        with pytest.raises(SystemExit) as caught:
            cli.main()
    assert caught.value.code == 0
    return artifacts(folder / "out")


@pytest.fixture
def old(files: Path) -> dict[str, bytes]:
    """The artifact of an earlier run in the folder that is compiled into."""
    (files / "out").mkdir()
    for name in (".edgec", "model.onnx"):
        (files / "out" / name).write_text("old")
    return artifacts(files / "out")


def test_wherever_the_disk_fills_up_a_run_ends_in_one_message(
    edgec: Edgec, files: Path, scratch: Path, undisturbed: dict[str, bytes], old: dict[str, bytes]
) -> None:
    places, room = set(), 0.0
    while True:
        with room_for(room):
            code, _, err = edgec(*compile_args(files, *INT8))
        if code == 0:
            break
        assert code == 3, err
        assert err.count("error:") == 1, err
        assert "cannot write: the disk is full" in err
        places.add(err.split(": cannot write")[0].rsplit("/", 1)[-1].split("-")[0])
        assert artifacts(files / "out") == old
        assert not (files / "out" / ".part").exists()
        assert leftovers(scratch) == []
        room = 1.25 * room + 4_000
    assert artifacts(files / "out") == undisturbed
    assert {"model.onnx", "report.html"} <= places, places


@pytest.mark.parametrize("code", [errno.EDQUOT, errno.EIO, errno.EROFS])
def test_whatever_the_disk_says(code: int, edgec: Edgec, files: Path) -> None:
    with room_for(1000, code):
        result, _, err = edgec(*compile_args(files))
    assert result == 3
    assert err.count("error:") == 1
    assert "cannot write" in err


def test_after_a_full_disk_resume_goes_on(edgec: Edgec, files: Path, undisturbed: dict[str, bytes]) -> None:
    kept = sum(map(len, undisturbed.values()))
    with room_for(2 * kept):  # the passes fit, the artifacts do not
        assert edgec(*compile_args(files, *INT8))[0] == 3
    code, _, err = edgec(*compile_args(files, *INT8, "--resume", "--time-passes"))
    assert code == 0
    assert "(cached)" in err
    assert artifacts(files / "out") == undisturbed


@pytest.mark.parametrize("command", [("targets", "list", "--json"), ("--help",)])
def test_results_that_cannot_be_written_are_an_error(command: tuple[str, ...]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "edgec", *command],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 3
    assert done.stderr.startswith("error: standard output: cannot write: the disk is full\n")
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


def start(files: Path, *more: str) -> subprocess.Popen[str]:
    arguments = [sys.executable, "-m", "edgec", *map(str, compile_args(files, *INT8, *more))]
    return subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def end(files: Path, number: signal.Signals) -> tuple[int, str]:
    """Start a run, end it when its first pass is done; its exit code and what it said."""
    log = files / "out" / "log.jsonl"
    log.unlink(missing_ok=True)
    with start(files) as process:
        while process.poll() is None and not (log.exists() and log.stat().st_size):
            time.sleep(0.002)
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
    return process.returncode, said


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (signal.SIGTERM, 143),
        pytest.param(signal.SIGHUP, 129, marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow),
        (signal.SIGKILL, -9),
    ],
)
def test_a_signal_ends_a_run_cleanly(
    number: signal.Signals,
    code: int,
    edgec: Edgec,
    files: Path,
    scratch: Path,
    undisturbed: dict[str, bytes],
    old: dict[str, bytes],
) -> None:
    found, said = end(files, number)
    assert found == code, said
    assert artifacts(files / "out") == old
    if number != signal.SIGKILL:
        assert said.strip() == "error: interrupted; run again with --resume to go on"
        assert leftovers(scratch) == []
        assert not (files / "out" / ".part").exists()
    result, _, err = edgec(*compile_args(files, *INT8, "--resume", "--time-passes"))
    assert result == 0, err
    assert "(cached)" in err
    assert artifacts(files / "out") == undisturbed
    assert leftovers(scratch) == []
    assert not (files / "out" / ".part").exists()


@pytest.fixture
def heard() -> Iterator[None]:
    """All three signals at their defaults: whoever started the tests may ignore some of them (nohup does)."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    old = [signal.signal(number, signal.SIG_DFL) for number in numbers]
    yield
    for number, handler in zip(numbers, old, strict=True):
        signal.signal(number, handler)


@pytest.mark.usefixtures("heard")
def test_a_signal_is_not_lost_where_c_calls_back() -> None:
    """Python drops what is raised in a callback of C: a run that was told to end then went on to its end."""
    called = ctypes.CFUNCTYPE(None)(lambda: signal.raise_signal(signal.SIGTERM))
    with Ending() as one:
        called()
        with pytest.raises(KeyboardInterrupt):
            time.sleep(20)
    assert one.exit_code == 143


@pytest.mark.usefixtures("heard")
def test_signals_interrupt_once_and_then_let_us_put_things_away(monkeypatch: pytest.MonkeyPatch) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    with Ending() as one:
        assert one.number is None
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            signal.raise_signal(number)  # while things are put away
        assert (one.number, one.exit_code) == (signal.SIGTERM, 143)
        monkeypatch.setattr(ending, "_PATIENCE", 0.0)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGHUP)
        assert one.exit_code == 143
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before


def test_a_run_under_nohup_goes_on() -> None:
    old = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Ending() as one:
            signal.raise_signal(signal.SIGHUP)
        assert one.number is None
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, old)


def test_in_another_thread_signals_are_the_callers_business() -> None:
    seen = []

    def enter() -> None:
        with Ending() as one:
            seen.append(one.exit_code)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert seen == [130]


def test_a_run_killed_while_it_moves_its_files_is_finished_by_the_next(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with RunFolder(out) as folder:
        folder.write("model.onnx", "old")
        folder.write("report.json", "old")
        folder.publish(stale=())
    with RunFolder(out) as folder:  # as the kill leaves it: complete, one file moved
        folder.write("model.onnx", "new")
        folder.write("report.json", "new")
        folder.part.rename(out / ".ready")
        (out / ".ready" / "model.onnx").replace(out / "model.onnx")
        os.close(folder._lock)
        folder._lock = os.open("/dev/null", os.O_RDONLY)
        with RunFolder(out) as following:
            assert (out / "report.json").read_text() == "new"
            assert (out / "model.onnx").read_text() == "new"
            assert not any(following.part.iterdir())
    assert not (out / ".ready").exists()


def test_publishing_removes_what_the_new_run_does_not_have(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "out") as folder:
        for name in ("a", "b", "c"):
            folder.write(name, "old")
        folder.publish(stale=())
    with RunFolder(tmp_path / "out") as folder:
        folder.write("a", "new")
        folder.publish(stale=("a", "b", "missing"))
    found = {p.name: p.read_text() for p in (tmp_path / "out").iterdir() if not p.name.startswith(".")}
    assert found == {"a": "new", "c": "old"}


@pytest.mark.parametrize("name", [".part", ".ready", ".cache"])
@pytest.mark.parametrize("resume", [False, True])
def test_linked_folders_in_a_run_are_refused(name: str, resume: bool, edgec: Edgec, files: Path) -> None:
    (files / "out").mkdir()
    (files / "out" / ".edgec").touch()
    (files / "elsewhere").mkdir()
    (files / "elsewhere" / "f").write_text("precious")
    (files / "out" / name).symlink_to(files / "elsewhere")
    code, _, err = edgec(*compile_args(files, *["--resume"] * resume))
    assert code == 3
    assert (
        err
        == f"error: {files / 'out' / name}: folder refused: it is a symbolic link\nRemove it, or choose another place.\n"
    )
    assert [p.name for p in (files / "elsewhere").iterdir()] == ["f"]


@pytest.mark.parametrize("name", [".edgec", "log.jsonl"])
def test_linked_files_in_a_run_are_not_written_through(name: str, edgec: Edgec, files: Path) -> None:
    (files / "out").mkdir()
    (files / "out" / ".edgec").touch()
    (files / "victim").write_text("precious")
    (files / "out" / name).unlink(missing_ok=True)
    (files / "out" / name).symlink_to(files / "victim")
    code, _, err = edgec(*compile_args(files, "--resume", "--passes", "fold"))
    assert code == 3
    assert "cannot write: it is a symbolic link" in err
    assert (files / "victim").read_text() == "precious"


def test_a_run_of_somebody_else_lends_no_model(
    edgec: Edgec, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder arrives complete, as an archive would: same files, same owner, everything but the other's key."""
    monkeypatch.setenv("XDG_STATE_HOME", str(files / "theirs"))
    assert edgec(*compile_args(files, *INT8))[0] == 0
    monkeypatch.setenv("XDG_STATE_HOME", str(files / "ours"))
    code, _, err = edgec(*compile_args(files, *INT8, "--resume", "--time-passes"))
    assert code == 0
    assert "cached" not in err
    warnings = json.loads((files / "out" / "report.json").read_text())["warnings"]
    assert [w for w in warnings if "computed anew" in w] == [
        "--resume: 2 entries of .cache not taken and computed anew: damaged, or not written by this user on this machine"
    ]
    code, _, err = edgec(*compile_args(files, *INT8, "--resume", "--time-passes"))
    assert err.count("(cached)") == 2


def test_two_runs_do_not_share_a_folder(tmp_path: Path) -> None:
    with (
        RunFolder(tmp_path / "out"),
        pytest.raises(EdgecError, match="another run"),
        RunFolder(tmp_path / "out"),
    ):
        pass


def test_a_pipe_in_the_place_of_the_log_is_refused_and_holds_nothing_up(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "out") as folder:
        os.mkfifo(folder.path / "log.jsonl")
        with pytest.raises(EdgecError, match="cannot"):
            folder.log({"a": 1})
