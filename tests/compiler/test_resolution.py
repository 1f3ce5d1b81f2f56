"""`--resolution`: by hand and by itself, from the command to the bundle."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from PIL import Image

import edgec
from edgec.compiler.deploy.bundle import DeployOptions, make_bundle
from edgec.compiler.read.asked import resolve_passes
from edgec.compiler.read.recipe import make_recipe
from edgec.graph.errors import UsageError
from edgec.graph.execute import session
from edgec.graph.load import load
from edgec.graph.preprocess import Preprocess
from edgec.graph.resolution.resize import size_of
from tests.conftest import parse
from tests.graph.test_data_sizes import scene

NET = (
    "net (float[N,3,32,32] x) => (float[N,10] y) "
    "<float[8,3,3,3] w1, float[8] b1, float[16,8,3,3] w2, float[16] b2, float[16,16,3,3] w3, float[10,16] g>"
    "{ t = Conv<pads=[1,1,1,1]>(x, w1, b1)  r = Relu(t)  u = Conv<pads=[1,1,1,1], strides=[2,2]>(r, w2, b2)  s = Relu(u)"
    "  v = Conv<pads=[1,1,1,1], strides=[2,2]>(s, w3) z = Relu(v) "
    "  p = GlobalAveragePool(z)  f = Flatten(p)  y = Gemm<transB=1>(f, g) }"
)
FLAT = NET.replace("p = GlobalAveragePool(z)  f = Flatten(p)", "f = Flatten(z)").replace(
    "[10,16] g", "[10,1024] g"
)
STEPS: dict[str, Any] = {"resize": (40,), "crop": (32, 32), "scale": 1 / 255, "mean": (0.45,), "std": (0.25,)}


def pictures(folder: Path, count: int = 40) -> Path:
    folder.mkdir()
    for index in range(count):
        Image.fromarray(scene(48 + index % 7, 60 - index % 5, index)).save(folder / f"{index:03}.png")
    return folder


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("resolution")
    for name, text in (("net", NET), ("flat", FLAT)):
        model = parse(text)
        for key, value in (
            ("names", "{0: 'a'}"),
            ("stride", "4"),
            ("task", "classify"),
            ("imgsz", "[32, 32]"),
            ("own", "1"),
        ):
            model.metadata_props.add(key=key, value=value)
        onnx.save(model, folder / f"{name}.onnx")
    pictures(folder / "pictures")
    return folder


def compiled(here: Path, out: Path, **options: Any) -> edgec.Report:
    given = {
        "data": here / "pictures",
        "preprocess": STEPS,
        "measure": False,
        "quiet": True,
        "threads": 1,
        **options,
    }
    return edgec.compile(here / "net.onnx", out, **given)


@pytest.fixture(scope="module")
def run(here: Path) -> Path:
    """At 24 px, four artifacts."""
    compiled(here, here / "run", resolution=24, precision="int8", formats=("onnx", "tflite"))
    return here / "run"


def test_the_report_says_it(run: Path) -> None:
    found = json.loads((run / "report.json").read_text())
    assert found["resolution"]["source"] == [32, 32]
    assert found["resolution"]["size"] == [24, 24]
    assert found["model"]["inputs"][0]["shape"] == [3, 32, 32]
    assert found["resolution"]["inputs"][0]["shape"] == [3, 24, 24]
    assert found["quality"]["teacher"]["agreement"] == 1
    assert 0 < found["quality"]["float"]["agreement"] <= 1
    assert 5 < found["quality"]["float"]["sqnr_db"] < 100
    assert "32 → 24 px" in (run / "report.html").read_text() or "24 px" in (run / "report.html").read_text()
    recipe = (run / "recipe.yaml").read_text()
    assert "resolution: '24'" in recipe
    assert "resize-input" in recipe


def test_the_files_say_it(run: Path) -> None:
    for name in ("model.onnx", "model.int8.onnx"):
        model = onnx.load(run / name)
        said = {one.key: one.value for one in model.metadata_props}
        assert said["imgsz"] == "[24, 24]"
        assert said["own"] == "1"
        steps = json.loads(said["edgec.preprocess"])
        assert steps["crop"] == [24, 24]
        assert steps["resize"] == [30]
        assert [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim][2:] == [24, 24]


def test_the_recipe_makes_it_again(run: Path, here: Path) -> None:
    recipe = edgec.Recipe.model_validate(edgec_recipe(run / "recipe.yaml"))
    edgec.compile(recipe, here / "again", measure=False, quiet=True)
    for name in ("model.onnx", "model.int8.onnx", "model.tflite", "model.int8.tflite"):
        assert (here / "again" / name).read_bytes() == (run / name).read_bytes()


def edgec_recipe(path: Path) -> dict[str, Any]:
    from edgec.compiler.read.recipe import read_recipe

    return read_recipe(path).model_dump()


def python(folder: Path, *words: str) -> str:
    command = [sys.executable, *words]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_bundle_answers_on_a_picture_of_any_size_what_the_host_does(run: Path, here: Path) -> None:
    """Bit for bit: prepared here and there by the same steps, from the picture as it is."""
    made = make_bundle(run, here / "bundle", DeployOptions())
    picture = here / "pictures" / "003.png"
    steps = Preprocess(**STEPS).at((32, 32), (24, 24))
    with Image.open(picture) as image:
        x = np.moveaxis(steps.normalise(steps.picture(image)), -1, 0)[None]
    for name in ("model.int8.onnx", "model.onnx"):
        line = python(made.path, "run.py", str(picture), "--json", "--raw", "--artifact", name)
        told = next(iter(json.loads(line)["outputs"].values()))
        host = session((run / name).read_bytes()).run(None, {"x": x})[0]
        np.testing.assert_array_equal(np.asarray(told, np.float32).ravel(), host.ravel())
    found = json.loads(python(made.path, "selftest.py", "--json"))
    assert found["passed"]
    assert json.loads((made.path / "bundle.json").read_text())["inputs"][0]["shape"] == [3, 24, 24]
    assert "calibration samples" in (made.path / "README.md").read_text()


def test_a_crop_alone_is_the_same_here_and_on_the_device(here: Path, tmp_path: Path) -> None:
    steps = {"crop": (32, 32), "scale": 1 / 255}
    compiled(here, tmp_path / "run", resolution="16x24", preprocess=steps)
    made = make_bundle(tmp_path / "run", tmp_path / "bundle", DeployOptions())
    picture = here / "pictures" / "004.png"
    own = Preprocess(**steps).at((32, 32), (16, 24))
    with Image.open(picture) as image:
        x = np.moveaxis(own.normalise(own.picture(image)), -1, 0)[None]
    line = python(made.path, "run.py", str(picture), "--json", "--raw")
    host = session((tmp_path / "run" / "model.onnx").read_bytes()).run(None, {"x": x})[0]
    np.testing.assert_array_equal(next(iter(json.loads(line)["outputs"].values()))[0], host[0])


def test_by_itself_it_meets_the_budget_and_is_never_worse(here: Path, tmp_path: Path) -> None:
    report = compiled(here, tmp_path / "auto", resolution="auto", budget="macs=45%")
    found = json.loads((tmp_path / "auto" / "report.json").read_text())
    points = {tuple(one["size"]): one for one in found["resolution"]["points"]}
    kept, chosen = points[32, 32], points[tuple(found["resolution"]["size"])]
    assert kept["loss"] is not None
    assert chosen["loss"] <= kept["loss"]
    assert min(one["alone"] for size, one in points.items() if size != (32, 32)) > 0
    assert report.passed
    assert found["compressed"]["macs"] <= 0.455 * found["model"]["macs"]
    tried = [one for one in points.values() if one["loss"] is not None]
    assert 1 <= len(tried) <= 4
    said = [line for line in found["warnings"] if line.startswith("resolution:")]
    assert len(said) == 1
    assert size_of(load(tmp_path / "auto" / "model.onnx")) == tuple(found["resolution"]["size"])


def test_a_latency_budget_is_priced_by_the_targets_own_model(here: Path, tmp_path: Path) -> None:
    compiled(here, tmp_path / "run", resolution="auto", budget="latency=60%", target="rpi4")
    found = json.loads((tmp_path / "run" / "report.json").read_text())
    points = [one for one in found["resolution"]["points"] if one["alone"] is not None]
    areas = [one["size"][0] ** 2 / 32**2 for one in points]
    assert any(abs(one["share"] - area) > 0.02 for one, area in zip(points, areas, strict=True))
    assert [one["share"] for one in points] == sorted((one["share"] for one in points), reverse=True)
    kept = next(one for one in points if one["size"] == [32, 32])
    chosen = next(one for one in points if one["size"] == found["resolution"]["size"])
    assert chosen["loss"] <= kept["loss"]
    assert found["gates"][0]["passed"]


@pytest.mark.slow
def test_kept_it_is_the_same_file_as_without(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgec.compiler.search.trials.CLEARLY", 1e9)
    compiled(here, tmp_path / "auto", resolution="auto", budget="macs=70%")
    compiled(here, tmp_path / "keep", budget="macs=70%")
    assert (tmp_path / "auto" / "model.onnx").read_bytes() == (tmp_path / "keep" / "model.onnx").read_bytes()
    assert "resolution: keep" in (tmp_path / "auto" / "recipe.yaml").read_text()


@pytest.mark.parametrize("budget", ["params=60%", "size=60%"])
def test_what_it_cannot_save_is_not_tried(here: Path, tmp_path: Path, budget: str) -> None:
    compiled(here, tmp_path / "run", resolution="auto", budget=budget)
    found = json.loads((tmp_path / "run" / "report.json").read_text())
    assert found["resolution"] is None
    assert any("saves nothing" in line for line in found["warnings"])


def test_a_network_that_has_one_size_only_keeps_it(here: Path, tmp_path: Path) -> None:
    given = {"data": here / "pictures", "preprocess": STEPS, "measure": False, "quiet": True}
    with pytest.raises(edgec.EdgecError, match="a flattened map"):
        edgec.compile(here / "flat.onnx", tmp_path / "a", resolution=24, **given)
    assert not (tmp_path / "a" / "report.json").exists()
    edgec.compile(here / "flat.onnx", tmp_path / "b", resolution="auto", budget="macs=80%", **given)
    found = json.loads((tmp_path / "b" / "report.json").read_text())
    assert found["resolution"] is None
    assert any(
        "keeps its size" in line and "a flattened map: 16 x 8 x 8" in line for line in found["warnings"]
    )


def test_a_larger_size_is_made_by_hand_only(here: Path, tmp_path: Path) -> None:
    compiled(here, tmp_path / "run", resolution="48")
    assert size_of(load(tmp_path / "run" / "model.onnx")) == (48, 48)


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"resolution": "auto"}, "takes part in a budget"),
        ({"resolution": "half"}, "keep, auto, or"),
        ({"resolution": "24", "passes": ["resize-input{size=16}"]}, "disagree"),
    ],
)
def test_what_makes_no_sense_is_said_before_anything_is_read(given: dict[str, Any], why: str) -> None:
    with pytest.raises(UsageError, match=why):
        resolve_passes(make_recipe({"model": {"path": "none.onnx"}, **given}))
