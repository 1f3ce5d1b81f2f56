"""Latency budgets: what they are priced by, on this machine and for a target."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from edgec.compiler.api import compile as compile_model
from edgec.compiler.evaluate.gates import budget_gate
from edgec.compiler.latency import calibrate as calibration
from edgec.compiler.latency.prices import RESERVE
from edgec.compiler.latency.timings import Timings
from edgec.compiler.pipeline.run import Step
from edgec.compiler.read.recipe import ModelSource, Recipe, Timing, read_recipe
from edgec.graph.cost import cost
from edgec.graph.errors import UsageError
from edgec.graph.load import load
from edgec.passes.base import Note, Pass
from edgec.passes.compress import Compress
from edgec.passes.decompose_svd import DecomposeSvd
from edgec.passes.learn_structure import LearnStructure
from edgec.passes.prune_channels import PruneChannels
from edgec.passes.quantize.quantiser import Quantize
from edgec.passes.remove_blocks import RemoveBlocks
from edgec.runtime import bench
from edgec.runtime.report.schema import Report
from edgec.targets import target
from edgec.targets.estimator import estimate
from edgec.targets.estimator.own import fit_own, save_host
from edgec.targets.estimator.probes import probes
from tests.conftest import parse

NET = (
    "net (float[N,3,32,32] x) => (float[N,10] y) "
    "<float[64,3,3,3] w1, float[64] b1, float[64,64,3,3] w2, float[64] b2, float[10,64] g, float[10] c>"
    "{ t = Conv<pads=[1,1,1,1]>(x, w1, b1)  r = Relu(t)  u = Conv<pads=[1,1,1,1]>(r, w2, b2)  s = Relu(u)"
    "  p = GlobalAveragePool(s)  f = Flatten(p)  y = Gemm<transB=1>(f, g, c) }"
)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure for a moment only: a tiny network's time is not the point here."""
    compare, options = (
        bench.compare,
        bench.BenchOptions(runs=5, seconds=0.2, warmup=0.1, warmup_most=0.3, restarts=1),
    )
    monkeypatch.setattr(bench, "compare", lambda paths, _, device: compare(paths, options, device))
    monkeypatch.setattr(bench, "profile", lambda path, _, device: ())


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Report]:
    onnx.save(parse(NET), tmp_path / "net.onnx")
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "calib.npz", x=rng.standard_normal((24, 3, 32, 32)).astype(np.float32))

    def make(**more: object) -> Report:
        given = {"data": tmp_path / "calib.npz", "passes": "prune-channels", "threads": 1, **more}
        return compile_model(tmp_path / "net.onnx", tmp_path / "out", **given)  # type: ignore[arg-type]

    return make


@pytest.fixture
def calibrated() -> None:
    """A machine on which a million multiplications take 0.1 ms."""
    costs = [cost(model) for _, model in probes(40)]
    times = [one.macs / 1e7 for one in costs]
    save_host([fit_own(costs, times, "onnxruntime", "1.0", p, "box") for p in ("fp32", "int8")])  # type: ignore[arg-type]


def test_a_budget_for_a_target_is_met_in_the_artifact_s_engine_and_precision(
    run: Callable[..., Report], tmp_path: Path
) -> None:
    """A share of the fp32 source, in int8 TFLite: what int8 gives by itself is counted, not pruned for again."""
    whole, rpi4 = cost(load(tmp_path / "net.onnx")), target("rpi4")
    fp32 = estimate(whole, rpi4, runtime="ai-edge-litert").ms
    int8 = estimate(whole, rpi4, runtime="ai-edge-litert", precision="int8").ms
    asked = {"target": "rpi4", "precision": "int8", "formats": ("tflite",)}
    report = run(budget=f"latency={80 * int8 / fp32:.2f}%", **asked)
    (gate,) = report.gates
    assert gate.passed
    assert gate.limit == pytest.approx(0.8 * int8, rel=1e-3)
    assert isinstance(gate.value, float)
    assert 0.6 * int8 < gate.value <= 0.805 * int8
    assert 0.4 < report.compressed.macs / whole.macs < 0.95
    assert run(budget=f"latency={101 * int8 / fp32:.2f}%", **asked).compressed.macs == whole.macs


def test_a_budget_on_this_machine_is_anchored_on_a_measurement(
    run: Callable[..., Report], calibrated: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The calibration above is wildly off for this machine; the measured source model sets it right."""
    report = run(budget="latency=60%")
    (data,) = (one.data for one in report.passes if one.name == "prune-channels")
    assert 0.3 < data["budget"]["reached"] <= 0.6
    assert report.gates[0].limit == pytest.approx(
        0.6 * (report.model.latency.median_ms if report.model.latency else 0)
    )
    recipe = read_recipe(tmp_path / "out" / "recipe.yaml")
    assert recipe.timing is not None
    assert "onnxruntime fp32" in recipe.timing.of
    # The recipe chooses the same widths without measuring again, and a resumed run measures nothing twice.
    monkeypatch.setattr("edgec.compiler.latency.prices._measure", None)
    same = compile_model(recipe, tmp_path / "same", measure=True)
    assert [a.sha256 for a in same.artifacts] == [a.sha256 for a in report.artifacts]
    assert run(budget="latency=60%", resume=True).passes[0].cached


def test_widths_are_chosen_again_where_narrowing_saves_less_than_estimated(
    run: Callable[..., Report], calibrated: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = [[1.0, 1.0], [0.6 / (1 + RESERVE)]]  # source and whole artifact; then the narrowed one, as planned
    monkeypatch.setattr("edgec.compiler.latency.prices._processor_ms", lambda paths, progress: real.pop(0))
    as_planned = run(budget="latency=0.6ms").compressed.macs
    real += [[1.0, 1.0], [0.9]]
    narrower = run(budget="latency=0.6ms").compressed.macs
    assert narrower < 0.8 * as_planned
    timing = read_recipe(tmp_path / "out" / "recipe.yaml").timing
    assert timing is not None
    assert timing.settled
    assert timing.artifact_ms == pytest.approx(1.5, rel=0.15)


@pytest.mark.slow
def test_a_recipe_s_timing_of_another_model_or_machine_does_not_count(
    run: Callable[..., Report], calibrated: None, tmp_path: Path
) -> None:
    run(budget="latency=60%")
    recipe = read_recipe(tmp_path / "out" / "recipe.yaml")
    other = Timing(of="another onnxruntime fp32 Some CPU", source_ms=1e6, artifact_ms=1e6)
    compile_model(recipe.model_copy(update={"timing": other}), tmp_path / "again")
    found = read_recipe(tmp_path / "again" / "recipe.yaml").timing
    assert found is not None
    assert found.source_ms < 1e4


def test_a_machine_that_was_never_calibrated_is_calibrated_on_the_way(
    run: Callable[..., Report], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[object, object]] = []

    def fake(*, engines: object, precisions: object, progress: object) -> None:
        asked.append((engines, precisions))
        costs = [cost(model) for _, model in probes(40)]
        save_host([fit_own(costs, [1.0 + c.macs / 1e7 for c in costs], "onnxruntime", "1.0", "int8", "box")])

    monkeypatch.setattr(calibration, "calibrate", fake)
    report = run(budget="latency=60%", precision="int8")
    assert asked == [(("onnxruntime",), ("int8",))]
    assert isinstance(report.gates[0].value, float)


def test_a_model_with_free_axes_is_measured_in_the_shape_it_is_compiled_for(
    run: Callable[..., Report], calibrated: None, tmp_path: Path
) -> None:
    proto = parse(NET.replace("float[N,3,32,32] x", "float[N,3,H,W] x"))
    onnx.save(proto, tmp_path / "free.onnx")
    recipe = Recipe.model_validate(
        {
            "model": {"path": str(tmp_path / "free.onnx"), "input_shape": [3, 32, 32]},
            "data": {"path": str(tmp_path / "calib.npz")},
            "budget": "latency=60%",
            "passes": ["prune-channels"],
        }
    )
    assert (tmp_path / "calib.npz").exists()
    report = compile_model(recipe, tmp_path / "out")
    assert report.latency is not None
    assert report.latency.measured
    assert isinstance(report.gates[0].value, float)


@pytest.mark.parametrize(
    ("machine", "said"),
    [
        ("x86_64", "another one (typical-x86-64)"),
        ("aarch64", "another one (rpi4)"),
        ("armv7l", "no latencies are known"),
    ],
)
def test_without_a_latency_budget_pieces_are_timed_as_on_a_machine_of_this_kind(
    run: Callable[..., Report], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, machine: str, said: str
) -> None:
    make_separable(tmp_path / "net.onnx", "w2", rank=4)
    monkeypatch.setattr("platform.machine", lambda: machine)
    report = run(budget="macs=50%", passes="compress{pieces=spatial}", measure=False)
    assert report.passes[0].data["cuts"]
    assert any(said in note.text for note in report.passes[0].notes)


def make_separable(path: Path, name: str, rank: int) -> None:
    """Give a 3x3 convolution a kernel that a 3x1 and a 1x3 one of ``rank`` channels make exactly."""
    model = onnx.load(path)
    (tensor,) = (one for one in model.graph.initializer if one.name == name)
    outputs, inputs, _, _ = tensor.dims
    rng = np.random.default_rng(0)
    down, across = rng.standard_normal((rank, inputs, 3)), rng.standard_normal((outputs, rank, 3))
    kernel = np.einsum("rih,orw->oihw", down, across).astype(np.float32) / 30
    tensor.CopyFrom(onnx.numpy_helper.from_array(kernel, name))
    onnx.save(model, path)


def test_without_measuring_an_uncalibrated_machine_is_refused(run: Callable[..., Report]) -> None:
    with pytest.raises(UsageError, match="targets calibrate"):
        run(budget="latency=60%", measure=False)


def test_without_measuring_a_calibrated_machine_is_estimated(
    run: Callable[..., Report], calibrated: None
) -> None:
    report = run(budget="latency=60%", measure=False)
    assert report.passed
    assert report.model.latency is not None
    assert not report.model.latency.measured
    assert report.gates[0].limit == pytest.approx(0.6 * report.model.latency.median_ms)


def test_the_gate_says_when_the_measured_time_is_not_the_planned_one(tmp_path: Path) -> None:
    recipe = Recipe(model=ModelSource(path="x.onnx"), budget="latency=1ms")
    timings = Timings({"median_ms": 2.0}, {"a": {"median_ms": 1.02}}, {"measured": True}, headline="a")
    model = load(onnx_file(tmp_path))
    within = budget_gate(recipe, model, {"fp32": model}, (), timings)
    assert within is not None
    assert within.passed
    slower = Timings({"median_ms": 2.0}, {"a": {"median_ms": 1.2}}, {"measured": True}, headline="a")
    beyond = budget_gate(recipe, model, {"fp32": model}, (), slower)
    assert beyond is not None
    assert not beyond.passed
    assert "could not go lower" in beyond.why


@pytest.mark.parametrize(
    "one",
    [
        PruneChannels(macs="50%"),
        Compress(macs="50%"),
        DecomposeSvd(macs="50%"),
        RemoveBlocks(macs="50%"),
        LearnStructure(macs="50%"),
    ],
    ids=lambda one: one.name,
)
def test_a_missed_budget_has_the_reasons_of_what_works_for_it(tmp_path: Path, one: Pass) -> None:
    recipe = Recipe(model=ModelSource(path="x.onnx"), budget="macs=50%")
    model = load(onnx_file(tmp_path))

    def why(*said: tuple[Pass, str]) -> str:
        steps = [
            Step(each, model, False, (Note(text, "warning"),), (), {}, 0.0, 0.0, (1, 1), (1, 1))
            for each, text in said
        ]
        gate = budget_gate(recipe, model, {"fp32": model}, steps, Timings())
        assert gate is not None
        assert not gate.passed
        return gate.why

    assert why((one, "no further"), (Quantize(), "int8 is slow here")) == "no further"
    assert "could not go lower" in why((Quantize(), "int8 is slow here"))


def onnx_file(folder: Path) -> Path:
    onnx.save(parse(NET), folder / "gate.onnx")
    return folder / "gate.onnx"
