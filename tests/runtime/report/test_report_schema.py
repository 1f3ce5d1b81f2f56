from __future__ import annotations

import json
import math
import os
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from edgec.graph.errors import DataError, EdgecError
from edgec.runtime.report import read, write
from edgec.runtime.report.schema import IDENTICAL_DB, Artifact, Layer, PassRun, Quality, Report


def test_write_then_read_gives_the_same_report(tmp_path: Path, mobilenet: Report) -> None:
    write(tmp_path, mobilenet)
    assert read(tmp_path) == mobilenet
    assert read(tmp_path / "report.json") == mobilenet
    assert sorted(file.name for file in tmp_path.iterdir()) == ["report.html", "report.json"]


def test_every_key_is_in_the_docs() -> None:
    text = (Path(__file__).resolve().parents[3] / "docs" / "report.md").read_text(encoding="utf-8")
    table = text.partition("## report.json")[2].partition("Units:")[0]
    named = {word for quoted in re.findall(r"`([^`]+)`", table) for word in re.findall(r"\w+", quoted)}
    keys = {field.alias or name for name, field in Report.model_fields.items()} - {"schema"}
    assert keys | set(PassRun.model_fields) | set(Quality.model_fields) <= named


def test_the_page_is_named_after_the_run_not_its_workshop(tmp_path: Path, minimal: Report) -> None:
    part = tmp_path / "digits-50" / ".part"
    part.mkdir(parents=True)
    write(part, minimal)
    assert "run <b>digits-50</b>" in (part / "report.html").read_text(encoding="utf-8")
    write(part, minimal, name="other")
    assert "run <b>other</b>" in (part / "report.html").read_text(encoding="utf-8")


def test_json_has_the_keys_that_scripts_rely_on(mobilenet: Report) -> None:
    report = json.loads(mobilenet.to_json())
    assert report["schema"] == 1
    assert set(report) >= {"edgec", "model", "target", "compressed", "quality", "artifacts"}
    assert set(report) >= {"passes", "gates", "seconds", "peak_rss_mb"}
    assert set(report["model"]) >= {"name", "sha256", "macs", "params", "bytes"}
    assert set(report["quality"]) == {"teacher", "float", "int8"}
    assert set(report["quality"]["int8"]) >= {"top1", "agreement", "sqnr_db", "kl", "cosine", "images"}
    assert set(report["artifacts"][0]) >= {
        "path",
        "format",
        "precision",
        "bytes",
        "sha256",
        "quality",
        "latency",
    }
    assert set(report["passes"][0]) >= {"name", "seconds", "peak_rss_mb", "notes"}


def test_numpy_and_infinite_figures_become_json() -> None:
    run = PassRun(
        name="x", data={"a": np.float32(0.5), "b": np.arange(2), "c": (math.inf, np.int64(3)), "d": Path("p")}
    )
    assert run.data == {"a": 0.5, "b": [0, 1], "c": [None, 3], "d": "p"}
    quality = Quality(images=np.int64(5), top1=np.float32(0.5), sqnr_db=math.inf, kl=math.nan)
    assert (quality.images, quality.top1, quality.sqnr_db, quality.kl) == (5, 0.5, IDENTICAL_DB, None)
    assert Layer(name="a", op="Conv", sqnr_db=-math.inf).sqnr_db is None
    assert Layer(name="a", op="Conv", sqnr_db=np.float64(-3.0)).sqnr_db == -3.0


@given(
    st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists, max_leaves=8)
)
def test_any_pass_data_survives_json(value: object) -> None:
    run = PassRun(name="x", data={"v": value})
    assert PassRun.model_validate_json(run.model_dump_json()) == run


@pytest.mark.parametrize("path", ["/elsewhere/model.onnx", "../model.onnx", "C:\\model.onnx", ""])
def test_artifacts_stay_inside_the_run_folder(path: str) -> None:
    with pytest.raises(ValidationError, match="not a path inside"):
        Artifact(path=path, format="onnx", precision="fp32", bytes=1, sha256="")


def test_unknown_keys_are_errors() -> None:
    with pytest.raises(ValidationError, match="Extra inputs"):
        Quality.model_validate({"images": 1, "top5": 0.9})


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "line 1"),
        ('{"schema": 1,\n', "line 2"),
        ("[]", "not a report"),
        ('{"schema": 2, "edgec": "9.0"}', "reads schema 1"),
        ('{"schema": 1, "edgec": "0.1.0"}', "model: Field required"),
    ],
)
def test_damaged_reports_say_where(tmp_path: Path, text: str, why: str) -> None:
    (tmp_path / "report.json").write_text(text)
    with pytest.raises(DataError, match=why) as caught:
        read(tmp_path)
    assert "report.json" in str(caught.value)


def test_missing_report(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no report"):
        read(tmp_path)
    with pytest.raises(DataError, match="no report"):
        read(tmp_path / "nowhere")


def test_a_failed_write_leaves_the_old_report(
    tmp_path: Path, minimal: Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, minimal)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        EdgecError, match=r"report.json: cannot write: the disk is full \(\d+ B needed, .* free\)"
    ):
        write(tmp_path, minimal.model_copy(update={"seconds": 9.0}))
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before
