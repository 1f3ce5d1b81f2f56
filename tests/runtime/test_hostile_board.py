"""A board that lies: every reply is data. Wrong ones are exit 4 with the field; right ones reach the terminal as text."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from edgec.compiler.cli import main
from edgec.compiler.deploy.accelerator import Engines
from edgec.graph import text as graph_text
from edgec.graph.errors import DeviceError, EdgecError, ModelError
from edgec.runtime.agent.base import visible
from edgec.runtime.bench import BenchOptions, LayerModel, bench, compare, device_info, outputs, profile
from edgec.runtime.check import check_target
from edgec.runtime.devices import Completed, Device, JobState, run_job
from edgec.runtime.devices.local import LocalDevice
from edgec.runtime.devices.ssh import SshDevice
from edgec.runtime.measurement import Measurement
from edgec.runtime.replies import (
    REPLY_MOST,
    VALUES_MOST,
    Bench,
    Build,
    Failure,
    Info,
    Outputs,
    Part,
    Profile,
    SelfTest,
    parse,
)
from edgec.targets import target

from .standin import ADDRESS, HASTE, StandIn

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
DIGITS = EXAMPLES / "digits.onnx"
Json = dict[str, Any]

STATE: Json = {
    "clock_mhz": 1500.0, "governor": "ondemand", "temperature_c": 51.5, "throttled": "0x50000", "swapped_pages": 3,
    "available_mb": 900.5, "loadavg": [0.5, 0.4, 0.3], "power_w": {"VDD_IN": 6.0}, "cooling": 0, "events": 0,
    "gpu_mhz": 624.8,
}  # fmt: skip
WINDOW: Json = {
    "t": 5.0, "median_ms": 2.0, "p90_ms": 2.5, "runs": 9, "clock_mhz": 1500.0, "temperature_c": 60.0, "throttled": None,
    "power_w": None,
}  # fmt: skip
RECORD: Json = {
    "bytes": 7, "sha256": "0" * 64, "engine": "onnxruntime", "engine_version": "1.31.1", "delegate": "CPU", "threads": 4,
    "cores": [0, 1, 2, 3], "runs": 50, "seconds": 2.0, "min_ms": 1.0, "p10_ms": 1.1, "median_ms": 1.2, "p90_ms": 1.3,
    "p99_ms": 1.4, "mean_ms": 1.25, "import_ms": 100.0, "load_ms": 10.0, "first_ms": 5.0, "warmup_runs": 9,
    "warmup_seconds": 1.0, "settled": True, "engine_rss_mb": 30.0, "peak_rss_mb": 40.0, "hard_faults": 0, "valid": True,
    "invalid": [], "notices": ["the host is busy: other processes used 0.50 cores during the run"], "emulated": False,
    "noise": {"other_cores": 0.5, "measured_cores": 0.1, "steal": 0.0}, "before": STATE, "after": STATE,
    "inputs": [["x", [1, 1, 8, 8], "float32"]], "power_w": {"VDD_IN": 6.5}, "sustained": [WINDOW], "samples_ms": [1.1, 1.3],
}  # fmt: skip
INFO: Json = {
    "board": "Raspberry Pi 4 Model B Rev 1.4", "arch": "aarch64", "os": "Debian GNU/Linux 12", "glibc": "2.36",
    "python": "3.11.2", "clusters": [{"core": "Cortex-A72", "count": 4, "clock_mhz": 1800}], "isa": ["neon"],
    "memory_mb": 3795, "engines": {"onnxruntime": {"works": True, "version": "1.31.1"}}, "emulated": False, "state": STATE,
    "tensorrt": "8.2.1",
}  # fmt: skip
GOOD: dict[type[Part], Json] = {
    Bench: {"artifacts": [RECORD], "ratios": [{"ratio": 0.5, "p10": 0.4, "p90": 0.6, "rounds": 9}]},
    Info: INFO,
    Profile: {"layers": [{"name": "conv", "op": "Conv", "us": 3.5, "share": 1.0, "nodes": ["conv"]}]},
    Build: {
        "engines": [
            {"artifact": "a.onnx", "engine": "a.engine", "kind": "fp16", "seconds": 90.5, "kept": False, "why": None},
            {"artifact": "b.onnx", "engine": None, "kind": None, "seconds": None, "kept": False, "why": "no int8"},
        ]
    },
    Outputs: {
        "engine": "litert", "engine_version": "2.3.0", "delegate": "XNNPACK", "inputs": [["x", [1, 8, 8, 1], "int8"]],
        "outputs": [["y", [1, 10], "int8"]], "quantised": {"x": [0.5, -128]}, "notices": [],
    },
    SelfTest: {
        "artifacts": [{"artifact": "model.onnx", "precision": "fp32", "passed": True, "skipped": False, "result": "bit-equal"}]
    },
}  # fmt: skip
TARGETS = (target("rpi4"), target("jetson-nano"))
SPOILT = "\x1b[31m\x07[bold]no[/bold]<script>\u202e\r\n\u2028\x9b"
HOSTILE = [
    "null", "true", "-1", "NaN", "Infinity", "-Infinity", "1e400", "9" * 400, "9" * 5000, "0.5", '"text"', '""', "[]", "{}", "[[1]]",
    '{"a": 1}', json.dumps(SPOILT), json.dumps("x" * 9000), json.dumps([SPOILT] * 300), '"\\ud800"', "[" + "0," * 5000 + "0]",
    "[" * 300 + "]" * 300,
]  # fmt: skip


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a reply, containers too."""
    if path:
        yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from leaves(item, (*path, key))


def spoilt(value: Any, path: tuple[Any, ...], text: str | None) -> str:
    """The JSON of ``value`` with ``text`` at ``path``, or without what is there."""
    mark = "@here@"
    copy = json.loads(json.dumps(value))
    at = copy
    for key in path[:-1]:
        at = at[key]
    if text is None:
        del at[path[-1]]
        return json.dumps(copy)
    at[path[-1]] = mark
    return json.dumps(copy).replace(json.dumps(mark), text)


def consume(answer: Part) -> None:
    """What edgec does with an answer."""
    if isinstance(answer, Bench):
        for record in answer.artifacts:
            found = Measurement.of(record, artifact="a.onnx", device="ssh://x")
            json.dumps(found.to_dict(), allow_nan=False)
            assert (found.runtime + "".join(found.notices)).isprintable()
    if isinstance(answer, Info):
        for described in TARGETS:
            json.dumps(check_target(answer, described).to_dict(), allow_nan=False)
    if isinstance(answer, SelfTest):
        assert isinstance(answer.passed, bool)
    if isinstance(answer, Build):
        json.dumps(Engines(answer.engines).to_dict(), allow_nan=False)
        assert len(Engines(answer.engines).lines()) == len(answer.engines)


def well_said(error: DeviceError) -> bool:
    said = str(error).replace("\n", "")
    assert said.isprintable()
    assert "answer is not understood" in said
    return len(said) < 800 and error.exit_code == 4


@pytest.mark.parametrize("kind", GOOD)
def test_good_replies_are_taken(kind: type[Part]) -> None:
    answer = parse(kind, json.dumps({"agent": 1, **GOOD[kind]}), "ssh://x")
    assert isinstance(answer, kind)
    consume(answer)


@pytest.mark.parametrize("kind", GOOD)
def test_any_value_at_any_place_is_taken_as_data_or_refused_by_name(kind: type[Part]) -> None:
    refused = 0
    for path in leaves(GOOD[kind]):
        for text in (None, *HOSTILE):
            try:
                answer = parse(kind, spoilt(GOOD[kind], path, text), "ssh://x")
            except DeviceError as error:
                refused += well_said(error)
            else:
                consume(answer)
    assert refused > 10 * len(GOOD[kind])


@pytest.mark.parametrize(
    ("kind", "path", "text", "said"),
    [
        (Bench, ("artifacts", 0, "median_ms"), None, "artifacts.0.median_ms is missing"),
        (Bench, ("artifacts", 0, "median_ms"), '"fast"', "artifacts.0.median_ms: it should be a valid number, not 'fast'"),
        (Bench, ("artifacts", 0, "median_ms"), "NaN", "artifacts.0.median_ms"),
        (Bench, ("artifacts", 0, "median_ms"), "0", "artifacts.0.median_ms: it should be greater than 0, not 0"),
        (Bench, ("artifacts", 0, "p90_ms"), "1e400", "artifacts.0.p90_ms"),
        (Bench, ("artifacts", 0, "threads"), "true", "artifacts.0.threads"),
        (Bench, ("artifacts", 0, "before", "throttled"), '"often"', "artifacts.0.before.throttled"),
        (Bench, ("artifacts",), '{"a": 1}', "artifacts: it should be a valid array, not an object of 1"),
        (Info, ("python",), '"snake"', "python"),
        (Info, ("clusters", 0, "count"), "-4", "clusters.0.count"),
        (Info, ("engines",), "[]", "engines"),
        (SelfTest, ("artifacts", 0, "passed"), '"yes"', "artifacts.0.passed"),
    ],
)  # fmt: skip
def test_a_refusal_says_which_field_and_what_came(
    kind: type[Part], path: Any, text: str | None, said: str
) -> None:
    with pytest.raises(DeviceError) as info:
        parse(kind, spoilt(GOOD[kind], path, text), "ssh://x")
    assert said in str(info.value)
    assert str(info.value).startswith("ssh://x: ")


@pytest.mark.parametrize(
    "line",
    ["", "null", "7", '"text"', "[]", "{", "{}", '{"a":' * 5000, "\ufffd{}", '{"error": 7}', '{"error": "x", "kind": "god"}'],
)  # fmt: skip
@pytest.mark.parametrize("kind", GOOD)
def test_what_is_no_reply_is_refused(kind: type[Part], line: str) -> None:
    with pytest.raises(DeviceError, match="not understood"):
        parse(kind, line, "ssh://x")


def test_the_work_of_refusing_is_bounded() -> None:
    for line in ('{"layers": [' + "7," * (VALUES_MOST + 1) + "7]}", '{"layers": "' + "x" * REPLY_MOST + '"}'):
        start = time.process_time()
        with pytest.raises(DeviceError, match="longer than 8 MB"):
            parse(Profile, line, "ssh://x")
        assert time.process_time() - start < 2


def test_a_failure_is_said_in_printable_words() -> None:
    answer = parse(Info, json.dumps({"error": SPOILT + "x" * 5000, "kind": "engine"}), "ssh://x")
    assert isinstance(answer, Failure)
    assert answer.error.isprintable()
    assert len(answer.error) < 1100


def test_the_agent_writes_out_what_edgec_does() -> None:
    """The device has a copy of the function, with a bound."""
    every = "".join(map(chr, range(sys.maxunicode + 1)))
    assert visible(every, len(every)) == graph_text.visible(every)
    assert visible("x" * 99, 10) == graph_text.shortened("x" * 99, 10)


# ------------------------------------------------------------------------------------- through the link


def answering(there: StandIn, line: str | bytes) -> SshDevice:
    """The stand-in, with an interpreter that prints ``line`` whatever it is asked."""
    reply, program = there.home / "reply", there.home / "python"
    reply.write_bytes(line if isinstance(line, bytes) else line.encode())
    program.write_text(f"#!/bin/sh\ncat {reply}\n")
    program.chmod(0o755)
    return SshDevice.at(ADDRESS, times=HASTE, python=str(program))


class Liar:
    """A device that answers everything with the same words."""

    name = "ssh://liar"

    def __init__(self, stdout: str, code: int) -> None:
        self.done = Completed(code, stdout, "")

    def __enter__(self) -> Liar:
        return self

    def __exit__(self, *exc: object) -> None:
        pass

    def agent_command(self) -> tuple[str, ...]:
        return ("agent",)

    def use_python(self, python: str) -> None:
        pass

    def push(self, path: Path) -> str:
        return f"/there/{path.name}"

    def pull(self, remote: str, path: Path, *, most: int = 0) -> None:
        pass

    def temporary(self, name: str) -> str:
        return f"/there/{name}"

    def run(self, command: Any, *, timeout: float = 60.0) -> Completed:
        return self.done

    def start(self, command: Any, *, timeout: float, wait: float | None, notify: Any) -> str:
        return "job"

    def poll(self, job: str) -> JobState:
        return JobState(self.done)

    def stop(self, job: str) -> None:
        pass

    def cancel(self) -> None:
        pass

    def close(self) -> None:
        pass


OPTIONS = BenchOptions()
QUESTIONS: dict[str, Callable[[Device], object]] = {
    "bench": lambda board: bench([DIGITS], OPTIONS, board),
    "compare": lambda board: compare([DIGITS, DIGITS], OPTIONS, board),
    "profile": lambda board: profile(DIGITS, OPTIONS, board, [LayerModel("a", "Relu", DIGITS)]),
    "outputs": lambda board: outputs(DIGITS, None, Path("never"), OPTIONS, board),
    "info": device_info,
}
LINES = [
    "", "\ufffd{}\n", "{}", "[]\n", '{"error": "x", "kind": {"a": 1}}', "\x1b]0;owned\x07" * 100, "{" * 3000,
    '{"artifacts": [], "ratios": [], "layers": [], "quantised": {}}',
    json.dumps({"artifacts": [RECORD] * 3, "ratios": []}), json.dumps({"error": SPOILT, "kind": "model"}),
]  # fmt: skip


@pytest.mark.parametrize("code", [0, 3, -9])
@pytest.mark.parametrize("line", LINES, ids=range(len(LINES)))
@pytest.mark.parametrize("question", QUESTIONS)
def test_every_question_survives_every_answer(question: str, line: str, code: int) -> None:
    with pytest.raises((DeviceError, ModelError)) as info:
        QUESTIONS[question](Liar(line, code))
    assert str(info.value).replace("\n", "").isprintable()
    assert str(info.value).startswith("ssh://liar: ")


def test_bytes_that_are_no_text(there: StandIn) -> None:
    with answering(there, b"\xff\xfe\x00{}\n") as board, pytest.raises(DeviceError, match="not understood"):
        device_info(board)
    there.clean()


def test_too_much_is_ended_and_said(there: StandIn) -> None:
    """100 MB where an answer was expected; also from a job, and on this machine."""
    with SshDevice.at(ADDRESS, times=HASTE) as board:
        with pytest.raises(DeviceError, match="more than 8 MB") as info:
            board.run(["sh", "-c", "yes | head -c 100000000"])
        assert info.value.exit_code == 4
        with pytest.raises(DeviceError, match="more than 8 MB"):
            run_job(board, ["sh", "-c", "yes | head -c 100000000"], timeout=30)
        done = run_job(board, ["sh", "-c", "yes | head -c 20000000 >&2; echo told"], timeout=30)
        assert (done.stdout, len(done.stderr)) == ("told\n", 65536 - 1)
        big = there.home / "big"
        big.write_bytes(bytes(3_000_000))
        with pytest.raises(DeviceError, match="more than 1 MB"):
            board.pull(str(big), there.home / "copy", most=2**20)
        assert not list(there.home.glob("copy*"))
    there.clean()
    with LocalDevice() as here, pytest.raises(DeviceError, match="more than 8 MB"):
        here.run(["sh", "-c", "yes | head -c 100000000"])


@pytest.mark.parametrize("state", ["done", "done x", "done 99999", "", "\x1b[2J", "running away"])
def test_a_job_in_no_known_state(there: StandIn, state: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgec.runtime.devices import scripts

    monkeypatch.setattr(scripts, "poll", lambda job: f"printf '%s\\nworking' '{state}'")
    with SshDevice.at(ADDRESS, times=HASTE) as board, pytest.raises(DeviceError, match="not understood"):
        run_job(board, ["true"], timeout=5)


@pytest.mark.parametrize("said", ["", "relative", "/a\n/b", "/a\x1b[31m", "/" + "x" * 5000])
def test_a_python_that_is_no_path(there: StandIn, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgec.runtime.devices import scripts

    monkeypatch.setattr(scripts, "FIND_PYTHON", f"printf %s '{said}'")
    with SshDevice.at(ADDRESS, times=HASTE) as board, pytest.raises(DeviceError, match="expected a path"):
        board.agent_command()


def on_the_way(there: StandIn, tmp_path: Path, answer: Json) -> None:
    """Let the stand-in's own python3 answer everything with ``answer``."""
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "reply").write_text(json.dumps(answer))
    (programs / "python3").write_text(f'#!/bin/sh\n[ "$1" = -c ] || cat {programs}/reply\n')
    (programs / "python3").chmod(0o755)
    ssh = tmp_path / "ssh"
    ssh.write_text(ssh.read_text().replace(" PATH=", f" PATH={programs}:"))


def edgec(monkeypatch: pytest.MonkeyPatch, capsys: Any, *words: object) -> tuple[int, str]:
    monkeypatch.setattr(sys, "argv", ["edgec", *map(str, words)])
    with pytest.raises(SystemExit) as end:
        main()
    done = capsys.readouterr()
    return int(end.value.code or 0), done.out + done.err


@pytest.mark.parametrize(
    "change",
    [
        {"board": SPOILT},
        {"os": SPOILT, "glibc": SPOILT, "arch": SPOILT},
        {"clusters": [{"core": SPOILT, "count": 4, "clock_mhz": None}]},
        {"engines": {SPOILT: {"works": False, "why": SPOILT}}},
        {"state": {**STATE, "governor": "powersave"}, "isa": [SPOILT]},
    ],
)
def test_the_command_shows_a_boards_words_as_text(
    there: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, change: Json
) -> None:
    on_the_way(there, tmp_path, {"agent": 1, **INFO, **change})
    code, said = edgec(monkeypatch, capsys, "targets", "check", "rpi4", "--device", ADDRESS)
    assert code in (0, 1), said
    assert said.replace("\n", "").isprintable()
    if "[bold]" in json.dumps(change) and "isa" not in change:
        assert "[bold]" in said.replace("\n", "") or "\\x1b" in said


def test_bench_shows_words_as_text_and_that_the_host_is_busy(
    there: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    record = {**RECORD, "engine": SPOILT, "invalid": [SPOILT]}
    on_the_way(there, tmp_path, {"artifacts": [record], "ratios": []})
    code, said = edgec(monkeypatch, capsys, "bench", DIGITS, "--device", ADDRESS)
    assert code == 0, said
    assert said.replace("\n", "").isprintable()
    assert "host busy" in said
    assert "other processes used 0.50 cores" in said
    on_the_way_again = {"artifacts": [{**RECORD, "runs": "many"}], "ratios": []}
    (tmp_path / "programs" / "reply").write_text(json.dumps(on_the_way_again))
    code, said = edgec(monkeypatch, capsys, "bench", DIGITS, "--device", ADDRESS)
    assert code == 4
    assert "artifacts.0.runs" in said


def test_a_folder_that_is_no_run_is_said(tmp_path: Path) -> None:
    from edgec.compiler.cli.bench_command import command

    found = CliRunner().invoke(command, [str(tmp_path)])
    assert isinstance(found.exception, EdgecError)
    assert "no report" in str(found.exception)
