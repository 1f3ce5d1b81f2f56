"""Models and data of every kind that Python may hold, into a run whose recipe needs Python no more."""

from __future__ import annotations

import inspect
import itertools
import sys
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import edgec
from edgec.compiler import cli
from edgec.compiler.read.recipe import EvalSource, ModelSource, Recipe
from tests.conftest import parse
from tests.face.conftest import NET, TWO

FAST = {"measure": False, "quiet": True}


def stored(out: Path, name: str) -> dict[str, np.ndarray]:
    with np.load(out / name) as arrays:
        return {key: arrays[key] for key in arrays.files}


def test_every_key_of_a_recipe_has_its_keyword() -> None:
    signature = inspect.signature(edgec.compile).parameters
    written = {"timing", "edgec", "versions", "gates"}  # by edgec itself; max_drop is the one gate
    wanted = set(Recipe.model_fields) - written | set(EvalSource.model_fields) | set(ModelSource.model_fields)
    wanted |= {"samples", "skip_bad", "max_drop"}
    assert wanted - {"path", "sha256", "fingerprint", "origin"} <= set(signature)
    assert not any(one.kind is inspect.Parameter.VAR_KEYWORD for one in signature.values())


MODELS = {
    "path": lambda net, folder: _saved(net, folder),
    "text path": lambda net, folder: str(_saved(net, folder)),
    "ModelProto": lambda net, folder: net,
    "onnx_ir": lambda net, folder: ir.from_proto(net),
}
ORIGINS = {
    "path": None,
    "text path": None,
    "ModelProto": "net (onnx.ModelProto)",
    "onnx_ir": "net (onnx_ir.Model)",
}


def _saved(net: onnx.ModelProto, folder: Path) -> Path:
    onnx.save(net, folder / "net.onnx")
    return folder / "net.onnx"


@pytest.mark.parametrize("kind", MODELS)
def test_a_model_of_any_kind_compiles_and_is_named_for_what_it_is(kind: str, net, x, out, tmp_path) -> None:
    report = edgec.compile(MODELS[kind](net, tmp_path), out, data=x, precision="int8", **FAST)
    assert report.model.name == (ORIGINS[kind] or "net.onnx")
    assert report.recipe["model"].get("origin") == ORIGINS[kind]
    source = out / report.recipe["model"]["path"]
    assert report.model.bytes == source.stat().st_size
    import hashlib

    assert report.model.sha256 == hashlib.sha256(source.read_bytes()).hexdigest()
    assert report.load("int8")(x).shape == (24, 10)


def test_the_recipe_of_such_a_run_makes_the_same_bytes_again(net, x, y, out, tmp_path, monkeypatch) -> None:
    report = edgec.compile(
        net,
        out,
        data=iter([x]),
        eval=(x, y),
        precision="int8",
        budget="macs=60%",
        formats="onnx,tflite",
        **FAST,
    )
    monkeypatch.setattr(
        sys,
        "argv",
        [
            "edgec",
            "compile",
            "--recipe",
            str(out / "recipe.yaml"),
            "-o",
            str(tmp_path / "again"),
            "-q",
            "--no-bench",
        ],
    )
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code
    for one in report.artifacts:
        assert (tmp_path / "again" / one.path).read_bytes() == (out / one.path).read_bytes()
    again = edgec.Report.open(tmp_path / "again")
    assert again.model.name == "net (onnx.ModelProto)"
    assert again.quality == report.quality


def test_a_later_run_from_paths_leaves_no_inputs_of_the_earlier_one(net, x, out, tmp_path) -> None:
    edgec.compile(net, out, data=x, **FAST)
    assert {"source.onnx", "data.npz"} <= {one.name for one in out.iterdir()}
    edgec.compile(_saved(net, tmp_path), out, data=x, **FAST)
    assert not (out / "source.onnx").exists()
    assert (out / "data.npz").exists()


def test_a_run_of_its_own_recipe_in_its_own_folder_keeps_its_inputs(net, x, out) -> None:
    edgec.compile(net, out, data=x, **FAST)
    from edgec.compiler.read.recipe import read_recipe

    edgec.compile(read_recipe(out / "recipe.yaml"), out, **FAST)
    assert (out / "source.onnx").exists()
    assert (out / "data.npz").exists()


def _npz(x, folder: Path) -> Path:
    np.savez(folder / "given.npz", x=x)
    return folder / "given.npz"


DATA = {
    "path": lambda x, folder: _npz(x, folder),
    "text path": lambda x, folder: str(_npz(x, folder)),
    "array": lambda x, folder: x,
    "mapped array": lambda x, folder: np.load(_npy(x, folder), mmap_mode="r"),
    "float64": lambda x, folder: x.astype(np.float64),
    "dict by input": lambda x, folder: {"x": x},
    "list of batches": lambda x, folder: [x[:10], x[10:]],
    "list of samples": lambda x, folder: list(x),
    "tuple of batches": lambda x, folder: (x[:12], x[12:]),
    "generator of batches": lambda x, folder: (x[i : i + 5] for i in range(0, 24, 5)),
    "generator of samples": lambda x, folder: (one for one in x),
    "pairs": lambda x, folder: [(x[:12], np.zeros(12, int)), (x[12:], np.zeros(12, int))],
    "alone in a list": lambda x, folder: [[x[:12]], [x[12:]]],
    "dicts": lambda x, folder: [{"x": x[:12]}, {"x": x[12:]}],
}


def _npy(x, folder: Path) -> Path:
    np.save(folder / "given.npy", x)
    return folder / "given.npy"


@pytest.mark.parametrize("kind", DATA)
def test_data_of_any_kind_is_the_same_data(kind: str, net, x, out, tmp_path) -> None:
    report = edgec.compile(net, out, data=DATA[kind](x, tmp_path), passes="", **FAST)
    assert report.data is not None
    assert report.data.samples == 24
    if "path" not in kind:
        np.testing.assert_array_equal(stored(out, "data.npz")["x"], x)
        assert set(stored(out, "data.npz")) == {"x"}  # labels of calibration data are nobody's business


@pytest.mark.parametrize(
    "kind", ["array", "dict by input", "generator of samples", "generator of batches", "list of batches"]
)
def test_samples_bound_what_is_taken(kind: str, net, x, out, tmp_path) -> None:
    edgec.compile(net, out, data=DATA[kind](x, tmp_path), samples=7, passes="", **FAST)
    taken = stored(out, "data.npz")["x"]
    assert len(taken) == 7
    if "generator" in kind or "list" in kind:
        np.testing.assert_array_equal(taken, x[:7])
    else:  # what has numbers is chosen by the seed, as from a file
        np.testing.assert_array_equal(taken, x[np.sort(np.random.default_rng(0).permutation(24)[:7])])


def test_an_endless_generator_is_asked_for_no_more_than_it_takes(net, x, out) -> None:
    asked = []

    def endless():
        while True:
            asked.append(1)
            yield x[:4]

    edgec.compile(net, out, data=endless(), samples=8, passes="", **FAST)
    assert len(asked) == 2


def test_an_endless_generator_without_a_bound_ends_in_one_message(net, x, out, monkeypatch) -> None:
    monkeypatch.setattr("edgec.compiler.face.writer.free_bytes", lambda path: 100_000)
    with pytest.raises(edgec.DataError, match=r"no end, or too much for the disk(.|\n)*samples=N"):
        edgec.compile(net, out, data=itertools.repeat(x), passes="", **FAST)
    assert not out.exists()


EVAL = {
    "pair": lambda x, y: {"eval": (x, y)},
    "dict": lambda x, y: {"eval": {"x": x, "y": y}},
    "labels beside": lambda x, y: {"eval": x, "labels": y},
    "list of labels": lambda x, y: {"eval": x, "labels": [int(one) for one in y]},
    "batches": lambda x, y: {"eval": ((x[i : i + 5], y[i : i + 5]) for i in range(0, 24, 5))},
    "samples": lambda x, y: {"eval": list(zip(x, y.tolist(), strict=True))},
    "column": lambda x, y: {"eval": [(x, y[:, None])]},
    "dicts": lambda x, y: {"eval": [{"x": x, "y": y}]},
}


@pytest.mark.parametrize("kind", EVAL)
def test_labels_come_with_evaluation_data_of_any_kind(kind: str, net, x, y, out) -> None:
    report = edgec.compile(net, out, passes="", **EVAL[kind](x, y), **FAST)
    assert report.quality["teacher"].top1 == 1.0  # the labels are the network's own answers
    np.testing.assert_array_equal(stored(out, "eval.npz")["y"], y)


def test_whole_numbers_are_preprocessed_as_from_a_file_and_floats_are_not(net, x, out, tmp_path) -> None:
    raw = (np.abs(x) * 50).astype(np.uint8).transpose(0, 2, 3, 1)  # channels last
    how = {"scale": "1/255", "mean": 0.5, "layout": "nhwc"}
    memory = edgec.compile(net, out, data=raw, preprocess=how, precision="int8", **FAST)
    file = edgec.compile(
        net, tmp_path / "file", data=_npz(raw, tmp_path), preprocess=how, precision="int8", **FAST
    )
    assert [one.sha256 for one in memory.artifacts] == [one.sha256 for one in file.artifacts]
    assert memory.data == file.data.model_copy(update={"name": "data.npz"})


def test_a_model_of_two_inputs_takes_dicts(x, out) -> None:
    b = np.random.default_rng(1).standard_normal((24, 4)).astype(np.float32)
    report = edgec.compile(
        parse(TWO), out, data={"a": x, "b": b}, precision="int8", formats="onnx,tflite", **FAST
    )
    for name in ("fp32", "model.tflite", "int8"):
        loaded = report.load(name)
        assert loaded({"a": x, "b": b}).shape == (24, 4)
        with pytest.raises(edgec.DataError, match="2 inputs"):
            loaded(x)
    with pytest.raises(
        edgec.DataError, match=r"data: no array for the input 'a'.*\n.*dict of arrays by input"
    ):
        edgec.compile(parse(TWO), out, data=x, **FAST)


WRONG = {
    "data: got a list of str": {"data": ["a.jpg", "b.jpg"]},
    "data: got an int": {"data": 3},
    "data: got an empty list": {"data": []},
    "data: got a bytes": {"data": b"abc"},
    "data: got a list of list": {"data": [[1.0, 2.0]]},
    "data: got a list of int": {"data": [1, 2]},
    "data: got a dict of str to str": {"data": {"x": "a.npy"}},
    "data: got a str as a sample": {"data": (one for one in "ab")},
    "data: got an Image as a sample": {"data": iter([type("Image", (), {"getbands": None})()])},
    "eval: got a float": {"eval": 0.5},
    "eval: labels do not fit the batch": {"eval": [(np.zeros((4, 3, 8, 8), np.float32), [1, 2])]},
    "labels: got a str": {"eval": np.zeros((4, 3, 8, 8), np.float32), "labels": "labels.csv"},
    "labels: got a list of int": {"eval": "folder", "labels": [1, 2]},
    "metric: got an int": {"metric": 5},
    "target: got a float": {"target": 4.0},
    "model: got a dict": {"model": {}},
    "model: got a list of str": {"model": ["net.onnx"]},
    "model: got a NoneType": {"model": None},
    "out: got an int": {"out": 3},
}


@pytest.mark.parametrize("words", WRONG)
def test_a_wrong_type_is_told_with_what_is_admitted(words: str, net, out) -> None:
    given = {"model": net, "out": out, **WRONG[words], **FAST}
    with pytest.raises(TypeError, match=words) as caught:
        edgec.compile(given.pop("model"), given.pop("out"), **given)
    assert isinstance(caught.value, edgec.EdgecError)
    assert "admitted" in str(caught.value) or "entry for each" in str(caught.value)
    assert not out.exists()


MISFITS = {
    "data: samples differ in shape": {"data": [np.zeros((2, 3, 8, 8)), np.zeros((2, 3, 9, 9))]},
    "does not fit the model": {"data": np.zeros((4, 5, 8, 8), np.float32)},
    "no samples": {"data": iter([])},
    "no samples, or not as many": {"data": {"x": np.zeros((4, 3, 8, 8)), "y": np.zeros(3, int)}},
    "not finite": {"data": np.full((2, 3, 8, 8), np.nan)},
    "some samples have no label": {"eval": [(np.zeros((2, 3, 8, 8)), [1, 2]), (np.zeros((2, 3, 8, 8)),)]},
    "is no class": {"eval": [(np.zeros((2, 3, 8, 8)), np.zeros((2, 8, 8)))]},
    "do not fit the model": {"eval": (np.zeros((2, 3, 8, 8)), np.array([1, 12]))},
    "labels beside data that has its own": {
        "eval": (np.zeros((2, 3, 8, 8)), np.array([1, 2])),
        "labels": [1, 2],
    },
    "samples without data": {"samples": 3},
    "labels without eval": {"labels": [1]},
    "example_input without a torch module": {"example_input": np.zeros(3), "model": "net.onnx"},
}


@pytest.mark.parametrize("words", MISFITS)
def test_what_does_not_fit_ends_in_one_message_and_leaves_nothing(words: str, net, out) -> None:
    given = {"model": net, **MISFITS[words], **FAST}
    with pytest.raises(edgec.EdgecError, match=words):
        edgec.compile(given.pop("model"), out, **given)
    assert not out.exists()


def test_a_whole_recipe_takes_no_options_beside_it(net, out, tmp_path) -> None:
    recipe = Recipe(model=ModelSource(path=str(_saved(parse(NET), tmp_path))))
    with pytest.raises(edgec.UsageError, match="seed given too"):
        edgec.compile(recipe, out, seed=3)
    assert edgec.compile(recipe, out, **FAST).artifacts[0].path == "model.onnx"


@pytest.mark.parametrize("given", ["host", Path("host"), "object"])
def test_a_target_is_a_name_or_an_object(given, net, out) -> None:
    from edgec.targets import target

    report = edgec.compile(net, out, target=target("host") if given == "object" else given, passes="", **FAST)
    assert report.target == "host"
