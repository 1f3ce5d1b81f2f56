"""Latency estimates: the amounts that are counted, the fit, and what is said when little is known."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import parser, shape_inference

from edgec.graph.cost import ModelCost, NodeCost, cost
from edgec.graph.errors import DataError, UsageError
from edgec.targets import target, target_names
from edgec.targets.estimator import estimate, has_estimates, latency_table, typical_table
from edgec.targets.estimator.coefficients import (
    Coefficients,
    Entry,
    engine_key,
    load_coefficients,
    read,
    write,
)
from edgec.targets.estimator.features import FEATURES, features, node_features
from edgec.targets.estimator.fit import (
    PRIOR,
    PRIOR_SPREAD,
    Data,
    Shared,
    find_switch,
    fit_set,
    fit_shared,
    without_switch,
)
from edgec.targets.estimator.switch import Switch, work_of


def conv(
    cin: int, cout: int, size: int, kernel: int = 1, stride: int = 1, group: int = 1, name: str = "conv"
) -> NodeCost:
    out = size // stride
    inner = cin // group * kernel * kernel
    kind = "depthwise" if group == cin > 1 else "pointwise" if kernel == 1 else "dense"
    return NodeCost(
        name=name,
        op="Conv",
        kind=kind,
        macs=out * out * cout * inner,
        params=cout * (inner + 1),
        weight_bytes=4 * cout * (inner + 1),
        in_elements=cin * size * size,
        out_elements=cout * out * out,
        activation_bytes=0,
        kernel=(kernel, kernel),
        stride=(stride, stride),
    )


def amounts(node: NodeCost) -> dict[str, float]:
    return {k: round(v * 1e6) for k, v in zip(FEATURES, node_features(node), strict=True) if v}


def test_pointwise_is_a_matrix_product() -> None:
    assert amounts(conv(16, 24, 10)) == {
        "macs": 100 * 16 * 24,
        "activations": 100 * (16 + 24),
        "weights": 17 * 24,
        "nodes": 1000,
    }


def test_3x3_of_stride_1_is_counted_apart() -> None:
    assert amounts(conv(16, 24, 10, 3)) == {
        "macs_3x3": 100 * 9 * 16 * 24,
        "activations": 2 * 100 * (16 + 24),
        "weights": (9 * 16 + 1) * 24,
        "nodes": 1000,
    }
    assert "macs_3x3" not in amounts(conv(16, 24, 10, 3, stride=2))
    assert "macs_3x3" not in amounts(conv(32, 24, 10, 3, group=2))


def test_first_layer_copies_its_patches() -> None:
    found = amounts(conv(3, 8, 32, 3, stride=2))
    assert found["copies"] == 16 * 16 * 27
    assert found["activations"] == 16 * 16 * 8


def test_depthwise_counts_traffic_with_its_multiplications() -> None:
    assert amounts(conv(8, 8, 10, 3, group=8)) == {"depthwise": 100 * 8 * 9 + 3 * 2 * 800, "nodes": 1000}


def test_one_pixel_is_a_fully_connected_layer() -> None:
    assert amounts(conv(64, 16, 1)) == {"linear": 65 * 16, "nodes": 1000}


def test_fused_and_renamed_nodes_are_free() -> None:
    text = """
        <ir_version: 10, opset_import: ["" : 18]>
        g (float[1,4,8,8] x) => (float[1,256] y)
        <float[4,4,1,1] w = {1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1}, int64[2] s = {1, 256}> {
            a = Conv(x, w)
            b = Relu(a)
            y = Reshape(b, s)
        }
    """
    model = ir.from_proto(shape_inference.infer_shapes(parser.parse_model(text)))
    found = dict(zip(FEATURES, features(cost(model)), strict=True))
    assert found["nodes"] == pytest.approx(1e-3)
    assert found["moved"] == 0


def networks(count: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.array(
        [rng.lognormal(0, 1, len(FEATURES)) * [300, 200, 5, 3, 0.3, 50, 2, 5, 0.06] for _ in range(count)]
    )


PRIORS = Shared(PRIOR, PRIOR_SPREAD)


def test_fit_recovers_coefficients_near_the_prior() -> None:
    rng = np.random.default_rng(1)
    true = np.exp(-3 + PRIOR + rng.normal(0, 0.5, len(FEATURES)))
    x = networks(60, 2)
    found = fit_set(Data(x, x @ true), PRIORS)
    unseen = networks(30, 3)
    assert np.abs(unseen @ found / (unseen @ true) - 1).max() < 0.03


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 30), st.floats(-6, 6))
def test_fit_is_positive_and_scales_with_the_device(seed: int, count: int, log_scale: float) -> None:
    rng = np.random.default_rng(seed)
    x = networks(count, seed)
    ms = x @ np.exp(PRIOR + rng.normal(0, 1, len(FEATURES))) * rng.lognormal(0, 0.05, count)
    found = fit_set(Data(x, ms), PRIORS)
    assert (found > 0).all()
    faster = fit_set(Data(x, ms * np.exp(log_scale)), PRIORS)
    assert np.allclose(faster, found * np.exp(log_scale), rtol=0.02)


def test_a_small_set_borrows_what_the_others_agree_on() -> None:
    rng = np.random.default_rng(5)
    ratio = PRIOR + rng.normal(0, 0.8, len(FEATURES))
    sets = []
    for i in range(12):
        x = networks(25, 100 + i)
        sets.append(Data(x, x @ np.exp(ratio + rng.normal(0, 0.1, len(FEATURES)) + i / 4)))
    few = networks(3, 7)
    true = np.exp(ratio - 2)
    shared = fit_shared(sets, PRIORS)
    unseen = networks(40, 8)

    def error(prior: Shared) -> float:
        found = fit_set(Data(few, few @ true), prior)
        return float(np.abs(unseen @ found / (unseen @ true) - 1).mean())

    assert error(shared) < 0.06 < error(PRIORS)


def test_a_set_that_cannot_be_described_teaches_nothing() -> None:
    x = networks(25, 1)
    good = [Data(x, x @ np.exp(PRIOR + i)) for i in range(4)]
    noise = np.random.default_rng(2).lognormal(0, 1, 25)
    shared = fit_shared([*good, Data(x, x @ np.exp(PRIOR) * noise)], PRIORS)
    assert np.allclose(shared.mean - shared.mean[0], PRIOR - PRIOR[0], atol=0.1)


SMALL = ModelCost(
    (
        conv(3, 16, 64, 3, 2, name="stem"),
        conv(16, 16, 32, 3, group=16, name="dw"),
        conv(16, 64, 32, name="pw"),
        conv(64, 64, 32, 3, name="block"),
    ),
    peak_activation_bytes=0,
)


def test_estimate_says_its_range_error_and_basis() -> None:
    found = estimate(SMALL, target("rpi4"), runtime="TFLite (ruy)", precision="int8")
    assert found.low_ms < found.ms < found.high_ms
    assert sum(found.per_node_ms.values()) == pytest.approx(found.ms)
    assert found.kind == "fitted"
    assert found.validation_error_pct is not None
    assert found.validation_error_pct < 10
    for word in ("fitted on 39 networks", "2.5.0", "4 threads", "unseen families"):
        assert word in found.text
    assert json.loads(json.dumps(found.to_dict()))["text"] == found.text


def test_older_versions_can_be_asked_for() -> None:
    newest = estimate(SMALL, target("rpi4"), runtime="tflite")
    older = estimate(SMALL, target("rpi4"), runtime="tflite", version="2.4.1")
    assert "2.5.0" in newest.basis
    assert "2.4.1" in older.basis


def test_borrowed_estimates_are_wide_and_say_so() -> None:
    fitted = estimate(SMALL, target("rpi4"), runtime="ai-edge-litert")
    borrowed = estimate(SMALL, target("rpi4"), runtime="onnxruntime")
    assert borrowed.kind == "scaled"
    assert borrowed.validation_error_pct is None
    assert "not validated" in borrowed.text
    assert "rough" in borrowed.note
    assert borrowed.high_ms / borrowed.low_ms > 2 > fitted.high_ms / fitted.low_ms


def test_threads_between_known_counts_are_scaled() -> None:
    pi = target("rpi4")
    ms = [estimate(SMALL, pi, runtime="tflite", threads=n).ms for n in (1, 2, 4)]
    assert ms[0] > ms[1] > ms[2]
    assert estimate(SMALL, pi, runtime="tflite", threads=1).kind == "scaled"


@pytest.mark.parametrize(
    ("name", "runtime", "says"),
    [
        ("generic-arm64", None, "no latencies of such a device"),
        ("rpi4", "tensorrt", "there is data for armnn"),
        ("host", None, "not been calibrated"),
    ],
)
def test_nothing_to_go_by_is_a_refusal(
    name: str, runtime: str | None, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(UsageError, match=says):
        estimate(SMALL, target(name), runtime=runtime)
    assert not has_estimates(target(name), runtime)


def test_targets_that_extend_another_use_its_coefficients(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("extends: rpi4\nname: my-pi\n", encoding="utf-8")
    assert estimate(SMALL, target(str(file))).ms == estimate(SMALL, target("rpi4")).ms


def test_table_answers_whether_a_decomposition_pays() -> None:
    table = latency_table(target("rpi4"), "tflite", "fp32")
    whole = conv(256, 256, 14, 3)
    half = [conv(256, 64, 14), conv(64, 256, 14, 3)]
    assert table.compare([whole], half).pays
    full_rank = [conv(16, 15, 64), conv(15, 16, 64, 3)]
    assert not table.compare([conv(16, 16, 64, 3)], full_rank).pays
    assert table.anchored(SMALL, 7.0).model_ms(SMALL) == pytest.approx(7.0)


def test_more_channels_never_take_less_time() -> None:
    for precision in ("fp32", "int8"):
        table = latency_table(target("rpi5"), "ai-edge-litert", precision)
        ms = [table.node_ms(conv(c, c, 28, 3)) for c in (8, 16, 32, 64, 128)]
        assert ms == sorted(ms)


@pytest.mark.parametrize("name", [n for n in target_names() if n not in ("host", "generic-arm64")])
def test_coefficient_files(name: str) -> None:
    found = load_coefficients(name)
    assert found is not None
    assert found.target == name
    for entry in found.entries:
        assert all(c > 0 for c in entry.ms)
        assert 0 < entry.low < 1 < entry.high
        assert (entry.error is None) == (entry.kind == "scaled")
        assert entry.basis
    assert read(write(found), "again") == found
    assert has_estimates(target(name), None, "int8")


@pytest.mark.parametrize("arch", ["x86_64", "aarch64"])
@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("runtime", ["onnxruntime", "ai-edge-litert"])
def test_machines_of_a_kind_have_a_typical_table(arch: str, precision: str, runtime: str) -> None:
    table = typical_table(arch, runtime, precision)
    assert table is not None
    ms = [table.node_ms(conv(c, c, 28, 3)) for c in (16, 32, 64, 128)]
    assert ms == sorted(ms)
    assert ms[0] > 0


def test_a_machine_of_no_known_kind_has_none() -> None:
    assert typical_table("armv7l", "onnxruntime", "fp32") is None


def test_damaged_coefficients_are_named() -> None:
    with pytest.raises(DataError, match=r"host\.json"):
        read('{"entries": [{}]}', "host.json")


def test_engine_names_as_people_write_them() -> None:
    assert engine_key("TFLite (ruy)") == "tflite-ruy"
    assert engine_key("litert") == "ai-edge-litert"
    assert engine_key("onnxruntime") == "onnxruntime"


def test_scaling_adds_independent_errors() -> None:
    entry = Entry("ncnn", "1", "fp32", 1, (1.0,) * len(FEATURES), 0.5, 2.0, "fitted", "x", 0.1, 5)
    wide = entry.scaled(3.0, 2.0, "y")
    assert wide.ms[0] == 3.0
    assert wide.high == pytest.approx(np.exp(np.hypot(np.log(2), np.log(2))))
    assert wide.basis == "y; x"


def test_a_step_in_the_latencies_is_found_and_taken_out() -> None:
    """Small networks take 2.4 times as long: a sum over nodes cannot say that, the fitted step does."""
    rng = np.random.default_rng(5)
    true = np.exp(-3 + PRIOR + rng.normal(0, 0.3, len(FEATURES)))
    x = networks(40, 6)
    step = Switch(float(np.median(work_of(x))), 2.4)
    data = Data(x, x @ true * step.at(x) * rng.lognormal(0, 0.03, len(x)))
    found = find_switch(data, PRIORS)
    assert found is not None
    assert found.factor == pytest.approx(2.4, abs=0.3)
    assert found.work == pytest.approx(step.work, rel=0.35)
    coefficients = fit_set(without_switch(data, found), PRIORS)
    assert np.median(np.abs(found.at(x) * (x @ coefficients) / data.ms - 1)) < 0.1


def test_no_step_is_found_where_there_is_none() -> None:
    rng = np.random.default_rng(7)
    x = networks(40, 8)
    smooth = x @ np.exp(PRIOR)
    assert find_switch(Data(x, smooth * rng.lognormal(0, 0.05, 40)), PRIORS) is None
    assert find_switch(Data(x, smooth * rng.lognormal(0, 0.3, 40)), PRIORS) is None  # mere scatter
    assert find_switch(Data(x[:8], smooth[:8] * [1, 9, 1, 9, 1, 9, 1, 9]), PRIORS) is None  # too few to tell


def test_a_step_is_about_whole_networks() -> None:
    table = latency_table(target("rk3588"), "armnn", "fp32")
    assert table.entry.switch is not None
    assert table.entry.switch.factor > 1.5
    nodes = sum(table.node_ms(node) for node in SMALL.nodes)
    assert table.model_ms(SMALL) > 1.5 * nodes
    assert table.model_ms(SMALL.nodes) == pytest.approx(nodes)
    found = estimate(SMALL, target("rk3588"), "armnn", "fp32")
    assert sum(found.per_node_ms.values()) == pytest.approx(found.ms)
    assert table.anchored(SMALL, 7.0).model_ms(SMALL) == pytest.approx(7.0)
    kept = Coefficients("x", (table.entry,), {})
    (again,) = read(write(kept), "x.json").entries
    assert again.switch == table.entry.switch
