"""Runs and recipes that edgec 0.1 wrote (commit b8299f4), still opened and run. ``runs_0_1/`` holds them as they were written:
a budget with int8 and a gate, passes by name with their old options, and fp16 for a named target."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import edgec as face

RUNS = Path(__file__).parent / "runs_0_1"
NAMES = ("budget", "passes", "target")


@pytest.mark.parametrize("name", NAMES)
def test_a_run_opens_with_all_its_figures(name: str, edgec, tmp_path: Path) -> None:
    old = json.loads((RUNS / name / "report.json").read_text())
    assert old["edgec"] == "0.1.0"
    report = face.Report.open(RUNS / name)
    assert report.compressed.macs == old["compressed"]["macs"]
    assert [one.path for one in report.artifacts] == [one["path"] for one in old["artifacts"]]
    assert [one.name for one in report.passes] == [one["name"] for one in old["passes"]]
    assert set(report.quality) == set(old["quality"])
    for form in ([], ["--layers"], ["--md"], ["--csv"], ["-o", str(tmp_path / "page.html")]):
        code, out, err = edgec("report", str(RUNS / name), *form)
        assert code == 0, err
        assert form[:1] == ["-o"] or old["artifacts"][-1]["path"] in out or form
    code, out, _ = edgec("report", str(RUNS / name), "--json")
    assert lost(old, json.loads(out)) == []


def lost(old: object, new: object, at: str = "") -> list[str]:
    """Where ``new`` lacks something that ``old`` says, or says something else."""
    if isinstance(old, dict) and isinstance(new, dict):
        return [
            path
            for key, value in old.items()
            for path in ([f"{at}.{key}"] if key not in new else lost(value, new[key], f"{at}.{key}"))
        ]
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return [
            path for i, (a, b) in enumerate(zip(old, new, strict=True)) for path in lost(a, b, f"{at}[{i}]")
        ]
    return [] if old == new else [at]


def test_old_runs_are_compared_with_each_other(edgec) -> None:
    code, out, err = edgec("report", *(str(RUNS / name) for name in NAMES))
    assert code == 0, err
    assert all(name in out for name in NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_runs_and_says_what_is_called_otherwise_now(name: str, edgec, tmp_path: Path) -> None:
    """Its own model and data, its passes and their options; every old name is warned of once."""
    old = json.loads((RUNS / name / "report.json").read_text())
    code, _, err = edgec(
        "compile", "--recipe", str(RUNS / name / "recipe.yaml"), "-o", str(tmp_path / "out"), "--no-bench"
    )
    assert code == 0, err
    report = face.Report.open(tmp_path / "out")
    assert [one.path for one in report.artifacts] == [one["path"] for one in old["artifacts"]]
    assert [one.name for one in report.passes] == [one["name"] for one in old["passes"]]
    written = (RUNS / name / "recipe.yaml").read_text()
    for before, now in (("lam", "ridge"), ("flips", "hflip"), ("blend", "mixup"), ("damage", "sensitivity")):
        assert err.count(f"{before}= is called {now}=") == (f"    {before}:" in written), err
    again = (tmp_path / "out" / "recipe.yaml").read_text()
    assert "    lam:" not in again
    assert "    flips:" not in again
