"""The child process that reads foreign files: its limits, its death, its words, and that it changes nothing in the result."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import onnx
import onnx_ir as ir
import pytest

from edgec.graph.errors import DataError, EdgecError, ModelError, UsageError
from edgec.graph.foreign import Child, DefectError, Loading, begin, load, models, process, wire
from edgec.graph.foreign.loading import GB, MB, parse_memory
from edgec.graph.foreign.process import CrashError, resident_bytes
from edgec.graph.listener import FOLDING, Listener
from edgec.graph.load import load as load_here
from tests.conftest import ROOT, parse

NET = (
    "net (float[1,3,8,8] x) => (float[1,4,4,4] y) <float[4,3,3,3] w, float[4] b> "
    "{ c = Conv<pads=[1,1,1,1]>(x, w, b)  r = Relu(c)  y = MaxPool<kernel_shape=[2,2], strides=[2,2]>(r) }"
)


def child(
    task: str, *, seconds: float = 20.0, memory: int = GB, litters: bool = False, **arguments: object
) -> Child:
    return Child(
        f"tests.graph.naughty:{task}",
        arguments,
        where="m.onnx",
        seconds=lambda size: seconds,
        memory=lambda size: memory,
        litters=litters,
    )


@pytest.mark.parametrize("end", ["return", "die", "hang"])
def test_what_a_child_that_litters_leaves_goes_with_it(
    end: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with child("litter", seconds=20.0 if end != "hang" else 3.0, litters=True, end=end) as one:
        if end == "return":
            assert Path(one.result().decode()).is_relative_to(tmp_path)
        else:
            with pytest.raises(ModelError):
                one.result()
    (own,) = tmp_path.iterdir()
    assert [path.name for path in own.iterdir()] == [".lock"]


@pytest.mark.parametrize(
    ("number", "why"),
    [
        (signal.SIGSEGV, "segmentation fault"),
        (signal.SIGFPE, "floating point exception"),
        (signal.SIGABRT, "aborted"),
        (signal.SIGKILL, "killed by the system"),
    ],
)
def test_a_signal_is_a_model_error_that_says_the_stage(number: int, why: str) -> None:
    with child("crash", signal=int(number)) as one, pytest.raises(ModelError, match=why) as caught:
        one.result()
    assert caught.value.exit_code == 3
    assert caught.value.where == "m.onnx"
    assert FOLDING in str(caught.value)


def test_an_end_without_an_answer_is_a_model_error() -> None:
    with child("leave") as one, pytest.raises(ModelError, match="exit code 9"):
        one.result()


def test_a_python_that_cannot_start_is_no_fault_of_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [])
    with child("leave") as one, pytest.raises(DefectError, match="could not start"):
        one.result()


def test_on_a_busy_machine_time_is_what_the_child_computed_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a limit of the user's own: twelve seconds on the clock, a share of a busy processor, are no reason to refuse."""
    one = Child(
        "tests.graph.naughty:hang", {}, where="", seconds=lambda _: 10.0, memory=lambda _: GB, patient=True
    )
    with one:
        for waited, computed, ends in (
            (9, 9, False),
            (12, 3, False),
            (12, 11, True),
            (49, 3, False),
            (51, 3, True),
        ):
            monkeypatch.setattr(process, "processor_seconds", lambda _, computed=computed: computed)
            one._began = time.monotonic() - waited
            assert one._took(10.0) is ends


def test_processor_time_is_read() -> None:
    before, until = process.processor_seconds(os.getpid()), time.process_time() + 0.1
    while time.process_time() < until:
        pass
    assert 0.05 < process.processor_seconds(os.getpid()) - before < 5
    assert process.processor_seconds(1 << 30) == float("inf")


def test_the_time_limit_ends_the_child() -> None:
    start = time.monotonic()
    with child("hang", seconds=1.0) as one, pytest.raises(CrashError, match=r"more than 1 s") as caught:
        one.result()
    assert caught.value.timed_out
    assert "--load-timeout" in str(caught.value)
    assert time.monotonic() - start < 50  # a busy machine; the child itself would take 60
    assert one._process.returncode == -signal.SIGKILL


def test_the_memory_limit_ends_the_child_whatever_it_reserves() -> None:
    limit = 300 * MB
    with child("eat", memory=limit) as one:
        peak = 0
        while one._watcher.is_alive():
            peak = max(peak, resident_bytes(one._process.pid))
            time.sleep(0.002)
        with pytest.raises(CrashError, match="300M of memory"):
            one.result()
    assert peak < 3 * limit
    with child("reserve", memory=limit) as one:
        assert one.result() == b"done"


def test_a_model_that_cannot_fit_is_refused_before_it_is_read(tmp_path: Path) -> None:
    read = tmp_path / "read"
    with child("say_size", size=800 * MB, read=str(read)) as one, pytest.raises(ModelError, match="not fit"):
        one.result()
    assert not read.exists()
    with child("say_size", size=8 * MB, read=str(read)) as one:
        assert one.result() == b"done"
    assert read.exists()


def test_errors_come_back_as_themselves_and_cut() -> None:
    with child("complain") as one, pytest.raises(DataError) as caught:
        one.result()
    assert (caught.value.what, caught.value.why, caught.value.hint) == ("what", "?", "hint")
    assert caught.value.where is not None
    assert len(caught.value.where) < 2100


def test_a_defect_of_ours_is_told_apart_and_brings_its_traceback() -> None:
    with child("stumble") as one, pytest.raises(DefectError, match="KeyError") as caught:
        one.result()
    assert not isinstance(caught.value, EdgecError)
    assert "in stumble" in caught.value.trace
    assert "\n" not in str(caught.value)  # the command line prints this; the traceback is for -vv


def test_what_libraries_print_reaches_nobody(capfd: pytest.CaptureFixture[str]) -> None:
    with child("chatter") as one:
        assert one.result() == b"answer"
    assert capfd.readouterr() == ("", "")


def test_large_answers_pass() -> None:
    with child("echo", count=20 * MB) as one:
        assert one.result() == bytes([7]) * (20 * MB)


@pytest.mark.parametrize(
    "frame",
    [
        b"Z" + bytes(8),
        b"E" + (1 << 40).to_bytes(8, "little"),
        b"R" + (1 << 40).to_bytes(8, "little"),
        b"B" + (3).to_bytes(8, "little") + b"-x1",
        b"E" + (3).to_bytes(8, "little") + b"[1]",
        b"E" + (2).to_bytes(8, "little") + b"{}",
        b"E" + (40).to_bytes(8, "little") + b'{"kind":"Exit","what":1,"where":2,"wh":3}'[:40],
    ],
)
def test_a_child_that_lies_is_a_model_error(frame: bytes) -> None:
    with child("lie", frame=frame.hex()) as one, pytest.raises(ModelError):
        one.result()


def test_errors_survive_the_wire() -> None:
    for kind in (ModelError, UsageError, DataError):
        given = kind("a", where="b", why=None, hint="d")
        back = wire.decode_error(wire.encode_error(given))
        assert type(back) is kind
        assert (back.what, back.where, back.why, back.hint) == ("a", "b", None, "d")
    assert type(wire.decode_error(wire.encode_error(CrashError("a", stage="s")))) is ModelError


def test_frames_come_whole_however_the_bytes_arrive() -> None:
    class Sink(bytearray):
        def write(self, data: bytes) -> None:
            self.extend(data)

        def flush(self) -> None: ...

    sink = Sink()
    wire.send(sink, wire.STAGE, b"a" * 10_000)  # cut to its bound
    wire.send(sink, wire.RESULT, b"bc")
    frames = wire.Frames(100)
    found = [frame for byte in sink for frame in frames.add(bytes([byte]))]
    assert found == [(wire.STAGE, b"a" * 4096), (wire.RESULT, b"bc")]


def test_the_child_looks_for_modules_where_the_parent_does_and_not_in_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit(5)")
    (tmp_path / "onnx.py").write_text("raise SystemExit(5)")
    monkeypatch.chdir(tmp_path)
    with child("where") as one:
        assert one.result().decode().split("\n") == [p for p in sys.path if isinstance(p, str)]


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs /proc to look for the orphan")
def test_the_child_dies_with_its_parent(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    code = (
        "import sys, time; sys.path[:] = sys.argv[2:]\n"
        "from edgec.graph.foreign import Child\n"
        "Child('tests.graph.naughty:pid_to', {'file': sys.argv[1]}, where='', seconds=lambda n: 60, memory=lambda n: 1 << 30)\n"
        "time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, str(file), str(ROOT), *sys.path])
    try:
        end = time.monotonic() + 30
        while not (file.exists() and file.read_text()) and time.monotonic() < end:
            time.sleep(0.02)
        orphan = int(file.read_text())
    finally:
        parent.kill()
        parent.wait()
    end = time.monotonic() + 10
    while _lives(orphan) and time.monotonic() < end:
        time.sleep(0.02)
    assert not _lives(orphan)


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split(") ")[-1][0] != "Z"
    except OSError:
        return False


def test_closing_ends_a_child_that_nobody_waits_for() -> None:
    with child("hang") as one:
        pass
    assert one._process.returncode == -signal.SIGKILL
    assert not one._watcher.is_alive()


@pytest.mark.foreign
def test_a_crash_names_the_node_where_the_probe_finds_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    onnx.save(parse(NET), tmp_path / "m.onnx")
    monkeypatch.setattr(models, "_LOAD", "tests.graph.naughty:crash")
    given = {"weights": None, "source": str(tmp_path / "m.onnx")}
    for task, more, where in (
        ("crash", {"stage": "node 'c1' (Conv)"}, "node 'c1' (Conv)"),
        ("leave", {}, None),
        ("stumble", {}, None),
    ):
        monkeypatch.setattr(models, "_PROBE", f"tests.graph.naughty:{task}")
        pending = models.Pending({**given}, Loading())
        pending._arguments = {**given, **more}
        with pending, pytest.raises(ModelError) as caught:
            pending.model()
        assert caught.value.where == str(tmp_path / "m.onnx") + (f": {where}" if where else "")
        assert "crashed" in caught.value.what


def test_the_probe_says_each_node_before_it_takes_it(tmp_path: Path) -> None:
    from edgec.graph.foreign.probe import probe

    class Heard(Listener):
        def __init__(self) -> None:
            self.words: list[str] = []

        def stage(self, text: str) -> None:
            self.words.append(text)

    onnx.save(parse(NET), tmp_path / "m.onnx")
    heard = Heard()
    probe({"source": str(tmp_path / "m.onnx"), "trust": False, "input_shape": None}, heard)
    assert heard.words == ["node 'c' (Conv)", "node 'r' (Relu)", "node 'y' (MaxPool)"]


@pytest.mark.foreign
def test_the_canonical_model_is_the_same_to_the_byte(tmp_path: Path) -> None:
    file = tmp_path / "m.onnx"
    onnx.save(parse(NET), file, save_as_external_data=True, location="m.data", size_threshold=0)
    with begin(file, Loading()) as pending:
        theirs = pending.model()
    assert serialised(theirs) == serialised(load_here(file))


@pytest.mark.foreign
@pytest.mark.slow
def test_real_models_are_the_same_to_the_byte(shared: Path) -> None:
    for file in sorted((shared / "data" / "models").glob("*.onnx")):
        assert serialised(load(file)) == serialised(load_here(file)), file.name


def serialised(model: ir.Model) -> bytes:
    return bytes(ir.to_proto(model).SerializeToString(deterministic=True))


@pytest.mark.foreign
def test_the_command_line_reads_in_a_child(tmp_path: Path) -> None:
    """One whole process: the error of the child is the command's, in one sentence with its exit code."""
    (tmp_path / "net.onnx").write_bytes(parse(NET).SerializeToString()[:100])
    command = [sys.executable, "-c", "from edgec.compiler.cli import main; main()", "inspect", "net.onnx"]
    around = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=around, timeout=120)
    assert done.returncode == 3
    assert done.stderr.startswith("error: net.onnx: not an ONNX file")
    assert done.stdout == ""
    assert [path.name for path in tmp_path.iterdir()] == ["net.onnx"]


@pytest.mark.parametrize(
    ("text", "value"), [("2G", 2 * GB), ("512M", 512 * MB), ("1.5gb", 3 * GB // 2), ("300MiB", 300 * MB)]
)
def test_amounts_of_memory(text: str, value: int) -> None:
    assert parse_memory(text) == value


@pytest.mark.parametrize("text", ["", "2X", "-1G", "1e9", "G", "9" * 40, "nan"])
def test_what_is_no_amount_of_memory(text: str) -> None:
    with pytest.raises(UsageError, match="512M or 2G"):
        parse_memory(text)


@pytest.mark.parametrize(
    "wrong", [{"timeout": 0}, {"timeout": -1}, {"timeout": float("nan")}, {"memory": 1000}]
)
def test_limits_that_cannot_be_kept(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        Loading(**wrong)  # type: ignore[arg-type]


def test_default_limits_follow_the_size_and_the_free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    from edgec.graph.foreign import loading

    plain = Loading()
    monkeypatch.setattr(loading, "free_memory", lambda: 100 * GB)
    assert plain.bytes(0) < plain.bytes(100 * MB) < plain.bytes(GB) <= 80 * GB
    assert plain.bytes(0, torch=True) > plain.bytes(0)
    assert plain.seconds(0) < plain.seconds(100 * MB)
    monkeypatch.setattr(loading, "free_memory", lambda: GB)
    assert plain.bytes(GB) == int(0.8 * GB)
    assert Loading(memory=3 * GB, timeout=5).bytes(GB) == 3 * GB
    assert Loading(memory=3 * GB, timeout=5).seconds(GB) == 5
