"""The report in Python's hands, its artifacts as functions, and metrics of the caller's own."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

import edgec
from edgec.graph.execute import session
from tests.conftest import parse

FAST = {"measure": False, "quiet": True}
SEGMENT = (
    "seg (float[N,3,8,8] x) => (float[N,4,8,8] m, float[N,4] s) <float[4,3,3,3] w>"
    "{ t = Conv<pads=[1,1,1,1]>(x, w)  m = Relu(t)  p = GlobalAveragePool(m)  s = Flatten(p) }"
)
ALL = ("model.onnx", "model.int8.onnx", "model.tflite", "model.int8.tflite")


@pytest.fixture(scope="module")
def report(net, x, y, tmp_path_factory) -> edgec.Report:
    """One run, which no test may change."""
    out = tmp_path_factory.mktemp("report")
    pytest.importorskip("ai_edge_litert", reason="a TFLite runtime runs the .tflite files")
    return edgec.compile(net, out, data=x, eval=(x, y), precision="int8", formats=("onnx", "tflite"), **FAST)


def test_a_report_is_ten_lines_in_a_terminal_and_a_page_in_a_notebook(report, capsys) -> None:
    lines = repr(report).splitlines()
    assert 5 <= len(lines) <= 10
    assert "net (onnx.ModelProto)" in lines[0]
    assert str(report) == repr(report)
    frame = report._repr_html_()
    assert frame.startswith("<iframe sandbox")
    assert "<script" not in frame
    assert "&lt;!doctype html" in frame.lower()
    report.show()
    assert "model.int8.tflite" in capsys.readouterr().out


def test_a_long_report_says_how_much_more_there_is(report) -> None:
    long = report.model_copy(update={"warnings": tuple(f"warning {i}" for i in range(20))})
    lines = repr(long).splitlines()
    assert len(lines) == 10
    assert "more lines: .show()" in lines[-1]


def test_a_report_opens_again(report) -> None:
    out = report.folder
    again = edgec.Report.open(out)
    assert again == report
    assert again.folder == out
    assert again.load("int8").path == report.load("int8").path
    with pytest.raises(edgec.DataError, match="no report"):
        edgec.Report.open(out / "nothing")


@pytest.mark.parametrize("name", [*ALL, "int8", "fp32", None])
def test_an_artifact_is_a_function_of_arrays(name, report, net, x) -> None:
    reference = session(net).run(None, {"x": x})[0]
    loaded = report.load(name)
    found = loaded(x)
    assert found.dtype == np.float32
    assert found.shape == reference.shape
    noise = np.linalg.norm(found - reference) / np.linalg.norm(reference)
    assert noise < (1e-5 if "int8" not in loaded.path.name else 0.1)
    np.testing.assert_array_equal(loaded(x[:1]), found[:1])
    np.testing.assert_array_equal(loaded({"x": x}), found)
    np.testing.assert_allclose(loaded(x.astype(np.float64)), found)
    assert loaded.inputs == {"x": (3, 8, 8)}
    assert loaded.engine


@pytest.mark.parametrize(
    ("batch", "layout"),
    [
        (None, "nhwc"),
        (5, "nchw"),
        *(pytest.param(*one, marks=pytest.mark.slow) for one in ((None, "nchw"), (5, "nhwc"))),
    ],
)
def test_layout_batch_and_several_outputs_of_a_file_are_its_own_business(layout, batch, x, out) -> None:
    pytest.importorskip("ai_edge_litert", reason="a TFLite runtime runs the .tflite files")
    report = edgec.compile(
        parse(SEGMENT), out, data=x, precision="int8", formats="tflite", io_layout=layout, batch=batch, **FAST
    )
    expected = session(parse(SEGMENT)).run(None, {"x": x})
    for name, most in (("fp32", 1e-5), ("int8", 0.1)):
        found = report.load(name)(x)
        assert list(found) == ["m", "s"]
        for value, reference in zip(found.values(), expected, strict=True):
            assert value.shape == reference.shape
            assert np.linalg.norm(value - reference) / np.linalg.norm(reference) < most


@pytest.mark.parametrize(
    ("given", "kind", "words"),
    [
        (np.zeros((2, 8, 8, 3), np.float32), edgec.DataError, r"it takes \(N, 3, 8, 8\)"),
        (np.zeros((3, 8, 8), np.float32), edgec.DataError, r"it takes \(N, 3, 8, 8\)"),
        (np.zeros((0, 3, 8, 8), np.float32), edgec.DataError, "does not fit"),
        ("picture.png", TypeError, "got a str"),
        ([1, 2], TypeError, "got a list of int"),
        ({"z": np.zeros((1, 3, 8, 8))}, edgec.DataError, "it takes x"),
    ],
)
def test_what_an_artifact_does_not_take(given, kind, words, report) -> None:
    with pytest.raises(kind, match=words):
        report.load("int8")(given)


def test_an_artifact_that_is_not_there(report, tmp_path) -> None:
    with pytest.raises(edgec.UsageError, match=r"no artifact 'int4'(.|\n)*int8"):
        report.load("int4")
    (tmp_path / "model.onnx").write_bytes(b"no model")
    with pytest.raises(edgec.ModelError, match=r"model\.onnx"):
        edgec.Report.of(report, tmp_path).load("model.onnx")


def share(predict, samples):
    right = predict(samples.x).argmax(axis=1) == samples.y
    return right.mean()


def by_batches(predict, samples):
    assert len(samples) == 24
    return sum(int((predict(x).argmax(axis=1) == y).sum()) for x, y in samples.batches(7)) / len(samples)


def per_sample(predict, samples):
    right = predict(samples.x).argmax(axis=1) == samples.y
    return right.mean(), right


def several(predict, samples):
    return {"right": share(predict, samples), "largest": float(np.abs(predict(samples.x)).max())}


@pytest.mark.parametrize("metric", [share, by_batches, per_sample])
def test_a_metric_of_ones_own_judges_the_source_and_every_file(metric, net, x, y, out) -> None:
    pytest.importorskip("ai_edge_litert", reason="a TFLite runtime runs the .tflite files")
    report = edgec.compile(
        net, out, data=x, eval=(x, y), metric=metric, precision="int8", formats="onnx,tflite", **FAST
    )
    (found,) = report.metrics
    assert (found.name, found.samples, found.teacher) == (metric.__name__, 24, 1.0)
    assert set(found.values) == set(ALL)
    for one in report.artifacts:  # edgec's own top-1 of the same file on the same data
        assert found.values[one.path] == pytest.approx(one.quality.top1)
    assert set(found.errors) == (set(ALL) if metric is per_sample else set())
    assert edgec.Report.open(out).metrics == report.metrics
    assert metric.__name__ in repr(report)
    assert metric.__name__ in (out / "report.html").read_text()


def test_a_metric_may_give_several_figures_and_lower_may_be_better(net, x, y, out) -> None:
    several.lower_is_better = True
    report = edgec.compile(net, out, eval=(x, y), metric=several, passes="", **FAST)
    assert [one.name for one in report.metrics] == ["right", "largest"]
    assert all(one.lower_is_better for one in report.metrics)
    assert "lower is better" in repr(report)


@pytest.mark.parametrize("name", ["top1", "agreement", "kl", "sqnr_db", "cosine"])
def test_a_metric_by_name_is_that_of_every_report(name, net, x, y, out) -> None:
    report = edgec.compile(net, out, data=x, eval=(x, y), metric=name, precision="int8", **FAST)
    (found,) = report.metrics
    assert found.values["model.int8.onnx"] == getattr(report.quality["int8"], name)
    assert found.teacher == getattr(report.quality["teacher"], name)


def test_what_comes_beside_samples_may_be_anything_for_ones_own_metric(x, out) -> None:
    masks = np.random.default_rng(0).random((24, 4, 8, 8)).astype(np.float32)

    def distance(predict, samples):
        assert samples.y.shape == masks.shape
        return float(np.abs(predict(samples.x)["m"] - samples.y).mean())

    report = edgec.compile(
        parse(SEGMENT), out, eval=[(x[:9], masks[:9]), (x[9:], masks[9:])], metric=distance, passes="", **FAST
    )
    expected = np.abs(session(parse(SEGMENT)).run(["m"], {"x": x})[0] - masks).mean()
    assert report.metrics[0].teacher == pytest.approx(expected, rel=1e-4)


def test_label_offset_holds_for_ones_own_metric(net, x, y, out) -> None:
    report = edgec.compile(net, out, eval=(x, y + 1), label_offset=-1, metric=share, passes="", **FAST)
    assert report.metrics[0].teacher == report.quality["teacher"].top1 == 1.0


def test_without_evaluation_data_held_out_calibration_data_judges(net, x, out) -> None:
    many = np.concatenate([x, 0.9 * x])[:40]
    report = edgec.compile(
        net, out, data=many, metric=lambda predict, samples: len(samples), passes="", **FAST
    )
    assert report.metrics[0].name == "<lambda>"
    assert report.metrics[0].teacher == 8  # a fifth of 40; of fewer than 30 none are kept apart


FAULTS = {
    "metric: text returned a str": lambda: _named("text", lambda predict, samples: "good"),
    "metric: nothing returned a NoneType": lambda: _named("nothing", lambda predict, samples: None),
    "gave no number per sample": lambda: lambda predict, samples: (1.0, np.zeros(3)),
    "predict: got a str": lambda: lambda predict, samples: predict("x"),
}


def _named(name, function):
    function.__name__ = name
    return function


@pytest.mark.parametrize("words", FAULTS)
def test_a_metric_that_fails_does_so_before_the_work(words, net, x, y, out, monkeypatch) -> None:
    monkeypatch.setattr("edgec.compiler.driver.run_passes", lambda *_: pytest.fail("passes ran"))
    with pytest.raises(edgec.EdgecError, match=words):
        edgec.compile(net, out, eval=(x, y), metric=FAULTS[words](), **FAST)
    with pytest.raises(ZeroDivisionError):  # the caller's own error stays the caller's
        edgec.compile(net, out, eval=(x, y), metric=lambda predict, samples: 1 / 0, **FAST)


@pytest.mark.parametrize(
    ("metric", "eval_", "words"),
    [
        ("top1", "x", "needs labels"),
        ("agreement", "none", "nothing to judge on"),
        ("kl", "seg", "one vector of scores"),
    ],
)
def test_a_named_metric_that_cannot_be(metric, eval_, words, net, x, out) -> None:
    model: onnx.ModelProto = parse(SEGMENT) if eval_ == "seg" else net
    with pytest.raises(edgec.UsageError, match=words):
        edgec.compile(model, out, eval=None if eval_ == "none" else x, metric=metric, passes="", **FAST)
