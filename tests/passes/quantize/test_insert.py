"""The QDQ graph: what onnxruntime makes of it, and that its numbers are those of the table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from edgec.graph.compare import sqnr_db
from edgec.graph.data import Dataset
from edgec.graph.execute import Executor
from edgec.graph.verify import verify
from edgec.graph.views import constant
from edgec.passes.base import Context
from edgec.passes.quantize import Quantize
from edgec.passes.quantize.dialects import TFLITE
from edgec.passes.quantize.insert import store

Canonical = Callable[..., ir.Model]
Noise = Callable[..., Dataset]

NET = """
g (float[N,3,16,16] x) => (float[N,10] y)
<float[8,3,3,3] w1, float[8] b1, float[8,1,3,3] w2, float[8,8,1,1] w3, float[8] b3, float[10,8] f, float[10] fb> {
  lo = Constant<value=float {0.0}>()
  hi = Constant<value=float {6.0}>()
  c1 = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(x, w1, b1)
  r1 = Relu(c1)
  c2 = Conv<kernel_shape=[3,3], pads=[1,1,1,1], group=8>(r1, w2)
  r2 = Clip(c2, lo, hi)
  c3 = Conv<kernel_shape=[1,1]>(r2, w3, b3)
  s = Add(c3, r1)
  r3 = Relu(s)
  p = MaxPool<kernel_shape=[2,2], strides=[2,2]>(r3)
  axes = Constant<value=int64[2] {2,3}>()
  m = ReduceMean<keepdims=0>(p, axes)
  y = Gemm<transB=1>(m, f, fb)
}
"""


def quantised(model: ir.Model, data: Dataset, tmp_path: Path, **options: object) -> ir.Model:
    context = Context(teacher=model, scratch=tmp_path, data=data)
    settings = {"correct": "none", "equalize": "off", **options}
    return Quantize(**settings).run(model.clone(), context).model  # type: ignore[arg-type]


def optimised(model: ir.Model, tmp_path: Path) -> Counter[str]:
    """Node types after all of onnxruntime's graph optimisations."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 4
    ort.InferenceSession(ir.to_proto(model).SerializeToString(), options, providers=["CPUExecutionProvider"])
    found = onnx.load(options.optimized_model_filepath)
    return Counter(node.op_type for node in found.graph.node)


def test_every_kernel_is_fused(canonical: Canonical, noise: Noise, tmp_path: Path) -> None:
    """No float island: one quantiser at the input, one dequantiser at the output."""
    model = canonical(NET)
    found = optimised(quantised(model, noise(model), tmp_path), tmp_path)
    assert found["QLinearConv"] == 3
    assert found["QLinearAdd"] == 1
    assert found["QLinearGlobalAveragePool"] == 1
    assert found["QGemm"] == 1
    assert found["QuantizeLinear"] == found["DequantizeLinear"] == 1
    assert not {"Conv", "Relu", "Clip", "FusedConv", "Gemm", "Add", "ReduceMean"} & set(found)


def test_the_graph_is_canonical_and_keeps_its_interface(
    canonical: Canonical, noise: Noise, tmp_path: Path
) -> None:
    model = canonical(NET)
    result = quantised(model, noise(model), tmp_path)
    verify(result)
    onnx.checker.check_model(ir.to_proto(result), full_check=True)
    assert [v.name for v in result.graph.inputs] == ["x"]
    assert [v.name for v in result.graph.outputs] == ["y"]
    assert {n.name for n in model.graph if n.op_type == "Conv"} <= {n.name for n in result.graph}


def test_scales_are_scalars_and_weights_int8(canonical: Canonical, noise: Noise, tmp_path: Path) -> None:
    """A scale of shape (1,) fails in onnxruntime only once it fuses."""
    model = canonical(NET)
    result = quantised(model, noise(model), tmp_path)
    quantisers = [node for node in result.graph if node.op_type == "QuantizeLinear"]
    assert len(quantisers) >= 4
    for node in quantisers:
        assert constant(node.inputs[1]).shape == ()
        assert constant(node.inputs[2]).dtype == np.uint8
    weights = [c for n in result.graph if (c := constant(n.inputs[0])) is not None and c.dtype == np.int8]
    assert len(weights) == 4
    assert all(np.abs(w.astype(int)).max() == 127 for w in weights)
    assert not [
        n
        for n, v in result.graph.initializers.items()
        if v.dtype == ir.DataType.FLOAT and v.const_value.size > 64
    ]


def test_the_bias_scale_is_the_product(canonical: Canonical, noise: Noise, tmp_path: Path) -> None:
    model = canonical(NET)
    result = quantised(model, noise(model), tmp_path)
    layers = [node for node in result.graph if node.op_type in ("Conv", "Gemm")]
    assert len(layers) == 4
    for node in layers:
        x, w, b = (value.producer() for value in node.inputs)
        product = constant(x.inputs[1]) * constant(w.inputs[1])
        np.testing.assert_array_equal(constant(b.inputs[1]), product.astype(np.float32))
        assert constant(b.inputs[0]).dtype == np.int32


@pytest.mark.parametrize("per_channel", [True, False])
def test_near_to_the_float_graph(
    canonical: Canonical, noise: Noise, tmp_path: Path, per_channel: bool
) -> None:
    model = canonical(NET)
    data = noise(model, 32)
    result = quantised(model, data, tmp_path, per_channel=per_channel)
    feeds = next(iter(data.batches(32)))
    reference, value = Executor(model).run(feeds)["y"], Executor(result).run(feeds)["y"]
    assert sqnr_db(reference, value) > 25


def test_int8_and_uint8_files_hold_one_table(canonical: Canonical, noise: Noise, tmp_path: Path) -> None:
    model = canonical(NET)
    data = noise(model)
    unsigned = quantised(model, data, tmp_path, activations="uint8")
    signed = quantised(model, data, tmp_path, activations="int8")
    for a, b in zip(unsigned.graph, signed.graph, strict=True):
        assert a.name == b.name
        if a.op_type == "QuantizeLinear":
            assert constant(a.inputs[1]) == constant(b.inputs[1])
            assert int(constant(a.inputs[2])) == int(constant(b.inputs[2])) + 128
    verify(signed)
    feeds = next(iter(data.batches(8)))
    assert sqnr_db(Executor(unsigned).run(feeds)["y"], Executor(signed).run(feeds)["y"]) > 40
    again = unsigned.clone()
    store(again, TFLITE)
    assert ir.to_proto(again).SerializeToString() == ir.to_proto(signed).SerializeToString()


@pytest.mark.parametrize("position", [0, 1, 2, 3])
def test_excluded_layers_stay_float_whatever_onnxruntime_optimises(
    canonical: Canonical, noise: Noise, tmp_path: Path, position: int
) -> None:
    """onnxruntime 1.20 and later quantises float weights behind a DequantizeLinear per tensor, unless stopped."""
    import onnxruntime as ort

    model = canonical(NET)
    data = noise(model)
    layer = [n.name for n in model.graph if n.op_type in ("Conv", "Gemm")][position]
    result = quantised(model, data, tmp_path, exclude=layer)
    feeds = next(iter(data.batches(8)))
    outputs = []
    for level in (ort.GraphOptimizationLevel.ORT_DISABLE_ALL, ort.GraphOptimizationLevel.ORT_ENABLE_ALL):
        options = ort.SessionOptions()
        options.graph_optimization_level = level
        options.log_severity_level = 4
        # Without it, processors that lack VNNI saturate 16-bit sums, which is not what is asked here.
        options.add_session_config_entry("session.x64quantprecision", "1")
        proto = ir.to_proto(result).SerializeToString()
        outputs.append(
            ort.InferenceSession(proto, options, providers=["CPUExecutionProvider"]).run(None, feeds)[0]
        )
    assert sqnr_db(outputs[0], outputs[1]) > 38
    found = optimised(result, tmp_path)
    assert found["QLinearConv"] + found["QGemm"] == 3
    assert found["Conv"] + found["Gemm"] + found["FusedConv"] + found["FusedGemm"] == 1


def test_constants_of_arithmetic_become_codes(canonical: Canonical, noise: Noise, tmp_path: Path) -> None:
    model = canonical(
        "g (float[N,4,8,8] x) => (float[N,4,8,8] y) <float[4,4,1,1] w, float[1,1,8,8] k, float[4,4,1,1] v> "
        "{ c = Conv<kernel_shape=[1,1]>(x, w) r = LeakyRelu(c) m = Mul(r, k) y = Conv<kernel_shape=[1,1]>(m, v) }"
    )
    data = noise(model)
    result = quantised(model, data, tmp_path)
    feeds = next(iter(data.batches(8)))
    assert sqnr_db(Executor(model).run(feeds)["y"], Executor(result).run(feeds)["y"]) > 25
    assert optimised(result, tmp_path)["QLinearMul"] == 1


def test_a_nearly_dead_channel_does_not_overflow_its_bias(
    canonical: Canonical, noise: Noise, tmp_path: Path
) -> None:
    """Weights near zero and a bias of 1: the code would be 1e12 without a larger scale."""
    model = canonical(NET)
    weight = constant(model.graph.initializers["w3"]).copy()
    weight[2] *= 1e-12
    model.graph.initializers["w3"].const_value = ir.tensor(weight, name="w3")
    data = noise(model)
    result = quantised(model, data, tmp_path)
    feeds = next(iter(data.batches(8)))
    assert sqnr_db(Executor(model).run(feeds)["y"], Executor(result).run(feeds)["y"]) > 25


def test_grouped_and_transposed_layers(canonical: Canonical, noise: Noise, tmp_path: Path) -> None:
    model = canonical(
        "g (float[N,4,8,8] x) => (float[N,6,16,16] y) <float[8,2,3,3] w, float[8,6,2,2] t, float[6] tb> "
        "{ c = Conv<kernel_shape=[3,3], pads=[1,1,1,1], group=2>(x, w) r = Relu(c) "
        "y = ConvTranspose<kernel_shape=[2,2], strides=[2,2]>(r, t, tb) }"
    )
    data = noise(model)
    result = quantised(model, data, tmp_path, correct="auto")
    feeds = next(iter(data.batches(8)))
    assert sqnr_db(Executor(model).run(feeds)["y"], Executor(result).run(feeds)["y"]) > 28


def test_matmul_and_two_outputs(canonical: Canonical, noise: Noise, tmp_path: Path) -> None:
    model = canonical(
        "g (float[N,12] x) => (float[N,6] y, float[N,5] z) <float[12,8] a, float[8,6] b, float[8,5] c> "
        "{ h = MatMul(x, a) r = Relu(h) y = MatMul(r, b) q = MatMul(r, c) z = Softmax(q) }"
    )
    data = noise(model, 32)
    result = quantised(model, data, tmp_path, correct="auto")
    feeds = next(iter(data.batches(32)))
    reference, value = Executor(model).run(feeds), Executor(result).run(feeds)
    assert sqnr_db(reference["y"], value["y"]) > 30
    assert sqnr_db(reference["z"], value["z"]) > 30


def test_deterministic(canonical: Canonical, noise: Noise, tmp_path: Path) -> None:
    model = canonical(NET)
    data = noise(model, 24)
    first, second = (
        ir.to_proto(quantised(model, data, tmp_path, correct="auto", equalize="auto")) for _ in range(2)
    )
    assert first.SerializeToString() == second.SerializeToString()


def test_batch_sizes_do_not_change_the_table(canonical: Canonical, noise: Noise, tmp_path: Path) -> None:
    model = canonical(NET)
    data = noise(model, 24)
    shuffled = replace(data, indices=tuple(reversed(data.indices)))
    first, second = (ir.to_proto(quantised(model, d, tmp_path)) for d in (data, shuffled))
    assert first.SerializeToString() == second.SerializeToString()


def test_sixteen_bit_activations_are_nearer_and_say_what_they_are_for(
    canonical: Canonical, noise: Noise, tmp_path: Path
) -> None:
    model = canonical(NET)
    context = Context(teacher=model, scratch=tmp_path, data=noise(model, 32))
    reference, fresh = Executor(model), noise(model, 16, seed=4)
    feeds = next(fresh.batches(16))
    errors = []
    for kind in ("uint8", "int16"):
        result = Quantize(activations=kind).run(model.clone(), context)
        verify(result.model)
        errors.append(sqnr_db(reference.run(feeds)["y"], Executor(result.model).run(feeds)["y"]))
    assert errors[1] > errors[0] + 3
    assert any("16-bit activations" in note.text and note.level == "warning" for note in result.notes)
    codes = [n.outputs[0].dtype for n in result.model.graph if n.op_type == "QuantizeLinear"]
    assert set(codes) == {ir.DataType.INT16}
