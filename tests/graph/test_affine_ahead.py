"""Scales and shifts behind an activation go into the convolutions that read them, and what they are not to touch stays."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx.shape_inference import infer_shapes

from edgec.graph.affine_ahead import carry_ahead
from edgec.graph.canonicalise import canonicalise
from edgec.graph.execute import Executor
from tests.conftest import parse

SHAPES = {
    "a number": "float[1]",
    "no axes": "float",
    "per channel": "float[6,1,1]",
    "with the batch": "float[1,6,1,1]",
}
READERS = {
    "pointwise": ("p", "Conv(HERE, v)", "float[5,6,1,1] v"),
    "grouped": ("p", "Conv<group=2, pads=[1,1,1,1]>(HERE, v)", "float[4,3,3,3] v"),
    "depthwise": ("p", "Conv<group=6, pads=[1,1,1,1]>(HERE, v)", "float[6,1,3,3] v"),
    "strided, no padding": ("p", "Conv<strides=[2,2]>(HERE, v)", "float[5,6,3,3] v"),
}  # fmt: skip
SAME = {"pointwise", "strided, no padding"}


def source(steps: str, reader: str, constants: str) -> ir.Model:
    _, body, weight = READERS[reader]
    text = (
        f"net (float[N,3,8,8] x) => (float[N,C,H,W] y) <float[6,3,3,3] w, {weight}, {constants}>"
        f"{{ a = Conv<pads=[1,1,1,1]>(x, w)  h = Sigmoid(a)  {steps}  y = {body.replace('HERE', 's')} }}"
    )
    return parse(text)


def outputs(model: ir.Model, x: np.ndarray) -> np.ndarray:
    (found,) = Executor(model).run({"x": x}).values()
    return found


def checked(proto, wanted: set[str]) -> ir.Model:
    """The canonical graph computes the same, and has these of the ops."""
    x = np.random.default_rng(0).standard_normal((3, 3, 8, 8)).astype(np.float32)
    before, model = outputs(ir.from_proto(proto), x), canonicalise(proto)
    np.testing.assert_allclose(outputs(model, x), before, rtol=0, atol=1e-5 * np.abs(before).max())
    assert {node.op_type for node in model.graph} & {"Mul", "Div", "Add", "Sub"} == wanted
    return model


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("step", ["s = Mul(h, c)", "s = Mul(c, h)", "s = Div(h, c)"])
def test_a_scale_goes_into_the_weights(step: str, shape: str, reader: str) -> None:
    checked(source(step, reader, f"{SHAPES[shape]} c"), set())


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("step", ["s = Add(h, c)", "s = Add(c, h)", "s = Sub(h, c)"])
def test_a_shift_goes_into_the_bias_where_nothing_is_padded(step: str, shape: str, reader: str) -> None:
    proto = source(step, reader, f"{SHAPES[shape]} c")
    checked(proto, set() if reader in SAME else {step[4:7]})


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    "steps", ["t = Mul(c, h)  s = Add(t, d)", "t = Div(h, c)  s = Sub(t, d)", "t = Mul(h, c)  s = Sub(d, t)"]
)
def test_of_a_scale_and_a_shift_the_scale_goes(steps: str, shape: str, reader: str) -> None:
    """What a learnable affine block leaves behind its activation."""
    proto = source(steps, reader, f"{SHAPES[shape]} c, {SHAPES[shape]} d")
    shift = "Sub" if "Sub" in steps else "Add"
    gone = reader in SAME and "Sub(d, t)" not in steps
    checked(proto, set() if gone else {shift})


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    group=st.sampled_from([1, 2, 3, 6]),
    kernel=st.sampled_from([1, 3]),
    multiple=st.integers(1, 2),
)
def test_every_group_gets_the_factors_of_its_own_channels(
    seed: int, group: int, kernel: int, multiple: int
) -> None:
    out = group * multiple
    text = (
        f"net (float[N,6,7,7] x) => (float[N,C,H,W] y) "
        f"<float[6,1,1] c, float[{out},{6 // group},{kernel},{kernel}] v>"
        f"{{ h = Sigmoid(x)  s = Mul(h, c)  y = Conv<group={group}>(s, v) }}"
    )
    proto = parse(text, seed=seed)
    model = ir.from_proto(infer_shapes(proto))
    assert carry_ahead(model) == 1
    x = np.random.default_rng(seed).standard_normal((2, 6, 7, 7)).astype(np.float32)
    np.testing.assert_allclose(outputs(model, x), outputs(ir.from_proto(proto), x), rtol=0, atol=1e-5)


STAYS = {
    "another reader": "s = Mul(h, c)  z = Relu(s)  o = Conv(s, v)  y = Add(o, z)",
    "an output": "y = Mul(h, c)  o = Conv(y, v)",
    "a constant over the constant": "s = Div(c, h)  y = Conv(s, v)",
    "a map that the constant widens": "q = ReduceMean<keepdims=1>(h, one)  s = Mul(q, many)  y = Conv(s, v)",
    "a scale beyond float32": "s = Mul(h, huge)  y = Conv<group=6>(s, tens)",
    "values of the map": "s = Mul(h, m)  y = Conv(s, v)",
    "pixels made ready": "s = Mul(x, c)  y = Conv(s, v)",
    "pixels moved and made ready": "t = Transpose<perm=[0,1,3,2]>(x)  u = Sub(t, c)  s = Mul(u, c)  y = Conv(s, v)",
    "no scale": "s = Mul(h, n)  y = Conv(s, v)",
    "a gate that is written out": "a = Add(h, three)  k = Clip(a, low, six)  g = Mul(h, k)  s = Div(g, six)  y = Conv(s, v)",
    "a gate that is written out, alone": "a = Add(h, three)  k = Clip(a, low, six)  s = Div(k, six)  y = Conv(s, v)",
}


@pytest.mark.parametrize("case", STAYS)
def test_what_stays(case: str) -> None:
    text = (
        "net (float[N,6,8,8] x) => (float[N,6,8,8] y) "
        "<float[1] c = {2}, float[1] n = {0}, float[1] huge = {3e38}, float[6,1,1,1] tens = {10,10,10,10,10,10}, float[1,6,8,8] m, float[6,1,1] many, int64[1] one = {1}, float[6,6,1,1] v, float[1] three = {3}, float low = {0}, float six = {6}>"
        f"{{ h = Sigmoid(x)  {STAYS[case]} }}"
    )
    model = ir.from_proto(infer_shapes(parse(text)))
    before = [node.op_type for node in model.graph]
    assert carry_ahead(model) == 0
    assert [node.op_type for node in model.graph] == before
