"""`--portfolio`: forms of compression compared under one budget, and the one that loses least kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import edgec
from edgec.compiler.read.recipe import read_recipe
from edgec.graph.errors import UsageError
from tests.conftest import parse
from tests.graph.test_data_sizes import scene

RESIDUAL = (
    "net (float[N,3,16,16] x) => (float[N,10] y) "
    "<float[16,3,3,3] w1, float[16] b1, float[16,16,3,3] w2, float[16] b2, float[16,16,3,3] w3, float[16] b3, float[10,16] g>"
    "{ t = Conv<pads=[1,1,1,1]>(x, w1, b1)  r = Relu(t)  u = Conv<pads=[1,1,1,1]>(r, w2, b2)  s = Relu(u)"
    "  v = Conv<pads=[1,1,1,1]>(s, w3, b3)  a = Add(v, r)  z = Relu(a) "
    "  p = GlobalAveragePool(z)  f = Flatten(p)  y = Gemm<transB=1>(f, g) }"
)
PLAIN = RESIDUAL.replace("a = Add(v, r)  z = Relu(a)", "z = Relu(v)")


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("portfolio")
    for name, text in (("residual", RESIDUAL), ("plain", PLAIN)):
        onnx.save(parse(text), folder / f"{name}.onnx")
    pictures = np.stack([scene(16, 16, index) for index in range(48)]).astype(np.float32) / 255 - 0.5
    np.save(folder / "data.npy", np.moveaxis(pictures, -1, 1))
    return folder


def compiled(here: Path, name: str, out: str, **options: Any) -> dict[str, Any]:
    given = {
        "budget": "macs=60%",
        "portfolio": True,
        "measure": False,
        "quiet": True,
        "threads": 1,
        **options,
    }
    edgec.compile(here / f"{name}.onnx", here / out, data=here / "data.npy", **given)
    found = json.loads((here / out / "report.json").read_text())
    assert isinstance(found, dict)
    return found


@pytest.fixture(scope="module")
def run(here: Path) -> dict[str, Any]:
    return compiled(here, "residual", "run")


def test_what_is_taken_met_the_budget_and_lost_least(run: dict[str, Any]) -> None:
    found = run["portfolio"]
    points = found["points"]
    usual, taken = points[0], next(one for one in points if one["title"] == found["chosen"])
    assert [one["title"] for one in points[:3]] == [
        "channels and pieces",
        "channels and pieces by cost alone",
        "channels alone",
    ]
    assert all(one["loss"] is not None and one["met"] for one in points)
    assert all(one["macs"] <= 0.6 * run["model"]["macs"] for one in points)
    assert taken["loss"] <= usual["loss"]
    clearly = [one for one in points if usual["loss"] - one["loss"] > one["error"]]
    assert taken["loss"] == min([one["loss"] for one in clearly], default=usual["loss"])


def test_the_run_is_the_form_that_was_taken(here: Path, run: dict[str, Any]) -> None:
    """Its passes named, without a search: the same bytes. So the recipe of the run, which names them."""
    taken = next(one for one in run["portfolio"]["points"] if one["title"] == run["portfolio"]["chosen"])
    named = compiled(
        here, "residual", "named", budget=None, portfolio=False, passes=f"{taken['passes']} recover-lsq"
    )
    assert named["portfolio"] is None
    again = read_recipe(here / "run" / "recipe.yaml")
    assert not again.portfolio
    edgec.compile(again, here / "again", measure=False, quiet=True)
    bytes_of = [(here / name / "model.onnx").read_bytes() for name in ("run", "named", "again")]
    assert bytes_of[0] == bytes_of[1] == bytes_of[2]


def test_a_form_that_cannot_be_says_why(here: Path) -> None:
    found = compiled(here, "plain", "plain_run")["portfolio"]
    blocks = next(one for one in found["points"] if one["title"].startswith("fewer blocks"))
    assert "no block can go" in blocks["why"]
    assert blocks["loss"] is None
    assert found["chosen"] != blocks["title"]


def test_the_page_shows_what_was_compared(here: Path, run: dict[str, Any]) -> None:
    page = (here / "run" / "report.html").read_text()
    assert "What was compared" in page
    for one in run["portfolio"]["points"]:
        assert one["title"] in page


def test_without_samples_nothing_is_compared(here: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "one.npy", np.load(here / "data.npy")[:1])
    edgec.compile(
        here / "residual.onnx",
        tmp_path / "out",
        data=tmp_path / "one.npy",
        passes="compress{macs=60% sensitivity=no}",
        portfolio=True,
        measure=False,
        quiet=True,
        threads=1,
    )
    found = json.loads((tmp_path / "out" / "report.json").read_text())
    assert found["portfolio"] is None
    assert any("nothing was compared: there are no samples" in line for line in found["warnings"])


@pytest.mark.parametrize(
    ("options", "why"),
    [({"budget": None}, "there is none. Add budget"), ({"passes": "prune-channels"}, "no pass is that")],
)
def test_it_needs_a_form_to_compare(here: Path, options: dict[str, Any], why: str) -> None:
    with pytest.raises(UsageError, match=why):
        compiled(here, "residual", "refused", **options)
    assert not (here / "refused").exists()
