"""Options of a preparation, as the command line takes them, stand for the same preparation."""

from __future__ import annotations

from typing import Any

import click
from hypothesis import given
from hypothesis import strategies as st

from edgec.compiler.cli.options import data_options, preprocessing
from edgec.graph.preprocess import Preprocess

numbers = st.integers(-300_000, 300_000).map(lambda n: n / 1000)
factors = st.integers(1, 300_000).map(lambda n: n / 1000)
sizes = st.integers(1, 500)


@st.composite
def preparations(draw: st.DrawFn) -> Preprocess:
    letterbox = draw(st.none() | st.integers(0, 255))
    resize = draw(st.tuples(sizes, sizes) if letterbox is not None else st.none() | st.tuples(sizes))
    return Preprocess(
        mean=draw(st.tuples(numbers) | st.tuples(numbers, numbers, numbers)),
        std=draw(st.tuples(factors) | st.tuples(factors, factors, factors)),
        scale=draw(factors),
        layout=draw(st.sampled_from(["auto", "nchw", "nhwc"])),
        resize=resize,
        crop=None if resize is not None else draw(st.none() | st.tuples(sizes, sizes)),
        channels=draw(st.sampled_from(["rgb", "bgr", "gray", "rgba"])),
        letterbox=letterbox,
        letterbox_at="corner" if letterbox is None else draw(st.sampled_from(["corner", "centre"])),
    )


@given(preparations())
def test_words_are_read_as_what_they_stand_for(wanted: Preprocess) -> None:
    read: dict[str, Any] = {}

    @click.command()
    @data_options
    def command(**values: Any) -> None:
        read.update(values)

    command.main(wanted.words(), standalone_mode=False)
    found = Preprocess(**preprocessing(read))
    for mine, theirs in zip(
        (*found.mean, *found.std, found.scale), (*wanted.mean, *wanted.std, wanted.scale), strict=True
    ):
        assert abs(mine - theirs) <= 1e-8 * abs(theirs)
    same = ("layout", "resize", "crop", "channels", "letterbox", "letterbox_at")
    assert [getattr(found, name) for name in same] == [getattr(wanted, name) for name in same]


def test_what_nobody_set_has_no_word() -> None:
    assert Preprocess().words() == []
