"""Pipeline strings: they round-trip, and everything wrong with one is said at once."""

from __future__ import annotations

import dataclasses
import typing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgec.graph.errors import UsageError
from edgec.passes.base import Pass, option
from edgec.passes.pipeline_string import (
    make_pass,
    option_table,
    options_of,
    parse_pipeline,
    print_pass,
)
from edgec.passes.table import PASSES, pass_class


@pytest.mark.parametrize("name", PASSES)
def test_every_pass_of_the_table_keeps_the_contract(name: str) -> None:
    cls = pass_class(name)
    assert issubclass(cls, Pass)
    assert cls.name == name
    assert cls.summary
    assert cls.__dataclass_params__.frozen
    for option_name, kind, _, text in option_table(cls):
        assert text, f"{name}: option {option_name} has no help"
        assert "typing." not in kind
        assert "class '" not in kind


def values_for(hint: object) -> st.SearchStrategy:
    """Values that an option of this type may have."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return st.sampled_from(args)
    if origin is tuple:
        return st.lists(values_for(args[0]), min_size=1, max_size=3).map(tuple)
    if args and type(None) in args:
        return st.one_of(st.none(), *[values_for(a) for a in args if a is not type(None)])
    plain = {
        int: st.integers(0, 10**6),
        float: st.floats(1e-6, 1e6, allow_nan=False),
        bool: st.booleans(),
        str: st.text(alphabet="abc%/*?|.-_ 0123", min_size=1, max_size=12).map(str.strip).filter(bool),
    }
    return plain[hint]  # type: ignore[index]


@given(st.data())
def test_print_and_parse_are_inverse(data: st.DataObject) -> None:
    @dataclasses.dataclass(frozen=True)
    class Everything(Pass):
        name: typing.ClassVar[str] = "fold"
        count: int = option(3, "a number")
        share: float = option(0.5, "a share")
        on: bool = option(False, "a switch")
        text: str = option("x", "a text")
        maybe: int | None = option(None, "may be open")
        several: tuple[int, ...] = option((1, 2), "some")
        kind: typing.Literal["obs", "l1"] = option("obs", "one of")

        def run(self, model, context):
            raise AssertionError("not run")

    hints = typing.get_type_hints(Everything, localns={"typing": typing})
    fields = {f.name: data.draw(values_for(hints[f.name])) for f in dataclasses.fields(Everything)}
    if fields["text"] in ("none", ""):
        fields["text"] = "y"
    one = Everything(**fields)
    text = print_pass(one)
    # Parsed under the class's own types, as `make_pass` does for a pass of the table.
    from unittest import mock

    with mock.patch("edgec.passes.pipeline_string.pass_class", return_value=Everything):
        (again,) = parse_pipeline(text)
        assert again == one
        assert make_pass("fold", options_of(one)) == one


def test_order_and_separators() -> None:
    passes = parse_pipeline("normalise fold-pointwise,fold  quantize{method=minmax, per-channel=false}")
    assert [one.name for one in passes] == ["normalise", "fold-pointwise", "fold", "quantize"]
    assert (
        " ".join(map(print_pass, passes))
        == "normalise fold-pointwise fold quantize{method=minmax per-channel=false}"
    )
    assert parse_pipeline("") == ()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("fold-pointwis", "Did you mean 'fold-pointwise'"),
        ("quantize{metod=minmax}", "Did you mean 'method'"),
        ("quantize{percentile=high}", "percentile=high is not a number"),
        ("quantize{per-channel=maybe}", "true or false"),
        ("quantize{method}", "write key=value"),
        ("quantize{method=mse method=minmax}", "given twice"),
        ("fold{x=1}", "takes no options"),
        ("quantize{", "cannot read"),
        ("equalize; quantize", "cannot read '; quantize' (between two passes stands a space)"),
    ],
)
def test_what_is_wrong_is_said(text: str, expected: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_pipeline(text)
    assert expected in str(caught.value)


def test_all_mistakes_are_listed_together() -> None:
    with pytest.raises(UsageError) as caught:
        parse_pipeline("nonsense quantize{metod=x percentile=high} fold")
    for part in ("nonsense", "metod", "percentile=high"):
        assert part in str(caught.value)
