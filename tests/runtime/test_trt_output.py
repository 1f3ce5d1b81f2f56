"""What trtexec writes is read in every version's form, whatever names a network has; what cannot be read is said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgec.runtime.agent.base import AgentError
from edgec.runtime.agent.machine import Machine
from edgec.runtime.agent.trt_bench import _windows
from edgec.runtime.agent.trt_output import (
    Times,
    deserialised_ms,
    failing_node,
    layers,
    profile,
    summary,
    times,
    told,
    unstable,
)
from edgec.runtime.agent.trtexec import decoded
from edgec.runtime.agent.watch import Watch

# Lines as they stand in public logs of these versions.
SUMMARY_8_4 = (
    "[03/11/2022-14:57:03] [I] GPU Compute Time: min = 0.375977 ms, max = 0.403564 ms, mean = 0.388221 ms, median = 0.388443 ms, "
    "percentile(99%) = 0.393188 ms"
)
SUMMARY_10 = (
    "[10/03/2024-10:47:59] [I] GPU Compute Time: min = 5.34595 ms, max = 13.3388 ms, mean = 7.58404 ms, median = 7.14139 ms, "
    "percentile(90%) = 10.2881 ms, percentile(95%) = 10.8175 ms, percentile(99%) = 12.9485 ms"
)
UNSTABLE_LINE = "[W] * GPU compute time is unstable, with coefficient of variance = 5.55763%."


@pytest.mark.parametrize(
    ("number", "version"),
    [
        (8201, (8, 2, 1)),
        (8502, (8, 5, 2)),
        (9200, (9, 2, 0)),
        (100300, (10, 3, 0)),
        (101303, (10, 13, 3)),
        (110100, (11, 1, 0)),
    ],
)
def test_the_number_in_the_banner(number: int, version: tuple[int, int, int]) -> None:
    assert decoded(number) == version


def test_the_text() -> None:
    assert summary(SUMMARY_8_4)["median"] == 0.388443
    assert summary(SUMMARY_8_4)["99%"] == 0.393188
    assert [summary(SUMMARY_10)[key] for key in ("90%", "95%", "99%")] == [10.2881, 10.8175, 12.9485]
    assert unstable(UNSTABLE_LINE) == 5.55763
    assert unstable(SUMMARY_10) is None
    assert deserialised_ms("[I] Engine loaded in 0.0123 sec.") == 12.3
    assert deserialised_ms("[I] Engine deserialized in 1e-03 sec.") == 1.0


def row(begun: float, compute: float, **more: float) -> dict[str, float]:
    return {"startComputeMs": begun, "endComputeMs": begun + compute, "computeMs": compute, **more}


def test_times_without_the_warm_up_whether_the_file_has_it_or_not(tmp_path: Path) -> None:
    file = tmp_path / "times.json"
    warm, kept = [row(0, 9.0, endToEndMs=9.0), row(9, 8.0)], [row(200, 2.0), row(202.5, 4.0)]
    for rows in (kept, warm + kept):
        file.write_text(json.dumps(rows))
        found = times(file, 200)
        assert found.milliseconds == [2.0, 4.0]
        assert found.begun == pytest.approx([0.0, 0.0025])
    assert found.spread == pytest.approx(100 / 3)


@pytest.mark.parametrize(
    "content", ["", "[", "{}", "[]", "[1]", '[{"computeMs": 1}]', '[{"computeMs": -1, "startComputeMs": 1}]',
                '[{"computeMs": NaN, "startComputeMs": 1}]', '[{"computeMs": true, "startComputeMs": 1}]', "[" * 5000],
)  # fmt: skip
def test_times_that_are_cut_short(tmp_path: Path, content: str) -> None:
    (tmp_path / "times.json").write_text(content)
    with pytest.raises(AgentError, match=r"times\.json is not understood"):
        times(tmp_path / "times.json", 0)
    with pytest.raises(AgentError, match="not understood"):
        times(tmp_path / "missing.json", 0)


NAMES = [
    "/model.0/conv/Conv",
    'say "cheese", "timeMs" : 3',
    "back\\slash + x",
    "tab\tand\x1f",
    "ü{}[]",
    ", { ",
]


@pytest.mark.parametrize("median", [True, False], ids=["8.5", "8.2"])
@pytest.mark.parametrize("name", NAMES)
def test_a_profile_with_any_name(tmp_path: Path, name: str, median: bool) -> None:
    extra = ', "medianMs" : 0.027872' if median else ""
    file = tmp_path / "profile.json"
    file.write_text(
        '[\n  { "count" : 100 }\n'
        f', {{ "name" : "{name}", "timeMs" : 1160.78, "averageMs" : 0.0280382{extra}, "percentage" : 50 }}\n'
        f', {{ "name" : "last", "timeMs" : 1e-05, "averageMs" : 2e-06{extra}, "percentage" : 50 }}\n]\n'
    )
    found = profile(file)
    assert [one["name"] for one in found] == [name, "last"]
    assert found[0]["us"] == (27.872 if median else 28.038)
    assert found[1]["us"] == (27.872 if median else 0.002)


@pytest.mark.parametrize("content", ["", "[]", '[{"count": 3}]', '[{"name": "x"}]', "nonsense"])
def test_a_profile_without_layers(tmp_path: Path, content: str) -> None:
    (tmp_path / "profile.json").write_text(content)
    with pytest.raises(AgentError, match="not understood"):
        profile(tmp_path / "profile.json")


@pytest.mark.parametrize("between", ["", "\x1e", "\x1f"])
def test_layers_say_which_nodes_are_in_them(tmp_path: Path, between: str) -> None:
    told_of = between.join(f"[ONNX Layer: {name}]" for name in ("/a/Conv", "odd] name", "/a/Relu"))
    content = {"Layers": [{"Name": "__myl_Conv_0", "Metadata": told_of}, {"Name": "plain"}, "a name alone"]}
    (tmp_path / "layers.json").write_text(json.dumps(content))
    assert layers(tmp_path / "layers.json") == {"__myl_Conv_0": ["/a/Conv", "odd] name", "/a/Relu"]}
    (tmp_path / "layers.json").write_text("broken")
    assert layers(tmp_path / "layers.json") == {}


LOGS = {
    "8.2": (
        "[E] Error[10]: [optimizer.cpp::computeCosts::2011] Error Code 10: Internal Error (Could not find any implementation for node "
        "{ForeignNode[2337...Reshape_1696]}.)\n[E] Engine set up failed\n",
        "{ForeignNode[2337...Reshape_1696]}",
    ),
    "8.5": (
        "[E] Error[10]: Could not find any implementation for node conv1/7x7_s2 + conv1/relu_7x7.\n",
        "conv1/7x7_s2 + conv1/relu_7x7",
    ),
    "8.5, the parser": (
        '[E] [TRT] ModelImporter.cpp:773: While parsing node number 3 [QuantizeLinear -> "x_q"]:\n'
        "[E] [TRT] ModelImporter.cpp:774: --- Begin node ---\n"
        '[E] [TRT] ModelImporter.cpp:775: input: "x"\ninput: "s"\noutput: "x_q"\nname: "x_QuantizeLinear"\nop_type: "QuantizeLinear"\n'
        "[E] [TRT] ModelImporter.cpp:776: --- End node ---\n"
        "[E] [TRT] ModelImporter.cpp:779: ERROR: builtin_op_importers.cpp:1191 In function QuantDequantLinearHelper:\n"
        "[6] Assertion failed: shiftIsAllZeros(zeroPoint)\n",
        "x_QuantizeLinear",
    ),
    "10.3, the parser": (
        "[E] [TRT] In node 12 with name: /gate/Mul and operator: Mul (checkLayer): UNSUPPORTED_NODE: ...\n",
        "/gate/Mul",
    ),
}


@pytest.mark.parametrize("log", LOGS)
def test_the_node_that_does_not_build(log: str) -> None:
    text, node = LOGS[log]
    assert failing_node(text) == node
    assert failing_node("[E] out of memory") is None


def test_what_is_told_of_a_log() -> None:
    lines = [
        "[11/27/2026-10:00:00] [I] fine",
        *(f"[11/27/2026-10:00:00] [E] {word}" for word in ("one", "two", "three", "last")),
    ]
    assert told("\n".join([*lines, "&&&& FAILED TensorRT.trtexec"])) == "one | two | last"
    assert told("a\nb\nc\nd") == "b | c | d"
    assert "\x1b" not in told("[E] \x1b[31mred")


def test_the_course_of_a_long_run() -> None:
    found = Times([2.0] * 1000 + [4.0] * 1000, [0.01 * i for i in range(2000)])
    state = {"clock_mhz": 1510.0, "temperature_c": 50.0, "throttled": None, "power_w": {"VDD_IN": 7.0}}
    readings = [(3.0 + second, {**state, "temperature_c": 50.0 + second}) for second in range(21)]
    rows = _windows(found, readings)
    assert sum(one["runs"] for one in rows) >= 1990
    assert (rows[0]["median_ms"], rows[-1]["median_ms"]) == (2.0, 4.0)
    assert all(0 < one["t"] <= 20.5 for one in rows)
    assert rows[-1]["temperature_c"] == 70.0
    assert _windows(found, []) == []


def test_power_is_the_mean_of_the_readings_while_it_ran(tmp_path: Path) -> None:
    sensor = tmp_path / "sys/class/hwmon/hwmon3"
    sensor.mkdir(parents=True)
    for name, value in (
        ("name", "ina3221"),
        ("in1_label", "VDD_IN"),
        ("in1_input", "5000"),
        ("curr1_input", "1000"),
    ):
        (sensor / name).write_text(value)
    gpu = tmp_path / "sys/class/devfreq/17000000.gpu"
    gpu.mkdir(parents=True)
    (gpu / "cur_freq").write_text("624750000")
    watch = Watch(Machine(str(tmp_path)), [], period=0.0)
    assert watch.power_w() is None  # what was read before the run is not of it
    watch.sample()
    (sensor / "curr1_input").write_text("3000")
    watch.sample()
    assert watch.power_w() == {"VDD_IN": 10.0}
    assert watch.after["gpu_mhz"] == 624.8
