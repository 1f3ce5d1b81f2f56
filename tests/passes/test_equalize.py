"""Cross-layer equalisation: the function stays, the ranges come together."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgec.graph.channels import groups
from edgec.graph.data import Dataset
from edgec.graph.execute import Executor
from edgec.graph.views import constant
from edgec.passes.base import Context
from edgec.passes.equalize import Equalize, channel_peaks, equalise, segments

Canonical = Callable[..., ir.Model]
Noise = Callable[..., Dataset]
MakeContext = Callable[..., Context]

DEPTHWISE = """
g (float[N,3,16,16] x) => (float[N,5] y)
<float[8,3,3,3] w1, float[8] b1, float[8,1,3,3] w2, float[8] b2, float[12,8,1,1] w3, float[5,12] f> {
  c1 = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(x, w1, b1)
  r1 = Relu(c1)
  c2 = Conv<kernel_shape=[3,3], pads=[1,1,1,1], group=8>(r1, w2, b2)
  r2 = Relu(c2)
  c3 = Conv<kernel_shape=[1,1]>(r2, w3)
  p = GlobalAveragePool(c3)
  q = Flatten(p)
  y = Gemm<transB=1>(q, f)
}
"""
RESIDUAL = """
g (float[N,3,8,8] x) => (float[N,5] y)
<float[8,3,3,3] w1, float[8,8,3,3] w2, float[8,8,3,3] w3, float[8,8,1,1] w4, float[5,16] f> {
  c1 = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(x, w1)
  r1 = Relu(c1)
  c2 = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(r1, w2)
  r2 = LeakyRelu(c2)
  c3 = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(r2, w3)
  s = Add(c3, r1)
  r3 = Relu(s)
  c4 = Conv<kernel_shape=[1,1]>(r3, w4)
  j = Concat<axis=1>(r3, c4)
  p = GlobalAveragePool(j)
  q = Flatten(p)
  y = Gemm<transB=1>(q, f)
}
"""
CLIPPED = """
g (float[N,3,8,8] x) => (float[N,4,8,8] y) <float[8,3,3,3] w1, float[4,8,1,1] w2> {
  lo = Constant<value=float {0.0}>()
  hi = Constant<value=float {6.0}>()
  c1 = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(x, w1)
  r1 = Clip(c1, lo, hi)
  y = Conv<kernel_shape=[1,1]>(r1, w2)
}
"""
SIGMOID = """
g (float[N,3,8,8] x) => (float[N,4,8,8] y) <float[8,3,3,3] w1, float[4,8,1,1] w2> {
  c1 = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(x, w1)
  r1 = Sigmoid(c1)
  y = Conv<kernel_shape=[1,1]>(r1, w2)
}
"""


def spread(model: ir.Model, seed: int = 0) -> None:
    """Channels of the first layer with ranges over almost two decades."""
    weight = constant(model.graph.initializers["w1"]).copy()
    factors = 10.0 ** np.random.default_rng(seed).uniform(-1, 0.7, len(weight))
    weight *= factors.reshape(-1, 1, 1, 1)
    model.graph.initializers["w1"].const_value = ir.tensor(weight.astype(np.float32), name="w1")


def outputs(model: ir.Model, data: Dataset) -> np.ndarray:
    return np.concatenate([Executor(model).run(feeds)["y"] for feeds in data.batches(8)])


@pytest.mark.parametrize("text", [DEPTHWISE, RESIDUAL, CLIPPED])
@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0])
def test_the_function_stays(
    canonical: Canonical, noise: Noise, context: MakeContext, text: str, strength: float
) -> None:
    model = canonical(text)
    spread(model)
    data = noise(model, 16)
    before = outputs(model, data)
    result = Equalize(strength=strength).run(model.clone(), context(model, data))
    after = outputs(result.model, data)
    np.testing.assert_allclose(before, after, rtol=0, atol=2e-5 * np.abs(before).max())
    np.testing.assert_array_equal(before, outputs(model, data))


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000))
def test_the_function_stays_for_any_spread(seed: int) -> None:
    from edgec.graph.canonicalise import canonicalise
    from tests.conftest import parse

    model = canonicalise(parse(RESIDUAL, seed=seed))
    spread(model, seed)
    cut = segments(model, groups(model))
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((2, 3, 8, 8)).astype(np.float32)
    before = Executor(model).run({"x": x})["y"]
    peaks = {
        m.value: rng.uniform(0.01, 10, 16 if m.value in ("j", "p", "q") else 8)
        for s in cut
        for m in s.activations
    }
    equalise(model, cut, peaks, 0.7)
    np.testing.assert_allclose(
        before, Executor(model).run({"x": x})["y"], rtol=0, atol=5e-5 * np.abs(before).max()
    )


def ratio(model: ir.Model, name: str, context: Context) -> float:
    peaks = channel_peaks(model, {name: 1}, context)[name]
    return float(peaks.max() / peaks[peaks > 0].min())


def test_depthwise_readers_let_ranges_become_equal(
    canonical: Canonical, noise: Noise, context: MakeContext
) -> None:
    model = canonical(DEPTHWISE)
    spread(model)
    around = context(model, noise(model, 16))
    assert ratio(model, "r1", around) > 5
    result = Equalize().run(model.clone(), around)
    assert ratio(result.model, "r1", around) < 1.01


def test_residual_streams_come_together(canonical: Canonical, noise: Noise, context: MakeContext) -> None:
    model = canonical(RESIDUAL)
    spread(model)
    around = context(model, noise(model, 16))
    result = Equalize(strength=1.0).run(model.clone(), around)
    assert ratio(result.model, "r1", around) < 0.5 * ratio(model, "r1", around)


@pytest.mark.parametrize("bare", [True, False], ids=["nothing between", "a Relu between"])
def test_maps_that_depthwise_layers_alone_read_cost_nothing(
    bare: bool, canonical: Canonical, noise: Noise, context: MakeContext
) -> None:
    """No step is coarser in any channel: the widest one keeps its range, and a depthwise weight has its own scale."""
    model = canonical(DEPTHWISE.replace("r1 = Relu(c1)", "r1 = Identity(c1)") if bare else DEPTHWISE)
    spread(model)
    around = context(model, noise(model, 16))
    cut = segments(model, groups(model))
    peaks = channel_peaks(model, {m.value: m.axis for one in cut for m in one.activations}, around)
    found = [one for one in cut if one.is_costless(peaks, 0.5)]
    (read,) = found
    name = "c1" if bare else "r1"
    assert name in {member.value for member in read.activations}
    result = model.clone()
    equalise(result, found, peaks, 0.5)
    after = channel_peaks(result, {name: 1}, around)[name]
    assert after.max() == pytest.approx(peaks[name].max(), rel=1e-5)
    assert after[peaks[name] > 0].min() > 0.9 * after.max()


def test_maps_of_other_ranges_that_share_factors_are_not_free(
    canonical: Canonical, noise: Noise, context: MakeContext
) -> None:
    """A quiet branch that is added to a loud one would get the loud one's range in a channel where only it is quiet."""
    model = canonical(
        "g (float[N,3,8,8] x) => (float[N,4] y) <float[4,3,3,3] w1, float[4,3,3,3] w2, float[4,1,3,3] w3, float[4,4] f> {"
        "  a = Conv<pads=[1,1,1,1]>(x, w1)  b = Conv<pads=[1,1,1,1]>(x, w2)  s = Add(a, b)"
        "  d = Conv<group=4, pads=[1,1,1,1]>(s, w3)  r = Relu(d)  p = GlobalAveragePool(r)  q = Flatten(p)  y = Gemm(q, f) }"
    )
    around = context(model, noise(model, 16))
    (shared,) = [one for one in segments(model, groups(model)) if "a" in {m.value for m in one.activations}]
    loud, quiet = np.array([10.0, 0.1, 10, 10]), np.array([0.1, 0.05, 0.1, 0.1])
    assert not shared.is_costless({"a": loud, "b": quiet, "s": loud}, 0.5)
    assert shared.is_costless({"a": loud, "b": loud, "s": loud}, 0.5)
    assert around.data is not None


def test_a_clip_is_never_reached_by_scaling(canonical: Canonical, noise: Noise, context: MakeContext) -> None:
    """Channels that clip already keep their scale; the others stay below the bound."""
    model = canonical(CLIPPED)
    spread(model)
    around = context(model, noise(model, 16))
    before = channel_peaks(model, {"c1": 1}, around)["c1"]
    result = Equalize(strength=1.0).run(model.clone(), around)
    after = channel_peaks(result.model, {"c1": 1}, around)["c1"]
    clipped = before >= 6.0
    np.testing.assert_allclose(after[clipped], before[clipped], rtol=1e-5)
    assert np.all(after[~clipped] < 6.0)
    assert np.any(after[~clipped] > 1.5 * before[~clipped])


def test_nonlinear_activations_are_left_alone(
    canonical: Canonical, noise: Noise, context: MakeContext
) -> None:
    """Only the map behind the Sigmoid could be scaled, and nothing in front of it can make up for that."""
    model = canonical(SIGMOID)
    spread(model)
    before = constant(model.graph.initializers["w1"]).copy()
    result = Equalize(strength=1.0).run(model.clone(), context(model, noise(model, 16)))
    np.testing.assert_array_equal(constant(result.model.graph.initializers["w1"]), before)


def test_nothing_to_do(canonical: Canonical, noise: Noise, context: MakeContext) -> None:
    model = canonical("g (float[N,4] x) => (float[N,4] y) <float[4,4] w> { y = Gemm(x, w) }")
    assert not Equalize().run(model.clone(), context(model, noise(model))).modified
