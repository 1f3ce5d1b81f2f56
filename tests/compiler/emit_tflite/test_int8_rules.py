"""Int8 forms of what real networks hold: on codes in both files, and the same numbers in every engine.

Every case is compared with its own QDQ graph computed in float as written: onnxruntime with all optimisations, LiteRT by
XNNPACK and by its built-in kernels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from edgec.compiler.emit.tflite import emit
from edgec.graph.compare import sqnr_db
from edgec.graph.tflite.read import read
from edgec.graph.tflite.schema import TensorType
from edgec.passes.quantize.dialects import TFLITE
from edgec.passes.quantize.rewrites import prepare


def net(
    body: str, weights: str, output: str = "N,8,12,12", extra: str = "", source: str = "N,3,12,12"
) -> str:
    """A graph whose stem is a convolution with eight channels, `a`."""
    return f"""g (float[{source}] x) => (float[{output}] y)
    <float[8,3,3,3] ws, float[8] bs{"," + weights if weights else ""}> {{
      a = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(x, ws, bs) {extra} {body} }}"""


def tokens(body: str, weights: str, output: str = "N,5,8") -> str:
    """A graph on five tokens of eight features, `x`."""
    return f"g (float[N,5,8] x) => (float[{output}] y) <{weights}> {{ {body} }}"


NORM = "float[{c}] g{i}, float[{c}] t{i}, float[{c}] m{i}, float[{c}] v{i}"
CONV = "float[8,8,1,1] w1, float[8] b1"
SE = "float[4,8,1,1] w1, float[4] b1, float[8,4,1,1] w2, float[8] b2"
BLOCK = "p = GlobalAveragePool(a) q = Conv(p, w1, b1) r = Relu(q) s = Conv(r, w2, b2)"
SIX = "lo = Constant<value=float {0.0}>() hi = Constant<value=float {6.0}>()"
THREE = "three = Constant<value=float {3.0}>() six = Constant<value=float {6.0}>()"
ATTENTION = """q = MatMul(x, wq) k = MatMul(x, wk) v = MatMul(x, wv) kt = Transpose<perm=[0,2,1]>(k)
    s = MatMul(q, kt) p = Softmax<axis=-1>(s) o = MatMul(p, v) l = MatMul(o, wo) y = Add(l, bo)"""
QKV = "float[8,8] wq, float[8,8] wk, float[8,8] wv, float[8,8] wo, float[8] bo"


def norm(x: str, y: str, i: int, c: int) -> tuple[str, str]:
    """(nodes, initialisers) of a BatchNormalization with positive variances."""
    return f"{y} = BatchNormalization({x}, g{i}, t{i}, m{i}, v{i})", NORM.format(c=c, i=i)


def with_norms(model: ir.Model) -> ir.Model:
    """Variances as they are in trained networks: positive."""
    for name, value in model.graph.initializers.items():
        if name.startswith("v") and value.const_value is not None:
            value.const_value = ir.tensor(np.abs(value.const_value.numpy()) + 0.5, name=name)
    return model


_BN1, _BN1_W = norm("a", "n", 1, 8)
_BN2, _BN2_W = norm("c", "n2", 2, 16)

ON_CODES: dict[str, str] = {
    "gate hard sigmoid": net(f"{BLOCK} u = HardSigmoid<alpha=0.1666667, beta=0.5>(s) y = Mul(a, u)", SE),
    "gate sigmoid": net(f"{BLOCK} u = Sigmoid(s) y = Mul(a, u)", SE),
    "gate read twice": net("u = HardSigmoid<alpha=0.2, beta=0.5>(a) m = Mul(u, a) y = Conv(m, w1, b1)", CONV),
    "gate on features": net(
        "p = GlobalAveragePool(a) f = Flatten(p) l = Gemm<transB=1>(f, wf, bf) y = HardSigmoid(l)",
        "float[8,8] wf, float[8] bf",
        "N,8",
    ),
    "hard swish": net("h = HardSwish(a) y = Conv(h, w1, b1)", CONV),
    "hard swish written out": net(
        "s = Add(a, three) c = Clip(s, lo, hi) m = Mul(a, c) h = Div(m, six) y = Conv(h, w1, b1)",
        CONV, extra=f"{SIX} {THREE}",
    ),
    "hard swish by gate": net(
        "s = Add(a, three) c = Clip(s, lo, hi) h = Div(c, six) m = Mul(a, h) y = Conv(m, w1, b1)",
        CONV, extra=f"{SIX} {THREE}",
    ),
    "gate divided": net(f"{BLOCK} c = Clip(s, lo, hi) u = Div(c, six) y = Mul(a, u)", SE, extra=f"{SIX} {THREE}"),
    "gate read twice and divided": net(
        "p = Add(a, three) c = Clip(p, lo, hi) u = Div(c, six) v = Mul(a, u) w = Mul(v, c) y = Conv(w, w1, b1)", CONV, extra=f"{SIX} {THREE}"
    ),
    "divided per channel": net("r = Relu(a) d = Div(r, s1) y = Conv(d, w1, b1)", f"{CONV}, float[1,8,1,1] s1 = {{0.5, 2, 3, -0.25, 4, 1, 0.7, 1.5}}"),
    "negated": net("m = Neg(a) c = Concat<axis=1>(a, m) r = Relu(c) y = Conv(r, w2)", "float[8,16,1,1] w2"),
    "squared": net("r = Relu(a) s = Pow(r, two) y = Conv(s, w1, b1)", f"{CONV}, float two = {{2.0}}"),
    "gelu by tanh": net(
        "c = Pow(a, cube) m = Mul(c, b0) s = Add(a, m) q = Mul(s, b2) t = Tanh(q) u = Add(t, one) h = Mul(a, half) g = Mul(h, u) y = Conv(g, w1, b1)",
        f"{CONV}, float cube = {{3}}, float b0 = {{0.044715}}, float b2 = {{0.7978846}}, float one = {{1}}, float half = {{0.5}}",
    ),
    "silu": net("s = Sigmoid(a) m = Mul(a, s) y = Conv(m, w1, b1)", CONV),
    "norm before activation": net(
        f"r0 = Relu(a) {_BN1.replace('(a', '(r0')} r = Relu(n) d = Conv(r, w1, b1) c = Concat<axis=1>(r0, d) {_BN2} r2 = Relu(n2) y = Conv(r2, w2)",
        f"{CONV}, {_BN1_W}, {_BN2_W}, float[8,16,1,1] w2",
    ),
    "scale and shift": net(
        "r0 = Relu(a) m = Mul(r0, s1) n = Add(m, t1) r = Relu(n) y = Conv(r, w1, b1)",
        f"{CONV}, float[1,8,1,1] s1, float[8,1,1] t1",
    ),
    "norm of features": net(
        f"p = GlobalAveragePool(a) f = Flatten(p) {_BN1.replace('(a', '(f')} y = Relu(n)", _BN1_W, "N,8"
    ),
    "norm before a linear layer": net(
        f"p = GlobalAveragePool(a) f = Flatten(p) {_BN1.replace('(a', '(f')} y = Gemm<transB=1>(n, wf, bf)",
        f"{_BN1_W}, float[8,8] wf, float[8] bf", "N,8",
    ),
    "norm behind a flattened linear": tokens(
        f"l = MatMul(x, w1) sh = Constant<value=int64[2] {{-1,8}}>() f = Reshape(l, sh) {_BN1.replace('(a', '(f')} back = Constant<value=int64[3] {{-1,5,8}}>() y = Reshape(n, back)",
        f"float[8,8] w1, {_BN1_W}",
    ),
    "linear on tokens": tokens("l = MatMul(x, w1) y = Add(l, b1)", "float[8,12] w1, float[12] b1", "N,5,12"),
    "linear on tokens, bias first": tokens("l = MatMul(x, w1) y = Add(b1, l)", "float[8,12] w1, float[1,1,12] b1", "N,5,12"),
    "linear on tokens without bias": tokens("y = MatMul(x, w1)", "float[8,12] w1", "N,5,12"),
    "linear on features": net(
        "p = GlobalAveragePool(a) f = Flatten(p) l = MatMul(f, w1) y = Add(l, b1)", "float[8,6] w1, float[6] b1", "N,6"
    ),
    "attention": tokens(ATTENTION, QKV),
    "attention, queries divided": tokens(
        ATTENTION.replace("MatMul(q, kt)", "MatMul(qs, kt)").replace("k = ", "qs = Div(q, root) k = ", 1), f"{QKV}, float root = {{2.8284271}}"
    ),
    "attention, products divided": tokens(
        ATTENTION.replace("p = Softmax<axis=-1>(s)", "d = Div(s, root) p = Softmax<axis=-1>(d)"), f"{QKV}, float root = {{2.8284271}}"
    ),
    "attention of two heads": tokens(
        """q0 = MatMul(x, wq) k0 = MatMul(x, wk) v0 = MatMul(x, wv) heads = Constant<value=int64[4] {-1,5,2,4}>()
        q1 = Reshape(q0, heads) k1 = Reshape(k0, heads) v1 = Reshape(v0, heads)
        q = Transpose<perm=[0,2,1,3]>(q1) k = Transpose<perm=[0,2,3,1]>(k1) v = Transpose<perm=[0,2,1,3]>(v1)
        s = MatMul(q, k) p = Softmax<axis=-1>(s) o = MatMul(p, v) t = Transpose<perm=[0,2,1,3]>(o)
        flat = Constant<value=int64[3] {-1,5,8}>() f = Reshape(t, flat) l = MatMul(f, wo) y = Add(l, bo)""",
        QKV,
    ),
    "layer scale": tokens(
        "l = MatMul(x, w1) m = Add(l, b1) g = Mul(m, s1) y = Add(x, g)",
        "float[8,8] w1, float[8] b1, float[8] s1",
    ),
    "deconv": net("y = ConvTranspose<kernel_shape=[2,2], strides=[2,2]>(a, d1, b1)", "float[8,4,2,2] d1, float[4] b1", "N,4,24,24"),
    "deconv relu": net("d = ConvTranspose<kernel_shape=[2,2], strides=[2,2]>(a, d1) y = Relu(d)", "float[8,4,2,2] d1", "N,4,24,24"),
    "deconv relu6": net(
        "d = ConvTranspose<kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1], output_padding=[1,1]>(a, d1) y = Clip(d, lo, hi)",
        "float[8,4,3,3] d1", "N,4,24,24", extra=SIX,
    ),
    "deconv leaky": net("d = ConvTranspose<kernel_shape=[2,2], strides=[2,2]>(a, d1) y = LeakyRelu(d)", "float[8,4,2,2] d1", "N,4,24,24"),
    "deconv grouped": net("d = ConvTranspose<kernel_shape=[2,2], strides=[2,2], group=2>(a, d1, b1) y = Relu(d)", "float[8,3,2,2] d1, float[6] b1", "N,6,24,24"),
    "deconv depthwise": net("d = ConvTranspose<kernel_shape=[4,4], strides=[2,2], pads=[1,1,1,1], group=8>(a, d1, b1) y = Relu(d)", "float[8,1,4,4] d1, float[8] b1", "N,8,24,24"),
    "deconv depthwise, twice the channels": net("y = ConvTranspose<kernel_shape=[2,2], strides=[2,2], group=8>(a, d1, b1)", "float[8,2,2,2] d1, float[16] b1", "N,16,24,24"),
    "deconv one output per group": net("y = ConvTranspose<kernel_shape=[2,2], strides=[2,2], group=4>(a, d1, b1)", "float[8,1,2,2] d1, float[4] b1", "N,4,24,24"),
    "pool counts padding": net("y = AveragePool<kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1], count_include_pad=1>(a)", "", "N,8,6,6"),
    "pool with gaps": net("y = AveragePool<kernel_shape=[3,3], dilations=[2,2]>(a)", "", "N,8,8,8"),
    "channels padded by zeros": net(
        "c = Concat<axis=1>(a, z) y = Relu(c)",
        "float[1,4,12,12] z = {" + ",".join(["0"] * 576) + "}",
        "1,12,12,12", source="1,3,12,12",
    ),
    "resize nearest by sizes": net(
        'sz = Constant<value=int64[2] {20,18}>() u = Resize<mode="nearest", axes=[2,3], coordinate_transformation_mode="asymmetric", nearest_mode="floor">(a, , , sz) y = Conv(u, w1, b1)',
        CONV, "N,8,20,18",
    ),
    "resize linear by sizes": net(
        'sz = Constant<value=int64[2] {24,24}>() u = Resize<mode="linear", axes=[2,3]>(a, , , sz) y = Conv(u, w1, b1)', CONV, "N,8,24,24"
    ),
    "resize linear by sizes of all axes": net(
        'sz = Constant<value=int64[4] {1,8,24,24}>() u = Resize<mode="linear">(a, , , sz) y = Conv(u, w1, b1)', CONV, "1,8,24,24", source="1,3,12,12"
    ),
}  # fmt: skip

RIGHT: dict[str, str] = {
    **{
        f"{mode} margin of two axes": net(
            f'ax = Constant<value=int64[2] {{2, -1}}>() m = Constant<value=int64[4] {{1, 1, 1, 1}}>() r = Relu(a) '
            f'e = Pad<mode="{mode}">(r, m, , ax) y = Conv(e, w1, b1)',
            CONV,
            output="N,8,14,14",
        )
        for mode in ("edge", "reflect")
    },
    "pool counts padding and rounds up": net("y = AveragePool<kernel_shape=[3,3], strides=[3,3], pads=[1,1,1,1], ceil_mode=1, count_include_pad=1>(a)", "", "N,8,5,5"),
    "pool counts uneven padding and rounds up": net("y = AveragePool<kernel_shape=[3,3], strides=[2,2], pads=[1,1,0,0], ceil_mode=1, count_include_pad=1>(a)", "", "N,8,6,6"),
    "pool counts no padding and rounds up": net("y = AveragePool<kernel_shape=[3,3], strides=[2,2], ceil_mode=1, count_include_pad=1>(a)", "", "N,8,6,6"),
    "pool rounds up": net("r = Relu(a) y = AveragePool<kernel_shape=[3,3], strides=[2,2], ceil_mode=1>(r)", "", "N,8,6,6"),
    "pool leaves padding out": net("y = AveragePool<kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]>(a)", "", "N,8,6,6"),
    "pool with gaps and padding": net("y = AveragePool<kernel_shape=[3,3], dilations=[2,2], pads=[2,2,2,2]>(a)", "", "N,8,12,12"),
    "pool with gaps and padding that counts": net("y = AveragePool<kernel_shape=[3,3], dilations=[2,2], pads=[2,2,2,2], count_include_pad=1>(a)", "", "N,8,12,12"),
    "gelu of one op": net("h = Gelu(a) y = Conv(h, w1, b1)", CONV),
    "gelu": tokens(
        "l = MatMul(x, w1) m = Add(l, b1) h = Div(m, root) e = Erf(h) o = Add(e, one) p = Mul(m, o) q = Mul(p, half) y = MatMul(q, w2)",
        "float[8,16] w1, float[16] b1, float[16,8] w2, float root = {1.41421356}, float one = {1.0}, float half = {0.5}",
    ),
    "layer norm": tokens(
        "n = LayerNormalization<axis=-1>(x, s1, t1) l = MatMul(n, w1) m = Add(l, b1) y = Add(x, m)",
        "float[8] s1, float[8] t1, float[8,8] w1, float[8] b1",
    ),
}  # fmt: skip


@pytest.fixture
def ready(build: Callable[..., ir.Model]) -> Callable[[str], ir.Model]:
    """A model from the text of a case."""
    return lambda text: with_norms(build(text))


@pytest.mark.parametrize("activations", ["uint8", "int8"])
@pytest.mark.parametrize("case", [*ON_CODES, *RIGHT])
def test_every_engine_computes_what_the_graph_says(
    case: str,
    activations: str,
    ready: Any,
    quantise: Any,
    tflite: Any,
    onnx_run: Any,
    feeds: Any,
    in_codes: Any,
) -> None:
    model = ready((ON_CODES | RIGHT)[case])
    twin = quantise(model, activations)
    given = {name: array[:1] for name, array in feeds(model, seed=1).items()}
    exact, want = onnx_run(model, given)["y"], onnx_run(twin, given, fused=False)["y"]
    assert sqnr_db(exact, want) > 22
    step = in_codes(twin)
    assert np.abs(onnx_run(twin, given)["y"] - want).max() <= 3.01 * step
    data = emit(twin, precision="int8")
    for engine in ("litert", "litert-builtin"):
        have = tflite(data, given, engine)["y"]
        assert np.abs(have - want).max() <= 4.01 * step, engine


@pytest.mark.parametrize(
    "case",
    [
        "gate hard sigmoid",
        "hard swish",
        "norm before activation",
        "linear on tokens",
        "deconv grouped",
        "gelu",
        "gelu of one op",
    ],
)
def test_sixteen_bit_activations_run(
    case: str, ready: Any, quantise: Any, tflite: Any, onnx_run: Any, feeds: Any
) -> None:
    """Some kernels take 8 bits only: what they compute stays float."""
    model = ready((ON_CODES | RIGHT)[case])
    twin = quantise(model, "int16")
    given = {name: array[:1] for name, array in feeds(model, seed=1).items()}
    want = onnx_run(model, given)["y"]
    assert sqnr_db(want, tflite(emit(twin, precision="int8"), given, "litert-builtin")["y"]) > 25


@pytest.mark.parametrize("case", ON_CODES)
def test_nothing_runs_in_float(case: str, ready: Any, quantise: Any) -> None:
    """Numbers are where a DEQUANTIZE ends the codes for the caller, and in layouts of the interface, nowhere else."""
    file = read(emit(quantise(ready(ON_CODES[case])), precision="int8"))
    makers = [
        op.code for op in file.operators for t in op.outputs if file.tensors[t].type == TensorType.FLOAT32
    ]
    assert makers.count("DEQUANTIZE") == 1
    assert set(makers) <= {"DEQUANTIZE", "TRANSPOSE"}


@pytest.mark.parametrize("case", [*ON_CODES, *RIGHT])
def test_the_forms_compute_the_same_function(case: str, ready: Any, onnx_run: Any, feeds: Any) -> None:
    model = ready((ON_CODES | RIGHT)[case])
    given = {name: array[:2] for name, array in feeds(model, seed=2).items()}
    if model.graph.inputs[0].shape[0] == 1:
        given = {name: array[:1] for name, array in given.items()}
    want = onnx_run(model, given)["y"]
    prepare(model, TFLITE)
    have = onnx_run(model, given)["y"]
    assert have.shape == want.shape
    np.testing.assert_allclose(have, want, rtol=1e-4, atol=1e-5 * float(np.abs(want).max()))


def test_a_prelu_runs_on_numbers_between_codes(
    ready: Any, quantise: Any, tflite: Any, onnx_run: Any, feeds: Any, in_codes: Any
) -> None:
    """XNNPACK has no PRELU on codes: the reference kernel took most of a network's time."""
    model = ready(net("p = PRelu(a, s) y = Conv(p, w1, b1)", CONV + ", float[8,1,1] s", "N,8,12,12"))
    twin = quantise(model)
    data = emit(twin, precision="int8")
    file = read(data)
    (op,) = [op for op in file.operators if op.code == "PRELU"]
    assert {file.tensors[i].type for i in (*op.inputs, *op.outputs)} == {TensorType.FLOAT32}
    given = {name: array[:1] for name, array in feeds(model, seed=1).items()}
    want = onnx_run(twin, given, fused=False)["y"]
    assert np.abs(tflite(data, given, "litert")["y"] - want).max() <= 2.01 * in_codes(twin)
