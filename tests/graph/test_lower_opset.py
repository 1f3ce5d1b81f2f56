"""Opsets 17 and 13 of what the canonical graph may hold: the same numbers, or a refusal that names the node."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnxruntime.capi.onnxruntime_pybind11_state import RuntimeException

from edgec.graph.errors import UnsupportedError
from edgec.graph.execute import session
from edgec.graph.lower_opset import lower_opset, lowered
from tests.conftest import parse

FORMS = {
    "reduce over axes": ("a = Constant<value=int64[2] {2,3}>() y = ReduceMean<keepdims=0>(x, a)", "3"),
    "reduce one axis": ("a = Constant<value=int64[1] {1}>() y = ReduceMax(x, a)", "1,5,6"),
    "reduce by a negative axis": ("a = Constant<value=int64[1] {-1}>() y = ReduceL2(x, a)", "3,5,1"),
    "a reshape that allows zeros and has none": (
        "s = Constant<value=int64[3] {2,-1,6}>() y = Reshape<allowzero=1>(x, s)", "15,6",
    ),
    "dilations of 1": ("y = AveragePool<kernel_shape=[2,2], dilations=[1,1]>(x)", "3,4,5"),
    "reduce nothing": ("y = ReduceSumSquare<noop_with_empty_axes=1>(x)", "3,5,6"),
    "pad by axes": (
        "a = Constant<value=int64[2] {-2,3}>() p = Constant<value=int64[4] {1,2,0,1}>() y = Pad(x, p, , a)",
        "3,6,9",
    ),
    "pad with a value": (
        "v = Constant<value=float {-1.5}>() p = Constant<value=int64[8] {0,0,1,1,0,0,0,2}>() y = Pad(x, p, v)",
        "3,6,9",
    ),
    "resize by scales of axes": (
        's = Constant<value=float[2] {2.0,2.0}>() y = Resize<axes=[2,3], mode="linear">(x, , s)',
        "3,10,12",
    ),
    "resize by scales": (
        's = Constant<value=float[4] {1.0,1.0,2.0,2.0}>() y = Resize<mode="nearest">(x, , s)',
        "3,10,12",
    ),
    "split in equal parts": ("y, z, r = Split<num_outputs=3, axis=3>(x) u = Relu(z)", "3,5,2"),
    "split with a rest": ("y, z = Split<num_outputs=2, axis=2>(x)", "3,3,6"),
    "hard swish": ("y = HardSwish(x)", "3,5,6"),
    "hard sigmoid": ("y = HardSigmoid<alpha=0.25>(x)", "3,5,6"),
    "mish": ("y = Mish(x)", "3,5,6"),
    "gelu": ("y = Gelu(x)", "3,5,6"),
    "gelu by tanh": ('y = Gelu<approximate="tanh">(x)', "3,5,6"),
    "layer norm": ("y = LayerNormalization<axis=-1>(x, g6, b6)", "3,5,6"),
    "layer norm without bias": ("y = LayerNormalization<axis=-1, epsilon=0.01>(x, g6)", "3,5,6"),
    "batch norm": ("y = BatchNormalization(x, g3, g3, g3, v3)", "3,5,6"),
    "reshape": ("s = Constant<value=int64[2] {0,-1}>() y = Reshape(x, s)", "90"),
    "cast": ("y = Cast<to=1>(x)", "3,5,6"),
    "average pool": ("y = AveragePool<kernel_shape=[2,2], pads=[1,1,0,0]>(x)", "3,5,6"),
    "prelu": ("y = PRelu(x, w1)", "3,5,6"),
    "leaky": ("y = LeakyRelu(x)", "3,5,6"),
    "where it stands": ("a = Add(x, x) b = Mul(a, x) y = Clip(b)", "3,5,6"),
}  # fmt: skip
WEIGHTS = "float[6] g6, float[6] b6, float[3] g3, float[3] v3 = {1.0, 2.0, 3.0}, float[3,1,1] w1"


def model_of(body: str, out: str) -> onnx.ModelProto:
    dims = ",".join(f"d{i}" for i in range(len(out.split(",")) + 1))
    used = [one for one in WEIGHTS.split(", float") if f" {one.split('] ')[1].split(' ')[0]}" in body]
    held = ", ".join(one if one.startswith("float") else f"float{one}" for one in used)
    return parse(f"g (float[2,3,5,6] x) => (float[{dims}] y) {f'<{held}>' if held else ''} {{ {body} }}")


def run(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
    return np.asarray(session(model, fused=False).run(["y"], {"x": x})[0])


@pytest.mark.parametrize("opset", [17, 13])
@pytest.mark.parametrize("form", FORMS)
def test_an_older_opset_computes_the_same(form: str, opset: int) -> None:
    body, out = FORMS[form]
    model = model_of(body, out)
    made = lower_opset(model, opset)
    onnx.checker.check_model(made)
    assert made.opset_import[0].version == opset
    x = np.random.default_rng(1).standard_normal((2, 3, 5, 6)).astype(np.float32)
    have = run(made, x)
    try:
        want = run(model, x)
    except RuntimeException as error:  # 1.21 has no ReduceSumSquare over nothing
        pytest.skip(f"this onnxruntime cannot run the original: {error}")
    assert want.shape == have.shape
    np.testing.assert_allclose(have, want, rtol=1e-5, atol=1e-5 * float(np.abs(want).max()))


@pytest.mark.parametrize("op", ["Gelu", "HardSwish", "Mish", "LayerNormalization"])
def test_nodes_that_are_spelled_out_get_names_of_their_own(op: str) -> None:
    """torch's newer exporter calls the second one node_gelu_1, as a part of the first one would be called."""
    more = ", g6, b6" if op == "LayerNormalization" else ""
    model = model_of(f"a = {op}(x{more}) b = {op}(a{more}) y = {op}(b{more})", "3,5,6")
    for index, node in enumerate(model.graph.node):
        node.name = f"node_{index}" if index else "node"
    made = lower_opset(model, 13)
    names = [node.name for node in made.graph.node]
    assert len(set(names)) == len(names)
    x = np.random.default_rng(1).standard_normal((2, 3, 5, 6)).astype(np.float32)
    np.testing.assert_allclose(run(made, x), run(model, x), rtol=1e-4, atol=1e-5)


REFUSED = {
    "a pool with gaps": ("y = AveragePool<kernel_shape=[2,2], dilations=[2,2]>(x)", "AveragePool has no attribute dilations"),
    "a pad that wraps": ('p = Constant<value=int64[8] {0,0,1,1,0,0,1,1}>() y = Pad<mode="wrap">(x, p)', "cannot wrap"),
    "zeros that mean zero": ("s = Constant<value=int64[2] {0,5}>() y = Reshape<allowzero=1>(x, s)", "Reshape has no attribute allowzero"),
    "antialiasing": (
        's = Constant<value=float[4] {1.0,1.0,0.5,0.5}>() y = Resize<mode="linear", antialias=1>(x, , s)',
        "no attribute antialias",
    ),
    "an op that is new": ("y = Col2Im(x, x, x)", "Col2Im does not exist"),
}  # fmt: skip


@pytest.mark.parametrize("form", REFUSED)
def test_what_has_no_older_form_is_refused_by_name(form: str) -> None:
    body, words = REFUSED[form]
    model = parse(f"g (float[2,3,5,6] x) => (float[a,b,c,d] y) {{ {body} }}")
    model.graph.node[-1].name = "culprit"
    with pytest.raises(UnsupportedError, match=words) as caught:
        lower_opset(model, 13)
    assert "culprit" in str(caught.value)
    assert "opset 13" in str(caught.value)


def test_a_file_that_is_old_enough_stays_as_it_is() -> None:
    model = model_of("y = Relu(x)", "3,5,6")
    model.opset_import[0].version = 13
    assert lower_opset(model, 17) is model


def test_both_files_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """A way that computes something else is found before the file is written."""
    from edgec.graph import lower_opset as module

    model = model_of("y = HardSwish(x)", "3,5,6")
    assert lowered(model, 13).opset_import[0].version == 13
    wrong = {**module._WAYS, "HardSwish": module._MISH}
    monkeypatch.setattr(module, "_WAYS", wrong)
    with pytest.raises(UnsupportedError, match="computes something else"):
        lowered(model, 13)
