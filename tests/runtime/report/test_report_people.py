"""What the page shows for people: inputs with both answers, classes, accuracy pass by pass, and the next command."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from edgec.runtime.report import page
from edgec.runtime.report.drawings import KINDS, Scene, drawn
from edgec.runtime.report.people import along, along_words, certainty, following, groups_of
from edgec.runtime.report.schema import Quality, Report
from tests.runtime.report.pages import ANSWERS, with_strip
from tests.runtime.report.test_report_page import checked

SCENE = Scene(96, 96, ("cat", "dog", "horse", "cow"))
WORDS = {
    "classification": ("cow 93%", "dog 51%"),
    "multi-label": ("dog 90%, cow 60%", "dog 80%"),
    "detection": ("cat 90%, horse 40%", "cat 88%"),
    "segmentation": ("dog 38%, horse 31%, cat 31%", "cat 44%, horse 31%, dog 25%"),
    "keypoints": ("2 points", "2 points"),
    "regression": ("1.25, 7", "1.3, 6.9"),
    "text-recognition": ("“cathorse ”", "no text"),
    "unknown": ("", ""),
}


@pytest.mark.parametrize("kind", ANSWERS)
def test_every_kind_of_answer_is_drawn(kind: str) -> None:
    found = tuple(drawn(answer, SCENE) for answer in ANSWERS[kind])
    assert tuple(one.words for one in found) == WORDS[kind]
    assert bool(found[0].shapes) == (kind in ("detection", "segmentation", "keypoints"))


def test_the_kinds_of_the_table_are_all_tried() -> None:
    tried = {key for answers in ANSWERS.values() for answer in answers for key in answer}
    assert set(KINDS) <= tried


def test_boxes_lie_where_they_are() -> None:
    shapes = str(drawn({"boxes": [[8, 10, 40, 60]], "scores": [1], "classes": [0]}, SCENE).shapes)
    assert 'x="8.0" y="10.0" width="32.0" height="50.0"' in shapes
    shares = str(drawn({"boxes": [[0.25, 0, 0.5, 1]], "scores": [1], "classes": [0]}, SCENE).shapes)
    assert 'x="24.0" y="0.0" width="24.0" height="96.0"' in shares


def test_a_mask_is_painted_row_by_row() -> None:
    shapes = str(drawn({"mask": {"size": [2, 4], "runs": [[0, 3], [1, 3], [0, 2]]}}, Scene(2, 4)).shapes)
    assert re.findall(r'x="([\d.]+)" y="([\d.]+)" width="([\d.]+)"', shapes) == [
        ("3.0", "0.0", "1.0"),
        ("0.0", "1.0", "2.0"),
    ]


DAMAGED: list[dict[str, Any]] = [
    {"class": 3},
    {"class": "3", "score": "much"},
    {"boxes": [[1, 2]], "scores": [1], "classes": [0]},
    {"boxes": [[1, 2, 3, float("nan")]], "scores": [1], "classes": [0]},
    {"boxes": [[1, 2, 3, 4]], "scores": [], "classes": []},
    {"boxes": 7, "scores": [1], "classes": [0]},
    {"mask": {"size": [0, 0], "runs": [[1, 1]]}},
    {"mask": {"size": [100000, 100000], "runs": [[1, 10000000000]]}},
    {"mask": {"size": [-2, -2], "runs": [[1, 4]]}},
    {"mask": None},
    {"keypoints": [[1]]},
    {"numbers": ["one"]},
    {"labels": [1], "scores": None},
    {"text": [-1]},
    {"text": "cat"},
]


def test_characters_without_an_alphabet_are_counted() -> None:
    assert drawn({"text": [3, 3, 9]}, Scene(48, 320)).words == "3 characters"


@pytest.mark.parametrize("answer", DAMAGED, ids=[json.dumps(one) for one in DAMAGED])
def test_an_answer_that_is_none_is_a_question_mark(answer: dict[str, Any]) -> None:
    assert drawn(answer, SCENE).words == "?"


def test_names_in_answers_are_text(mobilenet: Report) -> None:
    evil = '"><script>alert(1)</script>'
    html = page(with_strip(mobilenet, "classification", (evil,) * 4), evil)
    checked(html)
    assert "<script" not in html


@pytest.mark.parametrize("kind", ANSWERS)
def test_the_page_shows_inputs_and_is_small(mobilenet: Report, kind: str) -> None:
    report = with_strip(mobilenet, kind)
    html = page(Report.model_validate_json(report.to_json()), "run")
    text = checked(html).text
    assert '<section id="inputs">' in html
    assert html.count("picture_00") == 24
    assert "8 of 500 answers changed" in text
    assert WORDS[kind][0] in text
    assert (html.count("<img") == 48) == (kind in ("detection", "segmentation", "keypoints"))
    assert len(html.encode()) < 3_000_000
    assert ('<section id="classes">' in html) == (kind == "classification")


def test_a_full_strip_stays_below_three_megabytes(mobilenet: Report) -> None:
    report = with_strip(mobilenet, "detection")
    assert report.strip is not None
    boxes = {"boxes": [[1.5, 2.5, 30.5, 40.5]] * 60, "scores": [0.5] * 60, "classes": [1] * 60}
    large = [
        one.model_copy(update={"picture": "A" * 16_000, "before": boxes, "after": boxes})
        for one in report.strip.inputs
    ]
    strip = report.strip.model_copy(update={"inputs": tuple(large)})
    assert len(page(report.model_copy(update={"strip": strip}), "run").encode()) < 3_000_000


def test_changed_answers_come_first(mobilenet: Report) -> None:
    groups = groups_of(with_strip(mobilenet, "detection"))
    assert [group.title for group in groups] == ["Answer changed", "Largest error", "Typical"]
    assert all(one.is_drawn for group in groups for one in group.inputs)


def test_classes_that_lost_come_first(mobilenet: Report) -> None:
    html = page(with_strip(mobilenet, "classification"), "run")
    assert re.findall(r">class no\. (\d+)<", html) == [str(label) for label in reversed(range(22))]
    assert "2 more classes" in checked(html).text


def test_accuracy_along_the_pipeline_is_what_was_measured(mobilenet: Report) -> None:
    assert along(mobilenet) == ()
    assert '<section id="along">' not in page(mobilenet)
    report = with_strip(mobilenet, "classification")
    rows = along(report)
    assert [row.name for row in rows] == [run.name for run in report.passes]
    assert [row.text for row in rows][:3] == ["100.0%", "99.0%", "98.0%"]
    assert rows[1].change == "−1.0 points"
    assert rows[1].bad
    assert along_words(report).endswith("on 64 inputs (too few to judge small changes by)")
    one = report.passes[0].model_copy(update={"quality": None})
    assert one.name not in [
        row.name for row in along(report.model_copy(update={"passes": (one, *report.passes[1:])}))
    ]


def test_estimated_times_are_no_measured_points(estimated: Report) -> None:
    html = page(estimated)
    assert "Measured points only" in html
    assert "latency, ms" not in html
    assert "file size, MB" in html


def test_few_inputs_are_said() -> None:
    assert "too few" in certainty(Quality(images=29))
    assert certainty(Quality(images=30)) == ""
    assert "no data" in certainty(None)


def test_the_next_command_has_the_run_s_paths(mobilenet: Report, estimated: Report) -> None:
    preprocess = {"mean": [1.0], "scale": 1 / 127.5, "crop": [224, 320], "channels": "bgr"}
    recipe = {"model": {"path": "../nets/m.onnx"}, "data": {"path": "../data"}, "preprocess": preprocess}
    report = mobilenet.model_copy(update={"recipe": recipe})
    commands = [step.command for step in following(report, "my run")]
    assert commands[0].startswith("edgec verify nets/m.onnx 'my run/model.int8")
    assert (
        "--data data --mean 1 --scale 0.00784313725 --crop 224x320 --channels bgr --samples 32" in commands[0]
    )
    assert commands[-1] == "edgec deploy 'my run' -o 'my run-bundle'"
    assert "--device ssh://user@board" in following(estimated, "r")[-1].command
    assert following(report, "") == ()


def test_a_source_of_another_input_size_is_not_to_be_compared(mobilenet: Report) -> None:
    recipe = {"model": {"path": "../nets/m.onnx"}, "data": {"path": "../data"}}
    smaller = mobilenet.passes[0].model_copy(update={"name": "resize-input"})
    report = mobilenet.model_copy(update={"recipe": recipe, "passes": (smaller, *mobilenet.passes)})
    assert not any("verify" in step.command for step in following(report, "run"))


@pytest.mark.parametrize("section", [{"mean": "grey"}, {"brightness": 2}, [1.0]])
def test_a_preparation_that_is_none_makes_no_command(mobilenet: Report, section: object) -> None:
    recipe = {"model": {"path": "../nets/m.onnx"}, "data": {"path": "../data"}, "preprocess": section}
    report = mobilenet.model_copy(update={"recipe": recipe})
    assert not any("verify" in step.command for step in following(report, "run"))


def test_memory_and_links(mobilenet: Report) -> None:
    html = page(mobilenet, "run")
    assert "96 MiB of memory while running" in html
    for artifact in mobilenet.artifacts:
        assert f'href="./{artifact.path}"' in html
    assert 'href="./report.json"' in html
