"""Dims of queries and keys, which only their product reads: the least goes first, and what is tried is taken back."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from edgec.graph.channels import groups
from edgec.graph.cost import cost
from edgec.graph.execute import Executor
from edgec.graph.views import constant, own_constant
from edgec.passes.channel_pruning.products import of_product, product_curves, products_of
from edgec.passes.compress import Compress
from edgec.passes.prune_channels import PruneChannels

ATTENTION = (
    "net (float[N,5,4,4] x) => (float[N,5,4,4] y) <float[8,5,1,1] wq, float[8] bq, float[8,5,1,1] wk, float[6,5,1,1] wv,"
    " float[5,6,1,1] wo, int64[4] sk = {0,2,4,16}, int64[4] sv = {0,2,3,16}, int64[4] so = {0,6,4,4}>"
    "{ q = Conv(x, wq, bq)  k = Conv(x, wk)  v = Conv(x, wv)  q4 = Reshape(q, sk)  k4 = Reshape(k, sk)  v4 = Reshape(v, sv)"
    "  qt = Transpose<perm=[0,1,3,2]>(q4)  a = MatMul(qt, k4)  p = Softmax<axis=-1>(a)  pt = Transpose<perm=[0,1,3,2]>(p)"
    "  o = MatMul(v4, pt)  of = Reshape(o, so)  y = Conv(of, wo) }"
)
WEAK = [1, 2]


def attention(canonical) -> ir.Model:
    """Two heads of four dims; dims `WEAK` of both add next to nothing to the scores."""
    model = canonical(ATTENTION)
    node = next(n for n in model.graph if n.op_type == "Conv" and n.inputs[1].name == "wk")
    weight = np.array(constant(node.inputs[1]))
    weight[[1, 2, 5, 6]] *= 1e-6
    own_constant(model.graph, node, 1, weight)
    return model


def product_group(model: ir.Model):
    (group,) = [g for g in groups(model) if g.prunable and not g.consumers]
    return group


def test_the_least_part_of_the_product_goes_first(canonical, context, noise):
    model = attention(canonical)
    group = product_group(model)
    assert [one.places.tolist() for one in products_of(model, group)] == [[[0], [1], [2], [3]]]
    curves = product_curves(model, groups(model), context(model, noise(model, 12)))
    curve = curves.pop(group.name)
    assert not curves
    assert set(curve.order[:2]) == set(WEAK)
    assert curve.errors[2] < 1e-6 < curve.errors[3]


def test_what_is_tried_is_what_a_removal_would_do(canonical, context, noise):
    model = attention(canonical)
    group, data = product_group(model), noise(model, 4)
    curve = product_curves(model, [group], context(model, data))[group.name]
    feeds = next(iter(data.batches(4)))
    before = Executor(model).run(feeds)["y"]
    subject = of_product(model, group, curve, [2, 1])
    subject.trials[0].apply()
    weak = Executor(model).run(feeds)["y"]
    subject.trials[1].apply()
    strong = Executor(model).run(feeds)["y"]
    subject.undo()
    assert np.abs(weak - before).max() < 1e-4 < np.abs(strong - before).max()
    assert np.array_equal(Executor(model).run(feeds)["y"], before)


@pytest.mark.parametrize("make", [PruneChannels, Compress])
def test_a_budget_takes_the_weak_dims(make, canonical, context, noise):
    model, teacher = attention(canonical), attention(canonical)
    data = noise(model, 24)
    result = make(macs="80%").run(model, context(teacher, data))
    found = product_group(result.model)
    assert found.size <= 2
    assert cost(result.model).macs <= 0.8 * cost(teacher).macs
    feeds = next(iter(data.batches(8)))
    want, got = (Executor(m).run(feeds)["y"] for m in (teacher, result.model))
    assert np.abs(got - want).max() < 1e-3 * np.abs(want).max()


@pytest.mark.parametrize("criterion", ["activation", "l1", "random"])
def test_baselines_take_them_too(criterion, canonical, context, noise):
    model = attention(canonical)
    result = PruneChannels(macs="80%", criterion=criterion).run(
        model, context(attention(canonical), noise(model, 12))
    )
    assert result.modified
