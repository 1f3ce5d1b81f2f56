"""The guard behind a whole pass: what makes the outputs worse on unseen samples goes back, all of it or from where it harms on."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import onnx_ir as ir
import pytest

from edgec.graph import picks
from edgec.graph.execute import Executor
from edgec.graph.views import constant
from edgec.passes.base import Context, LayerReport, Pass, PassResult
from edgec.passes.whole import Outputs, guarded

NET = """g (float[N,4] x) => (float[N,4] y) <float[4,4] a, float[4,4] b, float[4,4] c> {
    p = MatMul(x, a)  q = MatMul(p, b)  y = MatMul(q, c) }"""
JOINED = """g (float[N,4] x) => (float[N,8] y) <float[4,4] a, float[4,4] b> {
    p = MatMul(x, a)  q = MatMul(x, b)  y = Concat<axis=1>(p, q) }"""
PICKED = """g (float[N,1,6,6] x) => (float[N,2,6,6] y) <float[2,1,3,3] a> {
    h = Conv<pads = [1, 1, 1, 1]>(x, a)  m = MaxPool<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(h)
    e = Equal(h, m)  k = Cast<to = 1>(e)  y = Mul(h, k) }"""
LAYERS = ("a", "b", "c")


def changed(model: ir.Model, **scales: float) -> ir.Model:
    """A copy whose weights are multiplied."""
    made = model.clone()
    for name, by in scales.items():
        value = made.graph.initializers[name]
        value.const_value = ir.tensor(np.float32(by) * constant(value), name=name)
    return made


@dataclass(frozen=True)
class Fits:
    """Layer after layer, each multiplied."""

    start: ir.Model
    scales: Sequence[float]

    @property
    def count(self) -> int:
        return len(self.scales)

    def model(self, kept: int) -> ir.Model:
        return changed(self.start, **dict(zip(LAYERS[:kept], self.scales, strict=False)))

    def undone(self, kept: int) -> Collection[str]:
        return LAYERS[kept : self.count]


@dataclass(frozen=True)
class Claims(Pass):
    """A pass that says that it recovers; what it does is given from outside."""

    name: ClassVar[str] = "claims"
    summary: ClassVar[str] = "for this test"
    recovers: ClassVar[bool] = True

    def run(self, model: ir.Model, context: Context) -> PassResult:
        return PassResult(model, False)


@pytest.fixture
def source(canonical) -> ir.Model:
    return canonical(NET)


def judged(
    source: ir.Model, before: ir.Model, result: PassResult, context, noise, **more: object
) -> PassResult:
    around = replace(context(source, noise(source, 64)), **more)
    return guarded(Claims(), before, result, around)


def test_what_comes_nearer_stays(source, context, noise) -> None:
    before, after = changed(source, a=1.4), changed(source, a=1.1)
    result = judged(source, before, PassResult(after, True), context, noise)
    assert result.model is after
    assert result.data["whole"]["after_db"] > result.data["whole"]["before_db"] + 3
    assert result.data["whole"]["samples"] == 8


def test_what_goes_further_away_is_taken_back(source, context, noise) -> None:
    before, after = changed(source, a=1.1), changed(source, a=1.4)
    reports = tuple(LayerReport(name, 1, 1, 1.0, 0.5, 0.1, True) for name in LAYERS)
    result = judged(source, before, PassResult(after, True, layers=reports), context, noise)
    assert result.model is before
    assert not result.modified
    assert [note.level for note in result.notes] == ["reverted"]
    assert not any(layer.kept or layer.error_after != layer.error_before for layer in result.layers)


def test_a_beginning_that_does_no_harm_stays(source, context, noise) -> None:
    """The first fit mends what was wrong, the second does nothing, the third ruins it."""
    before = changed(source, a=1.4)
    fits = Fits(before, (1 / 1.4, 1.0, 2.0))
    reports = tuple(LayerReport(name, 1, 1, 1.0, 0.5, 0.1, True) for name in LAYERS)
    whole = PassResult(fits.model(3), True, layers=reports, partial=fits)
    result = judged(source, before, whole, context, noise)
    assert result.modified
    np.testing.assert_allclose(
        constant(result.model.graph.initializers["a"]), constant(source.graph.initializers["a"]), rtol=1e-6
    )
    assert [layer.kept for layer in result.layers] == [True, True, False]
    assert "the first 2 of 3 fits stay" in result.notes[0].text


def test_the_worst_part_decides(canonical, context, noise) -> None:
    """The louder part of a joined output comes nearer, which the sum shows; the other one is ruined."""
    source = changed(canonical(JOINED), a=100.0)
    before, after = changed(source, a=1.3), changed(source, b=1.3)
    result = judged(source, before, PassResult(after, True), context, noise)
    assert result.model is before


@dataclass(frozen=True)
class Signs:
    """An answer is the sign of the first value; nothing else means anything."""

    def energies(self, source, ours):
        a, b = (np.tanh(one[0][:, :1]) for one in (source, ours))
        return np.square(a).sum(axis=1), np.square(a - b).sum(axis=1)

    def kept(self, source, ours):
        return 0, 0

    def at(self, size):
        return self


@pytest.mark.parametrize("told", [False, True], ids=["values", "answers"])
def test_where_the_meaning_is_known_it_decides(told: bool, source, context, noise) -> None:
    """The values that mean something come nearer; those that do not are ruined."""
    weight = constant(source.graph.initializers["c"])
    near, far = weight.copy(), weight.copy()
    near[:, 0] *= 2.0
    far[:, 1:] *= 3.0
    before, after = source.clone(), source.clone()
    for model, values in ((before, near), (after, far)):
        model.graph.initializers["c"].const_value = ir.tensor(values, name="c")
    answers = Signs() if told else None
    result = judged(source, before, PassResult(after, True), context, noise, answers=answers)
    assert (result.model is after) is told


def test_a_pass_that_claims_nothing_is_not_judged(source, context, noise) -> None:
    class Silent(Claims):
        recovers: ClassVar[bool] = False

    after = changed(source, a=9.0)
    result = PassResult(after, True)
    assert guarded(Silent(), source, result, context(source, noise(source, 64))) is result


def test_what_an_exact_comparison_picks_is_judged_in_front_of_it(canonical, context, noise) -> None:
    model = canonical(PICKED)
    found = Outputs.of(model, noise(model), context(model))
    names = [value.name or "" for value in picks.judged(model).graph.outputs]
    assert {*names} == {"h", "m"}
    wanted = [Executor(model, outputs=names).run(feeds) for feeds in noise(model).batches(found.size)]
    for mine, right in zip(found.wanted, wanted, strict=True):
        assert all((a == right[name]).all() for a, name in zip(mine, names, strict=True))
