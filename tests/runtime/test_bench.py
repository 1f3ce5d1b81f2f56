"""Measuring on this machine: records, comparisons, errors, interrupts, and the lock."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from edgec.graph.errors import DataError, DeviceError, ModelError, UsageError
from edgec.runtime.bench import Artifact, BenchOptions, bench, compare, device_info, outputs, profile
from edgec.runtime.devices import open_device, run_job
from edgec.runtime.devices.local import LocalDevice
from edgec.runtime.devices.locking import FileLock
from edgec.runtime.measurement import Measurement

QUICK = BenchOptions(runs=5, seconds=0.05, warmup=0.05, warmup_most=0.5, restarts=1)


@pytest.fixture
def small(make_model: Callable[..., onnx.ModelProto], tmp_path: Path) -> Path:
    return save(make_model, tmp_path / "small.onnx", 16)


@pytest.fixture
def large(make_model: Callable[..., onnx.ModelProto], tmp_path: Path) -> Path:
    return save(make_model, tmp_path / "large.onnx", 64)


def save(make_model: Callable[..., onnx.ModelProto], path: Path, side: int) -> Path:
    text = f"g (float[N,3,{side},{side}] x) => (float[N,16,{side},{side}] y) <float[16,3,3,3] w> {{\n"
    onnx.save(make_model(text + "  y = Conv<pads=[1,1,1,1]>(x, w)\n}"), path)
    return path


def test_a_record_is_complete(small: Path) -> None:
    with LocalDevice() as device:
        (m,) = bench([small], QUICK, device)
    assert m.min_ms <= m.p10_ms <= m.median_ms <= m.p90_ms <= m.p99_ms
    assert m.runs >= 5
    assert m.seconds >= 0.05
    assert (m.engine, m.delegate, m.device) == ("onnxruntime", "CPU", "local")
    assert m.inputs == (("x", (1, 3, 16, 16), "float32"),)
    assert m.peak_rss_mb > m.engine_rss_mb > 5
    assert m.load_ms > 0
    assert m.first_ms > 0
    assert not m.emulated
    assert "loadavg" in m.before
    assert Measurement(**{**m.to_dict(), "cores": m.cores}).median_ms == m.median_ms


def test_more_work_takes_longer_in_turns(small: Path, large: Path) -> None:
    with LocalDevice() as device:
        found = compare([small, large, small], QUICK, device)
    assert found.ratios[0].ratio > 2
    assert found.ratios[1].ratio < found.ratios[0].ratio / 2
    assert found.ratios[0].p10 <= found.ratios[0].ratio <= found.ratios[0].p90
    assert len(found.measurements) == 3


def test_sustained_runs_are_sampled(small: Path) -> None:
    with LocalDevice() as device:
        (m,) = bench([small], BenchOptions(runs=1, seconds=0.05, warmup=0.05, sustained=1.2), device)
    assert len(m.sustained) >= 2
    assert [s["t"] for s in m.sustained] == sorted(s["t"] for s in m.sustained)


def test_outputs_are_the_engines(small: Path, tmp_path: Path) -> None:
    import onnxruntime as ort

    x = np.random.default_rng(0).standard_normal((3, 3, 16, 16)).astype(np.float32)
    np.savez(tmp_path / "x.npz", x=x)
    with LocalDevice() as device:
        told = outputs(small, tmp_path / "x.npz", tmp_path / "y.npz", QUICK, device)
    assert told.engine == "onnxruntime"
    with np.load(tmp_path / "y.npz") as archive:
        (expected,) = ort.InferenceSession(small, providers=["CPUExecutionProvider"]).run(None, {"x": x})
        np.testing.assert_allclose(archive["y"], expected, rtol=1e-4, atol=1e-5)


def test_layers_sum_to_one(small: Path) -> None:
    with LocalDevice() as device:
        rows = profile(small, QUICK, device)
    assert sum(row.share for row in rows) == pytest.approx(1.0, abs=1e-3)


def test_errors_are_told(small: Path, tmp_path: Path) -> None:
    broken, inputs = tmp_path / "broken.onnx", tmp_path / "inputs.npz"
    broken.write_bytes(b"\x08\x07 not a model")
    np.savez(inputs, x=np.zeros((1, 3, 99, 99), np.float32))
    with LocalDevice() as device:
        with pytest.raises(ModelError, match="no such file"):
            bench([tmp_path / "none.onnx"], QUICK, device)
        with pytest.raises(ModelError, match=r"broken\.onnx: onnxruntime"):
            bench([broken], QUICK, device)
        with pytest.raises(UsageError, match="does not read"):
            bench([Artifact(small, "litert")], QUICK, device)
        with pytest.raises(DataError, match="must be float32"):
            bench([small], BenchOptions(inputs=inputs), device)
        with pytest.raises(DeviceError, match="no CUDAExecutionProvider") as info:
            bench([Artifact(small, "onnxruntime-cuda")], QUICK, device)
        assert info.value.exit_code == 4
        with pytest.raises(UsageError, match="at least two"):
            compare([small], QUICK, device)
    with pytest.raises(UsageError, match="threads"):
        BenchOptions(threads=0)
    with pytest.raises(UsageError, match="unknown device"):
        open_device("serial:/dev/ttyUSB0")
    with pytest.raises(UsageError, match="not a device address"):
        open_device("ssh://pi@host;rm")


def test_info_says_what_works() -> None:
    with LocalDevice() as device:
        info = device_info(device)
    assert info.engines["onnxruntime"].works
    assert info.python.startswith(f"{sys.version_info.major}.{sys.version_info.minor}")
    assert info.clusters


def alive(marker: str) -> list[str]:
    """Command lines of live processes that hold ``marker``."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = entry.read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
        except OSError:
            continue
        if marker in line and entry.parent.name != str(os.getpid()):
            found.append(line)
    return found


def gone(marker: str, seconds: float = 5) -> bool:
    for _ in range(int(seconds * 20)):
        if not alive(marker):
            return True
        time.sleep(0.05)
    return False


def test_an_interrupt_leaves_no_process() -> None:
    def interrupt(text: str) -> None:
        raise KeyboardInterrupt

    command = ["sh", "-c", "echo going >&2; sleep 7654.1 & sleep 7654.1"]
    with LocalDevice() as device, pytest.raises(KeyboardInterrupt):
        run_job(device, command, timeout=60, notify=interrupt)
    assert gone("7654.1")


def test_a_killed_bench_leaves_no_process(small: Path) -> None:
    """The process that measures is killed outright, so nobody tells the agent and its worker to end."""
    code = (
        "from pathlib import Path; from edgec.runtime.bench import *; from edgec.runtime.devices import open_device\n"
        f"bench([Path({str(small)!r})], BenchOptions(sustained=600), open_device('local'))"
    )
    process = subprocess.Popen([sys.executable, "-c", code])
    for _ in range(2400):
        if any("edgec-agent.pyz bench" in line for line in alive(str(small))):
            break
        time.sleep(0.05)
    else:
        pytest.fail("the agent did not start")
    time.sleep(1.0)
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=60)
    assert gone(str(small), seconds=60)


def test_a_job_that_takes_too_long_is_ended() -> None:
    with LocalDevice() as device, pytest.raises(DeviceError, match="longer than 1 s"):
        run_job(device, ["sh", "-c", "sleep 7654.2 & sleep 7654.2"], timeout=1)
    assert gone("7654.2")


def test_a_command_that_is_not_there() -> None:
    with LocalDevice() as device, pytest.raises(DeviceError, match="cannot start"):
        device.run(["/no/such/program"])


def test_one_measures_at_a_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    told: list[str] = []
    first = FileLock("local", 1.0, told.append)
    with pytest.raises(DeviceError, match=f"process {os.getpid()}"):
        FileLock("local", 0.2, told.append)
    assert "waiting" in told[0]
    first.release()
    FileLock("local", 0.0, told.append).release()
