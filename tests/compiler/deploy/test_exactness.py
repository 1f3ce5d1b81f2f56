"""What a device may differ by: not a bit where codes come from codes alone, a bound where real numbers are rounded to codes."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from edgec.compiler.api import compile as compile_model
from edgec.compiler.deploy.exactness import FLOAT, ROUNDED, allowed
from tests.conftest import parse

HEAD = (
    "g (float[1,3,8,8] x) => (float[1,{out}] y) <float s = {{0.02}}, int8 z = {{0}}, int8[4,3,3,3] w, int8[4,4,3,3] v, "
    "float[4,3,3,3] wf, float[4,4,3,3] vf, int32[4] b, float[4] bf> {{ {body} }}"
)
START = "q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) dw = DequantizeLinear(w, s, z) db = DequantizeLinear(b, s) "
FIRST = START + "a = Conv<pads=[1,1,1,1]>(d, dw, db) r = Relu(a) "
CODES = "k = QuantizeLinear(r, s, z) "
BACK = CODES + "e = DequantizeLinear(k, s, z) "
SECOND = "dv = DequantizeLinear(v, s, z) c = Conv<pads=[1,1,1,1]>(e, dv, db) m = QuantizeLinear(c, s, z) y = DequantizeLinear(m, s, z)"
FORMS = {
    "codes alone": (FIRST + BACK + SECOND, "4,8,8", 0.0),
    "a pool of codes": (FIRST + BACK + "p = MaxPool<kernel_shape=[2,2]>(e) o = QuantizeLinear(p, s, z) y = DequantizeLinear(o, s, z)", "4,7,7", 0.0),
    "a nearest Resize of codes": (
        "u = Constant<value=float[4] {1.0,1.0,2.0,2.0}>() " + FIRST + BACK
        + 'p = Resize<mode="nearest">(e, , u) o = QuantizeLinear(p, s, z) y = DequantizeLinear(o, s, z)', "4,16,16", 0.0,
    ),
    "a linear Resize": (
        "u = Constant<value=float[4] {1.0,1.0,2.0,2.0}>() " + FIRST + BACK
        + 'p = Resize<mode="linear">(e, , u) o = QuantizeLinear(p, s, z) y = DequantizeLinear(o, s, z)', "4,16,16", ROUNDED,
    ),
    "weights stored as real numbers": (
        START.replace("dw = DequantizeLinear(w, s, z)", "qw = QuantizeLinear(wf, s, z) dw = DequantizeLinear(qw, s, z)")
        + "a = Conv<pads=[1,1,1,1]>(d, dw, db) r = Relu(a) " + BACK + SECOND, "4,8,8", 0.0,
    ),
    "a bias in real numbers": (FIRST.replace(", db)", ", bf)") + BACK + SECOND, "4,8,8", ROUNDED),
    "a layer in real numbers": (
        FIRST + BACK + "c = Conv<pads=[1,1,1,1]>(e, vf, bf) m = QuantizeLinear(c, s, z) y = DequantizeLinear(m, s, z)", "4,8,8", ROUNDED,
    ),
    "an activation in real numbers": (
        FIRST.replace("r = Relu(a)", "r = Softplus(a)") + BACK + SECOND, "4,8,8", ROUNDED,
    ),
    "real numbers behind the codes": (FIRST + BACK + SECOND.replace("y = Deq", "n = Deq") + " y = Sigmoid(n)", "4,8,8", FLOAT),
    "a layer behind the codes": (FIRST + BACK + "y = Conv<pads=[1,1,1,1]>(e, vf, bf)", "4,8,8", FLOAT),
    "a sum of both": (FIRST + BACK + "t = Add(e, r) m = QuantizeLinear(t, s, z) y = DequantizeLinear(m, s, z)", "4,8,8", ROUNDED),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_of_onnx(form: str, tmp_path: Path) -> None:
    body, out, want = FORMS[form]
    used = HEAD.format(out=out, body=body)
    onnx.save(parse(used), tmp_path / "m.onnx")
    assert allowed(tmp_path / "m.onnx", "int8") == want
    assert allowed(tmp_path / "m.onnx", "fp32") == FLOAT


@pytest.mark.parametrize(("exclude", "want"), [("", 0.0), ("c2", ROUNDED), ("c3", FLOAT)])
@pytest.mark.parametrize("form", ["onnx", "tflite"])
def test_of_what_edgec_writes(form: str, exclude: str, want: float, tmp_path: Path, noise) -> None:
    net = (
        "g (float[N,3,8,8] x) => (float[N,4,8,8] y) <float[4,3,3,3] w1, float[4,4,3,3] w2, float[4,4,3,3] w3> "
        "{ a = Conv<pads=[1,1,1,1]>(x, w1) r = Relu(a) c = Conv<pads=[1,1,1,1]>(r, w2) t = Relu(c) y = Conv<pads=[1,1,1,1]>(t, w3) }"
    )
    model = parse(net)
    for node, name in zip(model.graph.node, ("c1", "r1", "c2", "r2", "c3"), strict=True):
        node.name = name
    only = f"{{correct=none exclude={exclude}}}" if exclude else "{correct=none}"
    report = compile_model(
        model, tmp_path / "run", data="random", samples=16, passes=f"quantize{only}", precision="int8", formats=(form,),
        measure=False, threads=1,
    )  # fmt: skip
    (one,) = [artifact for artifact in report.artifacts if artifact.precision in ("int8", "mixed")]
    assert allowed(tmp_path / "run" / one.path, one.precision) == want
