"""Options are checked where a pass is made: from Python as from text, in every pass, for every kind of wrong value."""

from __future__ import annotations

import dataclasses
import typing
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgec.graph.errors import RenamedOptionWarning, UsageError
from edgec.passes.base import Pass, Switch
from edgec.passes.budget import UNITS, parse_budget
from edgec.passes.options import kebab, kinds
from edgec.passes.pipeline_string import make_pass, options_of, parse_pipeline, print_pass
from edgec.passes.prune_channels import PruneChannels
from edgec.passes.quantize import Quantize
from edgec.passes.recover_lsq import RecoverLsq
from edgec.passes.table import PASSES, pass_class

GIVEN = {"distill-convex": {"region": "block1"}, "distil": {"narrow": "0.5"}, "remove-blocks": {"blocks": 1}}
"""What a pass cannot be made without."""
OPTIONS = [(name, item) for name in PASSES for item in dataclasses.fields(pass_class(name))]
NUMBERS = [(name, item) for name, item in OPTIONS if kinds(pass_class(name))[item.name] in (int, float)]

ANYTHING = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20), st.binary(max_size=5), st.complex_numbers(),
    st.lists(st.integers(), max_size=3), st.dictionaries(st.text(max_size=3), st.integers(), max_size=2), st.fractions(),
    st.decimals(), st.sampled_from(["true", "No", "AUTO", "50%", "4MB", "1e400", "-0", "nan", "inf", '"', "\\", "{}", "a,b=c", "\n"]),
    st.sampled_from([np.float32(0.5), np.int64(3), np.bool_(True), np.array(1.0), object(), range(3), 10**5000]),
)  # fmt: skip


def made(name: str, **options: object) -> Pass:
    return pass_class(name)(**{**GIVEN.get(name, {}), **options})


@pytest.mark.parametrize("name", sorted({name for name, _ in OPTIONS}))
@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_any_value_is_taken_and_printed_back_or_refused_by_name(name, data) -> None:
    key = data.draw(st.sampled_from([item.name for item in dataclasses.fields(pass_class(name))]))
    one, said = None, ""
    try:
        one = made(name, **{key: data.draw(ANYTHING)})
    except UsageError as error:
        said = str(error)
    if one is None:
        assert kebab(key) in said or "when to stop" in said or "what to replace" in said
        return
    assert parse_pipeline(print_pass(one)) == (one,)
    assert make_pass(name, options_of(one)) == one


@pytest.mark.parametrize(("name", "item"), OPTIONS, ids=lambda value: getattr(value, "name", value))
def test_the_declared_default_is_admitted_as_it_stands(name, item) -> None:
    if item.name not in GIVEN.get(name, {}):
        assert getattr(made(name), item.name) == item.default


@pytest.mark.parametrize(("name", "item"), NUMBERS, ids=lambda value: getattr(value, "name", value))
def test_every_number_has_bounds_that_hold(name, item) -> None:
    """Counts, shares, ridges, sizes, seeds: none of them is negative, and none is without end."""
    for wrong in (-1, float("nan"), float("inf"), "-1", "much", True, None):
        with pytest.raises(UsageError) as caught:
            made(name, **{item.name: wrong})
        assert f"{kebab(item.name)}=" in str(caught.value)
        assert "number" in str(caught.value)
    within = item.metadata["within"]
    assert within.low is not None
    if within.high is not None:
        assert made(name, **{item.name: within.high - 1e-9 if within.below else within.high})
        with pytest.raises(UsageError, match=f"{within.high:.10g}"):
            made(name, **{item.name: within.high + 1})


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        (True, "yes"),
        ("true", "yes"),
        ("YES", "yes"),
        ("on", "yes"),
        (False, "no"),
        ("off", "no"),
        ("Auto", "auto"),
    ],
)
def test_switches_have_one_spelling(word, meant) -> None:
    switches = [(n, i.name) for n, i in OPTIONS if kinds(pass_class(n))[i.name] == Switch]
    assert len(switches) > 8
    for name, key in switches:
        assert getattr(made(name, **{key: word}), key) == meant
    if meant != "auto":
        for name, item in OPTIONS:
            if kinds(pass_class(name))[item.name] is bool:
                assert getattr(made(name, **{item.name: word}), item.name) is (meant == "yes")


def test_words_are_listed_and_the_nearest_is_named() -> None:
    with pytest.raises(
        UsageError, match=r"method=mmse is not one of minmax, percentile, mse, entropy.*Did you mean 'mse'"
    ):
        Quantize(method="mmse")  # type: ignore[arg-type]
    words = typing.get_args(kinds(Quantize)["method"])
    assert [Quantize(method=one.upper()).method for one in words] == list(words)


def test_values_of_other_types_are_read_where_they_say_the_same() -> None:
    assert RecoverLsq(ridge="1e-4", depth=np.int64(2), rows=Fraction(81, 2)) == RecoverLsq(
        ridge=1e-4, depth=2, rows=40.5
    )
    assert isinstance(RecoverLsq(depth=2.0).depth, int)  # type: ignore[arg-type]


def test_all_that_is_wrong_with_a_pass_is_said_at_once() -> None:
    with pytest.raises(UsageError) as caught:
        RecoverLsq(ridge=-3, held_out=1.0, hflip="maybe")  # type: ignore[arg-type]
    assert str(caught.value).startswith("recover-lsq: ridge=-3 is not a number from 0 to")
    assert "held-out=1.0 is not" in str(caught.value)
    assert "hflip=maybe is not one of auto, yes, no" in str(caught.value)


def test_no_pass_goes_round_the_check() -> None:
    for name in PASSES:
        assert pass_class(name).__post_init__ is Pass.__post_init__


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("macs=50", "did you mean 50% or 50M?"),
        ("macs=0.5", "did you mean 50%?"),
        ("macs=1", "did you mean 1% or 1M?"),
        ("macs=150", "did you mean 150M?"),
        ("params=40", "did you mean 40% or 40M?"),
        ("params=999", "did you mean 999M?"),
        ("size=4", "did you mean 4MB or 4%?"),
        ("size=4000000", "no unit"),
        ("size=4mb", "did you mean 4MB?"),
        ("size=4MiB", "unknown suffix 'MiB'"),
        ("latency=25", "did you mean 25ms or 25%?"),
        ("latency=25MS", "did you mean 25ms?"),
        ("latency=25m", "unknown suffix 'm'"),
        ("latency=25MB", "unknown suffix 'MB'"),
        ("macs=150%", "between 0% and 100%"),
        ("macs=0%", "between 0% and 100%"),
        ("macs=-10%", "between 0% and 100%"),
        ("macs=-40M", "not above 0"),
        ("macs=0", "not above 0"),
        ("macs=1e999", "finite"),
        ("macs=nan", "not a budget"),
        ("macs=50%%", "not a budget"),
        ("macs=fifty", "not a budget"),
        ("macs=", "no amount"),
        ("params=  ", "no amount"),
        ("macs", "not a budget"),
        ("50%", "not a budget"),
        ("", "not a budget"),
        ("mcas=50%", "Did you mean 'macs'"),
        ("flops=50%", "unknown budget unit"),
        ("macs=50%,params=40%", "several budgets"),
        ("macs=50% params=40%", "several budgets"),
    ],
)
def test_budgets_that_make_no_sense(text, said) -> None:
    with pytest.raises(UsageError) as caught:
        parse_budget(text)
    assert said in str(caught.value)
    unit, _, amount = text.partition("=")
    if amount.strip() and unit in UNITS and "several" not in said:
        with pytest.raises(UsageError, match=f"prune-channels: {unit}: "):
            PruneChannels(**{unit: amount})


@pytest.mark.parametrize(
    ("text", "kept", "limit"),
    [
        ("macs=50%", "50%", 500.0),
        ("macs = 50 %", "50%", 500.0),
        ("MACS=12.5%", "12.5%", 125.0),
        ("macs=40M", "40M", 40e6),
        ("macs=4e7", "4e7", 4e7),
        ("macs=1000", "1000", 1000.0),
        ("params=1.2M", "1.2M", 1.2e6),
        ("size=4MB", "4MB", 4e6),
        ("size=500kB", "500kB", 5e5),
        ("latency=25ms", "25ms", 25.0),
        ("latency=0.025s", "0.025s", 25.0),
        ("latency=100%", "100%", 1000.0),
    ],
)
def test_budgets_that_do(text, kept, limit) -> None:
    budget = parse_budget(text)
    assert budget.option[1] == kept
    assert budget.limit(1000.0) == pytest.approx(limit)
    assert getattr(PruneChannels(**{budget.unit: text.partition("=")[2]}), budget.unit) == kept


def test_several_budgets_are_refused_where_the_pass_is_made() -> None:
    with pytest.raises(UsageError, match="macs, params are given together"):
        PruneChannels(macs="50%", params="40%")
    PruneChannels()  # open: --budget may fill it
    with pytest.raises(UsageError, match="no budget is given"):
        PruneChannels().complete()


@pytest.mark.parametrize(
    ("old", "new"), [("lam=0.01", "ridge=0.01"), ("flips=no", "hflip=no"), ("blend=false", "mixup=false")]
)
def test_what_an_option_was_called_in_0_1_still_names_it(old: str, new: str) -> None:
    with pytest.warns(RenamedOptionWarning, match=f"{old.split('=')[0]}= is called {new.split('=')[0]}= now"):
        (one,) = parse_pipeline(f"recover-lsq{{{old}}}")
    assert print_pass(one) == f"recover-lsq{{{new}}}"


def test_old_and_new_name_together_are_one_option_twice() -> None:
    with pytest.warns(RenamedOptionWarning), pytest.raises(UsageError, match="'ridge' is given twice"):
        parse_pipeline("recover-lsq{ridge=0.01 lam=0.1}")
