"""What `verify` compares, and the layer that it names: the one that was broken, whatever equalisation did to the network."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest

from edgec.compiler.verify.factors import rescaled
from edgec.compiler.verify.layers import Verdict, check_ends, compare_layers
from edgec.graph.data import ArraySource, Dataset, InputSpec
from edgec.graph.errors import ModelError
from edgec.graph.preprocess import Preprocess
from edgec.graph.views import constant, set_constant
from edgec.passes.equalize import Equalize
from edgec.passes.quantize import Quantize

Canonical = Callable[..., ir.Model]
Noise = Callable[..., Dataset]

CHAIN = """
g (float[N,3,12,12] x) => (float[N,5] y)
<float[8,3,3,3] w1, float[8] b1, float[12,8,3,3] w2, float[12] b2, float[10,12,1,1] w3, float[10] b3, float[5,10] w4, float[5] b4> {
  c1 = Conv<pads=[1,1,1,1]>(x, w1, b1)  r1 = Relu(c1)
  c2 = Conv<pads=[1,1,1,1], strides=[2,2]>(r1, w2, b2)  r2 = Relu(c2)
  c3 = Conv(r2, w3, b3)  r3 = Relu(c3)
  p = GlobalAveragePool(r3)  q = Flatten(p)
  y = Gemm<transB=1>(q, w4, b4)
}
"""
DEPTHWISE = """
g (float[N,3,12,12] x) => (float[N,5] y)
<float[8,3,3,3] w1, float[8] b1, float[8,1,3,3] w2, float[8] b2, float[12,8,1,1] w3, float[12] b3, float[12,5] w4> {
  lo = Constant<value=float {0.0}>()
  hi = Constant<value=float {6.0}>()
  c1 = Conv<pads=[1,1,1,1]>(x, w1, b1)  r1 = Clip(c1, lo, hi)
  c2 = Conv<pads=[1,1,1,1], group=8>(r1, w2, b2)  r2 = Clip(c2, lo, hi)
  c3 = Conv(r2, w3, b3)  r3 = Relu(c3)
  p = GlobalAveragePool(r3)  q = Flatten(p)
  y = MatMul(q, w4)
}
"""
RESIDUAL = """
g (float[N,3,8,8] x) => (float[N,5] y)
<float[8,3,3,3] w1, float[8] b1, float[12,8,3,3] w2, float[12] b2, float[8,12,3,3] w3, float[8] b3, float[8,8,1,1] w4, float[5,16] w5> {
  c1 = Conv<pads=[1,1,1,1]>(x, w1, b1)  r1 = Relu(c1)
  c2 = Conv<pads=[1,1,1,1]>(r1, w2, b2)  r2 = LeakyRelu(c2)
  c3 = Conv<pads=[1,1,1,1]>(r2, w3, b3)
  s = Add(c3, r1)  r3 = Relu(s)
  c4 = Conv(r3, w4)
  j = Concat<axis=1>(r3, c4)
  p = GlobalAveragePool(j)  q = Flatten(p)
  y = Gemm<transB=1>(q, w5)
}
"""
GROUPED = """
g (float[N,4,8,8] x) => (float[N,3,16,16] y)
<float[8,4,3,3] w1, float[8] b1, float[12,4,3,3] w2, float[12] b2, float[12,4,2,2] w3, float[8] b3, float[3,8,1,1] w4> {
  c1 = Conv<pads=[1,1,1,1]>(x, w1, b1)  r1 = Relu(c1)
  c2 = Conv<pads=[1,1,1,1], group=2>(r1, w2, b2)  r2 = Relu(c2)
  c3 = ConvTranspose<strides=[2,2], group=2>(r2, w3, b3)  r3 = Relu(c3)
  y = Conv(r3, w4)
}
"""
NETS = {"chain": CHAIN, "depthwise": DEPTHWISE, "residual": RESIDUAL, "grouped": GROUPED}
LAYERS = [
    (net, f"w{index}")
    for net, last in (("chain", 4), ("depthwise", 4), ("residual", 5), ("grouped", 4))
    for index in range(1, last + 1)
]


def spread(model: ir.Model) -> None:
    """Channels of very different ranges in every layer but the last, as training leaves them."""
    rng = np.random.default_rng(3)
    names = sorted(name for name in model.graph.initializers if name.startswith("w"))
    for name in names[:-1]:
        weight = constant(model.graph.initializers[name])
        axis = 1 if name == "w3" and weight.shape == (12, 4, 2, 2) else 0
        factors = 10 ** rng.uniform(-0.8, 0.6, weight.shape[axis])
        shape = [-1 if at == axis else 1 for at in range(weight.ndim)]
        set_constant(model.graph.initializers[name], (weight * factors.reshape(shape)).astype(np.float32))


def equalised(model: ir.Model, context) -> ir.Model:
    return Equalize(strength=1.0).run(model.clone(), context).model


def change(model: ir.Model, weight: str, kind: str) -> str:
    """Break the layer that reads ``weight``; the name of the value that it makes."""
    node = next(
        one for one in model.graph for value in one.inputs if value is not None and value.name == weight
    )
    value = model.graph.initializers[weight]
    old = constant(value).copy()
    if kind == "scaled":
        old *= 3
    elif kind == "turned":
        old = -old
    elif kind == "mixed":
        old = np.random.default_rng(5).permutation(old.ravel()).reshape(old.shape)
    elif kind == "none":
        old *= 0
    set_constant(value, old.astype(np.float32))
    return node.outputs[0].name


def put(model: ir.Model, name: str, where: object, new: Callable[[np.ndarray], object]) -> None:
    """Write a part of an initializer anew."""
    held = constant(model.graph.initializers[name]).copy()
    held[where] = new(held[where])
    set_constant(model.graph.initializers[name], held)


@pytest.mark.parametrize("net", NETS)
def test_an_equalised_network_is_right(canonical: Canonical, noise: Noise, context, net: str) -> None:
    model = canonical(NETS[net])
    spread(model)
    data = noise(model)
    other = equalised(model, context(model, data))
    assert rescaled(model, other)
    found = compare_layers(model, other, data)
    assert any(one.rescaled for one in found)
    assert min(one.total.sqnr_db for one in found) > 80
    assert min(one.own.sqnr_db for one in found) > 80
    assert Verdict.of(found, 60).wrong is None


@pytest.mark.parametrize("net", NETS)
def test_a_network_that_is_the_same_is_exact(canonical: Canonical, noise: Noise, net: str) -> None:
    model = canonical(NETS[net])
    assert rescaled(model, model.clone()) == {}
    found = compare_layers(model, model.clone(), noise(model))
    assert all(one.total.sqnr_db == np.inf for one in found)
    assert not any(one.rescaled for one in found)


@pytest.mark.parametrize("is_equalised", [False, True], ids=["plain", "equalised"])
@pytest.mark.parametrize("kind", ["scaled", "turned", "mixed", "none"])
@pytest.mark.parametrize(("net", "weight"), LAYERS)
def test_the_layer_that_was_broken_is_named(
    canonical: Canonical, noise: Noise, context, net: str, weight: str, kind: str, is_equalised: bool
) -> None:
    model = canonical(NETS[net])
    spread(model)
    data = noise(model)
    other = equalised(model, context(model, data)) if is_equalised else model.clone()
    broken = change(other, weight, kind)
    verdict = Verdict.of(compare_layers(model, other, data), 50)
    assert verdict.wrong is not None
    assert verdict.first is not None
    assert verdict.first.name == broken, verdict.words()
    assert broken in verdict.words()


def test_one_channel_of_an_equalised_network(canonical: Canonical, noise: Noise, context) -> None:
    model = canonical(CHAIN)
    spread(model)
    data = noise(model)
    other = equalised(model, context(model, data))
    weight = constant(other.graph.initializers["w2"]).copy()
    weight[4] *= 2
    set_constant(other.graph.initializers["w2"], weight)
    verdict = Verdict.of(compare_layers(model, other, data), 40)
    assert verdict.first is not None
    assert verdict.first.name == "c2", verdict.words()


@pytest.mark.parametrize("is_equalised", [False, True], ids=["plain", "equalised"])
@pytest.mark.parametrize("net", ["chain", "depthwise"])
def test_tiny_weights_of_a_channel_that_is_always_the_same_are_no_factor(
    canonical: Canonical, noise: Noise, context, net: str, is_equalised: bool
) -> None:
    """Int8 codes hold weights of 1e-13 as whatever is next: their ratio says nothing, the bias does."""
    model = canonical(NETS[net])
    spread(model)
    readers = np.s_[:, 2] if net == "chain" else np.s_[2]
    put(model, "w1", 2, lambda old: old * 1e-12)
    put(model, "b1", 2, lambda old: 1.5)
    put(model, "w2", readers, lambda old: old * 1e-12)
    data = noise(model)
    other = equalised(model, context(model, data)) if is_equalised else model.clone()
    put(other, "w1", 2, lambda old: old * 1e6)
    put(other, "w2", readers, lambda old: -old)
    found = compare_layers(model, other, data)
    assert min(one.own.sqnr_db for one in found) > 60
    assert min(one.total.sqnr_db for one in found) > 60


@pytest.mark.parametrize("net", ["chain", "depthwise"])
def test_an_int8_network_is_compared_without_its_factors(
    canonical: Canonical, noise: Noise, context, net: str
) -> None:
    model = canonical(NETS[net])
    spread(model)
    data = noise(model, 16)
    other = Quantize(correct="none", equalize="yes").run(model.clone(), context(model, data)).model
    found = compare_layers(model, other, data.take(4))
    scaled = [one for one in found if one.rescaled]
    assert scaled
    assert min(one.total.sqnr_db for one in found) > 20
    verdict = Verdict.of(found, 20)
    assert verdict.wrong is None
    assert verdict.words().startswith("no output is below 20 dB")


def test_small_errors_that_add_up_blame_no_layer(canonical: Canonical, noise: Noise) -> None:
    model = canonical(CHAIN)
    other = model.clone()
    for name in ("w1", "w2", "w3", "w4"):
        set_constant(
            other.graph.initializers[name], constant(other.graph.initializers[name]) * np.float32(1.05)
        )
    found = compare_layers(model, other, noise(model))
    limit = min(one.own.sqnr_db for one in found) - 1
    worst = min(one.total.sqnr_db for one in found if one.output)
    assert worst < limit, "the sum is worse than any part"
    verdict = Verdict.of(found, limit)
    assert verdict.wrong is not None
    assert verdict.first is None
    assert "errors add up" in verdict.words()


LAST = """
g (float[N,6,8,3] x) => (float[N,6,8,4] y) <float[5,3,3,3] w1, float[4,5,1,1] w2> {
  t = Transpose<perm=[0,3,1,2]>(x)
  c1 = Conv<pads=[1,1,1,1]>(t, w1)  r1 = Relu(c1)
  c2 = Conv(r1, w2)
  y = Transpose<perm=[0,2,3,1]>(c2)
}
"""
FIRST = """
g (float[N,3,6,8] x) => (float[N,4,6,8] y) <float[5,3,3,3] w1, float[4,5,1,1] w2> {
  c1 = Conv<pads=[1,1,1,1]>(x, w1)  r1 = Relu(c1)
  y = Conv(r1, w2)
}
"""
INNER = """
g (float[N,3,6,8] x) => (float[N,4,6,8] y) <float[5,3,3,3] w1, float[4,5,1,1] w2> {
  k1 = Conv<pads=[1,1,1,1]>(x, w1)
  c1 = Transpose<perm=[0,2,3,1]>(k1)
  r1 = Relu(c1)
  r = Transpose<perm=[0,3,1,2]>(r1)
  y = Conv(r, w2)
}
"""


@pytest.mark.parametrize(
    ("one", "other"), [(FIRST, LAST), (LAST, FIRST), (FIRST, INNER), (INNER, FIRST), (LAST, INNER)]
)
def test_layouts_are_turned_back(canonical: Canonical, one: str, other: str) -> None:
    a, b = canonical(one), canonical(other)
    specs = InputSpec.of(a)
    arrays = {"x": np.random.default_rng(0).standard_normal((4, *specs[0].shape)).astype(np.float32)}
    found = compare_layers(a, b, Dataset("noise", ArraySource(arrays, Preprocess(), specs), tuple(range(4))))
    assert {item.name for item in found} >= {"c1", "r1", "y"}
    assert min(item.total.sqnr_db for item in found) > 100
    assert min(item.own.sqnr_db for item in found) > 100


def test_a_batch_that_is_fixed(canonical: Canonical, noise: Noise) -> None:
    model = canonical(
        CHAIN.replace("float[N,3,12,12]", "float[2,3,12,12]").replace("float[N,5]", "float[2,5]")
    )
    other = model.clone()
    assert change(other, "w3", "turned") == "c3"
    found = compare_layers(model, other, noise(model, 4))
    assert Verdict.of(found, 30).words().startswith("first layer that goes wrong: c3 (Conv)")


def test_what_cannot_be_compared_is_said(canonical: Canonical, noise: Noise) -> None:
    model = canonical(FIRST)
    two = canonical(FIRST.replace("=> (float[N,4,6,8] y)", "=> (float[N,4,6,8] y, float[N,5,6,8] r1)"))
    with pytest.raises(ModelError, match="different numbers of outputs: 1 against 2"):
        compare_layers(model, two, noise(model))
    smaller = canonical(FIRST.replace("[N,4,", "[N,2,").replace("float[4,5,1,1]", "float[2,5,1,1]"))
    with pytest.raises(ModelError, match="output 'y'"):
        compare_layers(model, smaller, noise(model))
    renamed = canonical(FIRST.replace("c1", "k1").replace("r1", "k2"))
    set_constant(renamed.graph.initializers["w2"], -constant(renamed.graph.initializers["w2"]))
    words = Verdict.of(compare_layers(model, renamed, noise(model)), 20).words()
    assert "no inner value in common" in words


@pytest.mark.parametrize(
    ("mine", "theirs", "why"),
    [
        ("N,1,8,8", "N,1,49,10", "'x' takes 1x8x8, 'x' takes 1x49x10"),
        ("N,3,8,8", "N,3,6,6", "'x' takes 3x8x8, 'x' takes 3x6x6"),
        ("N,8", "N,8,8", "'x' takes 8, 'x' takes 8x8"),
        ("N,3,8,8", "N,8,8,3", ""),
        ("N,3,8,8", "N,3,H,W", ""),
        ("N,3,8,8", "1,3,8,8", ""),
    ],
)
def test_other_inputs_are_said_in_one_sentence(mine: str, theirs: str, why: str) -> None:
    """And not by the engine, in the middle of a run."""
    one, other = (
        ir.from_onnx_text(
            f'<ir_version: 8, opset_import: ["": 18]> net (float[{shape}] x) => (float[{shape}] y) {{ y = Relu(x) }}'
        )
        for shape in (mine, theirs)
    )
    if not why:
        check_ends(one, other)
        return
    with pytest.raises(ModelError, match=f"take different inputs: {why}"):
        check_ends(one, other)


def _reading(kind: str) -> str:
    """`CHAIN` with inputs of another type."""
    text = CHAIN.replace("float[N,3,12,12] x", f"{kind}[N,3,12,12] x").replace("(x, w1", "(r, w1")
    return text.replace("c1 =", "r = Cast<to=1>(x) c1 =", 1)


@pytest.mark.parametrize(
    ("mine", "theirs"),
    [("float", "float16"), ("float16", "float"), ("uint8", "float"), ("uint8", "int64"), ("float", "double")],
)
def test_inputs_of_other_types_are_compared_as_the_numbers_that_they_are(
    mine: str, theirs: str, canonical: Canonical
) -> None:
    a, b = canonical(_reading(mine)), canonical(_reading(theirs))
    images = np.random.default_rng(0).integers(0, 255, (3, 3, 12, 12)).astype(np.float32)
    source = ArraySource({"x": images}, Preprocess(), InputSpec.of(a))
    data = Dataset("images", source, tuple(range(3)))
    assert min(one.total.sqnr_db for one in compare_layers(a, b, data)) > 100


def test_real_numbers_are_not_rounded_to_what_a_model_of_whole_ones_takes(canonical: Canonical) -> None:
    with pytest.raises(ModelError, match="'x' takes float, 'x' takes uint8"):
        check_ends(canonical(_reading("float")), canonical(_reading("uint8")))
