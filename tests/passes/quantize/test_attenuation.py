"""Scores that come out too low are put back to their level, and nothing else is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from edgec.graph.data import Dataset, open_data
from edgec.graph.execute import Executor
from edgec.passes.base import Context
from edgec.passes.quantize.attenuation import restore_scores, scored_channels
from edgec.passes.quantize.layer import layers
from edgec.passes.quantize.quantiser import Quantize

HEADS = {
    "one Sigmoid": (
        "net (float[N,2,4,4] x) => (float[N,3,4,4] y) <float[3,2,1,1] w> { t = Conv(x, w)  y = Sigmoid(t) }",
        {"t": [1, 1, 1]},
    ),
    "logits": (
        "net (float[N,2,4,4] x) => (float[N,3,4,4] y) <float[3,2,1,1] w> { y = Conv(x, w) }",
        {},
    ),
    "a gate and SiLU": (
        """net (float[N,2,4,4] x) => (float[N,3,4,4] y) <float[3,2,1,1] w>
        { t = Conv(x, w)  s = Sigmoid(t)  y = Mul(t, s) }""",
        {},
    ),
    "boxes and classes joined, then cut (YOLOv8)": (
        """net (float[N,2,4,4] x) => (float[N,5,20] y)
        <float[2,2,1,1] wb, float[3,2,1,1] wc, float[2,2,1,1] vb, float[3,2,1,1] vc,
         int64[3] sixteen = {0, 5, 16}, int64[3] four = {0, 5, 4}, int64[2] cut = {2, 3}, float two = {2}>
        { b = Conv(x, wb)  c = Conv(x, wc)  p = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(x)
          b2 = Conv(p, vb)  c2 = Conv(p, vc)
          j = Concat<axis = 1>(b, c)  r = Reshape(j, sixteen)
          j2 = Concat<axis = 1>(b2, c2)  r2 = Reshape(j2, four)
          all = Concat<axis = 2>(r, r2)  box, cls = Split<axis = 1>(all, cut)
          moved = Mul(box, two)  s = Sigmoid(cls)  y = Concat<axis = 1>(moved, s) }""",
        {"c": [1, 1, 1], "c2": [1, 1, 1]},
    ),
    "all through one Sigmoid, coordinates scaled (YOLOv5)": (
        """net (float[N,2,4,4] x) => (float[N,16,6] y)
        <float[6,2,1,1] w, int64[3] flat = {0, 6, 16}, int64[2] cut = {4, 2}, float two = {2}>
        { t = Conv(x, w)  r = Reshape(t, flat)  n = Transpose<perm = [0, 2, 1]>(r)  s = Sigmoid(n)
          xy, c = Split<axis = 2>(s, cut)  moved = Mul(xy, two)  y = Concat<axis = 2>(moved, c) }""",
        {"t": [0, 0, 0, 0, 1, 1]},
    ),
    "objectness and classes apart (YOLOX)": (
        """net (float[N,2,4,4] x) => (float[N,16,4] y)
        <float[1,2,1,1] wo, float[2,2,1,1] wc, float[1,2,1,1] wb, int64[3] flat = {0, 4, 16}>
        { o = Conv(x, wo)  so = Sigmoid(o)  c = Conv(x, wc)  sc = Sigmoid(c)  b = Conv(x, wb)
          j = Concat<axis = 1>(b, so, sc)  r = Reshape(j, flat)  y = Transpose<perm = [0, 2, 1]>(r) }""",
        {"o": [1], "c": [1, 1]},
    ),
    "a layer without places": (
        "net (float[N,8] x) => (float[N,3] y) <float[3,8] w> { t = Gemm<transB = 1>(x, w)  y = Sigmoid(t) }",
        {"t": [1, 1, 1]},
    ),
}  # fmt: skip


@pytest.mark.parametrize(("text", "wanted"), HEADS.values(), ids=list(HEADS))
def test_channels_that_become_scores(
    canonical: Callable[..., ir.Model], text: str, wanted: dict[str, list[int]]
) -> None:
    model = canonical(text)
    made = [node.outputs[0] for node in model.graph if node.op_type in ("Conv", "Gemm")]
    found = scored_channels(model, made)
    assert {name: channels.astype(int).tolist() for name, channels in found.items()} == wanted


NET = """net (float[N,2,8,8] x) => (float[N,3,8,8] y)
  <float[3,2,1,1] w = {4, 0.5, 0, 1, 3, -2}, float[3] b = {-3, 1, -3}, int64[2] cut = {1, 2}, float two = {2}>
  { t = Conv(x, w, b)  s = Sigmoid(t)  first, rest = Split<axis = 1>(s, cut)
    moved = Mul(rest, two)  y = Concat<axis = 1>(first, moved) }"""


def _data(model: ir.Model, folder: Path, rare: float) -> Dataset:
    rng = np.random.default_rng(0)
    x = rng.uniform(0, 0.2, (40, 2, 8, 8)) + 0.6 * (rng.random((40, 2, 8, 8)) < rare)
    np.savez(folder / "x.npz", x=x.astype(np.float32))
    return open_data(folder / "x.npz", model)


def _lowered(model: ir.Model, context: Context, by: float) -> ir.Model:
    """Quantised, with all logits too low."""
    made = Quantize(correct="none").run(model.clone(), context).model
    (layer,) = layers(made, model)
    layer.store(None, None, layer.quantised()[2] - by)
    return made


def test_what_is_lacking_is_put_back(canonical: Callable[..., ir.Model], tmp_path: Path) -> None:
    model = canonical(NET)
    data = _data(model, tmp_path, rare=0.05)
    context = Context(model, tmp_path, data)
    made = _lowered(model, context, 0.3)
    (before,) = layers(made, model)
    bias = before.quantised()[2].copy()
    (shift,) = restore_scores(made, model, data, context)
    assert shift.verdict.kept
    assert shift.logits == pytest.approx(0.3, rel=0.1)
    (after,) = layers(made, model)
    moved = (after.quantised()[2] - bias).ravel()
    assert moved[0] == pytest.approx(shift.logits, abs=0.01)
    assert moved[1:] == pytest.approx(0, abs=1e-9)  # which are no scores
    feeds = next(iter(data.batches(8)))
    low, high = (Executor(one).run(feeds)["y"][:, 0] for one in (_lowered(model, context, 0.3), made))
    source = Executor(model).run(feeds)["y"][:, 0]
    assert np.square(high - source).sum() < 0.2 * np.square(low - source).sum()


def test_what_lacks_nothing_is_left(canonical: Callable[..., ir.Model], tmp_path: Path) -> None:
    model = canonical(NET)
    data = _data(model, tmp_path, rare=0.05)
    context = Context(model, tmp_path, data)
    made = Quantize(correct="none").run(model.clone(), context).model
    codes = [one.quantised() for one in layers(made, model)]
    (shift,) = restore_scores(made, model, data, context)
    assert abs(shift.logits) < 0.05
    left = next(layers(made, model)).quantised()
    assert all((a == b).all() for a, b in zip(codes[0][:2], left[:2], strict=True))
    assert np.abs(left[2] - codes[0][2]).max() < (0.05 if shift.verdict.kept else 1e-12)


def test_one_sample_says_nothing_of_others(canonical: Callable[..., ir.Model], tmp_path: Path) -> None:
    model = canonical(NET)
    data = _data(model, tmp_path, rare=0.05)
    context = Context(model, tmp_path, data)
    made = _lowered(model, context, 0.3)
    (shift,) = restore_scores(made, model, data.only([0]), context)
    assert not shift.verdict.kept


def test_quantise_says_what_it_put_back(canonical: Callable[..., ir.Model], tmp_path: Path) -> None:
    model = canonical(NET)
    context = Context(model, tmp_path, _data(model, tmp_path, rare=0.05))
    result = Quantize().run(model.clone(), context)
    assert [note.node for note in result.notes if note.text.startswith("scores of ")] == [
        next(iter(layers(result.model, model))).name
    ]
    assert not any(
        note.text.startswith("scores of ")
        for note in Quantize(correct="none").run(model.clone(), context).notes
    )


FIXED = """net (float[1,2,8,8] x) => (float[1,64,3] y)
  <float[4,2,3,3] w, float[4] b, int64[2] rows = {64, 4}, float[3,4] v, float[3] c = {-1, -1, -1}, int64[3] whole = {1, 64, 3}>
  { t = Conv<pads = [1, 1, 1, 1]>(x, w, b)  n = Transpose<perm = [0, 2, 3, 1]>(t)  r = Reshape(n, rows)
    g = Gemm<transB = 1>(r, v, c)  s = Sigmoid(g)  y = Reshape(s, whole) }"""


def test_a_sample_that_takes_many_rows_is_one_that_judges(
    canonical: Callable[..., ir.Model], tmp_path: Path
) -> None:
    model = canonical(FIXED)
    data = _data(model, tmp_path, rare=0.3)
    context = Context(model, tmp_path, data)
    made = Quantize(correct="none").run(model.clone(), context).model
    (shift,) = restore_scores(made, model, data, context)  # of the Gemm: 64 rows of each sample
    assert shift.verdict.images == len(data)
