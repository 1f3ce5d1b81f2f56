"""Every fault that a link or a board can show, against an emulated board through a spoiled link.

After each: the exit code, no process and no half file on the board.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from edgec.graph.errors import DeviceError
from edgec.runtime.bench import BenchOptions, bench
from edgec.runtime.devices import run_job
from edgec.runtime.devices.openssh import LinkTimes
from edgec.runtime.devices.ssh import SshDevice

from .emulated import Board, FaultyLink

pytestmark = pytest.mark.slow

HASTE = LinkTimes(connect=4, alive_interval=1, alive_count=3, reconnect=30.0)


def later(seconds: float, action: Callable[[], None]) -> threading.Timer:
    timer = threading.Timer(seconds, action)
    timer.start()
    return timer


def clean(pi: Board) -> None:
    for _ in range(20):
        left = pi.left_behind()
        if left == ([], []):
            return
        time.sleep(0.5)
    raise AssertionError(left)


def test_refused(faulty: FaultyLink, pi: Board) -> None:
    faulty.do("refuse 1")
    with SshDevice.at(faulty.address, times=HASTE) as device, pytest.raises(DeviceError) as info:
        device.run(["true"])
    assert info.value.exit_code == 4
    assert "cannot reach the device" in str(info.value)
    clean(pi)


def test_nothing_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    with SshDevice.at("ssh://pi@127.0.0.1:9", times=HASTE) as device, pytest.raises(DeviceError) as info:
        device.run(["true"])
    assert "refused" in str(info.value)
    assert "SSH switched on" in str(info.value)


def test_mute_after_connect(faulty: FaultyLink, pi: Board) -> None:
    faulty.do("blackhole 1")
    start = time.monotonic()
    with SshDevice.at(faulty.address, times=HASTE) as device, pytest.raises(DeviceError) as info:
        device.run(["true"])
    assert time.monotonic() - start < 60
    assert info.value.exit_code == 4


def test_wrong_key(faulty: FaultyLink, pi: Board, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEC_SSH_COMMAND", pi.ssh_command() + f" -o UserKnownHostsFile={tmp_path}/none")
    with SshDevice.at(faulty.address, times=HASTE) as device, pytest.raises(DeviceError) as info:
        device.run(["true"])
    assert "Host key verification failed" in str(info.value)
    assert "Connect once by hand" in str(info.value)


def test_cut_in_mid_upload(faulty: FaultyLink, pi: Board, tmp_path: Path) -> None:
    big = tmp_path / "big.onnx"
    big.write_bytes(bytes(range(256)) * 20_000)
    told: list[str] = []
    with SshDevice.at(faulty.address, times=HASTE) as device:
        device.connect()
        device.link.notify = told.append
        faulty.do("rate 2000000")
        timer = later(1.0, lambda: faulty.do("drop"))
        remote = device.push(big)
        timer.join()
        assert any("link lost" in text for text in told)
        assert pi.sh(f"sha256sum {remote}").split()[0] == hashlib.sha256(big.read_bytes()).hexdigest()
    clean(pi)


def test_cable_pulled_in_mid_upload(faulty: FaultyLink, pi: Board, tmp_path: Path) -> None:
    big = tmp_path / "big2.onnx"
    big.write_bytes(bytes(range(255)) * 20_000)
    with SshDevice.at(faulty.address, times=HASTE) as device:
        device.connect()
        faulty.do("rate 2000000")
        first = later(1.0, lambda: faulty.do("blackhole 1"))

        def back() -> None:
            faulty.do("drop")
            faulty.do("blackhole 0")

        second = later(9.0, back)
        remote = device.push(big)
        first.join()
        second.join()
        assert pi.sh(f"wc -c < {remote}").strip() == "5100000"
    clean(pi)


def test_link_gone_for_good_in_mid_upload(faulty: FaultyLink, pi: Board, tmp_path: Path) -> None:
    big = tmp_path / "big3.onnx"
    big.write_bytes(bytes(range(254)) * 20_000)
    short = LinkTimes(connect=3, alive_interval=1, alive_count=2, reconnect=3.0)
    with (  # noqa: PT012  (any of these steps may be the one that notices)
        SshDevice.at(faulty.address, times=short) as device,
        pytest.raises(DeviceError) as info,
    ):
        device.connect()
        faulty.do("rate 2000000")

        def cut() -> None:
            faulty.do("refuse 1")
            faulty.do("drop")

        later(1.0, cut)
        device.push(big)
    assert info.value.exit_code == 4
    clean(pi)


def test_cut_in_mid_run(faulty: FaultyLink, pi: Board) -> None:
    told: list[str] = []
    with SshDevice.at(faulty.address, times=HASTE) as device:
        device.connect()
        later(2.0, lambda: faulty.do("drop"))
        command = ["sh", "-c", "for i in 1 2 3 4 5 6; do echo step $i >&2; sleep 1; done; echo result"]
        done = run_job(device, command, timeout=60, wait=10, notify=told.append)
    assert (done.returncode, done.stdout) == (0, "result\n")
    assert done.stderr.count("step") == 6
    clean(pi)


def test_cable_pulled_in_mid_run(faulty: FaultyLink, pi: Board) -> None:
    told: list[str] = []
    with SshDevice.at(faulty.address, times=HASTE) as device:
        device.connect()
        later(2.0, lambda: faulty.do("blackhole 1"))
        later(10.0, lambda: faulty.do("drop"))
        later(11.0, lambda: faulty.do("blackhole 0"))
        command = ["sh", "-c", "sleep 5; echo result"]
        done = run_job(device, command, timeout=60, notify=told.append)
    assert (done.returncode, done.stdout) == (0, "result\n")
    assert any("link lost" in text for text in told)
    assert any("link is back" in text for text in told)
    clean(pi)


def test_slow_link(faulty: FaultyLink, pi: Board) -> None:
    faulty.do("delay 0.15")
    with SshDevice.at(faulty.address, times=HASTE) as device:
        assert run_job(device, ["echo", "it's"], timeout=30).stdout == "it's\n"
    clean(pi)


def test_interrupt_ends_the_job(faulty: FaultyLink, pi: Board) -> None:
    def interrupt(text: str) -> None:
        raise KeyboardInterrupt

    with SshDevice.at(faulty.address, times=HASTE) as device, pytest.raises(KeyboardInterrupt):
        run_job(device, ["sh", "-c", "echo going >&2; sleep 77 & sleep 78"], timeout=100, notify=interrupt)
    clean(pi)


def test_time_out(faulty: FaultyLink, pi: Board) -> None:
    with SshDevice.at(faulty.address, times=HASTE) as device, pytest.raises(DeviceError) as info:
        run_job(device, ["sh", "-c", "sleep 71 & sleep 72"], timeout=2)
    assert "longer than 2 s" in str(info.value)
    clean(pi)


def test_two_at_once_wait_or_say_who(faulty: FaultyLink, pi: Board) -> None:
    told: list[str] = []
    with SshDevice.at(pi.address, times=HASTE) as one, SshDevice.at(faulty.address, times=HASTE) as two:
        two.connect()
        job = one.start(["sleep", "300"], timeout=400, wait=5, notify=told.append)
        while one.poll(job).progress or "since" not in pi.sh("cat .cache/edgec/lock.owner"):
            time.sleep(0.2)
        with pytest.raises(DeviceError) as info:
            run_job(two, ["true"], timeout=30, wait=1)
        assert "in use" in str(info.value)
        assert "process" in str(info.value)
        later(4.0, lambda: one.stop(job))
        done = run_job(two, ["echo", "mine"], timeout=30, wait=60, notify=told.append)
        assert done.stdout == "mine\n"
        assert any("waiting" in text for text in told)
    clean(pi)


def test_killed_for_want_of_memory(faulty: FaultyLink, pi: Board) -> None:
    with SshDevice.at(faulty.address, times=HASTE) as device:
        done = run_job(device, ["sh", "-c", "kill -KILL $$"], timeout=20)
    assert done.returncode == -9
    clean(pi)


def test_job_vanishes(faulty: FaultyLink, pi: Board) -> None:
    with SshDevice.at(faulty.address, times=HASTE) as device:
        job = device.start(["sleep", "60"], timeout=90, wait=None, notify=lambda text: None)
        pi.sh(f"kill -KILL -- -$(cat .cache/edgec/jobs/{job}/pid)")
        with pytest.raises(DeviceError, match="vanished"):
            device.poll(job)
        device.stop(job)
    clean(pi)


def test_full_disk(faulty: FaultyLink, pi: Board, tmp_path: Path) -> None:
    big = tmp_path / "big4.onnx"
    big.write_bytes(bytes(4_000_000))
    home = str(pi.folder / "root" / "home" / "pi" / ".cache" / "edgec")
    pi.sh("mkdir -p .cache/edgec")
    mounted = pi.as_root("mount", "-t", "tmpfs", "-o", "size=2m,uid=1000,gid=1000,mode=700", "full", home)
    if mounted.returncode != 0:
        pytest.skip(f"cannot mount a small disk: {mounted.stderr}")
    try:
        with SshDevice.at(faulty.address, times=HASTE) as device, pytest.raises(DeviceError) as info:
            device.push(big)
        assert "disk there is full" in str(info.value)
        assert info.value.exit_code == 4
        clean(pi)
    finally:
        pi.as_root("umount", home)


def test_no_python(faulty: FaultyLink, pi: Board, shared: Path) -> None:
    model = shared / "data" / "models" / "kws_dscnn_int8.tflite"
    binary = pi.folder / "root" / "usr" / "bin" / "python3"
    hidden = binary.with_name("python3.hidden")
    binary.rename(hidden)
    try:
        with SshDevice.at(faulty.address, times=HASTE) as device, pytest.raises(DeviceError) as info:
            bench([model], BenchOptions(), device)
    finally:
        hidden.rename(binary)
    assert "no Python" in str(info.value)
    assert "apt install" in str(info.value)
    clean(pi)


def test_throttled(faulty: FaultyLink, pi: Board, shared: Path) -> None:
    model = shared / "data" / "models" / "kws_dscnn_int8.tflite"
    quick = BenchOptions(runs=5, seconds=0.5, warmup=0.3, warmup_most=1)
    pi.set("throttled", "0x50005")
    try:
        with SshDevice.at(faulty.address, times=HASTE) as device:
            (m,) = bench([model], quick, device)
    finally:
        pi.set("throttled", "0x0")
    assert not m.valid
    assert "under-voltage, throttled" in m.invalid[0]
    clean(pi)


def test_bench_survives_a_cut(faulty: FaultyLink, pi: Board, shared: Path) -> None:
    model = shared / "data" / "models" / "kws_dscnn_int8.tflite"
    told: list[str] = []

    def cut(text: str) -> None:
        told.append(text)
        if "warming up" in text:
            faulty.do("drop")

    quick = BenchOptions(runs=5, seconds=0.5, warmup=0.3, warmup_most=1)
    with SshDevice.at(faulty.address, times=HASTE) as device:
        (m,) = bench([model], quick, device, cut)
    assert m.valid
    assert m.emulated
    assert "emulated: not a latency" in m.notices
    assert m.runs >= 5
    clean(pi)
