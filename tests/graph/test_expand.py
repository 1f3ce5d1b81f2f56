"""Expands that only repeat what broadcasting does go; others stay."""

from __future__ import annotations

import numpy as np
import pytest

from edgec.graph.execute import Executor
from edgec.graph.expand import drop_expands

CASES = {
    "squeeze-excite": ("s = Constant<value_ints=[2,3,4,4]>()  e = Expand(g, s)  y = Mul(x, e)", 1),
    "on the left, batch from the input": (
        "n = Shape<start=0, end=1>(x)  t = Constant<value_ints=[3,4,4]>()  s = Concat<axis=0>(n, t)"
        "  e = Expand(g, s)  y = Sub(e, x)", 1,
    ),
    "read twice, once by what does not broadcast": (
        "s = Constant<value_ints=[2,3,4,4]>()  e = Expand(g, s)  r = Relu(e)  y = Mul(x, r)", 0,
    ),
    "the only one of full size": (
        "s = Constant<value_ints=[2,3,4,4]>()  e = Expand(g, s)  h = GlobalMaxPool(x)  y = Mul(h, e)", 0,
    ),
    "with itself": ("s = Constant<value_ints=[2,3,4,4]>()  e = Expand(g, s)  y = Mul(e, e)", 0),
    "a graph output": ("s = Constant<value_ints=[2,3,4,4]>()  y = Expand(g, s)  z = Mul(x, y)", 0),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_expands_go_where_broadcasting_does_the_same(name, build):
    body, gone = CASES[name]
    model = build(f"net (float[2,3,4,4] x) => (float[a,b,c,d] y) {{ g = GlobalAveragePool(x)  {body} }}")
    feeds = {"x": np.random.default_rng(0).standard_normal((2, 3, 4, 4)).astype(np.float32)}
    want = Executor(model).run(feeds)["y"]
    assert drop_expands(model) == gone
    assert sum(node.op_type == "Expand" for node in model.graph) == 1 - gone
    np.testing.assert_array_equal(Executor(model).run(feeds)["y"], want)
