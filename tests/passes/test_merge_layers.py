"""merge-layers: every legal case is exact and takes fewer products, every other one stays."""

from __future__ import annotations

import io

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

from edgec.graph.canonicalise import canonicalise
from edgec.graph.cost import cost
from edgec.passes.base import Context
from edgec.passes.defaults import with_merged_layers
from edgec.passes.merge_layers import MergeLayers, has_layers_to_merge
from tests.conftest import parse

HEAD = "net (float[N,4,9,9] x) => (float[N,4,a,b] y) "
BN = "float[4] s, float[4] b, float[4] m, float[4] var"
MERGED = {
    # name: weights and body, operators left
    "3x3 and 1x1": (
        "<float[4,4,3,3] w, float[4] c, float[4,4,1,1] v, float[4] d>"
        "{ a = Conv<pads=[1,1,1,1]>(x, w, c)  b0 = Conv(x, v, d)  y = Add(a, b0) }", {"Conv": 1},
    ),
    "3x3, 1x1 and batch norm (RepVGG)": (
        f"<float[4,4,3,3] w, float[4,4,1,1] v, float[4] d, {BN}>"
        "{ a = Conv<pads=[1,1,1,1]>(x, w)  b0 = Conv(x, v, d)  n = BatchNormalization(x, s, b, m, var)"
        "  t = Add(a, b0)  t1 = Add(t, n)  y = Relu(t1) }", {"Conv": 1, "Relu": 1},
    ),
    "grouped": (
        f"<float[4,2,3,3] w, float[4,2,1,1] v, {BN}>"
        "{ a = Conv<pads=[1,1,1,1], group=2>(x, w)  b0 = Conv<group=2>(x, v)  n = BatchNormalization(x, s, b, m, var)"
        "  t = Add(a, b0)  y = Add(n, t) }", {"Conv": 1},
    ),
    "depthwise, four branches and the identity (MobileOne)": (
        "<float[4,1,3,3] w, float[4,1,3,3] w1, float[4,1,3,3] w2, float[4,1,1,1] v>"
        "{ a = Conv<pads=[1,1,1,1], group=4>(x, w)  b = Conv<pads=[1,1,1,1], group=4>(x, w1)"
        "  c = Conv<pads=[1,1,1,1], group=4>(x, w2)  d = Conv<group=4>(x, v)  y = Sum(a, b, c, d, x) }", {"Conv": 1},
    ),
    "strided": (
        "<float[4,4,3,3] w, float[4,4,1,1] v>"
        "{ a = Conv<pads=[1,1,1,1], strides=[2,2]>(x, w)  b0 = Conv<strides=[2,2]>(x, v)  y = Add(a, b0) }", {"Conv": 1},
    ),
    "strided, pads on one side": (
        "<float[4,4,3,3] w, float[4,4,1,1] v>"
        "{ a = Conv<pads=[0,0,2,2], strides=[2,2]>(x, w)  b0 = Conv<strides=[2,2]>(x, v)  y = Add(a, b0) }",
        {"Conv": 1},
    ),
    "dilated and 1x1": (
        "<float[4,4,3,3] w, float[4,4,1,1] v>"
        "{ a = Conv<pads=[2,2,2,2], dilations=[2,2]>(x, w)  b0 = Conv(x, v)  y = Add(a, b0) }", {"Conv": 1},
    ),
    "3x3, 1x3 and 3x1 (ACNet)": (
        "<float[4,4,3,3] w, float[4,4,1,3] v, float[4,4,3,1] u>"
        "{ a = Conv<pads=[1,1,1,1]>(x, w)  b0 = Conv<pads=[0,1,0,1]>(x, v)  c = Conv<pads=[1,0,1,0]>(x, u)"
        "  t = Add(a, b0)  y = Add(t, c) }", {"Conv": 1},
    ),
    "a difference, scaled, and a skip (FastViT)": (
        f"<float[4,1,3,3] w, float[4,1,1] ls, {BN}>"
        "{ a = Conv<pads=[1,1,1,1], group=4>(x, w)  n = BatchNormalization(x, s, b, m, var)  d = Sub(a, n)"
        "  l = Mul(d, ls)  y = Add(x, l) }", {"Conv": 1},
    ),
    "average pooling beside a wide window": (
        "<float[4,4,3,3] w>{ a = Conv<pads=[1,1,1,1]>(x, w)"
        "  p = AveragePool<kernel_shape=[3,3], pads=[1,1,1,1], count_include_pad=1>(x)  y = Add(a, p) }", {"Conv": 1},
    ),
    "another term stays": (
        "<float[4,4,3,3] w, float[4,4,1,1] v>"
        "{ a = Conv<pads=[1,1,1,1]>(x, w)  b0 = Conv(x, v)  r = Relu(x)  t = Add(a, r)  y = Add(t, b0) }",
        {"Conv": 1, "Relu": 1, "Add": 1},
    ),
    "two inputs, two layers": (
        "<float[4,4,3,3] w, float[4,4,1,1] v, float[4,4,3,3] w1, float[4,4,1,1] v1>"
        "{ r = Relu(x)  a = Conv<pads=[1,1,1,1]>(x, w)  b = Conv(x, v)  c = Conv<pads=[1,1,1,1]>(r, w1)  d = Conv(r, v1)"
        "  s = Add(a, c)  t = Sub(s, d)  y = Sub(t, b) }", {"Conv": 2, "Relu": 1, "Add": 1},
    ),
    "a row: 1x1 behind a window": (
        "<float[8,4,3,3] w, float[8] c, float[4,8,1,1] v, float[4] d>"
        "{ a = Conv<pads=[1,1,1,1], strides=[2,2]>(x, w, c)  y = Conv(a, v, d) }", {"Conv": 1},
    ),
    "a row: window behind a wide 1x1 without bias": (
        "<float[32,4,1,1] w, float[4,32,3,3] v, float[4] d>{ a = Conv(x, w)  y = Conv<pads=[1,1,1,1]>(a, v, d) }",
        {"Conv": 1},
    ),
    "a row: window behind a padded, strided window": (
        "<float[64,4,2,2] w, float[64] c, float[4,64,2,2] v>"
        "{ a = Conv<pads=[1,1,0,0], strides=[2,2]>(x, w, c)  y = Conv(a, v) }", {"Conv": 1},
    ),
    "a row: depthwise by depthwise 1x1": (
        "<float[4,1,3,3] w, float[4] c, float[4,1,1,1] v>"
        "{ a = Conv<pads=[1,1,1,1], group=4>(x, w, c)  y = Conv<group=4>(a, v) }", {"Conv": 1},
    ),
    "twins": (
        "<float[4,4,3,3] w, float[4] c, float[4,4,3,3] w1, float[4] c1>"
        "{ a = Conv<pads=[1,1,1,1]>(x, w, c)  r = Relu(a)  b = Conv<pads=[1,1,1,1]>(x, w1, c1)  q = Relu(b)"
        "  t = Sigmoid(q)  y = Mul(r, t) }", {"Conv": 1, "Relu": 1, "Sigmoid": 1, "Mul": 1},
    ),
}  # fmt: skip
STAYS = {
    "1x3 and 3x1": "<float[4,4,1,3] v, float[4,4,3,1] u>"
    "{ a = Conv<pads=[0,1,0,1]>(x, v)  b0 = Conv<pads=[1,0,1,0]>(x, u)  y = Add(a, b0) }",
    "a branch that something else reads": "<float[4,4,3,3] w, float[4,4,1,1] v>"
    "{ a = Conv<pads=[1,1,1,1]>(x, w)  b0 = Conv(x, v)  t = Add(a, b0)  y = Mul(t, a) }",
    "an activation in a branch": "<float[4,4,3,3] w, float[4,4,1,1] v>"
    "{ a = Conv<pads=[1,1,1,1]>(x, w)  r = Relu(a)  b0 = Conv(x, v)  y = Add(r, b0) }",
    "a residual block": "<float[4,4,3,3] w, float[4,4,3,3] v>"
    "{ a = Conv<pads=[1,1,1,1]>(x, w)  r = Relu(a)  b0 = Conv<pads=[1,1,1,1]>(r, v)  y = Add(x, b0) }",
    "average pooling that leaves its pads out": "<float[4,4,3,3] w>"
    "{ a = Conv<pads=[1,1,1,1]>(x, w)  p = AveragePool<kernel_shape=[3,3], pads=[1,1,1,1]>(x)  y = Add(a, p) }",
    "a padded window behind a bias": "<float[32,4,1,1] w, float[32] c, float[4,32,3,3] v>"
    "{ a = Conv(x, w, c)  y = Conv<pads=[1,1,1,1]>(a, v) }",
    "a bottleneck": "<float[2,4,1,1] w, float[4,2,1,1] v>{ a = Conv(x, w)  y = Conv(a, v) }",
    "depthwise and pointwise": "<float[4,1,3,3] w, float[4,4,1,1] v>{ a = Conv<group=4>(x, w)  y = Conv(a, v) }",
}


def network(text: str) -> onnx.ModelProto:
    """With variances above 0, and with ``w1`` and ``c1`` as copies of ``w`` and ``c`` where the case is about twins."""
    model = parse(HEAD + text)
    arrays = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    for tensor in model.graph.initializer:
        if tensor.name == "var":
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.abs(arrays["var"]) + 0.5, "var"))
        if "Sigmoid" in text and tensor.name in ("w1", "c1"):
            tensor.CopyFrom(onnx.numpy_helper.from_array(arrays[tensor.name[0]], tensor.name))
    return model


def outputs(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {session.get_inputs()[0].name: x})[0])


def ops(model: ir.Model) -> dict[str, int]:
    found: dict[str, int] = {}
    for node in model.graph:
        found[node.op_type] = found.get(node.op_type, 0) + 1
    return found


def run(model: ir.Model, tmp_path) -> ir.Model:
    return MergeLayers().run(model.clone(), Context(teacher=model, scratch=tmp_path)).model


@pytest.mark.parametrize("name", MERGED)
def test_merged_is_equal_and_cheaper(name, tmp_path):
    text, left = MERGED[name]
    source = network(text)
    model = canonicalise(source)
    merged = run(model, tmp_path)
    assert ops(merged) == left
    assert cost(merged).macs <= cost(model).macs
    onnx.checker.check_model(ir.to_proto(merged), full_check=True)
    x = np.random.default_rng(1).standard_normal((2, 4, 9, 9)).astype(np.float32)
    want, got = outputs(source, x), outputs(ir.to_proto(merged), x)
    assert np.abs(got - want).max() <= 2e-6 * np.abs(want).max()
    assert has_layers_to_merge(model) == (left != ops(model))
    assert not has_layers_to_merge(merged)


@pytest.mark.parametrize("name", STAYS)
def test_what_is_no_single_layer_stays(name, tmp_path):
    model = canonicalise(network(STAYS[name]))
    before = ir.to_proto(model).SerializeToString()
    assert not has_layers_to_merge(model)
    result = MergeLayers().run(model, Context(teacher=model, scratch=tmp_path))
    assert not result.modified
    assert ir.to_proto(result.model).SerializeToString() == before


def test_a_row_of_linear_layers(tmp_path):
    text = "net (float[N,9] x) => (float[N,5] y) <float[9,30] w, float[30] c, float[30,5] v, float[5] d>"
    source = parse(text + "{ a = Gemm(x, w, c)  y = Gemm(a, v, d) }")
    merged = run(canonicalise(source), tmp_path)
    assert ops(merged) == {"Gemm": 1}
    x = np.random.default_rng(1).standard_normal((3, 9)).astype(np.float32)
    want = outputs(source, x)
    assert np.abs(outputs(ir.to_proto(merged), x) - want).max() <= 2e-6 * np.abs(want).max()


def test_a_run_merges_by_itself_where_there_is_something():
    branched, plain = (
        canonicalise(network(text)) for text in (MERGED["3x3 and 1x1"][0], STAYS["a residual block"])
    )
    assert [one.name for one in with_merged_layers((), branched, named=False)] == ["merge-layers"]
    assert with_merged_layers((), plain, named=False) == ()
    assert with_merged_layers((), branched, named=True) == ()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("dynamo", [False, True])
def test_training_forms_of_both_exporters(dynamo, tmp_path):
    """MobileOne's depthwise block with four windows takes 4.1 times the products of the layer that it is."""
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    source, x = branches(torch).eval(), torch.randn(1, 8, 12, 12)
    if dynamo:
        model = canonicalise(torch.onnx.export(source, (x,), dynamo=True, verbose=False).model_proto)
    else:
        file = io.BytesIO()
        torch.onnx.export(source, (x,), file, dynamo=False)
        model = canonicalise(onnx.load_from_string(file.getvalue()))
    merged = run(model, tmp_path)
    assert ops(merged) == {"Conv": 2, "Relu": 2}
    assert cost(model).macs == (4 * 9 + 1) * 8 * 144 + (9 + 1) * 64 * 144
    assert cost(merged).macs == 9 * 8 * 144 + 9 * 64 * 144
    with torch.no_grad():
        want = source(x).numpy()
    assert np.abs(outputs(ir.to_proto(merged), x.numpy()) - want).max() <= 2e-6 * np.abs(want).max()


def branches(torch):
    """A depthwise MobileOne block and a RepVGG block, in their training forms."""
    nn = torch.nn

    def layer(kernel, groups):
        conv = nn.Conv2d(8, 8, kernel, padding=kernel // 2, groups=groups, bias=False)
        return nn.Sequential(conv, norm())

    def norm():
        made = nn.BatchNorm2d(8)
        made.running_mean.normal_()
        made.running_var.uniform_(0.5, 2)
        nn.init.normal_(made.weight)
        nn.init.normal_(made.bias)
        return made

    class Branches(nn.Module):
        def __init__(self, groups, count):
            super().__init__()
            self.wide = nn.ModuleList([layer(3, groups) for _ in range(count)])
            self.point, self.skip = layer(1, groups), norm()

        def forward(self, x):
            return torch.relu(sum([branch(x) for branch in self.wide], self.skip(x) + self.point(x)))

    return nn.Sequential(Branches(8, 4), Branches(1, 1))
