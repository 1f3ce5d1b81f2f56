"""TFLite's sharing rules, op by op, and which nodes get Q/DQ pairs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest

from edgec.passes.quantize.dialects import RULES, TFLITE, TFLITE_16X8
from edgec.passes.quantize.plan import make_plan, parameters
from edgec.passes.quantize.planned import Plan, Table
from edgec.passes.quantize.qparams import PROBABILITY, SIGNED_UNIT
from edgec.passes.quantize.rules import Kind

Canonical = Callable[..., ir.Model]

CONV = "c = Conv<kernel_shape=[1,1]>(x, w)"


def model_of(canonical: Canonical, body: str, out: str = "4,8,8", weights: str = "") -> ir.Model:
    more = f", {weights}" if weights else ""
    return canonical(
        f"g (float[N,4,8,8] x) => (float[N,{out}] y) <float[4,4,1,1] w, float[4,4,1,1] v{more}> {{ {body} }}"
    )


def table_of(model: ir.Model, plan: Plan, low: float = -1.0, high: float = 2.0) -> Table:
    """Every source gets a range of its own, so that equal parameters mean that they are shared."""
    ranges = {name: (low * (1 + i / 7), high * (1 + i / 5)) for i, name in enumerate(plan.sources)}
    return parameters(plan, model, ranges, TFLITE)


SAME = {
    "MaxPool": ("y = MaxPool<kernel_shape=[2,2], strides=[2,2]>(c)", "4,4,4"),
    "AveragePool": ("y = AveragePool<kernel_shape=[2,2], strides=[2,2]>(c)", "4,4,4"),
    "GlobalMaxPool": ("y = GlobalMaxPool(c)", "4,1,1"),
    "Reshape": ("s = Constant<value=int64[3] {0,-1,8}>() y = Reshape(c, s)", "32,8"),
    "Flatten": ("y = Flatten<axis=1>(c)", "256"),
    "Transpose": ("y = Transpose<perm=[0,2,3,1]>(c)", "8,8,4"),
    "Squeeze": ("g2 = GlobalMaxPool(c) a = Constant<value=int64[2] {2,3}>() y = Squeeze(g2, a)", "4"),
    "Unsqueeze": ("a = Constant<value=int64[1] {4}>() y = Unsqueeze(c, a)", "4,8,8,1"),
    "Pad": ("p = Constant<value=int64[8] {0,0,1,1,0,0,1,1}>() y = Pad(c, p)", "4,10,10"),
    "Resize": (
        's = Constant<value=float[4] {1.0,1.0,2.0,2.0}>() y = Resize<mode="nearest">(c, , s)',
        "4,16,16",
    ),
    "Slice": (
        "a = Constant<value=int64[1] {0}>() b = Constant<value=int64[1] {4}>() k = Constant<value=int64[1] {2}>() "
        "y = Slice(c, a, b, k)",
        "4,4,8",
    ),
    "DepthToSpace": ("y = DepthToSpace<blocksize=2>(c)", "1,16,16"),
    "SpaceToDepth": ("y = SpaceToDepth<blocksize=2>(c)", "16,4,4"),
    "ReduceMax": ("a = Constant<value=int64[2] {2,3}>() y = ReduceMax(c, a)", "4,1,1"),
    "Gather": ("i = Constant<value=int64[2] {1,0}>() y = Gather<axis=1>(c, i)", "2,8,8"),
}


@pytest.mark.parametrize("op", sorted(SAME))
def test_same(canonical: Canonical, op: str) -> None:
    """The output has the parameters of the input: the op only moves or selects codes."""
    body, out = SAME[op]
    model = model_of(canonical, f"{CONV} {body}", out)
    plan = make_plan(model, TFLITE)
    table = table_of(model, plan)
    node = list(model.graph)[-1]  # canonicalising writes Flatten as Reshape
    assert RULES[op].kind is Kind.SAME
    assert RULES[node.op_type].kind is Kind.SAME
    assert node.name in plan.nodes
    assert table.tensors[node.inputs[0].name] == table.tensors[node.outputs[0].name]
    assert node.outputs[0].name not in plan.sources


def test_split_outputs_share(canonical: Canonical) -> None:
    model = model_of(canonical, f"{CONV} a, b = Split<axis=1, num_outputs=2>(c) y = Add(a, b)", "2,8,8")
    table = table_of(model, make_plan(model, TFLITE))
    assert table.tensors["a"] == table.tensors["b"] == table.tensors["c"] != table.tensors["y"]


@pytest.mark.parametrize(
    ("op", "expected"), [("Sigmoid", PROBABILITY), ("Tanh", SIGNED_UNIT), ("Softmax<axis=1>", PROBABILITY)]
)
def test_fixed(canonical: Canonical, op: str, expected: object) -> None:
    model = model_of(canonical, f"{CONV} y = {op}(c)")
    plan = make_plan(model, TFLITE)
    assert table_of(model, plan).tensors["y"] == expected
    assert "y" not in plan.sources


def test_concat_joins_inputs_and_output(canonical: Canonical) -> None:
    body = f"{CONV} d = Conv<kernel_shape=[1,1]>(x, v) j = Concat<axis=1>(c, d) y = Conv<kernel_shape=[1,1]>(j, u)"
    model = model_of(canonical, body, weights="float[4,8,1,1] u")
    plan = make_plan(model, TFLITE)
    table = table_of(model, plan)
    assert table.tensors["c"] == table.tensors["d"] == table.tensors["j"]
    ranges = {"x": (-1, 1), "c": (-1, 3), "d": (-5, 2), "y": (-1, 1)}
    joined = parameters(plan, model, ranges, TFLITE).tensors["j"]
    assert joined.low <= -4.95
    assert joined.high >= 2.95


def test_concat_converts_a_fixed_input(canonical: Canonical) -> None:
    """A sigmoid keeps 1/256, -128; in front of the concat its codes are converted."""
    body = f"{CONV} d = Sigmoid(c) j = Concat<axis=1>(c, d) y = Conv<kernel_shape=[1,1]>(j, u)"
    model = model_of(canonical, body, weights="float[4,8,1,1] u")
    plan = make_plan(model, TFLITE)
    table = table_of(model, plan)
    assert table.tensors["d"] == PROBABILITY
    assert table.tensors["j"] == table.tensors["c"] != PROBABILITY
    assert list(plan.conversions.values()) == ["j"]


def test_concat_of_sigmoids_is_fixed(canonical: Canonical) -> None:
    body = f"{CONV} a = Sigmoid(c) b = Sigmoid(c) j = Concat<axis=1>(a, b) y = Conv<kernel_shape=[1,1]>(j, u)"
    model = model_of(canonical, body, weights="float[4,8,1,1] u")
    plan = make_plan(model, TFLITE)
    assert table_of(model, plan).tensors["j"] == PROBABILITY
    assert not plan.conversions


def test_concat_of_outputs_stays_float(canonical: Canonical) -> None:
    """Boxes and scores on one scale would ruin the smaller ones."""
    body = f"{CONV} d = Conv<kernel_shape=[1,1]>(x, v) j = Concat<axis=1>(c, d) y = Flatten<axis=1>(j)"
    plan = make_plan(model_of(canonical, body, "512"), TFLITE)
    assert len(plan.nodes) == 2
    assert "it joins outputs" in plan.floats.values()


def test_residual_add_has_its_own_range(canonical: Canonical) -> None:
    model = model_of(canonical, f"{CONV} s = Add(c, x) r = Relu(s) y = Conv<kernel_shape=[1,1]>(r, v)")
    plan = make_plan(model, TFLITE)
    assert {"x", "c", "r", "y"} == set(plan.tensors)
    assert set(plan.absorbed.values()) == {"s"}


@pytest.mark.parametrize(
    ("activation", "high", "void"),
    [
        ("Relu(c)", 3.0, True),
        ("Relu(c)", 0.01, True),
        ("Clip(c, lo, hi)", 6.0, True),
        ("Clip(c, lo, hi)", 2.0, True),
    ],
)
def test_activations_are_absorbed(canonical: Canonical, activation: str, high: float, void: bool) -> None:
    body = (
        f"lo = Constant<value=float {{0.0}}>() hi = Constant<value=float {{6.0}}>() {CONV} y = {activation}"
    )
    model = model_of(canonical, body)
    plan = make_plan(model, TFLITE)
    table = parameters(plan, model, {"x": (-1, 1), "y": (0, high)}, TFLITE)
    assert bool(table.void) is void
    assert "c" not in table.tensors


def test_an_activation_that_is_not_void_gets_pairs_on_both_sides(canonical: Canonical) -> None:
    """The concat's joint range reaches below zero, so the Relu has work left."""
    body = (
        f"{CONV} r = Relu(c) d = Conv<kernel_shape=[1,1]>(x, v) j = Concat<axis=1>(r, d) "
        "y = Conv<kernel_shape=[1,1]>(j, u)"
    )
    model = model_of(canonical, body, weights="float[4,8,1,1] u")
    plan = make_plan(model, TFLITE)
    table = table_of(model, plan)
    assert not table.void
    assert table.tensors["c"] == table.tensors["r"] == table.tensors["j"]


def test_unknown_ops_stay_float_and_are_named(canonical: Canonical) -> None:
    model = model_of(canonical, f"{CONV} e = Exp(c) y = Conv<kernel_shape=[1,1]>(e, v)")
    plan = make_plan(model, TFLITE)
    assert list(plan.floats.values()) == ["Exp has no int8 form"]
    assert set(plan.tensors) == {"x", "c", "e", "y"}


def test_cheap_nodes_without_a_layer_behind_them_stay_float(canonical: Canonical) -> None:
    """Fewest pairs: c is dequantised once, and everything behind it is float."""
    model = model_of(canonical, f"{CONV} a = Add(c, c) b = Mul(a, c) y = Exp(b)")
    plan = make_plan(model, TFLITE)
    assert len(plan.nodes) == 1
    assert set(plan.tensors) == {"x", "c"}


def test_excluded_nodes(canonical: Canonical) -> None:
    model = model_of(canonical, f"{CONV} y = Conv<kernel_shape=[1,1]>(c, v)")
    first = model.graph[0].name
    plan = make_plan(model, TFLITE, lambda name: name == first)
    assert plan.floats == {first: "excluded"}
    assert set(plan.tensors) == {"c", "y"}


def test_nan_weights_stay_float(canonical: Canonical) -> None:
    model = model_of(canonical, "y = Conv<kernel_shape=[1,1]>(x, w)")
    broken = np.full((4, 4, 1, 1), np.nan, np.float32)
    model.graph.initializers["w"].const_value = ir.tensor(broken, name="w")
    assert "NaN" in next(iter(make_plan(model, TFLITE).floats.values()))


def test_sixteen_bit_fixed_outputs(canonical: Canonical) -> None:
    model = model_of(canonical, f"{CONV} y = Sigmoid(c)")
    plan = make_plan(model, TFLITE_16X8)
    params = parameters(plan, model, {"x": (-1, 1), "c": (-1, 1)}, TFLITE_16X8).tensors["y"]
    assert (params.scale, params.zero_point, params.bits) == (1 / 32768, 0, 16)


def test_a_symmetric_dialect_is_one_more_row(canonical: Canonical) -> None:
    """Nothing but the table knows of zero points."""
    model = model_of(canonical, f"{CONV} r = Relu(c) y = MaxPool<kernel_shape=[2,2]>(r)")
    dialect = replace(TFLITE, symmetric=True)
    plan = make_plan(model, dialect)
    table = parameters(plan, model, dict.fromkeys(plan.sources, (-0.5, 2.0)), dialect)
    assert {params.zero_point for params in table.tensors.values()} == {0}
    assert {params.scale for params in table.tensors.values()} == {float(np.float32(2.0 / 127))}


def test_layout_behind_a_float_op_moves_codes(canonical: Canonical) -> None:
    """The quantiser stands in front of the Reshape that leads to a layer, not behind it; an output stays float."""
    body = f"{CONV} e = Erf(c) m = MaxPool<kernel_shape=[1,1]>(e) d = Conv(m, w2) f = Erf(d) y = Flatten(f)"
    text = f"g (float[N,3,8,8] x) => (float[N,256] y) <float[4,3,1,1] w, float[4,4,1,1] w2> {{ {body} }}"
    model = canonical(text)
    plan = make_plan(model, TFLITE)
    kinds = {node.name: node.op_type for node in model.graph}
    assert "MaxPool" in {kinds[name] for name in plan.nodes}
    assert {kinds[name] for name in plan.floats} == {"Erf", "Reshape"}
