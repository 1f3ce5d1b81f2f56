"""QDQ graphs of every make: other tools' habits, mixed precision, 16-bit activations, odd parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest

from edgec.compiler.emit.tflite import emit
from edgec.graph.errors import UnsupportedError
from edgec.graph.tflite.read import read
from edgec.graph.tflite.schema import TensorType

RNG = np.random.default_rng(0)


def model(body: str, signature: str, constants: dict[str, Any]) -> ir.Model:
    """A model of opset 21 from text, with initialisers given as arrays."""
    proto = onnx.parser.parse_model(
        f'<ir_version: 10, opset_import: ["" : 21]> agraph {signature} {{ {body} }}'
    )
    for name, array in constants.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(array), name))
    graph = ir.from_proto(onnx.shape_inference.infer_shapes(proto, strict_mode=True))
    for k, node in enumerate(graph.graph):
        node.name = f"{node.op_type}_{k}"
    return graph


def pair(value: str, name: str, scale: str, zero: str) -> str:
    return f"{name}_q = QuantizeLinear({value}, {scale}, {zero}) {name} = DequantizeLinear({name}_q, {scale}, {zero})"


WEIGHTS = {
    "w_q": RNG.integers(-127, 128, (4, 3, 3, 3)).astype(np.int8),
    "w_s": (RNG.random(4) * 0.01 + 0.005).astype(np.float32),
    "w_z": np.zeros(4, np.int8),
}
SIGNATURE = "(float[1,3,6,6] x) => (float[1,4,6,6] y)"


def params(dtype: Any, **scales: float) -> dict[str, Any]:
    zero = {np.uint8: 128, np.int8: 0, np.int16: 0}[dtype]
    found: dict[str, Any] = {"z": np.asarray(zero, dtype)}
    return found | {name: np.asarray(value, np.float32) for name, value in scales.items()}


@pytest.mark.parametrize("engine", ["litert", "litert-builtin", "tflite-runtime"])
def test_sixteen_bit_activations(engine: str, tflite: Callable[..., Any], onnx_run: Any) -> None:
    body = f"""{pair("x", "a", "s", "z")} w = DequantizeLinear<axis=0>(w_q, w_s, w_z)
        h = Conv<pads=[1,1,1,1]>(a, w, b) r = Relu(h) {pair("r", "c", "t", "z")}
        d = Add(c, c) {pair("d", "y", "u", "z")}"""
    constants = WEIGHTS | params(np.int16, s=4 / 32768, t=20 / 32768, u=40 / 32768)
    constants["b"] = RNG.standard_normal(4).astype(np.float32)
    graph = model(body, SIGNATURE, constants)
    data = emit(graph, precision="int8")
    file = read(data)
    conv = next(op for op in file.operators if op.code == "CONV_2D")
    types = [file.tensors[i].type for i in (*conv.inputs, *conv.outputs)]
    assert types == [TensorType.INT16, TensorType.INT8, TensorType.INT64, TensorType.INT16]
    given = {"x": RNG.standard_normal((1, 3, 6, 6)).astype(np.float32)}
    want = onnx_run(graph, given, fused=False)["y"]
    assert np.abs(tflite(data, given, engine)["y"] - want).max() <= 2.01 * 40 / 32768


def test_bias_in_float_becomes_codes(tflite: Any, onnx_run: Any) -> None:
    """Some tools leave the bias a float initialiser; TFLite wants int32 at s_x * s_w."""
    body = f"""{pair("x", "a", "s", "z")} w = DequantizeLinear<axis=0>(w_q, w_s, w_z)
        h = Conv<pads=[1,1,1,1]>(a, w, b) {pair("h", "y", "t", "z")}"""
    constants = WEIGHTS | params(np.uint8, s=0.03, t=0.1) | {"b": RNG.standard_normal(4).astype(np.float32)}
    graph = model(body, SIGNATURE, constants)
    data = emit(graph, precision="int8")
    assert "CONV_2D" in [op.code for op in read(data).operators if op.version == 3]
    given = {"x": RNG.standard_normal((1, 3, 6, 6)).astype(np.float32)}
    want = onnx_run(graph, given, fused=False)["y"]
    assert np.abs(tflite(data, given)["y"] - want).max() <= 0.101


def test_a_float_island_between_codes(tflite: Any, onnx_run: Any) -> None:
    """Erf-like operators without an int8 form run on numbers, the rest stays on codes."""
    body = f"""{pair("x", "a", "s", "z")} w = DequantizeLinear<axis=0>(w_q, w_s, w_z)
        h = Conv<pads=[1,1,1,1]>(a, w) {pair("h", "c", "t", "z")} e = Exp(c) {pair("e", "f", "t", "z")}
        y = MaxPool<kernel_shape=[1,1]>(f)"""
    graph = model(body, SIGNATURE, WEIGHTS | params(np.int8, s=0.02, t=0.05))
    file = read(data := emit(graph, precision="int8", io_layout="nhwc"))
    codes = [op.code for op in file.operators]
    assert codes == ["QUANTIZE", "CONV_2D", "DEQUANTIZE", "EXP", "QUANTIZE", "MAX_POOL_2D", "DEQUANTIZE"]
    given = {"x": RNG.standard_normal((1, 3, 6, 6)).astype(np.float32) * 0.3}
    have = tflite(data, {"x": given["x"].transpose(0, 2, 3, 1)})["y"].transpose(0, 3, 1, 2)
    assert np.abs(have - onnx_run(graph, given, fused=False)["y"]).max() <= 0.151


def test_movers_without_pairs_of_their_own_move_codes(tflite: Any, onnx_run: Any) -> None:
    """A Reshape behind a DequantizeLinear that nobody quantised again moves the codes; the numbers follow at the end."""
    body = f"""{pair("x", "a", "s", "z")} w = DequantizeLinear<axis=0>(w_q, w_s, w_z)
        h = Conv<pads=[1,1,1,1]>(a, w) {pair("h", "c", "t", "z")} m = MaxPool<kernel_shape=[2,2], strides=[2,2]>(c)
        r = Reshape(m, shape) y = Concat<axis=1>(r, r)"""
    constants = WEIGHTS | params(np.int8, s=0.02, t=0.05) | {"shape": np.asarray([1, 4, 9])}
    graph = model(body, "(float[1,3,6,6] x) => (float[1,8,9] y)", constants)
    data = emit(graph, precision="int8", io_layout="nhwc")
    codes = [op.code for op in read(data).operators]
    assert codes[-1] == "DEQUANTIZE"
    assert codes.count("DEQUANTIZE") == 1
    given = {"x": RNG.standard_normal((1, 3, 6, 6)).astype(np.float32)}
    have = tflite(data, {"x": given["x"].transpose(0, 2, 3, 1)})["y"]
    assert np.abs(have - onnx_run(graph, given, fused=False)["y"]).max() <= 0.0501


def test_other_parameters_behind_a_pool_are_requantised(tflite: Any, onnx_run: Any) -> None:
    body = f"""{pair("x", "a", "s", "z")} p = MaxPool<kernel_shape=[2,2]>(a) {pair("p", "b", "t", "z")}
        g = Sigmoid(b) {pair("g", "y", "s", "z")}"""
    graph = model(body, "(float[1,3,6,6] x) => (float[1,3,5,5] y)", params(np.uint8, s=0.02, t=0.05))
    file = read(data := emit(graph, precision="int8", io_layout="nhwc"))
    codes = [op.code for op in file.operators]
    assert codes == ["QUANTIZE", "MAX_POOL_2D", "QUANTIZE", "LOGISTIC", "QUANTIZE", "DEQUANTIZE"]
    logistic = file.operators[3]
    assert file.tensors[logistic.outputs[0]].quantization.scale == (1 / 256,)
    given = {"x": RNG.standard_normal((1, 3, 6, 6)).astype(np.float32)}
    have = tflite(data, {"x": given["x"].transpose(0, 2, 3, 1)})["y"].transpose(0, 3, 1, 2)
    assert np.abs(have - onnx_run(graph, given, fused=False)["y"]).max() <= 0.0201


@pytest.mark.parametrize(
    ("weights", "why"),
    [
        ({"w_z": np.full(4, 3, np.int8)}, "asymmetric"),
        ({"w_q": np.full((4, 3, 3, 3), 100, np.uint8), "w_z": np.full(4, 100, np.uint8)}, "asymmetric"),
    ],
)
def test_weights_that_no_kernel_takes(weights: dict[str, Any], why: str) -> None:
    body = f"""{pair("x", "a", "s", "z")} w = DequantizeLinear<axis=0>(w_q, w_s, w_z)
        h = Conv<pads=[1,1,1,1]>(a, w) {pair("h", "y", "t", "z")}"""
    graph = model(body, SIGNATURE, WEIGHTS | params(np.uint8, s=0.02, t=0.05) | weights)
    with pytest.raises(UnsupportedError, match=why):
        emit(graph, precision="int8")


def test_weights_along_the_wrong_axis() -> None:
    body = f"""{pair("x", "a", "s", "z")} w = DequantizeLinear<axis=1>(w_q, w_s, w_z)
        h = Conv<pads=[1,1,1,1]>(a, w) {pair("h", "y", "t", "z")}"""
    constants = WEIGHTS | params(np.uint8, s=0.02, t=0.05)
    constants |= {"w_s": np.ones(3, np.float32), "w_z": np.zeros(3, np.int8)}
    with pytest.raises(UnsupportedError, match="axis 1"):
        emit(model(body, SIGNATURE, constants), precision="int8")


def test_codes_beyond_the_signed_range_saturate_alike(tflite: Any, onnx_run: Any) -> None:
    """Inputs far outside the range, on both sides, and a zero point at the end of the type."""
    body = f"""{pair("x", "a", "s", "zero")} r = Relu(a) {pair("r", "y", "s", "zero")}"""
    for dtype, zero in ((np.uint8, 0), (np.uint8, 255), (np.int8, -128), (np.int8, 127)):
        constants = {"s": np.float32(0.1), "zero": np.asarray(zero, dtype)}
        graph = model(body, "(float[1,4] x) => (float[1,4] y)", constants)
        given = {"x": np.asarray([[-1e6, -3.0, 3.04, 1e6]], np.float32)}
        want = onnx_run(graph, given, fused=False)["y"]
        np.testing.assert_allclose(tflite(emit(graph, precision="int8"), given)["y"], want, atol=1e-5)
