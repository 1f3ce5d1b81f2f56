"""Operator by operator: the emitted file against onnxruntime, in float on every engine and in int8.

The nets are three lines each; geometry of windows has a test of its own (`test_geometry`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from edgec.compiler.emit.tflite import emit
from edgec.graph.tflite.read import read

ENGINES = ("litert", "litert-builtin", "tflite-runtime")

MAP = "agraph (float[n,4,6,6] x) => (float[n,a,b,c] y)"
FLAT = "agraph (float[n,12] x) => (float[n,a] y)"
CONV = "<float[4,4,3,3] w, float[4] b> { h = Conv<pads=[1,1,1,1]>(x, w, b)"

FLOAT: dict[str, str] = {
    "conv relu": f"{MAP} {CONV} y = Relu(h) }}",
    "conv relu6": f"""{MAP} {CONV} zero = Constant<value_float=0.0>() six =
        Constant<value_float=6.0>() y = Clip(h, zero, six) }}""",
    "conv clip": f"{MAP} {CONV} a = Constant<value_float=-0.3>() b2 = Constant<value_float=0.7>() y = Clip(h, a, b2) }}",
    "conv without bias": f"{MAP} <float[4,4,1,1] w> {{ y = Conv(x, w) }}",
    "conv valid by auto_pad": f'{MAP} <float[4,4,3,3] w> {{ y = Conv<auto_pad="VALID">(x, w) }}',
    "conv same lower": f'{MAP} <float[4,4,2,2] w> {{ y = Conv<auto_pad="SAME_LOWER", strides=[2,2]>(x, w) }}',
    "deconv by its output's size": f"{MAP} <float[4,4,3,3] w> {{ y = ConvTranspose<strides=[2,2], output_shape=[11,12]>(x, w) }}",
    "residual": f"{MAP} {CONV} s = Add(h, x) y = Relu(s) }}",
    "squeeze and excite": f"""{MAP} <float[4,4,1,1] w, float[4,4,1,1] w2> {{ g = GlobalAveragePool(x) a = Conv(g, w)
        r = Relu(a) e = Conv(r, w2) s = Sigmoid(e) y = Mul(x, s) }}""",
    "sub and div by channel": f"{MAP} <float[4,1,1] m, float[4,1,1] d> {{ s = Sub(x, m) y = Div(s, d) }}",
    "scalar first": f"{MAP} {{ c = Constant<value_float=2.0>() y = Sub(c, x) }}",
    "max and min": f"{MAP} <float[4,1,1] m> {{ a = Max(x, m) y = Min(a, x) }}",
    "max of three": f"{MAP} <float[4,1,1] m, float[1] c> {{ y = Max(x, m, c) }}",
    "sum and mean": f"{MAP} <float[4,1,1] m> {{ a = Sum(x, m, x) y = Mean(a, x) }}",
    "pow": f"{MAP} {{ c = Constant<value_float=2.0>() y = Pow(x, c) }}",
    "prelu by channel": f"{MAP} <float[4,1,1] a> {{ y = PRelu(x, a) }}",
    "leaky relu": f"{MAP} {{ y = LeakyRelu<alpha=0.2>(x) }}",
    "sigmoid": f"{MAP} {{ y = Sigmoid(x) }}",
    "tanh": f"{MAP} {{ y = Tanh(x) }}",
    "hard sigmoid": f"{MAP} {{ y = HardSigmoid<alpha=0.3, beta=0.4>(x) }}",
    "hard swish": f"{MAP} {{ y = HardSwish(x) }}",
    "silu": f"{MAP} {{ s = Sigmoid(x) y = Mul(x, s) }}",
    "gelu": f"{MAP} {{ y = Gelu(x) }}",
    "gelu by tanh": f'{MAP} {{ y = Gelu<approximate="tanh">(x) }}',
    "gelu written out": f"""{MAP} {{ r = Constant<value_float=1.4142135>() d = Div(x, r) e = Erf(d)
        one = Constant<value_float=1.0>() a = Add(e, one) m = Mul(x, a) half = Constant<value_float=0.5>()
        y = Mul(m, half) }}""",
    "gelu with the half before": f"""{MAP} {{ r = Constant<value_float=0.70710678>() d = Mul(r, x) e = Erf(d)
        one = Constant<value_float=1.0>() a = Add(one, e) half = Constant<value_float=0.5>() m = Mul(x, half)
        y = Mul(m, a) }}""",
    "max pool behind relu": f"""{MAP} {CONV} r = Relu(h)
        y = MaxPool<kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]>(r) }}""",
    "elu": f"{MAP} {{ a = Elu(x) y = Elu<alpha=0.5>(a) }}",
    "selu": f"{MAP} {{ y = Selu(x) }}",
    "celu": f"{MAP} {{ y = Celu<alpha=0.7>(x) }}",
    "mish": f"{MAP} {{ y = Mish(x) }}",
    "softplus and softsign": f"{MAP} {{ a = Softplus(x) y = Softsign(a) }}",
    "thresholded relu": f"{MAP} {{ y = ThresholdedRelu<alpha=0.3>(x) }}",
    "unary chain": f"{MAP} {{ a = Abs(x) b = Sqrt(a) c = Exp(b) d = Log(c) e = Neg(d) f = Reciprocal(c) y = Add(e, f) }}",
    "floor ceil round sign": f"{MAP} {{ a = Floor(x) b = Ceil(x) c = Round(x) d = Sign(x) y = Sum(a, b, c, d) }}",
    "softmax over channels": f"{MAP} {{ y = Softmax<axis=1>(x) }}",
    "softmax over rows": f"{MAP} {{ y = Softmax<axis=2>(x) }}",
    "log softmax": f"{FLAT} {{ y = LogSoftmax(x) }}",
    "lrn of odd size": f"{MAP} {{ y = LRN<size=3, alpha=0.9, beta=0.75, bias=2.0>(x) }}",
    "lrn of more neighbours than channels": f"{MAP} {CONV} y = LRN<size=9, alpha=0.5, beta=0.5>(h) }}",
    "global max": f"{MAP} {{ y = GlobalMaxPool(x) }}",
    "max pool dilated": f"{MAP} {{ y = MaxPool<kernel_shape=[2,2], dilations=[2,2], pads=[1,1,1,1]>(x) }}",
    "mean over height": f"{MAP} {{ a = Constant<value_ints=[2]>() y = ReduceMean(x, a) }}",
    "norms": f"""{MAP} {{ a = Constant<value_ints=[1]>() p = ReduceL1(x, a) q = ReduceL2(x, a) r = ReduceSumSquare(x, a)
        s = ReduceLogSumExp(x, a) y = Sum(p, q, r, s) }}""",
    "max min prod": f"""{MAP} {{ a = Constant<value_ints=[3]>() p = ReduceMax(x, a) q = ReduceMin(x, a)
        r = ReduceProd(x, a) y = Sum(p, q, r) }}""",
    "concat channels": f"{MAP} {CONV} y = Concat<axis=1>(h, x, h) }}",
    "concat width": f"{MAP} {CONV} y = Concat<axis=3>(h, x) }}",
    "split equal": f"{MAP} {CONV} p, q = Split<axis=1, num_outputs=2>(h) y = Sub(p, q) }}",
    "split unequal": f"{MAP} {CONV} s = Constant<value_ints=[1,3]>() p, q = Split<axis=1>(h, s) y = Mul(p, q) }}",
    "slice": f"""{MAP} {CONV} s = Constant<value_ints=[1,2]>() e = Constant<value_ints=[3,6]>()
        a = Constant<value_ints=[1,3]>() y = Slice(h, s, e, a) }}""",
    "slice by step": f"""{MAP} {CONV} s = Constant<value_ints=[-1,1]>() e = Constant<value_ints=[-100,6]>()
        a = Constant<value_ints=[2,3]>() t = Constant<value_ints=[-1,2]>() y = Slice(h, s, e, a, t) }}""",
    "gather channels": f"{MAP} {CONV} i = Constant<value_ints=[3,-4,1]>() y = Gather<axis=1>(h, i) }}",
    "pad channels": f"{MAP} {CONV} p = Constant<value_ints=[0,2,0,0,0,2,0,0]>() y = Pad(h, p) }}",
    "pad with a value": f"""{MAP} {CONV} p = Constant<value_ints=[0,0,1,0,0,0,0,2]>() v = Constant<value_float=-1.5>()
        y = Pad(h, p, v) }}""",
    "resize nearest": f"{MAP} <float[4] s = {{1.0, 1.0, 2.0, 2.0}}> {{ y = Resize<mode=\"nearest\">(x, , s) }}",
    "resize floor": f"""{MAP} <float[4] s = {{1.0, 1.0, 1.5, 2.5}}>
        {{ y = Resize<mode="nearest", nearest_mode="floor", coordinate_transformation_mode="asymmetric">(x, , s) }}""",
    "resize ceil": f"""{MAP} <float[4] s = {{1.0, 1.0, 1.5, 2.5}}>
        {{ y = Resize<mode="nearest", nearest_mode="ceil">(x, , s) }}""",
    "resize half pixel": f"{MAP} <float[4] s = {{1.0, 1.0, 2.0, 2.0}}> {{ y = Resize<mode=\"linear\">(x, , s) }}",
    "resize corners": f"""{MAP} <int64[4] s = {{1, 4, 11, 9}}>
        {{ y = Resize<mode="linear", coordinate_transformation_mode="align_corners">(x, , , s) }}""",
    "resize asymmetric": f"""{MAP} <float[4] s = {{1.0, 1.0, 2.0, 3.0}}>
        {{ y = Resize<mode="linear", coordinate_transformation_mode="asymmetric">(x, , s) }}""",
    "resize by a broken factor": f"{MAP} <float[4] s = {{1.0, 1.0, 0.6, 1.7}}> {{ y = Resize<mode=\"linear\">(x, , s) }}",
    "flatten and gemm": f"""agraph (float[n,4,6,6] x) => (float[n,m] y) {CONV}
        f = Flatten(h) y = Gemm<transB=1>(f, g, c) }}""".replace(
        "float[4] b>", "float[4] b, float[5,144] g, float[5] c>"
    ),
    "gemm with factors": f"{FLAT} <float[12,5] g, float[5] c> {{ y = Gemm<alpha=0.5, beta=2.0>(x, g, c) }}",
    "gemm plus rows": "agraph (float[1,12] x) => (float[1,5] y) <float[12,5] g, float[1,5] c> { y = Gemm(x, g, c) }",
    "matmul and bias": """agraph (float[n,7,12] x) => (float[n,7,5] y) <float[12,5] g, float[5] c> {
        h = MatMul(x, g) y = Add(h, c) }""",
    "attention": """agraph (float[n,7,12] x) => (float[n,7,12] y) <float[12,12] q, float[12,12] k> { a = MatMul(x, q)
        b = MatMul(x, k) t = Transpose<perm=[0,2,1]>(b) s = MatMul(a, t) p = Softmax<axis=-1>(s) y = MatMul(p, x) }""",
    "tokens from a map": f"""agraph (float[n,4,6,6] x) => (float[n,36,4] y) {CONV} s = Constant<value_ints=[0,4,36]>()
        f = Reshape(h, s) y = Transpose<perm=[0,2,1]>(f) }}""",
    "pixel shuffle": f"{MAP} {CONV} y = DepthToSpace<blocksize=2>(h) }}",
    "pixel shuffle crd": f'{MAP} {CONV} y = DepthToSpace<blocksize=2, mode="CRD">(h) }}',
    "space to depth": f"{MAP} {CONV} y = SpaceToDepth<blocksize=2>(h) }}",
    "channel shuffle": f"""{MAP} {CONV} s = Constant<value_ints=[-1,2,2,6,6]>() r = Reshape(h, s)
        t = Transpose<perm=[0,2,1,3,4]>(r) u = Constant<value_ints=[-1,4,6,6]>() v = Reshape(t, u) y = Conv(v, w2) }}""".replace(
        "float[4] b>", "float[4] b, float[3,4,1,1] w2>"
    ),
    "expand": "agraph (float[1,4,1,6] x) => (float[1,4,5,6] y) { s = Constant<value_ints=[1,4,5,6]>() y = Expand(x, s) }",
    "tile": f"{MAP} {CONV} r = Constant<value_ints=[1,2,1,3]>() y = Tile(h, r) }}",
    "signal": """agraph (float[n,3,20] x) => (float[n,a,b] y) <float[4,3,5] w, float[4,1,3] v> { h =
        Conv<strides=[2]>(x, w) r = Relu(h) y = Conv<group=4>(r, v) }""",
    "batch norm alone": """agraph (float[n,4,6,6] x) => (float[n,4,6,6] y)
        <float[4] s, float[4] b, float[4] m, float[4] v = {0.5, 1.0, 1.5, 2.0}> { y = BatchNormalization(x, s, b, m, v) }""",
    "instance norm": """agraph (float[n,4,6,6] x) => (float[n,4,6,6] y) <float[4] s, float[4] b> { y
        = InstanceNormalization(x, s, b) }""",
    "layer norm": """agraph (float[n,7,12] x) => (float[n,7,12] y) <float[12] s, float[12] b> { y =
        LayerNormalization(x, s, b) }""",
    "where": f"{MAP} {{ z = Constant<value_float=0.1>() m = Greater(x, z) n = Neg(x) y = Where(m, x, n) }}",
    "cumsum": f"{MAP} {{ a = Constant<value_int=2>() y = CumSum(x, a) }}",
    "average pool dilated": f"{MAP} {{ y = AveragePool<kernel_shape=[2,2], dilations=[2,2], pads=[1,1,1,1]>(x) }}",
}  # fmt: skip


@pytest.mark.parametrize("name", FLOAT)
def test_float(
    name: str, build: Callable[..., Any], feeds: Callable[..., Any], tflite: Callable[..., Any], onnx_run: Any
) -> None:
    model = build(FLOAT[name])
    given = feeds(
        model, count=model.graph.inputs[0].shape[0] if isinstance(model.graph.inputs[0].shape[0], int) else 1
    )
    want = onnx_run(model, given)
    data = emit(model)
    for engine in ENGINES:
        have = tflite(data, given, engine)
        for key, value in want.items():
            assert have[key].shape == value.shape
            np.testing.assert_allclose(have[key], value, rtol=2e-5, atol=2e-5 * max(1, np.abs(value).max()))


INT8 = (
    "conv relu", "conv relu6", "conv clip", "conv without bias", "conv same lower", "residual", "squeeze and excite",
    "concat channels", "concat width", "split equal", "split unequal", "slice", "slice by step", "gather channels",
    "pad channels", "flatten and gemm", "pixel shuffle", "pixel shuffle crd", "space to depth", "channel shuffle",
    "signal", "attention", "tokens from a map", "matmul and bias",
)  # fmt: skip


@pytest.mark.parametrize("activations", ["uint8", "int8"])
@pytest.mark.parametrize("name", INT8)
def test_int8(
    name: str,
    activations: str,
    build: Callable[..., Any],
    quantise: Callable[..., Any],
    feeds: Callable[..., Any],
    tflite: Callable[..., Any],
    onnx_run: Any,
    in_codes: Any,
) -> None:
    model = quantise(build(FLOAT[name]), activations)
    given = feeds(model, count=1)
    want = onnx_run(model, given, fused=False)["y"]
    data = emit(model, precision="int8")
    for engine in ENGINES:
        have = tflite(data, given, engine)["y"]
        steps = np.abs(have - want) / in_codes(model)
        assert steps.max() <= 3.01, engine
        assert np.mean(steps <= 1.01) >= 0.98, engine


def test_quantised_layers_run_on_codes(build: Callable[..., Any], quantise: Callable[..., Any]) -> None:
    model = quantise(build(FLOAT["residual"]))
    codes = [op.code for op in read(emit(model, precision="int8", io_layout="nhwc")).operators]
    assert codes == ["QUANTIZE", "CONV_2D", "ADD", "DEQUANTIZE"]
    codes = [
        op.code for op in read(emit(model, precision="int8", io_layout="nhwc", io_type="int8")).operators
    ]
    assert codes == ["CONV_2D", "ADD"]


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("conv relu", ["CONV_2D"]),
        ("gelu written out", ["GELU"]),
        ("gelu with the half before", ["GELU"]),
        ("max pool behind relu", ["CONV_2D", "PAD", "MAX_POOL_2D"]),
        ("conv clip", ["CONV_2D", "MAXIMUM", "MINIMUM"]),
        ("residual", ["CONV_2D", "ADD"]),
        ("flatten and gemm", ["CONV_2D", "FULLY_CONNECTED"]),
        ("tokens from a map", ["CONV_2D", "RESHAPE"]),
        ("channel shuffle", ["CONV_2D", "CONV_2D"]),
        ("softmax over channels", ["SOFTMAX"]),
        ("matmul and bias", ["FULLY_CONNECTED"]),
        ("resize half pixel", ["RESIZE_BILINEAR"]),
        ("resize nearest", ["RESIZE_NEAREST_NEIGHBOR"]),
        ("squeeze and excite", ["MEAN", "CONV_2D", "CONV_2D", "LOGISTIC", "MUL"]),
    ],
)
def test_no_operator_too_many(name: str, wanted: list[str], build: Callable[..., Any]) -> None:
    """Activations fused, permutations absorbed by weights, and no TRANSPOSE."""
    data = emit(build(FLOAT[name]), io_layout="nhwc")
    assert [op.code for op in read(data).operators] == wanted


def test_integer_results(build: Callable[..., Any], feeds: Any, tflite: Any, onnx_run: Any) -> None:
    text = """agraph (float[n,4,6,6] x) => (int64[n,1,6,6] i, int64[n,4,6] j, float[n,4,6,2] v, int64[n,4,6,2] k) {
        i = ArgMax<axis=1>(x) j = ArgMin<axis=2, keepdims=0, select_last_index=1>(x) c = Constant<value_ints=[2]>()
        v, k = TopK<largest=0>(x, c) }"""
    model = build(text)
    given = feeds(model, count=1)
    given["x"] = np.round(given["x"])  # ties
    want, have = onnx_run(model, given), tflite(emit(model), given)
    for name in ("i", "j", "v"):
        np.testing.assert_array_equal(have[name], want[name])
    picked = np.take_along_axis(given["x"], have["k"], axis=3)
    np.testing.assert_array_equal(picked, want["v"])


def test_computed_indices_may_be_negative(build: Any, tflite: Any, onnx_run: Any) -> None:
    model = build("agraph (float[5,3] x, int64[4] i) => (float[4,3] y) { y = Gather(x, i) }")
    given = {
        "x": np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32),
        "i": np.array([0, -1, 4, -5], np.int64),
    }
    np.testing.assert_array_equal(tflite(emit(model), given)["y"], onnx_run(model, given)["y"])
