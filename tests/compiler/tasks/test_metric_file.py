"""A metric from a file: what it is called with, what gates make of it, and what is said where it cannot be."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest

import edgec
from edgec.compiler import cli
from edgec.compiler.emit.artifacts import Emitted
from edgec.compiler.evaluate.evaluate import Evaluation
from edgec.compiler.evaluate.gates import drop_gate
from edgec.compiler.face.metric import Judged, Metric
from edgec.compiler.face.named_metric import resolved
from edgec.compiler.read.recipe import make_recipe, read_recipe
from tests.conftest import parse

NET = (
    "net (float[N,3,8,8] x) => (float[N,4] y) <float[4,3,3,3] w>"
    "{ t = Conv<pads=[1,1,1,1]>(x, w)  p = GlobalAveragePool(t)  y = Flatten(p) }"
)
FILE = """
import numpy as np
import helper

def right(predict, samples):
    each = predict(samples.x).argmax(axis=1) == samples.y
    return each.mean(), each

def far(predict, samples):
    return float(np.abs(predict(samples.x)).max()) * helper.TEN
far.lower_is_better = True

def fails(predict, samples):
    return 1 / 0

def leaves(predict, samples):
    raise SystemExit(3)

def text(predict, samples):
    return "good"

def nothing(predict, samples):
    return {}

number = 5
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    model = parse(NET)
    onnx.save(model, "net.onnx")
    (tmp_path / "own").mkdir()
    Path("own/m.py").write_text(FILE)
    Path("own/helper.py").write_text("TEN = 10\n")
    x = np.random.default_rng(0).standard_normal((40, 3, 8, 8)).astype(np.float32)
    from edgec.graph.execute import session as open_session

    session = open_session(model)
    np.savez("e.npz", x=x, y=session.run(None, {"x": x})[0].argmax(1))
    return tmp_path


@dataclass(frozen=True)
class Run:
    """What a command ended with, and all that it said."""

    exit_code: int
    output: str


@pytest.fixture
def edgec_(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    def call(*words: str) -> Run:
        monkeypatch.setattr("sys.argv", ["edgec", *words])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = capsys.readouterr()
        return Run(int(ended.value.code or 0), said.out + said.err)

    return call


@pytest.fixture
def run(edgec_):
    fixed = ("compile", "net.onnx", "--eval", "e.npz", "--no-bench", "-o", "out", "--threads", "1")
    return lambda *words: edgec_(*fixed, *words)


def test_it_judges_and_is_in_the_recipe(here: Path, run, edgec_) -> None:
    found = run("--metric", "own/m.py:right", "--max-drop", "1%")
    assert found.exit_code == 0, found.output
    assert "right on 40 samples: source 1, model.onnx 1" in found.output
    (gate,) = edgec.Report.open("out").gates
    assert gate.passed
    assert gate.why == "right of model.onnx 1, of the source 1"
    recipe = read_recipe("out/recipe.yaml")
    assert recipe.metric == "own/m.py:right"
    assert not list(here.rglob("__pycache__"))
    again = edgec_("compile", "--recipe", "out/recipe.yaml", "-o", "again", "--no-bench")
    assert again.exit_code == 2
    assert "this recipe's metric is Python code" in again.output
    trusted = edgec_("compile", "--recipe", "out/recipe.yaml", "-o", "again", "--no-bench", "--trust")
    assert trusted.exit_code == 0, trusted.output


WRONG = {
    "own/none.py:right": "no such file",
    "own/m.py:rigth": "Did you mean 'right'?",
    "own/m.py:number": "no function 'number'",
    "own/m.py:": "is not a metric's name, or file.py:function",
    "own/m.py": "with the name of the function in it",
    "own/bad.py:f": "own/bad.py:3: cannot be imported: ZeroDivisionError",
    "own/syntax.py:f": "cannot be imported: SyntaxError",
    "own/m.py:fails": "own/m.py:14: the metric failed: ZeroDivisionError: division by zero",
    "own/m.py:leaves": "own/m.py:17: the metric failed: SystemExit: 3",
    "own/m.py:text": "metric: text returned a str",
    "own/m.py:nothing": "metric: nothing returned an empty dict",
    "top-1": "Did you mean 'top1'?",
}


@pytest.mark.parametrize("given", WRONG)
def test_what_cannot_be_is_one_sentence_and_the_code_of_usage(given: str, here: Path, run) -> None:
    Path("own/bad.py").write_text("a = 1\n\nb = a / 0\n")
    Path("own/syntax.py").write_text("def f(:\n")
    found = run("--metric", given)
    assert found.exit_code == 2, found.output
    assert WRONG[given] in found.output
    assert "Traceback" not in found.output
    assert not Path("out/report.json").exists()


def test_the_same_text_from_python(here: Path) -> None:
    report = edgec.compile("net.onnx", "out", eval="e.npz", metric="own/m.py:far", measure=False, quiet=True)
    (found,) = report.metrics
    assert (found.name, found.lower_is_better) == ("far", True)
    assert found.teacher == pytest.approx(found.values["model.onnx"], rel=1e-5)
    assert report.recipe["metric"] == "../own/m.py:far"
    named = Metric.named(None)
    assert named is None
    assert resolved("own/m.py:far").lower_is_better


DROPS = {
    "a share": ((0.9, 0.85, False), 0.05),
    "a share that rose": ((0.9, 0.95, False), -0.05),
    "lower is better": ((0.1, 0.2, True), 0.1),
    "decibels": ((32.0, 30.4, False), 0.05),
    "an error in units": ((4.0, 5.0, True), 0.25),
    "not a number": ((0.9, float("nan"), False), None),
    "not measured": ((0.9, None, False), None),
}


@pytest.mark.parametrize("name", DROPS)
def test_a_gate_is_of_the_metric_on_the_worst_file(name: str) -> None:
    (source, ours, lower), drop = DROPS[name]
    files = [Emitted(f"model.{one}", "onnx", "int8", Path("x"), 1, "") for one in ("onnx", "tflite")]
    metric = Judged("m", 40, source, {"model.onnx": source, "model.tflite": ours}, {}, lower)
    for limit in (0.0, 0.049, 0.051, 0.3):
        recipe = make_recipe({"model": {"path": "x"}, "data": {"path": "x"}, "gates": {"max_drop": limit}})
        gate = drop_gate(recipe, files, Evaluation({}, {}, (), (metric,)))
        assert gate.passed == (drop is not None and drop <= limit + 1e-9)
        if drop is not None and drop > 0:
            assert gate.value == pytest.approx(drop)
            assert "model.tflite" in gate.why


def measures(value: float, against: str = "source", best: float | None = 1.0, name: str = "m") -> dict:
    return {"measures": ({"name": name, "value": value, "against": against, "best": best, "unit": "dB", "lower_is_better": False,
                          "lost": None, "count": None, "of": "inputs"},)}  # fmt: skip


def test_without_a_metric_a_gate_is_of_the_tasks_own_figure_on_the_file_that_ships() -> None:
    """The graph in onnxruntime is fine, the TFLite file is not: the run is not."""
    files = [
        Emitted("model.onnx", "onnx", "fp32", Path("x"), 1, ""),
        Emitted("model.int8.onnx", "onnx", "int8", Path("x"), 1, ""),
        Emitted("model.int8.tflite", "tflite", "int8", Path("x"), 1, ""),
    ]
    recipe = make_recipe({"model": {"path": "x"}, "data": {"path": "x"}, "gates": {"max_drop": 0.1}})
    stages = {
        "teacher": measures(0.8, "labels"),
        "float": measures(0.1, "labels"),
        "int8": measures(0.75, "labels"),
    }
    good = Evaluation(stages, {"model.int8.tflite": measures(0.74, "labels")})
    bad = Evaluation(stages, {"model.int8.tflite": measures(0.6, "labels")})
    unknown = Evaluation(stages, {}, ("TFLite files were not judged: no engine",))
    assert drop_gate(recipe, files, good).value == pytest.approx(0.06)
    assert drop_gate(recipe, files, good).passed
    assert not drop_gate(recipe, files, bad).passed
    assert (drop_gate(recipe, files, unknown).value, drop_gate(recipe, files, unknown).passed) == (
        "not measured",
        False,
    )
    alike = {"teacher": {}, "float": {}, "int8": measures(0.95)}
    assert drop_gate(recipe, files[:2], Evaluation(alike, {})).value == pytest.approx(0.05)
    decibels = {"teacher": {}, "float": {}, "int8": measures(40, best=None)}
    assert drop_gate(recipe, files[:2], Evaluation(decibels, {})).value == "no share"
    assert drop_gate(recipe, files[:2], Evaluation({"teacher": {}, "int8": {}}, {})).value == "no measure"
