"""report.json names the artifact that its headline speaks of, whatever the run was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx
import pytest

from edgec.compiler.driver import compile_recipe
from edgec.compiler.pipeline.workspace import Settings
from edgec.compiler.read.recipe import Recipe
from edgec.graph.errors import DeviceError
from edgec.runtime.report import read
from edgec.runtime.report.facts import headline_artifact
from tests.compiler.conftest import write_files
from tests.conftest import parse

CUT = 'net (float[N,3,8,8] x) => (float[N,4,8,8] y) <float[4,3,1,1] w> { t = Conv(x, w)  y = Einsum<equation="nchw->nchw">(t) }'
INT8 = {"precision": "int8", "passes": ["quantize{correct=none}"]}
DATA = {"path": "calib.npz"}
KINDS: dict[str, tuple[dict[str, Any], str]] = {
    "no data": ({}, "model.onnx"),
    "fp32 and data": ({"data": DATA}, "model.onnx"),
    "tflite only": ({"formats": ["tflite"]}, "model.tflite"),
    "fp16": ({"precision": "fp16", "formats": ["tflite", "onnx"]}, "model.fp16.onnx"),
    "int8": ({"data": DATA, **INT8}, "model.int8.onnx"),
    "int8 in both formats": ({"data": DATA, "formats": ["onnx", "tflite"], **INT8}, "model.int8.onnx"),
    "int8 made and not asked for": ({"data": DATA, "passes": ["quantize{correct=none}"]}, "model.int8.onnx"),
    "evaluation only": ({"eval": {"path": "eval.npz"}}, "model.onnx"),
    "a target of another engine": ({"target": "rpi4", "formats": ["onnx", "tflite"], "data": DATA, **INT8}, "estimated"),
    "a latency budget": (
        {"target": "rpi4", "formats": ["tflite", "onnx"], "data": DATA, "passes": ["prune-channels{latency=90%}"]}, "model.tflite",
    ),
    "noise": ({"data": {"path": "random", "samples": 8}}, "model.onnx"),
}  # fmt: skip


def run(folder: Path, values: dict[str, Any], *, measure: bool = False) -> dict[str, Any]:
    recipe = Recipe.model_validate({"model": {"path": str(folder / "net.onnx")}, "threads": 1, **values})
    compile_recipe(recipe, Settings(folder / "out", measure=measure))
    found: dict[str, Any] = json.loads((folder / "out" / "report.json").read_text())
    return found


def check(folder: Path, report: dict[str, Any]) -> None:
    """What is named is there, and the page and the terminal speak of the same."""
    assert report["headline"] in [one["path"] for one in report["artifacts"]]
    assert (folder / "out" / report["headline"]).is_file()
    if (
        "strip" in report and report["strip"] is not None
    ):  # its answers are those of a graph, run as the ONNX file is
        of = [
            one["path"]
            for one in report["artifacts"]
            if one["precision"] == report["artifacts"][-1]["precision"]
        ]
        assert report["strip"]["artifact"] == next((path for path in of if path.endswith(".onnx")), of[0])
    shown = headline_artifact(read(folder / "out"))
    assert shown is not None
    assert shown.path == report["headline"]


@pytest.mark.parametrize("kind", KINDS)
def test_the_headline_is_named(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    values, expected = KINDS[kind]
    report = run(tmp_path, values)
    check(tmp_path, report)
    if expected == "estimated":
        times = {
            one["path"]: one["latency"]["median_ms"]
            for one in report["artifacts"]
            if one["precision"] == "int8"
        }
        assert len(times) == 2
        expected = min(times, key=lambda name: times[name])
    assert report["headline"] == expected


def test_a_network_cut_for_tflite(tmp_path: Path) -> None:
    onnx.save(parse(CUT), tmp_path / "net.onnx")
    report = run(tmp_path, {"formats": ["tflite", "onnx"], "split_unsupported": True})
    assert any("the TFLite files end at" in one for one in report["warnings"])
    check(tmp_path, report)


def test_a_measurement_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise DeviceError("no way")

    monkeypatch.setattr("edgec.runtime.bench.compare", fail)
    write_files(tmp_path)
    report = run(tmp_path, {}, measure=True)
    assert any("latency was not measured" in one for one in report["warnings"])
    check(tmp_path, report)
    assert report["headline"] == "model.onnx"
