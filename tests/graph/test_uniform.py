"""A constant that holds one number many times becomes one number, where the shape stays what it was."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from edgec.graph.canonicalise import canonicalise
from edgec.graph.execute import Executor, session
from tests.conftest import parse

FORMS = {
    "zeros like the input": ("z = ConstantOfShape(s)  y = Where(m, x, z)", True),
    "zeros the other way round": ("z = ConstantOfShape(s)  y = Where(m, z, x)", True),
    "added": ("z = Expand(three, s)  y = Add(x, z)", True),
    "divided by, one axis less": ("z = Expand(three, t)  y = Div(x, z)", True),
    "the shape comes from it": ("p = GlobalAveragePool(x)  z = Expand(three, s)  y = Mul(p, z)", False),
    "the shape comes from it in part": (
        "p = ReduceMean<keepdims=1>(x, high)  z = Expand(three, s)  y = Mul(p, z)",
        False,
    ),
    "two of them": ("z = Expand(three, s)  w = Expand(four, s)  y = Where(m, z, w)", True),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("batch", ["1", "N"])
def test_one_number_is_enough(form: str, batch: str) -> None:
    body, small = FORMS[form]
    model = parse(
        f"net (float[{batch},3,8,8] x) => (float[{batch},3,8,8] y) <int64[4] s = {{1, 3, 8, 8}}, int64[3] t = {{3, 8, 8}}, "
        f"float[1] three = {{3.0}}, float[1] four = {{4.0}}, float[1] zero = {{0.25}}, int64[1] high = {{2}}> "
        f"{{ m = Greater(x, zero)  {body} }}"
    )
    x = np.random.default_rng(0).standard_normal((1, 3, 8, 8)).astype(np.float32)
    graph = canonicalise(model)
    np.testing.assert_allclose(
        Executor(graph).run({"x": x})["y"], session(model).run(None, {"x": x})[0], rtol=1e-6
    )
    largest = max(
        (value.const_value.size for value in graph.graph.initializers.values() if value.const_value),
        default=0,
    )
    assert (largest < 8) is small


def test_a_vector_along_channels_stays() -> None:
    """It may be cut with its channels."""
    text = "net (float[N,3,8,8] x) => (float[N,3,8,8] y) <float[1,3,1,1] v = {2.0, 2.0, 2.0}> { r = Relu(x)  y = Add(r, v) }"
    graph = canonicalise(onnx.parser.parse_model('<ir_version: 10, opset_import: ["" : 20]> ' + text))
    assert [value.const_value.size for value in graph.graph.initializers.values() if value.const_value] == [3]
