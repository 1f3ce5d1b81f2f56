"""Progress reaches its end: whatever a pass does, for every label, and on a terminal."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
from rich.console import Console

from edgec.compiler.cli import output
from edgec.compiler.driver import compile_recipe
from edgec.compiler.pipeline.cache import PassCache
from edgec.compiler.pipeline.run import run_pipeline
from edgec.compiler.pipeline.sealed import SealedFolder
from edgec.compiler.pipeline.workspace import Settings
from edgec.compiler.read.recipe import Recipe
from edgec.graph.errors import DeviceError
from edgec.passes.base import Progress
from edgec.passes.pipeline_string import parse_pipeline
from tests.conftest import parse
from tests.told import Told

BLOCKS = (
    "net (float[N,3,8,8] x) => (float[N,10] y) <float[8,3,3,3] a, float[8,8,3,3] b, float[8,8,3,3] c, float[8,8,3,3] d,"
    " float[8,8,3,3] e, float[16,8,3,3] f, float[10,16] g>"
    "{ s = Conv<pads=[1,1,1,1]>(x, a)  s0 = Relu(s)"
    "  t = Conv<pads=[1,1,1,1]>(s0, b)  t0 = Relu(t)  t1 = Conv<pads=[1,1,1,1]>(t0, c)  t2 = Add(t1, s0)  t3 = Relu(t2)"
    "  u = Conv<pads=[1,1,1,1]>(t3, d)  u0 = Relu(u)  u1 = Conv<pads=[1,1,1,1]>(u0, e)  u2 = Add(u1, t3)  u3 = Relu(u2)"
    "  v = Conv<pads=[1,1,1,1], strides=[2,2]>(u3, f)  v0 = Relu(v)  p = GlobalAveragePool(v0)  q = Flatten(p)"
    "  y = Gemm<transB=1>(q, g) }"
)
BLOCK = "distill-convex: block 1 of 1"
PIPELINES: dict[str, set[str]] = {
    "fold equalize": {"equalize"},
    "prune-channels{macs=60%} recover-lsq": {"prune-channels", "prune-channels: sensitivity", "recover-lsq"},
    "prune-channels{macs=60%} recover-bias recover-fskd{sweeps=2}": {
        "recover-bias", "recover-fskd sweep 1", "recover-fskd sweep 2",
    },
    "compress{macs=60%}": {"compress", "compress: factors", "compress: sensitivity"},
    "decompose-svd{macs=60%}": {"decompose-svd", "decompose-svd: factors"},
    "remove-blocks{blocks=1}": {"remove-blocks", "remove-blocks: judging"},
    "remove-blocks{blocks=2 max-damage=1e-9}": {"remove-blocks"},  # ends before the first
    "distill-convex{region=block1..block2}": {
        "distill-convex: blocks", "distill-convex: activations", "distill-convex: rows to fit", "distill-convex: rows to judge",
        "distill-convex: all blocks together", f"{BLOCK}: gates follow", f"{BLOCK}: alternating", f"{BLOCK}: soft gates",
    },
    "distill-convex{region=block1..block2 solver=convex lower=relu}": {f"{BLOCK}: convex problem", f"{BLOCK}: tied to ReLU"},
    "distill-convex{region=block1..block2 solver=convex limit=2 tolerance=1e-9}": {f"{BLOCK}: convex problem"},  # reverted
    "quantize": {"calibrate", "fit quantised layers"},
    "quantize{sensitivity=true}": {"sensitivity"},
}  # fmt: skip


@pytest.mark.parametrize("text", PIPELINES)
def test_every_label_ends_at_its_total(text: str, canonical, noise, context, tmp_path: Path) -> None:
    model = canonical(BLOCKS)
    cache = PassCache(SealedFolder(tmp_path / "cache", b"k" * 32))
    told, again = Told(), Told()
    passes = parse_pipeline(text)
    base = context(model, noise(model, 24))
    run_pipeline(passes, model, replace(base, progress=told), cache=cache)
    told.check()
    assert PIPELINES[text] | {"passes"} <= set(told.totals())
    run_pipeline(passes, model, replace(base, progress=again), cache=cache, resume=True)
    again.check()
    assert again.totals() == {"passes": {len(passes)}}


def test_a_whole_run_ends_its_labels(tmp_path: Path) -> None:
    onnx.save(parse(BLOCKS), tmp_path / "net.onnx")
    source, data = {"path": str(tmp_path / "net.onnx")}, {"path": "random", "samples": 8}
    recipe = Recipe.model_validate({"model": source, "data": data, "passes": ["fold"], "threads": 1})
    told = Told()
    compile_recipe(recipe, Settings(tmp_path / "out", measure=False, progress=told))
    told.check()
    assert told.totals() == {"passes": {1}, "judging": {1}}


def test_measuring_that_fails_ends_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise DeviceError("no way")

    monkeypatch.setattr("edgec.runtime.bench.compare", fail)
    onnx.save(parse(BLOCKS), tmp_path / "net.onnx")
    told = Told()
    compile_recipe(
        Recipe.model_validate({"model": {"path": str(tmp_path / "net.onnx")}}),
        Settings(tmp_path / "out", progress=told),
    )
    told.check()
    assert "measuring" in told.totals()


def breaks(told: Told) -> None:
    with told.counting("counted") as count:
        count(3, 7)
        raise ValueError("in the middle")


def test_a_loop_that_is_left_ends_its_label() -> None:
    told = Told()
    for number in told.over("left", range(5), 5):
        if number == 2:
            break
    assert told.steps == [("left", 0, 5), ("left", 0, 5), ("left", 1, 5), ("left", 2, 5), ("left", 5, 5)]
    assert list(Progress().over("silent", "abc", 3)) == ["a", "b", "c"]
    told = Told()
    with pytest.raises(ValueError, match="in the middle"):
        breaks(told)
    assert told.steps == [("counted", 0, 1), ("counted", 3, 7), ("counted", 7, 7)]
    told = Told()
    with told.counting("too much", 2) as count:
        count(5, 4)
    told.check()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_bars_close_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    console = Console(file=Terminal(), force_terminal=True, width=100)
    monkeypatch.setattr(output, "stderr", lambda: console)
    with output.progress(quiet=False) as bars:
        assert isinstance(bars, output._BarProgress)
        open_ = lambda: [task.description for task in bars._bars.tasks]  # noqa: E731
        bars.step("empty", 0, 0)
        assert open_() == []
        bars.step("one", 0, 2)
        bars.step("[red]two", 1, 2)
        assert open_() == ["one", "[red]two"]
        bars.step("one", 2, 2)
        assert open_() == ["[red]two"]
        for _ in bars.over("passes", range(3), 3):
            assert "passes" in open_()
        bars.step("[red]two", 2, 2)
        assert open_() == []


def test_where_there_is_no_terminal_nothing_is_drawn(capsys: pytest.CaptureFixture[str]) -> None:
    with output.progress(quiet=False) as bars:
        list(bars.over("passes", range(3), 3))
    assert capsys.readouterr() == ("", "")
