"""What the source says of a picture over small changes of it, and losses that are counted against that."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from edgec.compiler.search import views
from edgec.compiler.search.loss import Reference
from edgec.compiler.search.views import Views
from edgec.compiler.tasks.find import find_task
from edgec.graph.canonicalise import canonicalise
from edgec.graph.data import ArraySource, Dataset, InputSpec
from edgec.graph.preprocess import Preprocess
from edgec.graph.resolution.resize import resized
from tests.conftest import parse

NET = (
    "net (float[N,3,32,32] x) => (float[N,4] y) <float[8,3,5,5] w1, float[8] b1, float[8,8,3,3] w2, float[8] b2, float[4,8] g>"
    "{ t = Conv<pads=[2,2,2,2], strides=[2,2]>(x, w1, b1)  r = Relu(t)  u = Conv<pads=[1,1,1,1], strides=[2,2]>(r, w2, b2)"
    "  s = Relu(u)  p = GlobalAveragePool(s)  f = Flatten(p)  y = Gemm<transB=1>(f, g) }"
)


@pytest.fixture(scope="module")
def source() -> ir.Model:
    return canonicalise(parse(NET))


def data_for(model: ir.Model, count: int = 24) -> Dataset:
    rough = np.random.default_rng(3).integers(0, 256, (count, 8, 8, 3)).astype(np.uint8)
    pictures = np.repeat(np.repeat(rough, 4, axis=1), 4, axis=2)
    steps = Preprocess(scale=1 / 64, mean=(2.0,))
    return Dataset("made", ArraySource({"x": pictures}, steps, InputSpec.of(model)), tuple(range(count)))


@pytest.mark.parametrize("by", [(2, 0), (-2, 0), (0, 3), (0, -3)])
def test_pictures_move_and_keep_their_edge(by: tuple[int, int]) -> None:
    x = np.random.default_rng(0).standard_normal((2, 3, 9, 11)).astype(np.float32)
    padded = np.pad(x, ((0, 0), (0, 0), (4, 4), (4, 4)), mode="edge")
    wanted = np.roll(padded, by, axis=(2, 3))[:, :, 4:-4, 4:-4]
    np.testing.assert_array_equal(views._shifted(x, (2, 3), by), wanted)


def test_the_size_that_is_judged_is_left_out(source: ir.Model) -> None:
    one = np.full((3, 4), 0.25)
    found = Views((one,), {(28, 28): 2 * one, (24, 24): 4 * one})
    np.testing.assert_allclose(found.without((28, 28)), 2.5 * one)
    np.testing.assert_allclose(found.without((24, 24)), 1.5 * one)
    np.testing.assert_allclose(found.without((32, 32)), 7 / 3 * one)


def test_sizes_count_where_the_source_says_much_the_same(
    source: ir.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = data_for(source)
    monkeypatch.setattr(views, "ALIKE", np.inf)
    every = Views.of(source, data, [(28, 28), (16, 16)], threads=1)
    assert set(every.sized) == {(34, 34), (36, 36), (28, 28)}  # 16 px is a quarter of the area
    monkeypatch.setattr(views, "ALIKE", 0.0)
    assert not Views.of(source, data, [(28, 28)], threads=1).sized


def test_wavering_is_no_loss(source: ir.Model) -> None:
    """The source moved by a pixel loses less against the views than against its plain answers; itself nothing."""
    data = data_for(source)
    plain = Reference.of(source, find_task(source), data, threads=1)
    over = plain.over([(28, 28), (24, 24)])
    np.testing.assert_allclose(over.losses(source), 0.0, atol=1e-12)
    small = resized(source, (28, 28))
    assert 0 < over.losses(small).mean() < plain.losses(small).mean()
    assert "moved and resized" in over.measure


def test_a_broken_network_loses_by_both(source: ir.Model) -> None:
    data = data_for(source)
    broken = source.clone()
    weight = broken.graph.initializers["g"]
    assert weight.const_value is not None
    weight.const_value = ir.tensor(np.roll(weight.const_value.numpy(), 1, axis=0), name="g")
    plain = Reference.of(source, find_task(source), data, threads=1)
    over = plain.over([(28, 28)])
    assert over.losses(broken).mean() > 10 * over.losses(resized(source, (28, 28))).mean()
    assert plain.losses(broken).mean() > plain.losses(resized(source, (28, 28))).mean()
