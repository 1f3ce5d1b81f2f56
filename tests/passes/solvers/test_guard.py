"""What the guard calls noise, against noise that is made here."""

from __future__ import annotations

import numpy as np
import pytest

from edgec.passes.solvers.guard import CLEAR, UNIT, amplitude, judge, weigh


@pytest.mark.parametrize("unknowns", [9, 64, 576])
@pytest.mark.parametrize("shape", ["uniform", "gaussian"])
def test_codes_that_flip_move_a_prediction_as_far_as_is_said(unknowns: int, shape: str) -> None:
    """Rounding errors of the layer in front turn codes over: far more than they move the prediction of a float layer."""
    rng = np.random.default_rng(0)
    size = (2_000_000 // unknowns, unknowns)
    x = rng.uniform(-1, 1, size) if shape == "uniform" else rng.standard_normal(size)
    step = 2 * np.abs(x).max() / 255
    weight = rng.standard_normal(unknowns)
    moved = x + UNIT * np.sqrt(unknowns) * np.sqrt(np.mean(x**2)) * rng.standard_normal(size)
    target = x @ weight

    def share(values: np.ndarray, others: np.ndarray) -> float:
        return float(np.sqrt(np.mean(np.square((values - others) @ weight)) / np.mean(target**2)))

    flipped = share(step * np.rint(moved / step), step * np.rint(x / step))
    said = amplitude(unknowns, codes=True)
    assert said / 4 < flipped < 4 * said
    plain = share(moved, x)
    assert amplitude(unknowns) / 4 < plain < 4 * amplitude(unknowns)
    assert flipped > 10 * plain


@pytest.mark.parametrize("last_digits", [-4, -1, 0, 1, 4])
def test_a_gain_that_equals_what_was_asked_for_is_none_whatever_the_last_digits(last_digits: int) -> None:
    after = np.array([0.1])
    before = after * (1 + CLEAR) * (1 + last_digits * 2.0**-52)
    assert not judge(before, after, 0.0).kept
    assert not judge(after, before, 0.0).worse
    assert judge(before * 1.001, after, 0.0).kept


def test_a_gain_that_flipping_codes_explain_is_kept_only_where_there_are_none() -> None:
    """Every image gains alike, so the standard error is nothing: the floor alone decides."""
    energy, unknowns = 32.0, 64.0
    before = np.full(32, 0.02)
    rounding = 2 * amplitude(unknowns) * np.sqrt(before.sum() * energy)
    flips = 2 * amplitude(unknowns, codes=True) * np.sqrt(before.sum() * energy)
    after = before - np.sqrt(rounding * flips) / 32
    assert judge(before, after, energy, unknowns=unknowns).kept
    assert not judge(before, after, energy, unknowns=unknowns, codes=True).kept
    assert judge(before, before - 1.1 * flips / 32, energy, unknowns=unknowns, codes=True).kept


def test_codes_that_are_drawn_anew_decide_alike_but_say_that_another_draw_might_not() -> None:
    gains = np.array([0.9, 0.1, 1.2, -0.4])
    plain, drawn = weigh(gains, 1e-3, alone=CLEAR), weigh(gains, 1e-3, alone=CLEAR, drawn=True)
    assert (drawn.kept, drawn.margin) == (plain.kept, plain.margin)
    assert plain.floor < 1e-2
    assert drawn.floor == 1
    before, after = np.full(4, 2.0), np.full(4, 2.0) - gains
    assert judge(before, after, 1.0).floor < 1e-2
    assert judge(before, after, 1.0, codes=True).floor == 1


def test_a_gain_that_is_not_believed_says_what_it_may_come_from() -> None:
    before = np.full(9, 2.0)
    chance = judge(before, before - np.array([1.0, *[0.0] * 8]), 1.0)
    rounding = judge(before, before * (1 - 1e-12), 1e3)
    clear = judge(before, before / 2, 1.0)
    assert chance.doubt == ", no more than chance may do on 9 samples"
    assert rounding.doubt == ", no more than rounding may do"
    assert (clear.kept, clear.doubt) == (True, "")
    assert judge(before, before * 2, 1.0).doubt == ""
