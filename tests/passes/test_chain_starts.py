"""Chains of layers that are fitted together: where each begins, whatever was changed in front of it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest

from edgec.graph.data import Dataset
from edgec.graph.execute import Executor
from edgec.passes.base import Context
from edgec.passes.refit.batches import Batches
from edgec.passes.refit.layer_fits import LayerFits

Canonical = Callable[..., ir.Model]
Noise = Callable[..., Dataset]

LINE = """
net (float[N,3,8,8] x) => (float[N,5,8,8] y)
<float[6,3,3,3] w0, float[6] b0, float[6,6,1,1] w1, float[6] b1, float[6,1,3,3] w2, float[6] b2, float[8,6,1,1] w3,
 float[8] b3, float[7,8,1,1] w4, float[7] b4, float[5,7,1,1] w5, float[5] b5>
{
  [a] h0 = Conv<pads=[1,1,1,1]>(x, w0, b0)
  g0 = Relu(h0)
  [b] h1 = Conv(g0, w1, b1)
  g1 = Relu(h1)
  [c] h2 = Conv<group=6, pads=[1,1,1,1]>(g1, w2, b2)
  g2 = Relu(h2)
  [d] h3 = Conv(g2, w3, b3)
  g3 = Relu(h3)
  [e] h4 = Conv(g3, w4, b4)
  g4 = Relu(h4)
  [f] y = Conv(g4, w5, b5)
}
"""


@pytest.mark.parametrize("depth", [0, 1, 2, 3])
@pytest.mark.parametrize("limit", [0.0, 1e9])
def test_chains_begin_where_the_student_is_by_now(
    canonical: Canonical, noise: Noise, context: Callable[..., Context], depth: int, limit: float
) -> None:
    """Where nothing but a chain reads a map that lies behind the walk; weights of the whole chain change at every stop."""
    model = canonical(LINE)
    teacher, data = model.clone(), noise(model, 6)
    batches = Batches(data, data.take(0), 4, memory=limit)
    feeds = {"x": np.concatenate([one["x"] for one in data.batches(6)])}
    for number, site in enumerate(LayerFits(model, context(teacher, data), list("bcdef"), batches, depth)):
        begin = site.chain[0].layer.x if site.chain else site.layer.x
        own = Executor(model, outputs=[site.layer.x, begin]).run(feeds)
        samples = list(site.samples)
        got = np.concatenate([one.x for one in samples])
        np.testing.assert_allclose(got, own[site.layer.x], rtol=1e-4, atol=1e-5)
        if site.chain:
            start = np.concatenate([one.start for one in samples if one.start is not None])
            np.testing.assert_allclose(start, own[begin], rtol=1e-4, atol=1e-5)
        for changed in (*(inner.layer for inner in site.chain), site.layer):
            changed.view.set(bias=np.full(changed.view.out_channels, 0.1 + number, np.float32))
