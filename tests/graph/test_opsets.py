"""The opset that a network is brought to: one whose kernels are right in every onnxruntime that boards have."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from onnx import numpy_helper

from edgec.graph.canonicalise import canonicalise
from edgec.graph.errors import UnsupportedError
from edgec.graph.execute import Executor
from tests.conftest import parse

POOLS = {
    "its own padding": (3, (1, 1), "y = AveragePool<kernel_shape=[3,3], count_include_pad=1, pads=[1,1,1,1]>(x)"),
    "on one side": (2, (0, 1), "y = AveragePool<kernel_shape=[2,2], count_include_pad=1, pads=[0,0,1,1]>(x)"),
    "dilations of 1": (
        3, (1, 1), "y = AveragePool<kernel_shape=[3,3], count_include_pad=1, pads=[1,1,1,1], dilations=[1,1]>(x)",
    ),
    "a Pad in front": (
        3, (1, 1),
        "p = Constant<value=int64[8] {0,0,1,1,0,0,1,1}>() q = Pad(x, p) y = AveragePool<kernel_shape=[3,3]>(q)",
    ),
}  # fmt: skip
"""Size of the window, zeros in front and behind, and how it is written."""


@pytest.mark.parametrize("opset", [11, 17, 18, 19, 20, 21])
@pytest.mark.parametrize("case", POOLS)
def test_pools_that_count_zeros_are_right_everywhere(case: str, opset: int) -> None:
    """onnxruntime 1.21 to 1.24 divide by what is there, in opset 19 and newer."""
    size, zeros, body = POOLS[case]
    source = parse(f"g (float[N,3,6,6] x) => (float[N,3,h,w] y) {{ {body} }}")
    if opset < 19 and "dilations" in body:
        pytest.skip(f"opset {opset} has no dilations")
    source.opset_import[0].version = opset
    model = canonicalise(source)
    x = np.random.default_rng(0).random((2, 3, 6, 6)).astype(np.float32) + 1
    windows = np.lib.stride_tricks.sliding_window_view(
        np.pad(x, ((0, 0), (0, 0), zeros, zeros)), (size, size), axis=(2, 3)
    )
    (got,) = Executor(model).run({"x": x}).values()
    np.testing.assert_allclose(got, windows.mean(axis=(4, 5)), rtol=1e-5)
    assert ir.to_proto(model).opset_import[0].version == 18


def test_a_network_with_such_a_pool_and_a_newer_op_is_spelled_out() -> None:
    """Its Gelu is an op of opset 20."""
    body = 'a = AveragePool<kernel_shape=[3,3], count_include_pad=1, pads=[1,1,1,1]>(x) y = Gelu<approximate="tanh">(a)'
    model = canonicalise(parse(f"g (float[N,3,6,6] x) => (float[N,3,6,6] y) {{ {body} }}"))
    x = np.full((1, 3, 6, 6), 2.0, np.float32)
    (got,) = Executor(model).run({"x": x}).values()
    mean = 2 * 4 / 9  # in a corner
    gelu = 0.5 * mean * (1 + np.tanh(np.sqrt(2 / np.pi) * (mean + 0.044715 * mean**3)))
    assert got[0, 0, 0, 0] == pytest.approx(gelu, rel=1e-5)


def test_other_networks_keep_the_oldest_opset_in_which_they_mean_the_same() -> None:
    for body, opset in (("y = Relu(x)", 18), ("y = Gelu(x)", 20)):
        model = canonicalise(parse(f"g (float[N,3,6,6] x) => (float[N,3,6,6] y) {{ {body} }}"))
        assert ir.to_proto(model).opset_import[0].version == opset


@pytest.mark.parametrize("opset", [9, 17])
def test_an_op_that_onnx_does_not_have_is_named(opset: int) -> None:
    source = parse("g (float[N,3] x) => (float[N,3] y) { a = Relu(x) y = Foo(a) }")
    source.opset_import[0].version = opset
    with pytest.raises(UnsupportedError, match=f"^Foo '.*': opset {opset} has no such op$"):
        canonicalise(source)


OLD = """g (float[{n},3,8,8] x) => (float[{n},5] y)
    <float[6,3,3,3] w, float[6] s, float[6] b, float[6] m, float[6] v, float[5,6] u, float[5] c> {{
    h = Conv(x, w) q = Mul(v, v) k = BatchNormalization<{norm}>(h, s, b, m, q) r = Relu(k) a = Add(r, r)
    p = GlobalAveragePool(a) d = Dropout<{drop}>(p) f = Flatten(d) y = Gemm<transB=1{broadcast}>(f, u, c) }}"""


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("opset", [6, 7])
def test_what_is_older_than_any_runtime_is_brought_to_what_they_have(opset: int, batch: int) -> None:
    """MXNet and Caffe2 wrote opset 6: norms and dropouts that say that they do not train, biases that say that they broadcast."""
    is_old = opset < 7
    norm, drop = ("is_test=1", "is_test=1") if is_old else ("momentum=0.9", "ratio=0.5")
    source = parse(OLD.format(n=batch, norm=norm, drop=drop, broadcast=", broadcast=1" if is_old else ""))
    source.opset_import[0].version, source.ir_version = opset, 4 if is_old else 8
    model = canonicalise(source)
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in source.graph.initializer}
    x = np.random.default_rng(0).standard_normal((4, 3, 8, 8)).astype(np.float32)
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(2, 3))
    maps = np.einsum("nchwij,ocij->nohw", windows, arrays["w"])
    scale = arrays["s"] / np.sqrt(arrays["v"] ** 2 + 1e-5)
    normed = np.moveaxis((np.moveaxis(maps, 1, -1) - arrays["m"]) * scale + arrays["b"], -1, 1)
    want = 2 * np.maximum(normed, 0).mean((2, 3)) @ arrays["u"].T + arrays["c"]
    np.testing.assert_allclose(Executor(model).run({"x": x})["y"], want, rtol=1e-4, atol=1e-4)


def test_operands_that_old_opsets_place_by_an_axis_are_not_placed_by_guess() -> None:
    """Sides of six and six channels: placed wrongly, nothing would show it."""
    source = parse(
        "g (float[1,6,6,6] x) => (float[1,6,6,6] y) <float[6] c> { y = Add<broadcast=1, axis=1>(x, c) }"
    )
    source.opset_import[0].version, source.ir_version = 6, 4
    with pytest.raises(UnsupportedError, match="onnxruntime cannot load"):
        canonicalise(source)
