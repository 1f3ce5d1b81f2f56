"""Faults of a link without a board: a program in the place of ssh runs the scripts here, with another home, and fails on demand.

The emulated board shows the same with a real sshd and a real network (`test_ssh_faults.py`, slow).
"""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

import pytest

from edgec.compiler.api import compile as compile_model
from edgec.compiler.deploy.bundle import DeployOptions
from edgec.compiler.deploy.device import deploy
from edgec.graph.errors import DeviceError
from edgec.runtime.bench import BenchOptions, bench
from edgec.runtime.devices import run_job
from edgec.runtime.devices.ssh import SshDevice

from .standin import ADDRESS, HASTE, StandIn

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def device() -> SshDevice:
    return SshDevice.at(ADDRESS, times=HASTE)


@pytest.mark.parametrize(
    ("kind", "said", "hint"),
    [("refused", "Connection refused", "SSH switched on"), ("reset", "reset", "ssh -v")],
)
def test_a_device_that_cannot_be_reached_is_exit_4(there: StandIn, kind: str, said: str, hint: str) -> None:
    there.spoil(kind, 99)
    with device() as board, pytest.raises(DeviceError) as info:
        board.run(["true"])
    assert info.value.exit_code == 4
    assert said in str(info.value)
    assert hint in str(info.value)


def test_an_upload_that_is_cut_arrives_whole_or_not_at_all(there: StandIn, tmp_path: Path) -> None:
    big = tmp_path / "big.onnx"
    big.write_bytes(bytes(range(256)) * 4000)
    told: list[str] = []
    with device() as board:
        board.connect()
        board.link.notify = told.append
        there.spoil("midway", 2)
        remote = Path(board.push(big))
        assert remote.read_bytes() == big.read_bytes()
    assert any("link lost" in text for text in told)
    assert any("link is back" in text for text in told)
    there.clean()


def test_an_upload_over_a_link_that_stays_dead_leaves_nothing(there: StandIn, tmp_path: Path) -> None:
    big = tmp_path / "big.onnx"
    big.write_bytes(bytes(300_000))
    with device() as board:
        board.connect()
        there.spoil("midway", 99)
        with pytest.raises(DeviceError) as info:
            board.push(big)
    assert info.value.exit_code == 4
    assert not list(there.home.rglob("big.onnx*"))


@pytest.mark.parametrize("kind", ["reset", "after"])
def test_a_job_outlives_the_link_and_its_result_is_kept(there: StandIn, kind: str) -> None:
    """``after``: the command did run, but nobody heard; starting or polling again must not run it twice."""
    told: list[str] = []
    with device() as board:
        board.connect()
        there.spoil(kind)
        command = ["sh", "-c", "echo once >>~/ran; echo working >&2; sleep 1; echo result"]
        timer = threading.Timer(0.8, lambda: there.spoil(kind, 2))
        timer.start()
        done = run_job(board, command, timeout=30, notify=told.append)
        timer.join()
    assert (done.returncode, done.stdout) == (0, "result\n")
    assert (there.home / "ran").read_text() == "once\n"
    assert any("link lost" in text for text in told)
    there.clean()


def test_an_interrupt_ends_the_job(there: StandIn) -> None:
    def interrupt(text: str) -> None:
        raise KeyboardInterrupt

    with device() as board, pytest.raises(KeyboardInterrupt):
        run_job(board, ["sh", "-c", "echo going >&2; sleep 77 & sleep 78"], timeout=100, notify=interrupt)
    there.clean()


def test_a_job_that_takes_too_long_is_ended(there: StandIn) -> None:
    with device() as board, pytest.raises(DeviceError, match="longer than 1 s"):
        run_job(board, ["sh", "-c", "sleep 71 & sleep 72"], timeout=1)
    there.clean()


def test_two_at_once_wait_and_are_told_who_holds_it(there: StandIn) -> None:
    told: list[str] = []
    with device() as one, device() as two:
        job = one.start(["sleep", "60"], timeout=90, wait=5, notify=told.append)
        while not (there.home / ".cache/edgec/lock.owner").exists():
            time.sleep(0.05)
        with pytest.raises(DeviceError, match="in use"):
            run_job(two, ["true"], timeout=30, wait=1)
        with pytest.raises(DeviceError, match="in use"):
            bench([EXAMPLES / "digits.onnx"], BenchOptions(wait=1), two)
        threading.Timer(1.0, lambda: one.stop(job)).start()
        assert run_job(two, ["echo", "mine"], timeout=30, wait=30, notify=told.append).stdout == "mine\n"
    assert any("waiting" in text for text in told)
    there.clean()


def test_a_device_without_python(there: StandIn, tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    for folder in ("/usr/bin", "/bin"):
        for tool in Path(folder).iterdir():
            if not tool.name.startswith("python") and not (tools / tool.name).exists():
                (tools / tool.name).symlink_to(tool)
    program = tmp_path / "ssh"
    program.write_text(program.read_text().replace(f"PATH={os.environ['PATH']}", f"PATH={tools}"))
    with device() as board, pytest.raises(DeviceError) as info:
        bench([EXAMPLES / "digits.onnx"], BenchOptions(), board)
    assert "no Python 3.8" in str(info.value)
    assert "apt install" in str(info.value)
    assert info.value.exit_code == 4


def test_a_device_of_another_architecture(there: StandIn, tmp_path: Path) -> None:
    run = tmp_path / "run"
    compile_model(EXAMPLES / "digits.onnx", run, target="rpi4", measure=False, threads=1)
    with device() as board, pytest.raises(DeviceError, match=r"rpi4 is aarch64") as info:
        deploy(run, tmp_path / "bundle", DeployOptions(), board)
    assert info.value.exit_code == 4
    assert not (tmp_path / "bundle").exists()
    there.clean()


def test_a_bench_through_the_stand_in(there: StandIn) -> None:
    """The whole way once: agent uploaded, job run, JSON read."""
    quick = BenchOptions(runs=5, seconds=0.1, warmup=0.1, warmup_most=0.5)
    with SshDevice.at(ADDRESS, times=HASTE, python=sys.executable) as board:
        (found,) = bench([EXAMPLES / "digits.onnx"], quick, board)
    assert found.runs >= 5
    assert found.device == ADDRESS
    there.clean()
