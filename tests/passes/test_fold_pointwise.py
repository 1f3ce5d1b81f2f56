"""fold-pointwise: every legal case is exact, every illegal one stays and says why."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgec.graph.canonicalise import canonicalise
from edgec.graph.cost import cost
from edgec.graph.execute import Executor
from edgec.graph.views import ConvView
from edgec.passes.fold_pointwise import FoldPointwise, dense_matrix
from tests.conftest import parse

HEAD = "net (float[N,4,9,9] x) => (float[N,8,a,b] y) "
INTO_PREVIOUS = {
    "strided, padded, dilated": "<float[8,4,3,3] w, float[8] b, float[8,8,1,1] q, float[8] p>"
    "{ t = Conv<strides=[2,2], pads=[2,2,2,2], dilations=[2,2]>(x, w, b)  y = Conv(t, q, p) }",
    "no bias before": "<float[8,4,3,3] w, float[8,8,1,1] q, float[8] p>"
    "{ t = Conv<pads=[1,1,1,1]>(x, w)  y = Conv(t, q, p) }",
    "no bias at all": "<float[8,4,3,3] w, float[8,8,1,1] q>{ t = Conv<pads=[1,1,1,1]>(x, w)  y = Conv(t, q) }",
    "grouped, Q with the same groups": "<float[8,2,3,3] w, float[8] b, float[8,4,1,1] q, float[8] p>"
    "{ t = Conv<group=2>(x, w, b)  y = Conv<group=2>(t, q, p) }",
    "unpadded average pooling between": "<float[8,4,3,3] w, float[8] b, float[8,8,1,1] q, float[8] p>"
    "{ t = Conv(x, w, b)  u = AveragePool<kernel_shape=[2,2], strides=[2,2]>(t)  y = Conv(u, q, p) }",
    "global average pooling between": "<float[8,4,3,3] w, float[8] b, float[8,8,1,1] q, float[8] p>"
    "{ t = Conv(x, w, b)  u = GlobalAveragePool(t)  y = Conv(u, q, p) }",
    "Add of two convolutions between": "<float[8,4,3,3] w, float[8] b, float[8,4,1,1] v, float[8] c, float[8,8,1,1] q, float[8] p>"
    "{ s = Conv<pads=[1,1,1,1]>(x, w, b)  t = Conv(x, v, c)  u = Add(s, t)  y = Conv(u, q, p) }",
}
INTO_NEXT = {
    "no bias, padded": "<float[6,4,1,1] q, float[8,6,3,3] w, float[8] b>"
    "{ r = Relu(x)  t = Conv(r, q)  y = Conv<pads=[1,1,1,1]>(t, w, b) }",
    "bias, unpadded": "<float[6,4,1,1] q, float[6] p, float[8,6,3,3] w>{ r = Relu(x)  t = Conv(r, q, p)  y = Conv(t, w) }",
    "bias, unpadded, strided": "<float[4,4,1,1] q, float[4] p, float[8,4,3,3] w, float[8] b>"
    "{ r = Relu(x)  t = Conv(r, q, p)  y = Conv<strides=[2,2]>(t, w, b) }",
}
REFUSED = {
    "activation between": (
        "<float[8,4,3,3] w, float[8,8,1,1] q>{ t = Conv(x, w)  r = Relu(t)  y = Conv(r, q) }",
        "Relu",
    ),
    "max-pooling between": (
        "<float[8,4,3,3] w, float[8,8,1,1] q>{ t = Conv(x, w)  r = MaxPool<kernel_shape=[2,2]>(t)  y = Conv(r, q) }",
        "MaxPool",
    ),
    "padded average pooling between": (
        "<float[8,4,3,3] w, float[8,8,1,1] q>"
        "{ t = Conv(x, w)  r = AveragePool<kernel_shape=[3,3], pads=[1,1,1,1]>(t)  y = Conv(r, q) }",
        "AveragePool",
    ),
    "depthwise, dense Q": (
        "<float[4,1,3,3] w, float[8,4,1,1] q>{ t = Conv<group=4>(x, w)  y = Conv(t, q) }",
        "different groups",
    ),
    "grouped, dense Q": (
        "<float[8,2,3,3] w, float[8,8,1,1] q>{ t = Conv<group=2>(x, w)  y = Conv(t, q) }",
        "different groups",
    ),
    "another reader": (
        "<float[8,4,3,3] w, float[8,8,1,1] q>{ t = Conv(x, w)  s = Conv(t, q)  r = Relu(t)  y = Add(r, s) }",
        "another reader",
    ),
    "identity skip": (
        "<float[4,4,3,3] w, float[8,4,1,1] q>{ t = Conv<pads=[1,1,1,1]>(x, w)  u = Add(x, t)  y = Conv(u, q) }",
        "no convolution",
    ),
    "bias before a padded convolution": (
        "<float[4,4,1,1] q, float[4] p, float[8,4,3,3] w>"
        "{ r = Relu(x)  t = Conv(r, q, p)  y = Conv<pads=[1,1,1,1]>(t, w) }",
        "bias",
    ),
    "a bottleneck stays": (
        "<float[2,4,1,1] v, float[8,2,1,1] q>{ t = Conv(x, v)  y = Conv(t, q) }",
        "cost more",
    ),
    "grouped convolution behind": (
        "<float[4,4,1,1] q, float[8,2,3,3] w>{ r = Relu(x)  t = Conv(r, q)  y = Conv<group=2>(t, w) }",
        "grouped",
    ),
}  # fmt: skip


def run(text: str, context, seed: int = 0) -> tuple[ir.Model, ir.Model, str]:
    model = canonicalise(parse(HEAD + text, seed=seed))
    result = FoldPointwise().run(model.clone(), context(model))
    return model, result.model, "; ".join(note.text for note in result.notes)


def assert_same(before: ir.Model, after: ir.Model) -> None:
    x = np.random.default_rng(1).standard_normal((3, 4, 9, 9)).astype(np.float32)
    expected, got = Executor(before).run({"x": x})["y"], Executor(after).run({"x": x})["y"]
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("text", INTO_PREVIOUS.values(), ids=INTO_PREVIOUS.keys())
def test_goes_into_the_convolution_before(text, context) -> None:
    before, after, _ = run(text, context)
    assert after.graph.num_nodes() == before.graph.num_nodes() - 1
    assert cost(after).macs < cost(before).macs
    assert_same(before, after)


@pytest.mark.parametrize("text", INTO_NEXT.values(), ids=INTO_NEXT.keys())
def test_goes_into_the_convolution_behind(text, context) -> None:
    before, after, _ = run(text, context)
    assert after.graph.num_nodes() == before.graph.num_nodes() - 1
    assert_same(before, after)


@pytest.mark.parametrize(("text", "why"), REFUSED.values(), ids=REFUSED.keys())
def test_stays_with_a_reason(text, why, context) -> None:
    before, after, notes = run(text, context)
    assert after.graph.num_nodes() == before.graph.num_nodes()
    assert why in notes


def test_block_diagonal_dense_q_goes_into_a_depthwise_convolution(context) -> None:
    model = canonicalise(
        parse("net (float[N,4,9,9] x) => (float[N,4,7,7] y) <float[4,1,3,3] w, float[4,4,1,1] q>"
              "{ t = Conv<group=4>(x, w)  y = Conv(t, q) }")
    )  # fmt: skip
    last = list(model.graph)[-1]
    ConvView(last).set(weight=np.diag([1.0, -2.0, 0.5, 3.0]).astype(np.float32)[:, :, None, None])
    result = FoldPointwise().run(model.clone(), context(model))
    assert result.model.graph.num_nodes() == 1
    assert_same(model, result.model)


def test_quantised_weights_stay(context) -> None:
    text = (
        "<int8[8,4,3,3] w8, float s, float[8,8,1,1] q>"
        "{ w = DequantizeLinear(w8, s)  t = Conv(x, w)  y = Conv(t, q) }"
    )
    proto = parse(HEAD + "<float[8,4,3,3] w, float[8,8,1,1] q>{ t = Conv(x, w)  y = Conv(t, q) }")
    model = canonicalise(proto)
    conv = next(iter(model.graph))
    weight = conv.inputs[1]
    stored = ir.Value(name="w8", const_value=ir.tensor(np.ones((8, 4, 3, 3), np.int8)))
    scale = ir.Value(name="s", const_value=ir.tensor(np.float32(0.1)))
    for value in (stored, scale):
        value.shape, value.dtype = value.const_value.shape, value.const_value.dtype
        model.graph.register_initializer(value)
    node = ir.node("DequantizeLinear", [stored, scale], name="dq")
    node.outputs[0].name, node.outputs[0].dtype, node.outputs[0].shape = (
        "w_f",
        ir.DataType.FLOAT,
        weight.shape,
    )
    model.graph.insert_before(conv, node)
    conv.replace_input_with(1, node.outputs[0])
    result = FoldPointwise().run(model, context(model))
    assert not result.modified, text
    assert any("not constant floats" in note.text for note in result.notes)


def test_names_of_tensors_and_outputs_stay(context) -> None:
    before, after, _ = run(INTO_PREVIOUS["strided, padded, dilated"], context)
    assert [v.name for v in after.graph.outputs] == ["y"]
    assert [n.name for n in after.graph] == [next(iter(before.graph)).name]


@settings(max_examples=25, deadline=None)
@given(
    kernel=st.sampled_from([1, 2, 3, 5]),
    stride=st.integers(1, 3),
    dilation=st.integers(1, 2),
    pads=st.tuples(*[st.integers(0, 2)] * 4),
    channels=st.integers(1, 5),
    bias=st.booleans(),
    seed=st.integers(0, 100),
)
def test_any_geometry_folds_exactly(kernel, stride, dilation, pads, channels, bias, seed) -> None:
    text = (
        f"net (float[N,4,11,11] x) => (float[N,{channels},a,b] y) "
        f"<float[6,4,{kernel},{kernel}] w, float[6] b, float[{channels},6,1,1] q, float[{channels}] p>"
        f"{{ t = Conv<strides=[{stride},{stride}], dilations=[{dilation},{dilation}], pads=[{','.join(map(str, pads))}]>"
        f"(x, w{', b' if bias else ''})  y = Conv(t, q, p) }}"
    )
    model = canonicalise(parse(text, seed=seed))
    from edgec.passes.fold_pointwise import fold_one

    folded = model.clone()
    if fold_one(list(folded.graph)[-1]) is not None:
        return  # refused where merging would cost more (6 -> channels of a larger kernel)
    x = np.random.default_rng(seed).standard_normal((2, 4, 11, 11)).astype(np.float32)
    expected, got = Executor(model).run({"x": x})["y"], Executor(folded).run({"x": x})["y"]
    np.testing.assert_allclose(got, expected, rtol=2e-5, atol=2e-5)


def test_dense_matrix_of_a_grouped_pointwise() -> None:
    model = canonicalise(
        parse("net (float[N,4,3,3] x) => (float[N,4,3,3] y) <float[4,2,1,1] q>{ y = Conv<group=2>(x, q) }")
    )
    view = ConvView(next(iter(model.graph)))
    matrix = dense_matrix(view)
    assert matrix.shape == (4, 4)
    assert not matrix[:2, 2:].any()
    assert not matrix[2:, :2].any()
