"""A report whose every name is hostile is the same page, tag by tag, as one with plain names."""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path

import pytest

from edgec.graph.errors import DataError
from edgec.runtime.report import compare, page, plots, read, summary_lines
from edgec.runtime.report.schema import Report
from tests.hostile_names import HOSTILE, skeleton, steers


def renamed(report, pattern: str):
    """The report with every name, note and title replaced."""
    name = pattern.format
    update = {
        "model": report.model.model_copy(update={"name": name("model")}),
        "target_title": name("target"),
        "warnings": (name("warning"),),
        "layers": tuple(x.model_copy(update={"name": name(x.name), "op": name(x.op)}) for x in report.layers),
        "artifacts": tuple(
            a.model_copy(
                update={
                    "path": name(a.path),
                    "latency": a.latency
                    and a.latency.model_copy(update={"device": name("d"), "runtime": name("r")}),
                }
            )
            for a in report.artifacts
        ),
        "passes": tuple(
            run.model_copy(
                update={
                    "name": name(run.name),
                    "options": {name("key"): name("value")},
                    "notes": tuple(
                        n.model_copy(update={"text": name("note"), "node": name("node")}) for n in run.notes
                    ),
                }
            )
            for run in report.passes
        ),
        "environment": {name("key"): name("value")},
        "recipe": {name("key"): name("value")},
        "command": name("command"),
        "headline": name(report.headline) if report.headline else report.headline,
    }
    return report.model_copy(update=update)


def assert_same(hostile: str, tame: str) -> None:
    found, expected = skeleton(hostile), skeleton(tame)
    assert found.order == expected.order
    assert found.ends == expected.ends
    assert not any(steers(line) for line in hostile.replace("\t", " ").split("\n"))


@pytest.mark.parametrize("kind", HOSTILE)
def test_pages_have_the_same_skeleton_whatever_the_names(
    kind: str, mobilenet: Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plots, "available", lambda: False)
    evil, plain = renamed(mobilenet, HOSTILE[kind]), renamed(mobilenet, "plain-{}")
    name = HOSTILE[kind].format("run")
    assert_same(page(evil, name), page(plain, "run"))
    assert_same(compare([(name, evil), ("b", evil)]).html(), compare([("run", plain), ("b", plain)]).html())


@pytest.mark.skipif(not plots.available(), reason="plots need matplotlib")
def test_pictures_have_the_same_skeleton_whatever_the_names(mobilenet: Report) -> None:
    together = "".join(name.format("x")[:60] for name in HOSTILE.values())
    evil, plain = (
        renamed(mobilenet, together.replace("{", "{{").replace("}", "}}") + "{}"),
        renamed(mobilenet, "plain-{}"),
    )
    assert_same(page(evil), page(plain))
    points = [plots.Point(i + 1, i % 3, name.format("run")) for i, name in enumerate(HOSTILE.values())]
    tame = [plots.Point(point.x, point.y, "run") for point in points]
    assert_same(plots.scatter("a", points, "x", "y"), plots.scatter("a", tame, "x", "y"))


@pytest.mark.parametrize("kind", HOSTILE)
def test_tables_have_as_many_lines_and_cells_whatever_the_names(kind: str, mobilenet: Report) -> None:
    evil, plain = renamed(mobilenet, HOSTILE[kind]), renamed(mobilenet, "plain-{}")
    name = HOSTILE[kind].format("run")
    assert len(summary_lines(evil)) == len(summary_lines(plain))
    assert not any(steers(line) for line in summary_lines(evil))
    found, expected = compare([(name, evil)]), compare([("run", plain)])
    assert found.markdown().count("\n") == expected.markdown().count("\n")
    rows = list(csv.reader(io.StringIO(found.csv())))
    assert {len(row) for row in rows} == {len(rows[0])}
    assert len(rows) == len(list(csv.reader(io.StringIO(expected.csv()))))
    assert not any(cell[:1] in ("=", "+", "@") for row in rows for cell in row)


REPORTS = {
    "fifo": "not a regular file",
    "endless": "a link that leaves the run folder",
    "folder": "not a regular file",
    "deep": "damaged report",
    "digits": "damaged report",
    "latin-1": "cannot read the report",
    "other": "not a report of edgec",
    "list": "not a report of edgec",
}


@pytest.mark.parametrize("kind", REPORTS)
def test_what_is_no_report_is_refused(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    texts = {"deep": "[" * 200_000, "digits": "1" * 10_000, "other": "{}", "list": "[]"}
    if kind in texts:
        path.write_text(texts[kind])
    elif kind == "latin-1":
        path.write_bytes(b'{"schema": "\xe9"}')
    elif kind == "folder":
        path.mkdir()
    else:
        os.mkfifo(path) if kind == "fifo" else path.symlink_to("/dev/zero")
    with pytest.raises(DataError, match=REPORTS[kind]):
        read(tmp_path)
