"""Names from files are words: nothing in them steers a terminal, whatever it is, and plain words stay as they are."""

from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgec.graph.errors import ModelError, did_you_mean
from edgec.graph.text import shortened, size, visible

PLAIN = ["conv1", "größe/层_1", "a b", "1\u202f000 images", "π ≈ 3", "🙂", "می\u200cخواهم", "[red]x[/]"]
STEERING = {
    "\x1b[2J": r"\x1b[2J",
    "\x1b]8;;http://x\x07y": r"\x1b]8;;http://x\x07y",
    "a\rb": r"a\rb",
    "a\nerror: b": r"a\nerror: b",
    "\x9b31m": r"\x9b31m",
    "\x7f": r"\x7f",
    "\u202eevil": r"\u202eevil",
    "\u2066a\u2069": r"\u2066a\u2069",
    "\u2028": r"\u2028",
    "\ufeff": r"\ufeff",
    "\udce9": r"\udce9",
    "\U000e0041": r"\U000e0041",
}


@pytest.mark.parametrize("text", PLAIN)
def test_plain_words_stay(text: str) -> None:
    assert visible(text) == text


@pytest.mark.parametrize("text", STEERING)
def test_steering_characters_are_written_out(text: str) -> None:
    assert visible(text) == STEERING[text]


@given(st.text(st.characters(codec=None)))
def test_nothing_steers_and_twice_is_once(text: str) -> None:
    shown = visible(text)
    assert not any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in shown)
    assert not re.search("[\u200e\u200f\u061c\u202a-\u202e\u2066-\u2069]", shown)
    assert visible(shown) == shown
    assert visible(text, keep="\n").replace("\n", "\\n") == shown
    shown.encode()


@given(st.text(), st.text(), st.text(), st.text())
def test_an_error_is_one_line_and_its_hint_another(what: str, where: str, why: str, hint: str) -> None:
    assert str(ModelError(what, where=where, why=why, hint=hint)).count("\n") == 1
    assert str(ModelError(what, where=where, why=why)).count("\n") == 0


def test_an_error_is_bounded() -> None:
    huge = "x" * 10_000_000
    assert len(str(ModelError(huge, where=huge, why=huge, hint=did_you_mean(huge, ["a", "b"])))) < 10_000
    assert shortened("abcdef", 5) == "ab..."


def test_sizes_for_people() -> None:
    assert [size(n) for n in (12, 1234, 5e6, 2.5e9, 4e13)] == ["12 B", "1.23 kB", "5 MB", "2.5 GB", "40 TB"]
