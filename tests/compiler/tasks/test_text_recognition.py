"""Lines of text: how steps are read, and what counts as the same line, for blanks in front of the alphabet and behind it."""

from __future__ import annotations

from functools import cache
from itertools import groupby

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgec.compiler.evaluate.quality import Judge, Tally
from edgec.compiler.tasks.find import find_task
from edgec.compiler.tasks.text_recognition import TextRecognition, distance
from edgec.compiler.tasks.truth import truth_of
from edgec.graph.data import open_data
from edgec.graph.errors import DataError
from edgec.graph.parts import Part
from tests.compiler.tasks.test_find import net

CLASSES, STEPS = 6, 9
LINES = st.lists(st.integers(1, 4), max_size=7).map(tuple)


def steps(*lines: list[int], blank: int = 0) -> np.ndarray:
    """Scores whose best class is what a line says, filled up with blanks."""
    scores = np.random.default_rng(0).random((len(lines), STEPS, CLASSES)) * 0.4
    for row, line in zip(scores, lines, strict=True):
        for step, best in enumerate([*line, *[blank] * (STEPS - len(line))]):
            row[step, best] = 1.0
    return scores


@pytest.mark.parametrize("blank", [0, CLASSES - 1])
def test_repetitions_are_one_character_and_blanks_keep_two_apart(blank: int) -> None:
    outputs = [steps([blank, 1, 1, blank, 1, 3, 3], [2], [], blank=blank)]
    task = TextRecognition()
    assert task.blank(outputs) == blank
    assert task.lines(outputs, blank) == [(1, 1, 3), (2,), ()]
    shift = int(blank == 0)
    assert task.answers(outputs) == [
        {"text": [1 - shift, 1 - shift, 3 - shift]},
        {"text": [2 - shift]},
        {"text": []},
    ]


@given(
    st.lists(st.lists(st.integers(0, CLASSES - 1), min_size=STEPS, max_size=STEPS), min_size=1, max_size=4)
)
def test_lines_are_read_as_ctc_says(rows: list[list[int]]) -> None:
    wanted = [tuple(one for one, _ in groupby(row) if one != 0) for row in rows]
    assert TextRecognition().lines([steps(*rows)], 0) == wanted


@given(LINES, LINES)
def test_the_distance_is_the_fewest_edits(one: tuple[int, ...], other: tuple[int, ...]) -> None:
    @cache
    def fewest(i: int, j: int) -> int:
        if i == 0 or j == 0:
            return i + j
        change = fewest(i - 1, j - 1) + (one[i - 1] != other[j - 1])
        return min(change, fewest(i - 1, j) + 1, fewest(i, j - 1) + 1)

    assert distance(one, other) == fewest(len(one), len(other))


def test_lines_that_both_leave_empty_are_no_agreement() -> None:
    """Of 40 pictures without text nothing is known, however alike the answers are."""
    tally = TextRecognition().tally()
    empty = [steps(*[[]] * 40)]
    tally.add(empty, empty, None)
    assert tally.figures() == {"measures": ()}


def test_what_is_said_of_lines() -> None:
    source = [steps([1, 2, 3], [4], [], [1, 0, 1], [2, 3])]
    ours = [steps([1, 2, 3], [4], [], [1, 1], [2, 3, 4])]
    tally = TextRecognition().tally()
    tally.add(source, ours, None)
    same, characters = tally.figures()["measures"]
    assert (same.value, same.count, same.lost, same.of) == (0.5, 4, 2, "lines")
    assert same.low < 0.5 < same.high
    assert (characters.value, characters.lower_is_better, characters.best) == (2 / 8, True, 0.0)
    assert tally.changed == [False, False, False, True, True]
    assert tally.errors == [0, 0, 0, 1 / 2, 1 / 2]


def test_a_line_that_only_the_compressed_network_reads_is_another() -> None:
    tally = TextRecognition().tally()
    tally.add([steps([], [])], [steps([1], [])], None)
    (same,) = tally.figures()["measures"]
    assert (same.value, same.count) == (0.0, 1)


def test_the_quality_of_a_recogniser_holds_its_lines() -> None:
    tally = Tally(Judge((Part("y", 0),), task=TextRecognition()))
    source = {"y": steps([1, 2], [3]).astype(np.float32)}
    tally.add(2, source, source, None)
    figures = tally.figures()
    assert figures["measures"][0]["name"] == "Lines that read the same as the original's"


def test_labels_are_refused_in_one_sentence(tmp_path) -> None:
    model = net("float[N,9,6] y", "y = Softmax <axis=2> (x)")
    np.savez(tmp_path / "lines.npz", x=np.zeros((4, 3, 64, 64), np.float32), y=np.arange(4))
    data = open_data(tmp_path / "lines.npz", model, any_truth=True)
    with pytest.raises(DataError, match="labels, and a network that reads text"):
        truth_of(find_task(model, "recognise"), model, data, 0)
