"""Channels and pieces under one budget: met, never worse than either alone, and the graph stays what it says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest

from edgec.graph.cost import cost
from edgec.graph.data import Dataset
from edgec.graph.errors import PassError, UsageError
from edgec.graph.verify import verify
from edgec.passes.base import Context, LatencyModel, Pass
from edgec.passes.compress import Compress
from edgec.passes.decompose_spatial import DecomposeSpatial
from edgec.passes.pipeline_string import make_pass, parse_pipeline, print_pass
from edgec.passes.prune_channels import PruneChannels
from edgec.passes.recover_lsq import RecoverLsq
from edgec.passes.refit.layers import layers_of
from edgec.targets.estimator import LatencyTable
from edgec.targets.estimator.coefficients import Entry
from edgec.targets.estimator.features import FEATURES
from tests.conftest import output_error

Canonical = Callable[..., ir.Model]
Noise = Callable[..., Dataset]
Around = Callable[..., Context]

NETWORK = """
net (float[N,3,12,12] x) => (float[N,10] y)
<float[16,3,3,3] w0, float[16] b0, float[24,16,3,3] w1, float[24] b1, float[24,24,3,3] w2, float[24] b2,
 float[32,24,1,1] w3, float[32] b3, float[32,1,3,3] w4, float[10,32] w5, float[10] b5>
{
  [stem] a = Conv<pads=[1,1,1,1]>(x, w0, b0)
  r = Relu(a)
  [wide] c = Conv<pads=[1,1,1,1], strides=[2,1]>(r, w1, b1)
  d = Relu(c)
  [inner] e = Conv<pads=[1,1,1,1]>(d, w2, b2)
  s = Add(e, d)
  t = Relu(s)
  [point] f = Conv<strides=[1,2]>(t, w3, b3)
  u = Relu(f)
  [depth] v = Conv<group=32, pads=[1,1,1,1]>(u, w4)
  p = GlobalAveragePool(v)
  q = Flatten(p)
  [classify] y = Gemm<transB=1>(q, w5, b5)
}
"""


@pytest.fixture
def teacher(canonical: Canonical) -> ir.Model:
    return canonical(NETWORK)


def separable(teacher: ir.Model, name: str) -> None:
    """Make a layer's kernel a sum of a few k x 1 by 1 x k products."""
    layer = layers_of(teacher)[name]
    rng = np.random.default_rng(1)
    weight = np.einsum("oru,rcv->ocuv", rng.standard_normal((24, 3, 3)), rng.standard_normal((3, 24, 3)))
    columns = layer.columns()
    columns[0] = layer.patches.columns((weight / 8).astype(np.float32), np.zeros(24, np.float32))[0]
    layer.set_columns(columns)


@pytest.mark.parametrize("macs", ["75%", "50%", "30%"])
def test_the_budget_is_met_by_channels_and_pieces(
    macs: str, teacher: ir.Model, noise: Noise, context: Around
) -> None:
    result = Compress(macs=macs).run(teacher.clone(), context(teacher, noise(teacher, 48)))
    verify(result.model)
    share = cost(result.model).macs / cost(teacher).macs
    assert float(macs.rstrip("%")) / 100 - 0.06 < share <= float(macs.rstrip("%")) / 100
    assert result.data["budget"]["reached"] == pytest.approx(share)


def test_a_layer_that_is_separable_is_cut_and_nothing_is_lost(
    teacher: ir.Model, noise: Noise, context: Around
) -> None:
    separable(teacher, "inner")
    result = Compress(macs="75%").run(teacher.clone(), context(teacher, noise(teacher, 48)))
    assert "spatial" in result.data["cuts"]["inner"]
    assert output_error(teacher, result.model, noise(teacher, 16, seed=9)) < 0.02


def test_it_loses_less_than_pruning_alone(teacher: ir.Model, noise: Noise, context: Around) -> None:
    separable(teacher, "inner")
    around, fresh = context(teacher, noise(teacher, 64)), noise(teacher, 32, seed=9)
    losses = []
    for one in (Compress(macs="60%"), PruneChannels(macs="60%")):
        narrow = one.run(teacher.clone(), around).model
        losses.append(output_error(teacher, RecoverLsq().run(narrow, around).model, fresh))
    assert losses[0] < losses[1]


def test_without_pieces_it_is_channel_pruning(teacher: ir.Model, noise: Noise, context: Around) -> None:
    around = context(teacher, noise(teacher, 48))
    one, other = (
        chosen.run(teacher.clone(), around)
        for chosen in (Compress(macs="60%", pieces="none"), PruneChannels(macs="60%"))
    )
    assert one.data["widths"] == other.data["widths"]
    assert output_error(one.model, other.model, noise(teacher, 16, seed=9)) < 1e-5


def test_latency_budgets_price_the_pieces(teacher: ir.Model, noise: Noise, context: Around) -> None:
    """Where nothing but the number of nodes costs time, no layer is worth cutting; where multiplications do, some are."""
    separable(teacher, "inner")
    for counted, cuts in (("nodes", False), ("macs_3x3", True)):
        each = tuple(float(name == counted) for name in FEATURES)
        table = LatencyTable(Entry("onnxruntime", "1", "fp32", 1, each, 0.9, 1.1, "fitted", "made up"), "any")
        around = replace(
            context(teacher, noise(teacher, 48)), prices=LatencyModel(table, table.model_ms(cost(teacher)))
        )
        result = Compress(latency="80%").run(teacher.clone(), around)
        assert bool(result.data["cuts"]) == cuts


def test_pieces_that_nobody_timed_are_said(teacher: ir.Model, noise: Noise, context: Around) -> None:
    separable(teacher, "inner")
    around = context(teacher, noise(teacher, 48))
    table = LatencyTable(
        Entry("onnxruntime", "1", "fp32", 1, (1.0,) * len(FEATURES), 0.9, 1.1, "fitted", "made up"), "any"
    )
    for prices, said in ((None, True), (LatencyModel(table, 1.0), False)):
        result = Compress(macs="75%").run(teacher.clone(), replace(around, prices=prices))
        assert result.data["cuts"] if prices is None else True
        assert any("no latencies are known" in note.text for note in result.notes) == said


@pytest.mark.parametrize("one", [Compress, PruneChannels, DecomposeSpatial])
def test_size_budgets_are_about_the_file_that_ships(
    one: type[Pass], teacher: ir.Model, noise: Noise, context: Around
) -> None:
    """A share is one of the float source: int8 alone is a quarter of it."""
    around = context(teacher, noise(teacher, 32))
    params = cost(teacher).params
    small = make_pass(one.name, {"size": "26%", "bytes-per-weight": 1}).run(teacher.clone(), around)
    assert not small.modified
    tight = make_pass(one.name, {"size": "23%", "bytes-per-weight": 1}).run(teacher.clone(), around)
    assert 0.75 * params < cost(tight.model).params <= 0.92 * params


def test_out_of_reach_is_said(teacher: ir.Model, noise: Noise, context: Around) -> None:
    result = Compress(macs="0.5%").run(teacher.clone(), context(teacher, noise(teacher, 24)))
    assert result.notes[0].level == "warning"
    assert "out of reach" in result.notes[0].text
    assert not result.data["budget"]["met"]


def test_unknown_pieces_are_refused_with_a_guess(teacher: ir.Model) -> None:
    with pytest.raises(UsageError, match="unknown form of pieces 'spacial'") as caught:
        Compress(macs="50%", pieces="svd+spacial").requires(teacher)
    assert "spatial" in str(caught.value)


def test_no_data_is_an_error(teacher: ir.Model, context: Around) -> None:
    with pytest.raises(PassError, match="calibration data"):
        Compress(macs="50%").run(teacher.clone(), context(teacher, None))


@pytest.mark.parametrize(
    "one", [Compress(macs="50%"), Compress(size="40%", pieces="svd+spatial", multiple=8)]
)
def test_the_pass_round_trips_as_text(one: Pass) -> None:
    assert parse_pipeline(print_pass(one)) == (one,)
