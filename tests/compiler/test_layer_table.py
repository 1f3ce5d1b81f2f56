"""The per-layer table: costs side by side, noise told from harmless rescaling."""

from __future__ import annotations

import numpy as np
import pytest

from edgec.compiler.evaluate.layer_table import layer_table
from edgec.graph.views import ConvView

NET = (
    "net (float[N,3,8,8] x) => (float[N,4,8,8] y) <float[6,3,3,3] w, float[4,6,1,1] v>"
    "{ t = Conv<pads=[1,1,1,1]>(x, w)  r = Relu(t)  y = Conv(r, v) }"
)


def rows_of(model, changed, noise):
    table = layer_table(model, {"fp32": model, "int8": changed}, noise(model), {}, 1)
    return {row.name: row for row in table}


def test_moving_scales_between_layers_is_no_noise(canonical, noise) -> None:
    model = canonical(NET)
    moved = model.clone()
    first, _, second = list(moved.graph)
    scales = np.array([1, 2, 0.5, 4, 3, 0.1], np.float32)
    ConvView(first).set(weight=ConvView(first).weight * scales[:, None, None, None])
    ConvView(second).set(weight=ConvView(second).weight / scales[None, :, None, None])
    assert all(row.sqnr_db > 90 for row in rows_of(model, moved, noise).values())


def test_real_noise_is_measured(canonical, noise) -> None:
    model = canonical(NET)
    noisy = model.clone()
    first = next(iter(noisy.graph))
    view = ConvView(first)
    step = 0.01 * np.random.default_rng(7).standard_normal(view.weight.shape).astype(np.float32)
    clean = view.weight.copy()
    view.set(weight=clean + step)
    found = rows_of(model, noisy, noise)[first.name].sqnr_db
    # White input: energies at the output are those of the weights.
    assert found == pytest.approx(10 * np.log10((clean**2).sum() / (step**2).sum()), abs=1.0)


def test_costs_stand_side_by_side(canonical, noise) -> None:
    model = canonical(NET)
    for row in rows_of(model, model, noise).values():
        assert row.before == row.after


@pytest.mark.parametrize(
    "tail",
    [
        "s = Squeeze(p)  u = Unsqueeze(s, zero)  y = Gemm<transB=1>(u, v)",
        "s = Transpose<perm=[1,0,2,3]>(r)  m = ReduceMean<keepdims=0>(s, last)  t = Transpose(m)  y = Gemm<transB=1>(t, v)",
    ],
    ids=["no batch inside", "channels first of all"],
)
def test_values_that_lost_channels_on_any_axis_are_not_compared(tail: str, canonical, noise) -> None:
    """In a graph whose batch is fixed, the leading axis of an inner value may be channels."""
    text = (
        "net (float[1,3,8,8] x) => (float[1,4] y) <float[K,3,3,3] w, float[4,K] v, int64[1] zero = {0}, int64[2] last = {2, 3}> "
        "{ c = Conv(x, w)  r = Relu(c)  p = GlobalAveragePool(r)  TAIL }"
    ).replace("TAIL", tail)
    whole, pruned = (canonical(text.replace("K", str(count))) for count in (6, 4))
    rows = {row.name: row for row in layer_table(whole, {"fp32": pruned}, noise(whole), {}, 1)}
    compared = [name for name, row in rows.items() if row.error is not None]
    assert compared == [list(whole.graph)[-1].name]
