"""The tensorrt dialect: where pairs stand, what they hold, and that the file computes what it says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from edgec.compiler.check.check import check_onnx
from edgec.compiler.emit.onnx import emit
from edgec.graph.compare import sqnr_db
from edgec.graph.data import Dataset
from edgec.graph.errors import UsageError
from edgec.graph.execute import session
from edgec.graph.views import constant
from edgec.passes.base import Context
from edgec.passes.correct_bias import CorrectBias
from edgec.passes.quantize import Quantize
from edgec.passes.quantize.dialects import TENSORRT
from edgec.passes.quantize.insert import insert_weight
from edgec.passes.quantize.pairs import pair_weights, unpair_weights
from edgec.passes.quantize.placement import plan_inputs
from edgec.passes.quantize.planned import Plan
from edgec.targets import target

Canonical = Callable[..., ir.Model]
Noise = Callable[..., Dataset]
ORIN = target("jetson-orin-nano")

STEM = "a = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(x, w0, b0) r = Relu(a)"
HELD = (
    "float[32,3,3,3] w0, float[32] b0, float[32,32,3,3] w1, float[32] b1, float[32,32,1,1] w2, float[32] b2, "
    "float[32,1,3,3] wd, float[32,64,1,1] wc, float[32,32,2,2] wt, float[8,32,1,1] ws, float[8] bs, float[32,8,1,1] we"
)


def block(canonical: Canonical, body: str, out: str = "32,16,16") -> ir.Model:
    return canonical(f"g (float[N,3,16,16] x) => (float[N,{out}] y) <{HELD}> {{ {STEM} {body} }}")


def plan(model: ir.Model) -> Plan:
    return plan_inputs(model, TENSORRT, lambda name: False)


def edges(model: ir.Model) -> set[str]:
    """Edges that read codes, as ``op<tensor``."""
    ops = {node.name: node for node in model.graph}
    return {f"{ops[name].op_type}<{ops[name].inputs[index].name}" for name, index in plan(model).edges or ()}  # type: ignore[union-attr]


CONV1 = "<kernel_shape=[1,1]>"
PLACES = {
    "layers read codes, outputs are floats": (f"y = Conv{CONV1}(r, w2, b2)", "32,16,16", {"Conv<x", "Conv<r"}),
    "of a residual block the skip alone": (
        f"c = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(r, w1, b1) d = Relu(c) e = Conv{CONV1}(d, w2, b2) s = Add(e, r) y = Relu(s)",
        "32,16,16", {"Conv<x", "Conv<r", "Conv<d", "Add<r"},
    ),
    "the skip may come first": (
        f"c = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(r, w1, b1) d = Relu(c) e = Conv{CONV1}(d, w2, b2) s = Add(r, e) y = Relu(s)",
        "32,16,16", {"Conv<x", "Conv<r", "Conv<d", "Add<r"},
    ),
    "the longer way is the branch": (
        f"p = Conv{CONV1}(r, w2, b2) c = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(r, w1, b1) d = Relu(c) "
        f"e = Conv{CONV1}(d, w2, b1) y = Add(p, e)",
        "32,16,16", {"Conv<x", "Conv<r", "Conv<d", "Add<p"},
    ),
    "an Add of what no layer ends": (
        "p = MaxPool<kernel_shape=[3,3], pads=[1,1,1,1]>(r) q = AveragePool<kernel_shape=[3,3], pads=[1,1,1,1]>(r) y = Add(p, q)",
        "32,16,16", {"Conv<x"},
    ),
    "Concat with one scale": (
        f"c = Conv{CONV1}(r, w2, b2) d = Relu(c) j = Concat<axis=1>(r, d) y = Conv{CONV1}(j, wc, b1)",
        "32,16,16", {"Conv<x", "Conv<r", "Concat<r", "Concat<d", "Conv<j"},
    ),
    "a Concat at the end stays float": (
        f"c = Conv{CONV1}(r, w2, b2) y = Concat<axis=1>(r, c)", "64,16,16", {"Conv<x", "Conv<r"},
    ),
    "before a Pad": (
        "p = Constant<value=int64[8] {0,0,0,0,0,32,0,0}>() q = Pad(r, p) y = Conv<kernel_shape=[1,1]>(q, wc, b1)",
        "32,16,16", {"Conv<x", "Pad<r", "Conv<q"},
    ),
    "MaxPool in front of a layer": (
        f"m = MaxPool<kernel_shape=[2,2], strides=[2,2]>(r) y = Conv{CONV1}(m, w2, b2)",
        "32,8,8", {"Conv<x", "MaxPool<r", "Conv<m"},
    ),
    "Resize between layers": (
        f's = Constant<value=float[4] {{1.0,1.0,2.0,2.0}}>() u = Resize<mode="nearest">(r, , s) y = Conv{CONV1}(u, w2, b2)',
        "32,32,32", {"Conv<x", "Resize<r", "Conv<u"},
    ),
    "the mean at the end": ("y = GlobalAveragePool(r)", "32,1,1", {"Conv<x", "GlobalAveragePool<r"}),
    "squeeze and excite: its product reads the map as floats, and so does its mean": (
        f"m = GlobalAveragePool(r) s = Conv{CONV1}(m, ws, bs) t = Relu(s) e = Conv{CONV1}(t, we, b1) g2 = Sigmoid(e) "
        f"p = Mul(r, g2) y = Conv{CONV1}(p, w2, b2)",
        "32,16,16", {"Conv<x", "Conv<m", "Conv<t", "Conv<p"},
    ),
    "a transposed convolution": (
        "y = ConvTranspose<kernel_shape=[2,2], strides=[2,2]>(r, wt, b1)", "32,32,32", {"Conv<x", "ConvTranspose<r"},
    ),
    "a depthwise convolution": (
        "y = Conv<kernel_shape=[3,3], pads=[1,1,1,1], group=32>(r, wd, b1)", "32,16,16", {"Conv<x", "Conv<r"},
    ),
    "SiLU is no reader of codes": (
        f"c = Conv{CONV1}(r, w2, b2) s = Sigmoid(c) m = Mul(c, s) y = Conv{CONV1}(m, w2, b1)",
        "32,16,16", {"Conv<x", "Conv<r", "Conv<m"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", PLACES)
def test_pairs_stand_on_inputs(case: str, canonical: Canonical) -> None:
    body, out, want = PLACES[case]
    assert edges(block(canonical, body, out)) == want


SMALL = {
    # (outputs, inputs per group, kernel, group) -> on codes
    (32, 16, 1, 1): True,
    (20, 20, 3, 1): True,
    (8, 8, 3, 1): False,
    (24, 8, 3, 1): True,
    (20, 12, 3, 1): False,
    (24, 1, 3, 24): True,
    (20, 1, 3, 20): False,
    (24, 1, 1, 24): False,
    (32, 8, 3, 4): True,
    (32, 8, 1, 4): False,
}


@pytest.mark.parametrize(("outs", "ins", "kernel", "group"), SMALL)
def test_small_layers_stay_float(outs: int, ins: int, kernel: int, group: int, canonical: Canonical) -> None:
    channels = ins * group
    model = canonical(
        f"g (float[N,{channels},8,8] x) => (float[N,{outs},a,b] y) <float[{outs},{ins},{kernel},{kernel}] w>"
        f"{{ r = Relu(x) y = Conv<kernel_shape=[{kernel},{kernel}], group={group}>(r, w) }}"
    )
    assert bool(plan(model).edges) == SMALL[outs, ins, kernel, group]


def test_the_first_layer_may_be_narrow(canonical: Canonical) -> None:
    model = canonical(
        "g (float[N,3,8,8] x) => (float[N,8,a,b] y) <float[8,3,3,3] w> { y = Conv<kernel_shape=[3,3]>(x, w) }"
    )
    assert plan(model).edges


MATRICES = {
    "one vector": ("float[N,32] x", "float[N,32] y", "y = Gemm<transB=1>(x, w)", False),
    "tokens": ("float[N,16,32] x", "float[N,16,32] y", "y = MatMul(x, w)", True),
    "a narrow one": ("float[N,16,8] x", "float[N,16,32] y", "y = MatMul(x, v)", False),
    "two computed": (
        "float[N,16,16] x", "float[N,16,16] y", "a = Relu(x) b = Sigmoid(x) y = MatMul(a, b)", False,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", MATRICES)
def test_matrices(case: str, canonical: Canonical) -> None:
    x, y, body, want = MATRICES[case]
    model = canonical(f"g ({x}) => ({y}) <float[32,32] w, float[8,32] v> {{ {body} }}")
    assert bool(plan(model).edges) == want


DEPTHWISE = (
    "d = Conv<kernel_shape=[3,3], pads=[1,1,1,1], group=32>(r, wd, b1) s = Sigmoid(d) m = Mul(d, s) "
    f"y = Conv{CONV1}(m, w2, b2)"
)


@pytest.mark.parametrize(
    ("release", "on_codes"), [("5.1", False), ("6.0", False), ("6.2", True), ("7.2", True)]
)
def test_depthwise_with_silu_by_release(
    release: str, on_codes: bool, canonical: Canonical, noise: Noise, tmp_path: Path
) -> None:
    model = block(canonical, DEPTHWISE)
    depthwise = next(
        n
        for n in model.graph
        if n.op_type == "Conv" and "group" in n.attributes and n.attributes["group"].value == 32
    )
    result = quantised(model, noise(model), tmp_path, release, correct="none", equalize="no")
    assert (depthwise.name in result.data["quantised_nodes"]) == on_codes


def quantised(model: ir.Model, data: Dataset, tmp_path: Path, release: str = "5.1", **options: object):  # type: ignore[no-untyped-def]
    context = Context(teacher=model, scratch=tmp_path, data=data, target=ORIN.on(release))
    return Quantize(**options).run(model.clone(), context)  # type: ignore[arg-type]


@pytest.mark.parametrize("case", PLACES)
@pytest.mark.parametrize("release", ["5.1", "6.2"])
def test_files_pass_the_rules(
    case: str, release: str, canonical: Canonical, noise: Noise, tmp_path: Path
) -> None:
    body, out, _ = PLACES[case]
    model = block(canonical, body, out)
    made = quantised(model, noise(model, 16), tmp_path, release, correct="round").model
    file = onnx.load_from_string(emit(made, opset=17, batch=1))
    found = check_onnx(file, ORIN.on(release))
    assert [str(one) for one in found if one.level != "note"] == []


def test_the_file_is_near_its_source(canonical: Canonical, noise: Noise, tmp_path: Path) -> None:
    model = block(canonical, *PLACES["of a residual block the skip alone"][:2])
    data = noise(model, 24)
    made = quantised(model, data, tmp_path).model
    feeds = next(data.batches(4))
    want = session(ir.to_proto(model)).run(None, feeds)[0]
    have = session(emit(made, opset=13), fused=False).run(None, feeds)[0]
    assert sqnr_db(want, have) > 30


def test_forms_of_the_file(canonical: Canonical, noise: Noise, tmp_path: Path) -> None:
    model = block(canonical, *PLACES["a transposed convolution"][:2])
    made = quantised(model, noise(model), tmp_path, correct="none").model
    axes = {}
    for node in made.graph:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            scale, zero = constant(node.inputs[1]), constant(node.inputs[2])
            assert scale is not None
            assert zero.dtype == np.int8
            assert not zero.any()
            assert zero.shape == scale.shape
        if node.op_type in ("Conv", "ConvTranspose"):
            pair = node.inputs[1].producer()  # type: ignore[union-attr]
            assert pair is not None
            assert pair.op_type == "DequantizeLinear"
            first = pair.inputs[0].producer()  # type: ignore[union-attr]
            assert first is not None
            assert first.op_type == "QuantizeLinear"
            weight = constant(first.inputs[0])
            assert weight is not None
            assert weight.dtype == np.float32
            bias = constant(node.inputs[2])
            assert bias is not None
            assert bias.dtype == np.float32
            axes[node.op_type] = pair.attributes["axis"].value
    assert axes == {"Conv": 0, "ConvTranspose": 1}


def test_weights_give_their_codes_back(canonical: Canonical) -> None:
    rng = np.random.default_rng(3)
    model = canonical(
        "g (float[N,64,4,4] x) => (float[N,64,2,2] y) <float[64,64,3,3] w> { y = Conv<kernel_shape=[3,3]>(x, w) }"
    )
    node = model.graph[0]
    weight = node.inputs[1]
    assert weight is not None
    assert weight.const_value is not None
    spread = np.exp(rng.uniform(-12, 4, (64, 1, 1, 1)))
    from edgec.graph.views import set_constant

    set_constant(weight, (rng.standard_normal((64, 64, 3, 3)) * spread).astype(np.float32))
    insert_weight(model.graph, node)
    dequantise = node.inputs[1].producer()  # type: ignore[union-attr]
    assert dequantise is not None
    codes = constant(dequantise.inputs[0])
    pair_weights(model)
    quantise = dequantise.inputs[0].producer()  # type: ignore[union-attr]
    assert quantise is not None
    model.graph.outputs.append(quantise.outputs[0])
    proto = ir.to_proto(model)
    x = np.zeros((1, 64, 4, 4), np.float32)
    made = session(proto, fused=False).run(None, {"x": x})[1]
    np.testing.assert_array_equal(made, codes)
    model.graph.outputs.pop()
    assert unpair_weights(model)
    np.testing.assert_array_equal(constant(dequantise.inputs[0]), codes)


def test_a_later_correction_keeps_the_form(canonical: Canonical, noise: Noise, tmp_path: Path) -> None:
    model = block(canonical, *PLACES["layers read codes, outputs are floats"][:2])
    data = noise(model, 16)
    made = quantised(model, data, tmp_path, correct="none").model
    context = Context(teacher=model, scratch=tmp_path, data=data, target=ORIN)
    after = CorrectBias().run(made, context)
    assert after.layers
    kinds = [node.inputs[1].producer().op_type for node in after.model.graph if node.op_type == "Conv"]  # type: ignore[union-attr]
    assert kinds == ["DequantizeLinear"] * 2
    assert not check_onnx(onnx.load_from_string(emit(after.model, opset=17, batch=1)), ORIN)


def test_other_codes_are_refused(canonical: Canonical, noise: Noise, tmp_path: Path) -> None:
    model = block(canonical, *PLACES["layers read codes, outputs are floats"][:2])
    with pytest.raises(UsageError, match="zero point 0"):
        quantised(model, noise(model), tmp_path, activations="uint8")
