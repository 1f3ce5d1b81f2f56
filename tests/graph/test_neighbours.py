"""Local response normalisation as exporters of torch write it out becomes one LRN; what only looks like it stays."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from edgec.graph.canonicalise import canonicalise
from edgec.graph.execute import session

HEAD = "agraph (float[1,6,{size}] x) => (float[1,6,{size}] y) "
LARGE = {"4,5": "6,4,5", "7": "6,7"}


def written_out(
    size: str = "4,5", count: int = 5, pads: tuple[int, int] | None = None, back: str = "Squeeze(m, one)",
    tail: str = "f = Mul(s, alpha) g = Add(f, bias) p = Pow(g, beta) y = Div(x, p)", square: str = "Mul(x, x)",
) -> str:  # fmt: skip
    """torch's nodes for a normalisation over ``count`` channels."""
    rest = len(size.split(","))
    before, behind = pads or (count // 2, (count - 1) // 2)
    zeros = ["0"] * rest
    padding = ",".join(["0", "0", str(before), *zeros, "0", "0", str(behind), *zeros])
    return f"""{HEAD.format(size=size)} {{
        two = Constant<value_float=2.0>() alpha = Constant<value_float=0.3>() bias = Constant<value_float=1.5>()
        beta = Constant<value_float=0.75>() one = Constant<value_ints=[1]>() c = {square}
        wide = Constant<value_ints=[1,1,{LARGE[size]}]>() narrow = Constant<value_ints=[1,6,{size}]>() r = Reshape(c, wide)
        ends = Constant<value_ints=[{padding}]>() q = Pad(r, ends)
        m = AveragePool<kernel_shape=[{",".join([str(count), *["1"] * rest])}]>(q) s = {back} {tail} }}"""


WHOLE = {
    "pictures": written_out(),
    "three channels": written_out(count=3),
    "a reshape behind": written_out(back="Reshape(m, narrow)"),
    "a power squares": written_out(square="Pow(x, two)"),
    "no alpha": written_out(tail="g = Add(s, bias) p = Pow(g, beta) y = Div(x, p)"),
    "no bias": written_out(tail="f = Mul(alpha, s) p = Pow(f, beta) y = Div(x, p)"),
}
OTHER = {
    "signals": written_out("7"),  # onnxruntime's kernel takes pictures only
    "even size": written_out(count=4),
    "not centred": written_out(pads=(1, 3)),
    "divided the other way": written_out(tail="f = Mul(s, alpha) g = Add(f, bias) p = Pow(g, beta) y = Div(p, x)"),
    "no squares": written_out(square="Mul(x, two)"),
    "exponent and base": written_out(tail="f = Mul(s, alpha) g = Add(f, bias) p = Pow(beta, g) y = Div(x, p)"),
}  # fmt: skip


def _loaded(text: str, make_model: Callable[..., onnx.ModelProto]) -> tuple[onnx.ModelProto, ir.Model]:
    source = make_model(text)
    return source, canonicalise(source)


@pytest.mark.parametrize("case", WHOLE)
def test_it_becomes_one_node(case: str, make_model: Callable[..., onnx.ModelProto]) -> None:
    source, model = _loaded(WHOLE[case], make_model)
    assert [node.op_type for node in model.graph] == ["LRN"]
    _agree(source, model)


@pytest.mark.parametrize("case", OTHER)
def test_what_is_no_such_normalisation_stays(case: str, make_model: Callable[..., onnx.ModelProto]) -> None:
    source, model = _loaded(OTHER[case], make_model)
    assert "AveragePool" in [node.op_type for node in model.graph]
    _agree(source, model)


def _agree(source: onnx.ModelProto, model: ir.Model) -> None:
    x = np.random.default_rng(0).standard_normal(
        [d.dim_value for d in source.graph.input[0].type.tensor_type.shape.dim]
    )
    # As it is written: onnxruntime 1.21 pulls the Pad into a pool that does not count what was padded.
    made = [
        session(proto, fused=False).run(None, {"x": x.astype(np.float32)})[0]
        for proto in (source, ir.to_proto(model))
    ]
    np.testing.assert_allclose(made[1], made[0], rtol=1e-5, atol=1e-6)
