"""Weights that come with a run: one session computes what a session of its own for each would."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest

from edgec.graph.execute import Executor
from edgec.graph.views import constant, set_constant

Canonical = Callable[..., ir.Model]

NET = """
g (float[{batch},3,8,8] x) => (float[{batch},5] y)
<float[6,3,3,3] w, float[6] b, float[5,6] v> {{
  c = Conv<pads=[1,1,1,1]>(x, w, b)  r = Relu(c)
  p = GlobalAveragePool(r)  q = Flatten(p)
  y = Gemm<transB=1>(q, v)
}}
"""


@pytest.mark.parametrize("batch", ["N", "1"])
@pytest.mark.parametrize("start", ["x", "r"])
@pytest.mark.parametrize("weights", [("v",), ("w", "b"), ("w", "b", "v")])
def test_weights_that_come_with_a_run(
    canonical: Canonical, batch: str, start: str, weights: tuple[str, ...]
) -> None:
    model = canonical(NET.format(batch=batch))
    rng = np.random.default_rng(0)
    x = rng.standard_normal((4, 3, 8, 8)).astype(np.float32)
    ends = ["y", "r"]
    held = {start: x} if start == "x" else {"r": Executor(model, outputs=["r"]).run({"x": x})["r"]}
    shared = Executor(model, inputs=[start], outputs=ends, weights=weights)
    assert set(shared.reads) == {start}
    for _ in range(2):
        other = model.clone()
        fed = {}
        for name in weights:
            old = constant(model.graph.initializers[name])
            fed[name] = rng.standard_normal(old.shape).astype(np.float32)
            set_constant(other.graph.initializers[name], fed[name])
        wanted = Executor(other, inputs=[start], outputs=ends).run(held)
        # A part that reads none of them takes them all the same.
        made = shared.run({**held, **fed})
        for end in ends:
            np.testing.assert_allclose(made[end], wanted[end], rtol=1e-5, atol=1e-5)
