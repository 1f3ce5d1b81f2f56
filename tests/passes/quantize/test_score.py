"""What a quantised network is held against: computed once, and the same whether all of it runs or only its end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from edgec.graph.compare import sqnr_db
from edgec.graph.data import Dataset
from edgec.graph.execute import Executor
from edgec.passes.base import Context
from edgec.passes.quantize import score
from edgec.passes.quantize.compose import Settings, assemble, prepare
from edgec.passes.quantize.dialects import ORT_X86
from edgec.passes.quantize.insert import Form
from edgec.passes.quantize.mixed import units
from edgec.passes.quantize.plan import make_plan
from edgec.passes.quantize.rewrites import prepare as rewrite
from edgec.passes.quantize.score import Reference
from edgec.passes.refit.layers import layers_of

from .test_insert import NET

Canonical = Callable[..., ir.Model]
Noise = Callable[..., Dataset]
SETTINGS = Settings(Form(ORT_X86), equalise="no", probes=True)
BOXES_AND_SCORES = """
net (float[N,3,8,8] x) => (float[N,6,16] y)
<float[8,3,3,3] w0, float[4,8,1,1] w1, float[2,8,1,1] w2, int64[3] boxes = {0, 4, 16}, int64[3] scores = {0, 2, 16}>
{
  a = Conv<pads=[1,1,1,1], strides=[2,2]>(x, w0)
  r = Relu(a)
  b = Conv(r, w1)
  s = Conv(r, w2)
  t = Sigmoid(s)
  f = Reshape(b, boxes)
  g = Reshape(t, scores)
  y = Concat<axis=1>(f, g)
}
"""


@pytest.fixture(
    params=[NET, BOXES_AND_SCORES, BOXES_AND_SCORES.replace("N,", "1,")], ids=["net", "parts", "one"]
)
def net(request: pytest.FixtureRequest, canonical: Canonical) -> ir.Model:
    found = canonical(request.param)
    rewrite(found, ORT_X86)
    return found


@pytest.mark.parametrize("held", [0, 1 << 20])
def test_the_reference_is_computed_once(
    net: ir.Model, noise: Noise, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held: int
) -> None:
    """Its figures are those of a plain comparison, also when the float network is no longer what it was, and from the disk."""
    monkeypatch.setattr(score, "HELD_BYTES", held)
    data = noise(net, 20)
    context = Context(net, tmp_path, data)
    model, _, _ = assemble(prepare(net, data, SETTINGS, context), SETTINGS)
    feeds = [next(iter(replace(data, indices=(number,)).batches(1))) for number in data.indices]
    name = net.graph.outputs[0].name or ""
    wanted, made = (
        np.concatenate([Executor(one, outputs=[name]).run(one_of)[name] for one_of in feeds])
        for one in (net, model)
    )
    with Reference(net, data, context) as reference:
        assert bool(list(tmp_path.iterdir())) == (held == 0)
        for layer in layers_of(net).values():
            layer.view.set(weight=np.zeros_like(layer.view.weight))
        found = reference.score(model)
        cuts = [slice(0, 4), slice(4, 6)] if len(reference.parts) > 1 else [slice(None)]
        parts = [sqnr_db(wanted[:, cut], made[:, cut]) for cut in cuts]
        assert found.sqnr_db == pytest.approx(min(parts), abs=1e-3)
        assert len(found.samples) == 20
    assert not list(tmp_path.iterdir())


def test_a_unit_alone_is_judged_from_where_it_begins(net: ir.Model, noise: Noise, tmp_path: Path) -> None:
    data = noise(net, 10)
    context = Context(net, tmp_path, data)
    prepared = prepare(net, data, SETTINGS, context)
    position = {node.name or "": number for number, node in enumerate(net.graph)}
    found = units(net, make_plan(net, ORT_X86))
    assert len(found) > 2
    with Reference(net, data, context) as reference, reference.beside(net) as walk:
        for nodes in sorted(found.values(), key=lambda names: min(position[name] for name in names)):
            model, _, _ = assemble(prepared, SETTINGS, lambda name, alone=nodes: name not in alone)
            walk.go(min(position[name] for name in nodes))
            a, b = reference.score(model), reference.score_from(walk, model)
            assert b.samples == pytest.approx(a.samples, abs=1e-3)
            assert b.sqnr_db == pytest.approx(a.sqnr_db, abs=1e-3)
            assert b.agreement == a.agreement
