"""--learn and --time: what they put into the pipeline, what they refuse, and what is said of them."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from edgec.compiler.assemble import STAGES, _learning_hint
from edgec.compiler.read.asked import resolve_passes
from edgec.compiler.read.recipe import make_recipe
from edgec.graph.errors import UsageError
from edgec.passes.defaults import learning_remarks
from edgec.passes.pipeline_string import print_pass
from tests.compiler.conftest import compile_args

BASE = {"model": {"path": "net.onnx"}, "data": {"path": "x.npz"}}


def passes_of(**more: object) -> list[str]:
    return [print_pass(one) for one in resolve_passes(make_recipe({**BASE, **more}))]


def test_learning_stands_behind_what_compresses_and_before_what_quantises(monkeypatch) -> None:
    monkeypatch.setattr("edgec.passes.learned.extra.find_spec", lambda _: object())  # torch or not
    names = [one.partition("{")[0] for one in passes_of(budget="macs=50%", precision="int8", learn="on")]
    assert names == ["compress", "recover-lsq", "refine", "quantize", "refine-quantized"]
    assert passes_of(precision="int8", learn="on") == ["quantize", "refine-quantized{above=5%}"]
    assert "refine{time=90s}" in passes_of(budget="macs=50%", learn="on", time="90s")
    assert "refine{above=5%}" in passes_of(budget="macs=50%", learn="auto")
    assert "refine{time=90s above=5%}" in passes_of(
        passes="prune-channels{macs=50%}", learn="auto", time=" 90s "
    )
    assert passes_of(passes="prune-channels{macs=50%} refine{steps=3}", learn="on")[1] == "refine{steps=3}"
    both = passes_of(budget="macs=50%", precision="int8", learn="on", time="3m")
    assert [one for one in both if "refine" in one] == [
        "refine{time=90s}",
        "refine-quantized{time=90s above=5%}",
    ]
    behind = "quantize round-weights refine-quantized{steps=3}"
    assert passes_of(passes=behind, learn="on")[-1] == "refine-quantized{steps=3}"
    for spelt in (False, "no", "off"):
        assert not any("refine" in one for one in passes_of(budget="macs=50%", learn=spelt))


@pytest.mark.parametrize(
    ("agreement", "precision", "learn", "said"),
    [
        (0.875, "fp32", "off", "12.5% of the answers changed: --learn on"),
        (0.875, "int8", "off", "in float 12.5% of the answers changed: --learn on"),
        (0.96, "int8", "off", ""),
        (0.875, "int8", "auto", ""),
    ],
)
def test_who_lost_much_hears_of_learning_and_of_which_network_that_is(
    agreement: float, precision: str, learn: str, said: str
) -> None:
    facts = SimpleNamespace(
        evaluation=SimpleNamespace(by_stage={STAGES["fp32"]: {"agreement": agreement}}),
        steps=[SimpleNamespace(one=SimpleNamespace(recovers=True, name="recover-lsq"), modified=True)],
        plan=SimpleNamespace(recipe=SimpleNamespace(learn=learn, precision=precision)),
    )
    assert _learning_hint(facts).startswith(said)
    assert bool(_learning_hint(facts)) == bool(said)


WRONG = [
    ({"learn": "on"}, "nothing to make up for"),
    ({"learn": "auto", "passes": "fold"}, "nothing to make up for"),
    ({"time": "5m", "budget": "macs=50%"}, "--time has no effect"),
    ({"learn": "often", "budget": "macs=50%"}, "off, on, auto"),
    ({"learn": "on", "time": "soon", "budget": "macs=50%"}, "a time"),
    ({"learn": "on", "time": "0s", "budget": "macs=50%"}, "a time"),
]


@pytest.mark.parametrize(("more", "words"), WRONG)
def test_what_would_do_nothing_is_refused(more: dict[str, str], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        passes_of(**more)


def test_auto_without_torch_says_so(monkeypatch) -> None:
    monkeypatch.setattr("edgec.passes.learned.extra.find_spec", lambda _: None)
    recipe = make_recipe({**BASE, "budget": "macs=50%", "learn": "auto"})
    passes = resolve_passes(recipe)
    assert not any(one.name == "refine" for one in passes)
    assert "pip install 'edgec[torch]'" in learning_remarks(recipe.learn, passes)[0]


def test_a_dry_run_tells(edgec, files: Path) -> None:
    pytest.importorskip("torch")
    code, out, _ = edgec(
        *compile_args(files, "--budget", "macs=50%", "--learn", "on", "--time", "1m", "--dry-run")
    )
    assert code == 0
    assert "refine{time=1m}" in out


def test_a_run_learns_and_its_recipe_repeats_it(edgec, files: Path) -> None:
    pytest.importorskip("torch")
    named = ("--passes", "prune-channels{macs=50% multiple=1}", "--learn", "on", "--time", "2s")
    code, _, _ = edgec(*compile_args(files, *named))
    assert code == 0
    report = json.loads((files / "out" / "report.json").read_text())
    learned = next(one for one in report["passes"] if one["name"] == "refine")
    steps = learned["data"]["steps"]
    assert f"steps: {steps}" in (files / "out" / "recipe.yaml").read_text()
    code, _, _ = edgec(
        "compile", "--recipe", files / "out" / "recipe.yaml", "-o", files / "again", "--no-bench"
    )
    assert code == 0
    assert (files / "again" / "model.onnx").read_bytes() == (files / "out" / "model.onnx").read_bytes()
    assert not list((files / "out").glob(".cache/*unfinished"))


def test_the_report_names_the_option_where_much_was_lost(edgec, files: Path) -> None:
    code, _, _ = edgec(*compile_args(files, "--passes", "prune-channels{macs=20% multiple=1} recover-lsq"))
    assert code == 0
    report = json.loads((files / "out" / "report.json").read_text())
    hints = [one for one in report["warnings"] if "--learn on --time 5m" in one]
    lost = 1 - report["quality"]["float"]["agreement"]
    assert bool(hints) == (lost > 0.05)
