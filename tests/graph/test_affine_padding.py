"""Affine folding and written-out padding: exact, and only where they may."""

from __future__ import annotations

import numpy as np
import pytest

from edgec.graph.execute import Executor, session
from tests.conftest import parse

HEAD = "net (float[N,3,9,8] x) => (float[N,4,a,b] y) <float[4,3,3,3] w, float[4] c> "
FOLDED = {
    "mul": "{ k = Constant<value = float[1,4,1,1] {2,3,4,5}>() t = Conv(x, w, c) y = Mul(t, k) }",
    "div by a scalar": "{ k = Constant<value = float {4.0}>() t = Conv(x, w) y = Div(t, k) }",
    "add": "{ k = Constant<value = float[4,1,1] {2,3,4,5}>() t = Conv(x, w) y = Add(k, t) }",
    "sub": "{ k = Constant<value = float[1,4,1,1] {2,3,4,5}>() t = Conv(x, w, c) y = Sub(t, k) }",
    "sub from": "{ k = Constant<value = float[1,4,1,1] {2,3,4,5}>() t = Conv(x, w, c) y = Sub(k, t) }",
}
KEPT = {
    "div from": "{ k = Constant<value = float[1,4,1,1] {2,3,4,5}>() t = Conv(x, w, c) y = Div(k, t) }",
    "another reader": "{ k = Constant<value = float[1,4,1,1] {2,3,4,5}>() t = Conv(x, w) u = Mul(t, k) y = Add(t, u) }",
    "per column": "{ k = Constant<value = float[6] {2,3,4,5,6,7}>() t = Conv(x, w) y = Mul(t, k) }",
    "two tensors": "{ t = Conv(x, w) u = Sigmoid(t) y = Mul(t, u) }",
}


def same(text: str, canonical) -> int:
    model = canonical(HEAD + text)
    x = np.random.default_rng(0).standard_normal((2, 3, 9, 8)).astype(np.float32)
    expected = session(parse(HEAD + text)).run(None, {"x": x})[0]
    np.testing.assert_allclose(Executor(model).run({"x": x})["y"], expected, rtol=1e-4, atol=1e-5)
    return model.graph.num_nodes()


@pytest.mark.parametrize("text", FOLDED.values(), ids=FOLDED.keys())
def test_folds(text: str, canonical) -> None:
    assert same(text, canonical) == 1


@pytest.mark.parametrize("text", KEPT.values(), ids=KEPT.keys())
def test_keeps(text: str, canonical) -> None:
    assert same(text, canonical) > 1


@pytest.mark.parametrize("mode", ["SAME_UPPER", "SAME_LOWER", "VALID"])
@pytest.mark.parametrize("op", ["Conv", "MaxPool", "AveragePool"])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_auto_pad_is_written_out(mode: str, op: str, stride: int, canonical) -> None:
    settings = f"strides=[{stride},{stride}]"
    call = f'Conv<auto_pad="{mode}", {settings}>(x, w)' if op == "Conv" else (
        f'{op}<auto_pad="{mode}", kernel_shape=[3,2], {settings}>(x)'
    )  # fmt: skip
    head = HEAD if op == "Conv" else "net (float[N,3,9,8] x) => (float[N,3,a,b] y) "
    text = f"{head} {{ y = {call} }}"
    model = canonical(text)
    assert "auto_pad" not in next(iter(model.graph)).attributes
    x = np.random.default_rng(0).standard_normal((2, 3, 9, 8)).astype(np.float32)
    expected = session(parse(text)).run(None, {"x": x})[0]
    np.testing.assert_allclose(Executor(model).run({"x": x})["y"], expected, rtol=1e-4, atol=1e-5)


CUTS = {
    "same upper": 'auto_pad="SAME_UPPER", strides=[2,2]',
    "same lower": 'auto_pad="SAME_LOWER", strides=[2,2]',
    "same, stride 3": 'auto_pad="SAME_UPPER", strides=[3,3]',
    "same, stride above the kernel": 'auto_pad="SAME_LOWER", strides=[4,4]',
    "valid": 'auto_pad="VALID", strides=[2,2]',
    "sized": "strides=[2,2], output_shape=[18,16]",
    "sized, upper": 'auto_pad="SAME_UPPER", strides=[2,2], output_shape=[18,15]',
    "sized, with more at the end": "strides=[2,2], output_padding=[1,1], output_shape=[18,17]",
    "sized, spread": "strides=[2,2], dilations=[2,1], output_shape=[17,16]",
    "sized, grouped": "strides=[2,2], group=1, output_shape=[16,14]",
}


@pytest.mark.parametrize("how", CUTS)
def test_what_a_transposed_convolution_cuts_off_is_written_out(how: str, canonical) -> None:
    text = f"net (float[2,3,9,8] x) => (float[2,4,a,b] y) <float[3,4,3,3] w> {{ y = ConvTranspose<{CUTS[how]}>(x, w) }}"
    model = canonical(text)
    left = next(iter(model.graph)).attributes
    x = np.random.default_rng(0).standard_normal((2, 3, 9, 8)).astype(np.float32)
    expected = session(parse(text)).run(None, {"x": x})[0]
    np.testing.assert_allclose(Executor(model).run({"x": x})["y"], expected, rtol=1e-4, atol=1e-5)
    grows = how == "same, stride above the kernel"  # by itself it gives less than it must
    assert ("auto_pad" in left or "output_shape" in left) == grows
