"""The measuring agent: readings of made-up machines, validity, figures, engines."""

from __future__ import annotations

import argparse
import ast
import base64
import io
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from edgec.runtime.agent import figures, layers, measure, probe, watch, worker
from edgec.runtime.agent.base import AgentError
from edgec.runtime.agent.engine import concrete_shape
from edgec.runtime.agent.engines import has_codes, open_engine, read_feeds, saturates
from edgec.runtime.agent.machine import Machine
from edgec.runtime.pack import agent_bytes, write_agent
from tests.conftest import parse

PACKAGE = Path(worker.__file__).parent


def write(root: Path, files: dict[str, str]) -> Machine:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return Machine(str(root))


JETSON = {
    "sys/firmware/devicetree/base/model": "NVIDIA Jetson Orin Nano Developer Kit\0",
    "sys/class/hwmon/hwmon3/name": "ina3221\n",
    "sys/class/hwmon/hwmon3/in1_label": "VDD_IN\n",
    "sys/class/hwmon/hwmon3/in1_input": "5000\n",
    "sys/class/hwmon/hwmon3/curr1_input": "1200\n",
    "sys/class/hwmon/hwmon3/oc1_event_cnt": "2\n",
    "sys/class/hwmon/hwmon3/oc2_event_cnt": "1\n",
    "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
    "sys/class/thermal/thermal_zone0/temp": "51500\n",
    "sys/class/thermal/thermal_zone1/type": "wifi\n",
    "sys/class/thermal/thermal_zone1/temp": "63000\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "1510400\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "schedutil\n",
    "proc/vmstat": "pgfault 7\npswpin 3\npswpout 4\n",
    "proc/meminfo": "MemTotal: 8000000 kB\nMemAvailable: 4096000 kB\nSwapTotal: 0 kB\n",
    "proc/loadavg": "0.50 0.40 0.30 1/100 4242\n",
}


def test_reads_a_jetson(tmp_path: Path) -> None:
    machine = write(tmp_path, JETSON)
    state = machine.state([0])
    assert state["power_w"] == {"VDD_IN": 6.0}
    assert state["events"] == 3
    assert state["temperature_c"] == 51.5  # the processor's zone, although another is hotter
    assert state["clock_mhz"] == 1510.4
    assert state["governor"] == "schedutil"
    assert state["swapped_pages"] == 7
    assert state["throttled"] is None
    assert probe.board(machine) == "NVIDIA Jetson Orin Nano Developer Kit"


def test_reads_power_of_jetpack_4(tmp_path: Path) -> None:
    folder = "sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0"
    machine = write(tmp_path, {f"{folder}/rail_name_0": "POM_5V_IN\n", f"{folder}/in_power0_input": "2345\n"})
    assert machine.power_w() == {"POM_5V_IN": 2.345}


def test_reads_throttle_bits_without_vcgencmd(tmp_path: Path) -> None:
    machine = write(tmp_path, {"sys/devices/platform/soc/soc:firmware/get_throttled": "50005\n"})
    assert machine.throttle_bits() == 0x50005


def test_an_empty_machine_has_no_readings(tmp_path: Path) -> None:
    state = Machine(str(tmp_path)).state([0])
    assert {key: value for key, value in state.items() if value} == {}


def test_clusters_and_features() -> None:
    block = "processor\t: {}\nFeatures\t: fp asimd asimddp\nCPU part\t: {}\n\n"
    cpuinfo = block.format(0, "0xd05") + block.format(1, "0xd0b") + block.format(2, "0xd0b")
    found = probe.clusters(Machine("/nowhere"), cpuinfo)
    assert {entry["core"]: entry["count"] for entry in found} == {"Cortex-A55": 1, "Cortex-A76": 2}
    assert probe.features(cpuinfo) == ["fp", "asimd", "asimddp"]
    assert probe.features("flags : fpu avx2 avx512_vnni sse\n") == ["avx2", "avx512_vnni"]


@pytest.mark.parametrize(
    ("machine", "bits", "expected"),
    [
        ("aarch64", 32, "armv7l"),
        ("aarch64", 64, "aarch64"),
        ("armv7l", 32, "armv7l"),
        ("arm64", 64, "aarch64"),
    ],
)
def test_the_userland_decides_the_architecture(machine: str, bits: int, expected: str) -> None:
    assert probe.userland(machine, bits) == expected


def test_pins_to_the_fast_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {}
    for core in range(8):
        files[f"sys/devices/system/cpu/cpu{core}/cpu_capacity"] = "1024" if core >= 4 else "400"
    machine = write(tmp_path, files)
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(8)))
    assert machine.choose_cores(1, pause=0.0) == [7]
    assert machine.choose_cores(4, pause=0.0) == [4, 5, 6, 7]
    assert len(machine.choose_cores(6, pause=0.0)) == 6


def test_avoids_hyperthreads_of_one_core(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {}
    for core in range(4):
        pair = "0,2" if core % 2 == 0 else "1,3"
        files[f"sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list"] = pair
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(4)))
    chosen = write(tmp_path, files).choose_cores(2, pause=0.0)
    assert {core % 2 for core in chosen} == {0, 1}


class Scripted(Machine):
    """A machine whose states are given."""

    def __init__(self, *states: dict[str, Any]) -> None:
        super().__init__("/nowhere")
        self.states = list(states)

    def state(self, cores: Any) -> dict[str, Any]:
        quiet = {
            "clock_mhz": 1800.0,
            "governor": "ondemand",
            "temperature_c": 50.0,
            "throttled": "0x0",
            "swapped_pages": 0,
            "cooling": 0,
            "events": 0,
        }
        return quiet | (self.states.pop(0) if self.states else {})


@pytest.mark.parametrize(
    ("before", "during", "after", "reason"),
    [
        ({}, {}, {}, None),
        ({"throttled": "0x50000"}, {"throttled": "0x50000"}, {"throttled": "0x50000"}, None),
        ({}, {"throttled": "0x4"}, {"throttled": "0x40000"}, "throttled"),
        ({}, {}, {"throttled": "0x10000"}, "under-voltage"),
        ({"throttled": "0x80000"}, {"throttled": "0x80008"}, {"throttled": "0x80000"}, "soft temperature"),
        ({}, {"cooling": 2}, {}, "cooling device"),
        ({"events": 4}, {"events": 4}, {"events": 6}, "2 thermal"),
        ({"swapped_pages": 10}, {}, {"swapped_pages": 12}, "swapped 2 pages"),
    ],
)
def test_what_makes_a_run_invalid(
    before: dict[str, Any], during: dict[str, Any], after: dict[str, Any], reason: str | None
) -> None:
    seen = watch.Watch(Scripted(before, during, after), [0])
    seen.read()
    seen.read()
    assert bool(seen.invalid()) == (reason is not None)
    assert reason is None or reason in seen.invalid()[0]


def test_says_that_the_host_is_busy_and_the_clock_fell() -> None:
    seen = watch.Watch(Scripted({}, {"clock_mhz": 600.0}), [0])
    seen.read()
    said = " ".join(seen.notices({"other_cores": 0.5, "measured_cores": 0.3, "steal": 0.1}))
    assert "busy: other processes used 0.50 cores" in said
    assert "hypervisor" in said
    assert "clock fell from 1800 to 600" in said
    assert seen.noise(0.0) == {"other_cores": None, "measured_cores": None, "steal": None}


def test_figures_are_numpys() -> None:
    times = np.random.default_rng(0).exponential(1.0, 997).tolist()
    found = figures.figures(times)
    for name, q in (("p10_ms", 10), ("median_ms", 50), ("p90_ms", 90), ("p99_ms", 99)):
        assert found[name] == pytest.approx(np.percentile(times, q), abs=1e-5)
    assert found["runs"] == 997
    assert layers.middle_mean([1, 2, 3, 100]) == 2.5


class Fake:
    """A worker whose inferences take a scripted time."""

    def __init__(self, times: Callable[[int], float]) -> None:
        self.times, self.count, self.discarded = times, 0, 0

    def burst(self, runs: int, seconds: float, discard: int = 0) -> list[float]:
        self.discarded += discard
        self.count += 1
        return [self.times(self.count)] * 20


def test_warm_up_waits_for_a_stable_median() -> None:
    falling = Fake(lambda n: 10.0 / n if n < 9 else 1.0)
    found = measure.warm_up(falling, 0.0, 60.0)  # type: ignore[arg-type]
    assert found["settled"]
    assert falling.count == 11
    restless = Fake(lambda n: float(n))
    assert not measure.warm_up(restless, 0.0, 0.0)["settled"]  # type: ignore[arg-type]


def test_turns_alternate_and_drift_cancels() -> None:
    clock = {"now": 1.0}

    def tick(factor: float) -> Callable[[int], float]:
        def time(n: int) -> float:
            clock["now"] *= 1.03  # the machine gets slower all the time
            return factor * clock["now"]

        return time

    sides = [Fake(tick(1.0)), Fake(tick(2.0))]
    seen = watch.Watch(Scripted(), [0])
    times, ratios = measure.take_turns(sides, seen, 2000, 0.0)  # type: ignore[arg-type]
    assert len(times[0]) == len(times[1]) == 2000
    assert measure.ratio_figures(ratios[1])["ratio"] == pytest.approx(2.0, rel=0.035)
    assert np.mean(np.log(ratios[1])) == pytest.approx(np.log(2.0), abs=1e-9)
    assert sides[0].discarded == 100


def test_an_agent_whose_starter_ended_before_it_looked_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed while the agent was still being imported, its starter was never seen as the parent."""
    monkeypatch.setenv(watch.STARTER, str(os.getpid()))
    seen = watch.Watch(Scripted({}, {}), [0])
    seen.read()
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    monkeypatch.setenv(watch.STARTER, str(ended.pid))
    with pytest.raises(KeyboardInterrupt):
        seen.read()


def test_free_axes_must_be_given() -> None:
    assert concrete_shape("x", ["batch", 3, 8, 8], {}) == (1, 3, 8, 8)
    assert concrete_shape("x", ["n", 3, "h", "w"], {"x": [1, 3, 4, 4]}) == (1, 3, 4, 4)
    with pytest.raises(AgentError, match="--shape x="):
        concrete_shape("x", ["n", 3, "h", "w"], {})


def test_saturation_is_known() -> None:
    assert saturates("x86_64", "flags: avx2")
    assert not saturates("x86_64", "flags: avx2 avx_vnni")
    assert not saturates("aarch64", "Features: asimd")


@pytest.mark.parametrize(
    ("body", "coded"),
    [
        ("y = Relu(x)", False),
        ("a = QuantizeLinear(x, s, z) y = DequantizeLinear(a, s, z)", True),
        ("a, b, c = DynamicQuantizeLinear(x) d = ConvInteger(a, w) y = Cast<to=1>(d)", True),
    ],
)
def test_only_files_with_codes_are_told_of_saturation(body: str, coded: bool, tmp_path: Path) -> None:
    constants = "float s = {0.1}, uint8 z = {3}, int8[1,1,1,1] w = {1}"
    model = parse(f"g (float[1,1,4,4] x) => (float[1,1,4,4] y) <{constants}> {{ {body} }}")
    onnx.save(model, tmp_path / "m.onnx")
    assert has_codes(str(tmp_path / "m.onnx")) == coded


@pytest.fixture
def relu(tmp_path: Path) -> Path:
    path = tmp_path / "relu.onnx"
    path.write_bytes(base64.b64decode(probe._RELU_ONNX))
    return path


def test_feeds_are_checked(relu: Path, tmp_path: Path) -> None:
    engine = open_engine(str(relu), None, 1, {})
    good, bad, none = tmp_path / "good.npz", tmp_path / "bad.npz", tmp_path / "none.npz"
    np.savez(good, whatever=np.zeros((3, 4), np.float32))
    np.savez(bad, x=np.zeros((3, 5), np.float32))
    assert len(list(read_feeds(str(good), engine))) == 3
    with pytest.raises(AgentError, match=r"float32 \[N, 4\], not float32 \[3, 5\]"):
        list(read_feeds(str(bad), engine))
    with pytest.raises(AgentError, match=r"none\.npz"):
        list(read_feeds(str(none), engine))


def test_engines_refuse_what_is_not_theirs(relu: Path, tmp_path: Path) -> None:
    broken, other = tmp_path / "broken.onnx", tmp_path / "model.pb"
    broken.write_bytes(b"no model")
    other.write_bytes(b"")
    for path, engine, kind in (
        (tmp_path / "missing.onnx", None, "model"),
        (broken, None, "model"),
        (other, None, "usage"),
        (relu, "litert", "usage"),
        (relu, "onnxruntime-cuda", "engine"),
    ):
        with pytest.raises(AgentError) as info:
            open_engine(str(path), engine, 1, {})
        assert info.value.kind == kind


@pytest.mark.parametrize("engine", ["litert", "litert-builtin", "tflite-runtime", "tflite-runtime-builtin"])
def test_tflite_engines_run_and_name_their_delegate(engine: str, tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert" if engine.startswith("litert") else "tflite_runtime")
    path = tmp_path / "relu.tflite"
    path.write_bytes(base64.b64decode(probe._RELU_TFLITE))
    loaded = open_engine(str(path), engine, 1, {})
    loaded.feed({"x": np.array([[-1, 2, -3, 4]], np.float32)})
    loaded.invoke()
    np.testing.assert_array_equal(loaded.outputs()["y"], [[0, 2, 0, 4]])
    assert (loaded.delegate == "XNNPACK") == (not engine.endswith("builtin"))


def test_numpy_2_trap_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """tflite_runtime 2.14 imports under numpy 2; only building an Interpreter fails, with a bare SystemError."""
    module = pytest.importorskip("tflite_runtime.interpreter")

    def fails(**options: Any) -> None:
        raise SystemError("returned a result with an exception set")

    monkeypatch.setattr(module, "Interpreter", fails)
    path = tmp_path / "relu.tflite"
    path.write_bytes(base64.b64decode(probe._RELU_TFLITE))
    with pytest.raises(AgentError, match="numpy<2") as info:
        open_engine(str(path), "tflite-runtime", 1, {})
    assert info.value.kind == "engine"


def test_a_profile_names_the_layers(make_model: Callable[..., onnx.ModelProto], tmp_path: Path) -> None:
    model = make_model(
        "g (float[1,3,16,16] x) => (float[1,8,16,16] y) <float[8,3,3,3] w> {\n"
        "  c = Conv<pads=[1,1,1,1]>(x, w)\n  y = Softmax<axis=1>(c)\n}"
    )
    model.graph.node[0].name = "conv"
    path = tmp_path / "m.onnx"
    onnx.save(model, path)
    args = argparse.Namespace(
        artifact=str(path), engine=None, threads=1, pin=False, root="/", layers=None, shape=[], seconds=0.05
    )
    rows = layers.profile(args)["layers"]
    assert sum(row["share"] for row in rows) == pytest.approx(1.0, abs=1e-3)
    assert {"Conv", "Softmax"} <= {row["op"].replace("FusedConv", "Conv") for row in rows}


def test_the_agent_is_one_deterministic_file_for_python_3_8(tmp_path: Path) -> None:
    made, again = (
        agent_bytes.__wrapped__(),
        agent_bytes.__wrapped__(),
    )  # past the cache, which would give the same object
    assert made == again
    assert {info.date_time for info in zipfile.ZipFile(io.BytesIO(made)).infolist()} == {
        (1980, 1, 1, 0, 0, 0)
    }
    archive = write_agent(tmp_path)
    assert archive.read_bytes() == made
    sources = sorted(PACKAGE.glob("*.py"))
    assert len(sources) > 5
    for source in sources:
        tree = ast.parse(source.read_text(), feature_version=(3, 8))
        imported = {alias.name for n in ast.walk(tree) if isinstance(n, ast.Import) for alias in n.names}
        imported |= {n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and not n.level}
        roots = {name.partition(".")[0] for name in imported}
        assert roots <= set(sys.stdlib_module_names), f"{source.name} imports {roots}"
    done = subprocess.run(
        [sys.executable, "-I", str(archive), "check-engine", "onnxruntime"], capture_output=True, check=True
    )
    assert json.loads(done.stdout)["works"]


@pytest.mark.parametrize(
    "words",
    [
        ["--threads", "0"], ["--threads", "100000"], ["--threads", "1e3"], ["--runs", "9" * 30], ["--seconds", "nan"],
        ["--seconds", "inf"], ["--warmup", "-1"], ["--sustained", "1e99"], ["--timeout", "soon"], ["--shape", "x=0x3"],
        ["--shape", "x=99999x99999"], ["--shape", "x=1x-3"], ["--restarts", "9999999"], ["--engine", "../evil"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_the_agent_takes_no_option_that_cannot_work(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    from edgec.runtime.agent.cli import main

    with pytest.raises(SystemExit) as end:
        main(["bench", "a.onnx", *words])
    assert end.value.code == 2
    assert words[0] in capsys.readouterr().err


ROW = {"name": "a", "op": "Relu"}
ARCHIVES: dict[str, dict[str, bytes]] = {
    "no list": {"layers.json": b"{}", "0.onnx": b""},
    "no json": {"layers.json": b"[", "0.onnx": b""},
    "deep": {"layers.json": b"[" * 100000, "0.onnx": b""},
    "no rows": {"layers.json": b"[]"},
    "no names": {"layers.json": b'[{"name": "a"}]', "0.onnx": b""},
    "names of another kind": {"layers.json": b'[{"name": 1, "op": []}]', "0.onnx": b""},
    "no model": {"layers.json": json.dumps([ROW]).encode()},
    "a model elsewhere": {"layers.json": json.dumps([ROW]).encode(), "../0.onnx": b"x", "/tmp/0.onnx": b"x"},
    "no list at all": {"0.onnx": b""},
}


@pytest.mark.parametrize("what", ARCHIVES)
def test_an_archive_of_layers_is_checked(tmp_path: Path, what: str) -> None:
    with zipfile.ZipFile(tmp_path / "layers.zip", "w") as archive:
        for name, content in ARCHIVES[what].items():
            archive.writestr(name, content)
    (tmp_path / "in").mkdir()
    with pytest.raises(AgentError, match="not an archive of layers"):
        layers.unpack(str(tmp_path / "layers.zip"), tmp_path / "in")
    assert {path.name for path in tmp_path.iterdir()} == {"layers.zip", "in"}
    assert not list((tmp_path / "in").iterdir())


def test_an_archive_that_unpacks_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "BYTES_MOST", 10_000)
    path = tmp_path / "layers.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("layers.json", json.dumps([ROW]))
        archive.writestr("0.onnx", bytes(1_000_000))
    with pytest.raises(AgentError, match="unpacks to more than"):
        layers.unpack(str(path), tmp_path)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(AgentError, match="not an archive"):
        layers.unpack(str(path), tmp_path)


@pytest.mark.parametrize("what", ["no zip", "cut", "an array", "no samples", "a number", "objects"])
def test_inputs_that_are_none(make_model: Callable[..., onnx.ModelProto], tmp_path: Path, what: str) -> None:
    model, path = tmp_path / "m.onnx", tmp_path / "x.npz"
    onnx.save(make_model("g (float[N,4] x) => (float[N,4] y) { y = Relu(x) }"), model)
    np.savez(path, x=np.zeros((2, 4), np.float32))
    if what == "no zip":
        path.write_bytes(b"PK\x03\x04" + bytes(99))
    elif what == "cut":
        path.write_bytes(path.read_bytes()[:-40])
    elif what == "an array":
        np.save(tmp_path / "x.npy", np.zeros((2, 4), np.float32))
        (tmp_path / "x.npy").replace(path)
    else:
        arrays = {
            "no samples": np.zeros((0, 4), np.float32),
            "a number": np.float32(1),
            "objects": np.array([None]),
        }
        np.savez(path, x=arrays[what])
    engine = open_engine(str(model), "onnxruntime", 1, {})
    with pytest.raises(AgentError, match=r"x\.npz"):
        next(read_feeds(str(path), engine))
