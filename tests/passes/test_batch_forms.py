"""Networks whose batch stays 1, moves, or is merged with tokens go through the passes that walk, fit and quantise."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from edgec.graph.compare import relative_error
from edgec.graph.cost import cost
from edgec.graph.data import Dataset
from edgec.graph.execute import Executor
from edgec.passes.base import Context
from edgec.passes.pipeline_string import parse_pipeline
from edgec.passes.refit.batches import Batches
from edgec.passes.refit.layer_fits import LayerFits
from tests.conftest import output_error

Canonical = Callable[..., ir.Model]
Noise = Callable[..., Dataset]
Around = Callable[..., Context]

MERGED = """
net (float[1,3,8,8] x) => (float[1,5] y)
<float[12,3,2,2] w, float[1,1,12] cls, float[24,12] w1, float[24] b1, float[12,24] w2, float[12] b2, float[5,12] w3,
 int64[3] tokens = {1, 12, 16}, int64[2] merged = {17, 12}, int64[3] split = {1, 17, 12}, int64[1] axis = {1}>
{
  [patch] c = Conv<kernel_shape=[2,2], strides=[2,2]>(x, w)
  r = Reshape(c, tokens)
  t = Transpose<perm=[0,2,1]>(r)
  j = Concat<axis=1>(cls, t)
  m = Reshape(j, merged)
  [fc1] f = Gemm<transB=1>(m, w1, b1)
  a = Relu(f)
  [fc2] g = Gemm<transB=1>(a, w2, b2)
  s = Reshape(g, split)
  p = ReduceMean<keepdims=0>(s, axis)
  [head] y = Gemm<transB=1>(p, w3)
}
"""
MOVED = """
net (float[1,3,8,8] x) => (float[1,4,4,4] y)
<float[12,3,2,2] w, float[12,24] w1, float[24,12] w2, float[4,12,1,1] w3,
 int64[3] tokens = {1, 12, 16}, int64[4] picture = {1, 12, 4, 4}>
{
  [patch] c = Conv<kernel_shape=[2,2], strides=[2,2]>(x, w)
  r = Reshape(c, tokens)
  t = Transpose<perm=[2,0,1]>(r)
  [fc1] f = MatMul(t, w1)
  a = Relu(f)
  [fc2] g = MatMul(a, w2)
  b = Transpose<perm=[1,2,0]>(g)
  s = Reshape(b, picture)
  [head] y = Conv(s, w3)
}
"""
NETWORKS = {"merged": MERGED, "moved": MOVED}
POOLED = """
net (float[N,3,8,8] x) => (float[N,20] y)
<float[16,3,3,3] w0, float[64,16,1,1] w1, float[64] b1, float[20,64] w2>
{
  [stem] c = Conv<pads=[1,1,1,1], strides=[2,2]>(x, w0)
  r = Relu(c)
  p = GlobalAveragePool(r)
  [wide] e = Conv(p, w1, b1)
  h = HardSwish(e)
  f = Flatten(h)
  [classify] y = Gemm<transB=1>(f, w2)
}
"""


def run(pipeline: str, model: ir.Model, context: Context) -> ir.Model:
    for one in parse_pipeline(pipeline):
        model = one.run(model, context).model
    return model


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("pipeline", ["quantize", "quantize{correct=refit}"])
def test_int8_is_near_the_source(
    canonical: Canonical, noise: Noise, context: Around, network: str, pipeline: str
) -> None:
    teacher = canonical(NETWORKS[network])
    data = noise(teacher, 12)
    made = run(pipeline, teacher.clone(), context(teacher, data))
    assert any(node.op_type == "QuantizeLinear" for node in made.graph)
    assert output_error(teacher, made, noise(teacher, 8, seed=1)) < 1e-2


@pytest.mark.parametrize("network", NETWORKS)
def test_a_budget_is_met(canonical: Canonical, noise: Noise, context: Around, network: str) -> None:
    teacher = canonical(NETWORKS[network])
    made = run("compress{macs=80%} recover-lsq", teacher.clone(), context(teacher, noise(teacher, 12)))
    assert cost(made).macs <= 0.8 * cost(teacher).macs
    assert output_error(teacher, made, noise(teacher, 8, seed=1)) < 0.5


@pytest.mark.parametrize("network", NETWORKS)
def test_rows_of_a_layer_belong_to_their_samples(
    canonical: Canonical, noise: Noise, context: Around, network: str
) -> None:
    teacher = canonical(NETWORKS[network])
    around = context(teacher, noise(teacher, 6))
    batches = Batches.of(around, teacher.graph, held_out=0.5, hflip=False)
    tokens = {"merged": {"fc1": 17, "fc2": 17, "head": 1}, "moved": {"fc1": 16, "fc2": 16, "head": 1}}[
        network
    ]
    for fit in LayerFits(teacher.clone(), around, list(tokens), batches):
        samples = list(fit.samples)
        assert sum(one.images for one in samples) == 6
        assert sum(one.images for one in samples if one.held) == fit.held == 3
        assert {len(one.x) // one.images for one in samples} == {
            tokens[fit.layer.name] if fit.layer.x != "s" else 1
        }
        pixels = int(np.prod(fit.layer.patches.out_shape(samples[0].x.shape[2:])))
        assert fit.rows == 3 * len(samples[0].x) // samples[0].images * pixels


def test_equalisation_finds_each_channel_wherever_its_axis_is(
    canonical: Canonical, noise: Noise, context: Around
) -> None:
    from edgec.passes.equalize import channel_peaks

    teacher = canonical(MOVED)
    data = noise(teacher, 5)
    peaks = channel_peaks(teacher, {"c": 1, "f": 2, "b": 1, "t": 0}, context(teacher, data))
    singles = [Executor(teacher, outputs=["c", "f", "b", "t"]).run(feeds) for feeds in data.batches(1)]
    for name, axis in {"c": 1, "f": 2, "b": 1, "t": 0}.items():
        each = [
            np.abs(np.moveaxis(one[name], axis, 0)).reshape(one[name].shape[axis], -1).max(axis=1)
            for one in singles
        ]
        np.testing.assert_allclose(peaks[name], np.max(each, axis=0))


def test_a_layer_behind_a_global_pool_whose_outputs_were_pruned_too_is_fitted(
    canonical: Canonical, noise: Noise, context: Around
) -> None:
    teacher = canonical(POOLED)
    around = context(teacher, noise(teacher, 64))
    pruned = run("prune-channels{macs=50%}", teacher.clone(), around)
    fitted = run("recover-lsq", pruned.clone(), around)
    batches = Batches.of(around, pruned.graph, held_out=0.2, hflip=False)
    for fit in LayerFits(pruned.clone(), around, ["wide"], batches):
        width = fit.layer.view.out_channels
        assert width < 64
        assert {one.pixels[1].shape[1] for one in fit.samples if one.pixels is not None} == {width}
    unseen = noise(teacher, 64, seed=1)
    assert output_error(teacher, fitted, unseen) < 1.1 * output_error(teacher, pruned, unseen)


def test_calibration_counts_a_sample_as_constant_only_where_all_its_inputs_are(
    canonical: Canonical, noise: Noise, context: Around
) -> None:
    from edgec.passes.quantize.calibrate import observe

    teacher = canonical(
        """net (float gain, float[N,3,8,8] x) => (float[N,4,8,8] y) <float[4,3,1,1] w> {
          [conv] c = Conv(x, w)
          y = Mul(c, gain)
        }"""
    )
    assert observe(teacher, noise(teacher, 20), ["y"], context(teacher)).notes == ()


def test_outputs_of_all_batches_agree_with_single_samples(
    canonical: Canonical, noise: Noise, tmp_path: Path
) -> None:
    teacher = canonical(MERGED)
    data = noise(teacher, 5)
    together = np.concatenate([Executor(teacher).run(feeds)["y"] for feeds in data.batches(5)])
    single = np.concatenate([Executor(teacher).run(feeds)["y"] for feeds in data.batches(1)])
    assert relative_error(single, together) < 1e-12
