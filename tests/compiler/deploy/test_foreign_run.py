"""Run folders from anybody: another version's are refused by name, damaged ones in one sentence, and nothing outside is touched."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgec.compiler.cli import main
from edgec.compiler.deploy.bundle import DeployOptions, make_bundle
from edgec.graph.errors import EdgecError
from edgec.runtime.report import read, write

Command = Callable[..., tuple[int, str]]


@pytest.fixture
def foreign(run: Path, tmp_path: Path) -> Path:
    """A copy of a run that a test may spoil."""
    return Path(shutil.copytree(run, tmp_path / "foreign", ignore=shutil.ignore_patterns(".cache")))


@pytest.fixture
def edgec(monkeypatch: pytest.MonkeyPatch, capsys: Any, tmp_path: Path) -> Command:
    def call(*words: object) -> tuple[int, str]:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["edgec", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            main()
        done = capsys.readouterr()
        return int(end.value.code or 0), done.err

    return call


def change(run: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    report = json.loads((run / "report.json").read_text())
    edit(report)
    (run / "report.json").write_text(json.dumps(report))


def commands(run: Path) -> list[tuple[object, ...]]:
    return [("report", run), ("deploy", run, "-o", run.parent / "out"), ("bench", run)]


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        (2, "made by edgec 9.8, schema 2"),
        (0, "made by edgec 9.8, schema 0"),
        (10**18, "schema 1000000000000000000"),
        ("1", "schema: not a number, '1'"),
        (True, "schema: not a number"),
        (None, "not a report of edgec"),
    ],
)
@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_run_of_another_version_is_refused_by_name(
    foreign: Path, edgec: Command, schema: Any, said: str, which: int
) -> None:
    change(foreign, lambda report: report.update(schema=schema, edgec="9.8"))
    code, text = edgec(*commands(foreign)[which])
    assert code == 3
    assert said in text
    assert "Traceback" not in text
    if type(schema) is int:
        assert "reads schema 1" in text


def _sparse(path: Path) -> None:
    path.unlink()
    with path.open("wb") as file:
        file.truncate(2**34)


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _outside(path: Path) -> None:
    elsewhere = path.parent.parent / "elsewhere"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)


def _circle(path: Path) -> None:
    path.unlink()
    path.symlink_to(path)


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _text(text: str | bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(text if isinstance(text, bytes) else text.encode())


DAMAGE: dict[str, Callable[[Path], object]] = {
    "gone": Path.unlink, "huge": _sparse, "a pipe": _pipe, "a link out": _outside, "a circle": _circle, "a folder": _folder,
    "empty": _text(""), "no text": _text(b"\xff\xfe\x00"), "cut": _text('{"schema": 1, "ed'), "a list": _text("[1]"),
    "deep": _text('{"schema": 1, "a": ' + "[" * 5000 + "]" * 5000 + "}"), "keys missing": _text('{"schema": 1}'),
}  # fmt: skip


@pytest.mark.parametrize("how", DAMAGE)
@pytest.mark.parametrize("file", ["report.json", "recipe.yaml", "model.int8.onnx"])
def test_a_damaged_file_is_one_sentence(foreign: Path, edgec: Command, file: str, how: str) -> None:
    DAMAGE[how](foreign / file)
    code, said = edgec("deploy", foreign, "-o", "out")
    assert code == 3, said
    assert file in said
    assert said.count("\n") <= 2
    assert "Traceback" not in said
    assert not (foreign.parent / "out").exists()
    assert not (foreign.parent / "out.part").exists()


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "9" * 40, "9" * 6000])
def test_a_figure_that_is_none(foreign: Path, edgec: Command, number: str) -> None:
    text = (foreign / "report.json").read_text()
    change(foreign, lambda report: report.update(seconds="HERE"))
    text = (foreign / "report.json").read_text().replace('"HERE"', number)
    (foreign / "report.json").write_text(text)
    code, said = edgec("report", foreign)
    assert code == 3
    assert "damaged report" in said


@pytest.mark.parametrize(
    "path", ["../secret.onnx", "/etc/passwd", "a/../../secret.onnx", "..", "", "C:\\x.onnx", 7, None, "a\0b"]
)
def test_an_artifact_outside_is_refused(foreign: Path, edgec: Command, path: Any) -> None:
    (foreign.parent / "secret.onnx").write_bytes((foreign / "model.onnx").read_bytes())
    change(foreign, lambda report: report["artifacts"][0].update(path=path))
    for words in commands(foreign)[1:]:
        code, said = edgec(*words)
        assert code == 3, said
        assert "Traceback" not in said
    assert not (foreign.parent / "out").exists()


@pytest.mark.parametrize(
    "name",
    [
        "run.py",
        "install.sh",
        "two words.onnx",
        "-n.onnx",
        "a\nb.onnx",
        "a;b.onnx",
        "$(id).onnx",
        ".onnx",
        "é.onnx",
    ],
)
def test_an_artifact_with_a_name_that_is_more_than_a_name_is_not_packed(
    foreign: Path, edgec: Command, name: str
) -> None:
    shutil.copyfile(foreign / "model.onnx", foreign / name)
    change(
        foreign,
        lambda report: [a.update(path=name) for a in report["artifacts"] if a["path"] == "model.onnx"],
    )
    code, said = edgec("deploy", foreign, "-o", "out")
    assert code == 3, said
    assert "an artifact named" in said
    assert not (foreign.parent / "out").exists()


def test_two_artifacts_of_one_name(foreign: Path, edgec: Command) -> None:
    (foreign / "sub").mkdir()
    shutil.copyfile(foreign / "model.onnx", foreign / "sub" / "model.onnx")
    change(
        foreign,
        lambda report: [
            a.update(path="sub/model.onnx") for a in report["artifacts"] if a["path"] == "model.int8.onnx"
        ],
    )
    code, said = edgec("deploy", foreign, "-o", "out")
    assert code == 3
    assert "two artifacts of one name" in said


def test_a_link_that_stays_inside_is_followed(foreign: Path) -> None:
    (foreign / "model.onnx").rename(foreign / "kept.bin")
    (foreign / "model.onnx").symlink_to("kept.bin")
    made = make_bundle(foreign, foreign.parent / "out", DeployOptions(artifacts=("model.onnx",)))
    assert not (made.path / "model.onnx").is_symlink()


def test_another_content_is_refused_for_a_bench_too(foreign: Path, edgec: Command) -> None:
    content = bytearray((foreign / "model.onnx").read_bytes())
    content[-1] ^= 1
    (foreign / "model.onnx").write_bytes(content)
    code, said = edgec("bench", foreign)
    assert code == 3
    assert "not the one of the report" in said


def test_a_target_that_is_a_path_is_not_read(foreign: Path, edgec: Command) -> None:
    (foreign.parent / "mine.yaml").write_text("name: mine")
    change(foreign, lambda report: report.update(target=str(foreign.parent / "mine.yaml")))
    code, said = edgec("deploy", foreign, "-o", "out")
    assert code == 3
    assert "--target" in said


@pytest.mark.parametrize("name", [".report.json.part", ".report.html.part", "report.json", "report.html"])
def test_writing_into_a_foreign_run_follows_no_link(foreign: Path, name: str) -> None:
    victim = foreign.parent / "victim"
    victim.write_text("precious")
    report = read(foreign)
    (foreign / name).unlink(missing_ok=True)
    (foreign / name).symlink_to(victim)
    if name.endswith(".part"):
        with pytest.raises(EdgecError, match="symbolic link"):
            write(foreign, report)
    else:
        write(foreign, report)
    assert victim.read_text() == "precious"
    assert read(foreign) == report


@pytest.mark.parametrize("how", ["a link", "a file", "part is a link"])
def test_a_bundle_goes_to_a_folder(foreign: Path, edgec: Command, how: str) -> None:
    out = foreign.parent / "out"
    elsewhere = foreign.parent / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "thesis.txt").write_text("precious")
    if how == "a file":
        out.write_text("precious")
    else:
        (out if how == "a link" else out.with_name("out.part")).symlink_to(elsewhere)
    code, said = edgec("deploy", foreign, "-o", "out", "--artifact", "model.onnx")
    assert code == (0 if how == "part is a link" else 2), said
    assert (elsewhere / "thesis.txt").read_text() == "precious"
    assert [path.name for path in elsewhere.iterdir()] == ["thesis.txt"]


def test_words_of_a_foreign_report_are_text(
    foreign: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    spoilt = "\x1b[31m[bold]\x07<script>\u202e"

    def edit(report: dict[str, Any]) -> None:
        report["model"]["name"] = report["target_title"] = spoilt
        report["warnings"] = [spoilt, "two\nlines"]
        report["artifacts"][0]["latency"] = {
            "measured": True, "median_ms": 1.0, "device": spoilt, "runtime": spoilt, "valid": False, "invalid": [spoilt],
        }  # fmt: skip

    change(foreign, edit)
    for form in ((), ("--md",), ("--csv",), ("--json",)):
        monkeypatch.setattr(sys, "argv", ["edgec", "report", str(foreign), *form])
        with pytest.raises(SystemExit) as end:
            main()
        said = capsys.readouterr().out
        assert not end.value.code
        assert said.replace("\n", "").isprintable()
    page = foreign.parent / "page.html"
    monkeypatch.setattr(sys, "argv", ["edgec", "report", str(foreign), "-o", str(page)])
    with pytest.raises(SystemExit):
        main()
    text = page.read_text(encoding="utf-8")
    assert "<script>" not in text
    assert "\x1b" not in text
    assert "&lt;script&gt;" in text
    made = make_bundle(foreign, foreign.parent / "out", DeployOptions(artifacts=("model.onnx",)))
    readme = (made.path / "README.md").read_text(encoding="utf-8")
    assert "\\<script\\>" in readme
    assert readme.replace("\n", "").isprintable()
