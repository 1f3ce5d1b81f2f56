"""Options of a run that must go together, what the command line adds to a recipe, and what a dry run looks at."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from edgec.compiler import cli
from edgec.compiler import dry_run as dry
from edgec.compiler.emit import tflite
from edgec.compiler.emit.artifacts import stages
from edgec.compiler.pipeline.run import run_pipeline
from edgec.compiler.plan.plan import Plan, make_plan
from edgec.compiler.read.asked import resolve_passes
from edgec.compiler.read.brought import Brought
from edgec.compiler.read.recipe import Recipe, make_recipe, read_recipe
from edgec.compiler.read.source import read as read_source
from edgec.graph.errors import DataError, EdgecError, UnsupportedError, UsageError
from edgec.graph.foreign import Loading
from edgec.graph.tflite.read import read
from edgec.graph.views import constant
from edgec.passes.cast_fp16 import CastFp16, widened
from edgec.passes.defaults import precision_of
from tests.conftest import parse

NET = (
    "net (float[N,3,16,16] x) => (float[N,10] y) <float[8,3,3,3] w1, float[8] b1, float[10,8] g, float[10] c>"
    "{ t = Conv<pads=[1,1,1,1]>(x, w1, b1)  r = Relu(t)  p = GlobalAveragePool(r)  f = Flatten(p)  y = Gemm<transB=1>(f, g, c) }"
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch) -> Path:
    onnx.save(parse(NET), tmp_path / "net.onnx")
    x = np.random.default_rng(0).standard_normal((12, 3, 16, 16)).astype(np.float32)
    np.savez(tmp_path / "calib.npz", x=x)
    np.savez(tmp_path / "eval.npz", x=x, y=np.arange(12) % 10)
    monkeypatch.chdir(tmp_path)
    return tmp_path


HERE = Loading(isolated=False)


def prepare(made: Recipe) -> Plan:
    return make_plan(read_source(Brought(made, None), HERE), HERE)


def dry_run(made: Recipe, out: Path | None = None) -> dict[str, Any]:
    return dry.dry_run(made, HERE, out=out)


def recipe(**more: Any) -> Recipe:
    return make_recipe({"model": {"path": "net.onnx"}, "data": {"path": "calib.npz"}, **more})


def edgec(monkeypatch, capsys, *arguments: object) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["edgec", *map(str, arguments)])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    return (int(caught.value.code or 0), *capsys.readouterr())


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@pytest.mark.parametrize(
    ("more", "error", "said"),
    [
        ({"passes": "prune-channels"}, UsageError, "no budget is given"),
        ({"precision": "int8", "data": None}, UsageError, "needs calibration data"),
        (
            {"budget": "latency=5ms", "target": "host", "formats": "tflite", "passes": "fold"},
            UsageError,
            "no effect",
        ),
        (
            {"budget": "latency=5ms", "target": "generic-arm64"},
            UsageError,
            "no latency estimate for generic-arm64",
        ),
        ({"budget": "size=1B"}, UsageError, "makes no sense here"),
        ({"passes": "compress{size=1B}"}, UsageError, "makes no sense here"),
        ({"preprocess": {"mean": [1, 2]}}, UsageError, "--mean has 2 entries"),
        ({"eval": {"path": "calib.npz", "label_offset": 1}}, UsageError, "without labels"),
        ({"eval": {"path": "eval.npz", "label_offset": 5}}, DataError, "labels run from 5 to 14"),
        ({"data": {"path": "nothing"}}, DataError, "no such file"),
        ({"target": "rpi44"}, UsageError, "rpi4"),
        ({"passes": "quantize quantize"}, UsageError, "cannot come after quantize"),
        ({"passes": "fold quantize"}, None, ""),
    ],
)
def test_a_dry_run_finds_what_cannot_work_and_writes_nothing(folder, more, error, said) -> None:
    before = names(folder)
    if error is None:
        assert dry_run(recipe(**more))["passes"]
    else:
        with pytest.raises(error, match=said):
            dry_run(recipe(**more))
        with pytest.raises(error, match=said):
            prepare(recipe(**more))
    assert names(folder) == before


@pytest.mark.parametrize(
    ("metric", "said"),
    [("nowhere.py:judge", "nowhere.py"), ("own.py:jugde", "jugde"), ("topp1", "unknown metric")],
)
def test_a_dry_run_looks_for_the_metric_too(folder, metric, said) -> None:
    """It is called when all else is done: a typing error in it would cost the run."""
    (folder / "own.py").write_text("def judge(predict, samples):\n    return 1.0\n")
    with pytest.raises(EdgecError, match=said):
        dry_run(recipe(metric=metric))
    assert dry_run(recipe(metric="own.py:judge"))["model"]


def test_a_dry_run_finds_what_tflite_cannot_take(folder) -> None:
    onnx.save(
        parse("net (float[N,4] x) => (float[N,4] y) { y = Det2(x) }".replace("Det2", "Erf")),
        folder / "net.onnx",
    )
    np.savez(folder / "calib.npz", x=np.ones((4, 4), np.float32))
    made = recipe(formats="tflite")
    from edgec.graph.load import load

    if not tflite.unsupported(load("net.onnx")):
        pytest.skip("TFLite takes this node now")
    with pytest.raises(UnsupportedError, match="TFLite cannot take"):
        dry_run(made)


def test_a_dry_run_says_what_is_needed_and_free(folder, monkeypatch) -> None:
    plan = dry_run(recipe(precision="int8"), folder / "out" / "deep")
    assert sum(one["needed"] for one in plan["disk"]) > 3 << 20
    monkeypatch.setattr("edgec.compiler.plan.disk.free_bytes", lambda path: 1000)
    with pytest.raises(
        EdgecError, match=r"not enough space on the disk: the run may need .* MB, 1 kB are free"
    ):
        dry_run(recipe(precision="int8"), folder / "out")
    assert not (folder / "out").exists()


def test_the_space_grows_with_the_data(folder) -> None:
    from edgec.compiler.plan.disk import spilled_bytes
    from edgec.graph.cost import cost

    few, many = (prepare(recipe(precision="int8", data={"path": "calib.npz", "samples": n})) for n in (2, 12))
    spent = cost(few.model)
    assert 0 < 6 * spilled_bytes(few, spent) == spilled_bytes(many, spent)
    assert spilled_bytes(prepare(recipe()), spent) == 0


def test_a_budget_that_is_met_already_is_remarked(folder) -> None:
    assert "meets macs=40G as it is" in " ".join(dry_run(recipe(budget="macs=40G"))["remarks"])
    assert not [one for one in dry_run(recipe(budget="macs=50%"))["remarks"] if "as it is" in one]


@pytest.mark.parametrize(("asked", "passes", "is_then"), [
    ("fp32", "", "fp32"), ("fp32", "quantize", "int8"), ("int8", "quantize", "int8"), ("fp32", "cast-fp16", "fp16"),
    ("fp16", "", "fp16"),
])  # fmt: skip
def test_the_run_has_the_precision_that_its_passes_end_in(folder, asked, passes, is_then) -> None:
    made = recipe(precision=asked, passes=[passes] if passes else None)
    assert precision_of(resolve_passes(made), made.precision) == is_then
    assert prepare(made).recipe.precision == is_then


def test_half_precision_is_decided_in_the_pass_for_every_format(canonical, context) -> None:
    model = canonical(NET)
    first = next(node for node in model.graph if node.op_type == "Conv")
    weight = constant(first.inputs[1]).copy()
    weight[0, 0, 0, 0] = 65519.0  # rounds to the largest half-precision number
    weight[0, 0, 0, 1] = 1e-9  # and this one to zero
    from edgec.graph.views import ConvView

    ConvView(first).set(weight=weight)
    steps = run_pipeline((CastFp16(),), model, context(model))
    half = stages(model, steps)["fp16"]
    tensors = read(tflite.emit(widened(half), precision="fp16")).tensors
    halves = [one.array() for one in tensors if one.data is not None and one.type.name == "FLOAT16"]
    (stored,) = halves  # the other constants are too small
    assert sorted(stored.ravel().tolist()) == sorted(weight.astype(np.float16).ravel().tolist())
    assert all(node.op_type != "Cast" for node in widened(half).graph)


def test_the_command_line_changes_the_evaluation_of_a_recipe(folder, monkeypatch, capsys) -> None:
    """Without --eval, --label-offset and --eval-labels are about the recipe's own evaluation; they used to be ignored."""
    text = "model: {path: net.onnx}\ndata: {path: calib.npz}\neval: {path: eval.npz}\n"
    (folder / "r.yaml").write_text(text)
    code, _, err = edgec(
        monkeypatch, capsys, "compile", "--recipe", "r.yaml", "--label-offset", 0, "--dry-run", "--json"
    )
    assert code == 0, err
    code, _, err = edgec(
        monkeypatch, capsys, "compile", "--recipe", "r.yaml", "--label-offset", 1, "--dry-run"
    )
    assert (code, "labels run from 1 to 10" in err) == (3, True)
    assert read_recipe("r.yaml").eval.label_offset == 0


def test_weights_and_shape_change_the_model_of_a_recipe(folder, monkeypatch, capsys) -> None:
    (folder / "r.yaml").write_text("model: {path: net.onnx}\n")
    code, _, err = edgec(
        monkeypatch, capsys, "compile", "--recipe", "r.yaml", "--weights", "w.pt", "--dry-run"
    )
    assert code == 2
    assert "--weights" in err


@pytest.mark.parametrize("out", ["net.onnx", "net.onnx/below", "full"])
def test_the_output_folder_is_checked_first(folder, monkeypatch, capsys, out) -> None:
    (folder / "full").mkdir()
    (folder / "full" / "mine.txt").touch()
    for more in ([], ["--dry-run"]):
        code, _, err = edgec(monkeypatch, capsys, "compile", "nothing.onnx", "-o", out, *more)
        assert code == 2
        assert "nothing.onnx" not in err
        assert out.split("/")[0] in err


def test_a_dry_run_prints_what_the_run_does(folder, monkeypatch, capsys) -> None:
    arguments = [
        "compile",
        "net.onnx",
        "--data",
        "calib.npz",
        "--budget",
        "macs=60%",
        "-o",
        "out",
        "--dry-run",
    ]
    code, out, err = edgec(monkeypatch, capsys, *arguments)
    assert code == 0, err
    assert "compress{macs=60%}" in out
    assert "disk     at most" in out
    code, out, _ = edgec(monkeypatch, capsys, *arguments, "--json")
    assert json.loads(out)["recipe"]["budget"] == "macs=60%"
    assert not (folder / "out").exists()


@pytest.mark.parametrize(
    ("labels", "task", "used"),
    [
        (np.arange(40) % 10, None, True),
        (np.arange(40), None, False),
        (np.arange(40) % 10, "multi-label", False),
    ],
)
def test_labels_beside_calibration_data_judge_where_the_task_takes_them(labels, task, used, folder) -> None:
    """Nobody asked for them: a run must not end on them after all its work."""
    x = np.random.default_rng(0).standard_normal((40, 3, 16, 16)).astype(np.float32)
    np.savez(folder / "calib.npz", x=x, y=labels)
    plan = prepare(recipe(task=task))
    judging = plan.judging_data()
    assert judging is not None
    assert np.array_equal(plan.truth, judging.labels) if used else plan.truth is None
    assert any("labels beside the calibration data are not used" in one for one in plan.remarks) is not used
