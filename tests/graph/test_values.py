"""Readers of values: what is admitted, what is not, and that the message says both."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest

from edgec.graph import values
from edgec.graph.values import NotAdmitted, Range

DAY = Range(0, 86_400)


@pytest.mark.parametrize(
    ("raw", "meant"),
    [
        ("500ms", 0.5), ("90s", 90.0), ("90", 90.0), (90, 90.0), ("1.5 s", 1.5), ("30m", 1800.0), ("30min", 1800.0), ("2h", 7200.0),
        ("1e3ms", 1.0), ("0", 0.0), (0.25, 0.25),
    ],
)  # fmt: skip
def test_times_have_one_reader(raw, meant) -> None:
    assert values.seconds(raw, DAY) == pytest.approx(meant)


@pytest.mark.parametrize(
    "raw",
    [
        "500ns",
        "5 minutes",
        "90S",
        "s",
        "",
        "-1s",
        "25h",
        "nan",
        "inf",
        "1..5s",
        "1e999s",
        True,
        None,
        -1,
        float("nan"),
    ],
)
def test_what_is_no_time(raw) -> None:
    with pytest.raises(NotAdmitted, match=r"is not a time from 0 to 86400 seconds"):
        values.seconds(raw, DAY)


@pytest.mark.parametrize(
    ("raw", "meant"), [("1%", 0.01), ("0.01", 0.01), (0.5, 0.5), ("100 %", 1.0), ("0", 0.0), (1, 1.0)]
)
def test_shares(raw, meant) -> None:
    assert values.share(raw) == pytest.approx(meant)


@pytest.mark.parametrize("raw", ["101%", "-1%", "%", "1%%", "half", 1.1, float("nan"), None, True])
def test_what_is_no_share(raw) -> None:
    with pytest.raises(NotAdmitted, match="from 0% to 100%"):
        values.share(raw)


def test_a_share_without_its_sign_is_guessed() -> None:
    with pytest.raises(NotAdmitted, match=r"Did you mean 5%\?"):
        values.share("5")


@pytest.mark.parametrize("raw", ["7", 7, 7.0, np.int8(7), np.float32(7), Fraction(7), " 7 "])
def test_whole_numbers_of_any_type(raw) -> None:
    found = values.whole(raw, Range(1, 10))
    assert found == 7
    assert type(found) is int


@pytest.mark.parametrize(
    "raw",
    [
        "7.5",
        7.5,
        True,
        np.bool_(True),
        None,
        "1_000",
        "0x7",
        "",
        "9" * 5000,
        10**5000,
        1e400,
        [7],
        Decimal(7),
    ],
    ids=lambda raw: type(raw).__name__,
)
def test_what_is_no_whole_number(raw) -> None:
    with pytest.raises(NotAdmitted, match=r"is not a whole number from 1 to 10$|too many digits") as caught:
        values.whole(raw, Range(1, 10))
    assert len(str(caught.value)) < 120


@pytest.mark.parametrize(
    ("raw", "meant"),
    [("1/255", 1 / 255), ("-0", 0.0), ("1e-3", 1e-3), (np.float16(0.5), 0.5), (Fraction(1, 4), 0.25)],
)
def test_numbers_of_any_type(raw, meant) -> None:
    found = values.number(raw)
    assert found == meant
    assert type(found) is float
    assert str(values.number("-0.0")) == "0.0"


@pytest.mark.parametrize(
    "raw", ["nan", "inf", "1e999", float("-inf"), "1/0", "one", "1,5", None, False, 1j, "1/2/3"]
)
def test_what_is_no_number(raw) -> None:
    with pytest.raises(NotAdmitted, match="number"):
        values.number(raw)


@pytest.mark.parametrize(
    ("within", "said", "inside", "outside"),
    [
        (Range(0), "of at least 0", (0, 1e9), (-1e-9,)),
        (Range(0, above=True), "above 0", (1e-9,), (0,)),
        (Range(None, 5), "of at most 5", (-9, 5), (6,)),
        (Range(0, 1), "from 0 to 1", (0, 1), (-1, 2)),
        (Range(0, 1, above=True, below=True), "above 0 and below 1", (0.5,), (0, 1)),
        (Range(0, 1, below=True), "of at least 0 and below 1", (0,), (1,)),
        (Range(50, 100, above=True), "above 50 and at most 100", (100,), (50,)),
    ],
)
def test_ranges_say_what_they_hold(within, said, inside, outside) -> None:
    assert str(within) == said
    assert all(value in within for value in inside)
    assert not any(value in within for value in outside)


@pytest.mark.parametrize("raw", ["3,224,224", "3x224x224", (3, 224, 224), [3, 224, 224], "3, 224, 224"])
def test_shapes(raw) -> None:
    assert values.shape(raw) == (3, 224, 224)


@pytest.mark.parametrize(
    "raw", ["", "3,,4", "3,-1", "3,0", (), (1,) * 9, "3,100000", (65536, 65536), "a", None, (2.5,)]
)
def test_what_is_no_shape(raw) -> None:
    with pytest.raises(NotAdmitted, match="a shape of up to 8 sizes"):
        values.shape(raw)
