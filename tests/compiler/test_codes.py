"""`--io-type`: int8 files that take and give codes compute what those with real numbers at their ends do."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import edgec as package
from edgec.compiler.deploy.bundle import DeployOptions, make_bundle
from edgec.compiler.face.artifact import LoadedArtifact
from edgec.graph.errors import UsageError
from tests.conftest import parse

BODY = (
    "<float[8,3,3,3] w1, float[8] b1, float[8,8,3,3] w2, float[6,8] g>"
    "{ t = Conv<pads=[1,1,1,1]>(x, w1, b1)  r = Relu(t)  u = Conv<pads=[1,1,1,1]>(r, w2)  s = Relu(u)"
)
NETS = {
    "classes": f"net (float[N,3,8,8] x) => (float[N,6] y) {BODY} p = GlobalAveragePool(s) f = Flatten(p) y = Gemm<transB=1>(f, g) }}",
    "a map, one sample": f"net (float[1,3,8,8] x) => (float[1,8,8,8] y) {BODY} y = Sigmoid(u) }}",
    "two outputs": f"net (float[N,3,8,8] x) => (float[N,8,8,8] s, float[N,6] y) {BODY} p = GlobalAveragePool(s) f = Flatten(p) y = Gemm<transB=1>(f, g) }}",
    "two inputs": (
        "net (float[N,3,8,8] x, float[N,8,8,8] z) => (float[N,8,8,8] y) <float[8,3,3,3] w1>"
        "{ t = Conv<pads=[1,1,1,1]>(x, w1)  a = Add(t, z)  y = Relu(a) }"
    ),
    "an input that is read twice": (
        "net (float[N,3,8,8] x) => (float[N,3,8,8] y) <float[3,3,3,3] w1>{ t = Conv<pads=[1,1,1,1]>(x, w1)  y = Add(t, x) }"
    ),
}
FAST: dict[str, Any] = {"measure": False, "quiet": True, "threads": 1, "isolated": False, "precision": "int8"}


@pytest.fixture
def compiled(tmp_path: Path) -> Callable[..., Any]:
    def make(text: str, kind: str, **more: Any) -> tuple[Any, dict[str, np.ndarray]]:
        model = parse(text)
        rng = np.random.default_rng(0)
        x = {
            value.name: rng.standard_normal(
                (24, *(dim.dim_value for dim in value.type.tensor_type.shape.dim[1:]))
            ).astype(np.float32)
            for value in model.graph.input
            if value.name in ("x", "z")
        }
        made = package.compile(model, tmp_path / kind, data=x, io_type=kind, **FAST, **more)
        return made, x

    return make


def loaded(report: Any, form: str) -> LoadedArtifact:
    return report.load(f"model.int8.{form}")


@pytest.mark.parametrize(
    ("kind", "board"),
    [
        ("int8", "rpi4"),
        ("uint8", "host"),
        pytest.param("int8", "host", marks=pytest.mark.slow),
        pytest.param("uint8", "rpi4", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("name", NETS)
def test_codes_at_the_ends_change_no_answer(compiled, name: str, kind: str, board: str) -> None:
    pytest.importorskip("ai_edge_litert")
    plain, x = compiled(NETS[name], "float", formats=("onnx", "tflite"), target=board)
    coded, _ = compiled(NETS[name], kind, formats=("onnx", "tflite"), target=board)
    for form in ("onnx", "tflite"):
        first, second = loaded(plain, form), loaded(coded, form)
        types = {value: dtype.name for value, _, dtype in second._engine.inputs}
        assert set(types.values()) == {kind}
        made, given = second.run(x), first.run(x)
        assert set(made) == set(given)
        for output, array in made.items():
            np.testing.assert_array_equal(array, given[output])
        ends = set(types) | {
            value for value, array in second._engine.outputs().items() if array.dtype.name == kind
        }
        assert ends == set(second._engine.quantised) == {*x, *made}


def test_ends_in_float_stay_and_are_named(compiled) -> None:
    text = f"net (float[N,3,8,8] x) => (float[N,6] y, float[N,6] p) {BODY} q = GlobalAveragePool(s) f = Flatten(q) y = Gemm<transB=1>(f, g) p = Softmax(y) }}"
    plain, x = compiled(text, "float", passes="quantize{exclude=Softmax*}")
    coded, _ = compiled(text, "uint8", passes="quantize{exclude=Softmax*}")
    made, given = loaded(coded, "onnx").run(x), loaded(plain, "onnx").run(x)
    for output, array in made.items():
        np.testing.assert_array_equal(array, given[output])
    (line,) = [one for one in coded.warnings if one.startswith("model.int8.onnx: ")]
    assert "x is uint8 codes" in line
    types = {
        one.name: one.type.tensor_type.elem_type
        for one in onnx.load(coded.folder / "model.int8.onnx").graph.output
    }
    stays = [name for name, kind in types.items() if kind == onnx.TensorProto.FLOAT]
    assert stays
    assert "real numbers stay at" in line
    assert all(name in line for name in stays)


def test_the_quality_of_the_file_is_judged_as_it_is(compiled) -> None:
    pytest.importorskip("ai_edge_litert")
    plain, _ = compiled(NETS["classes"], "float", formats="tflite")
    coded, _ = compiled(NETS["classes"], "int8", formats="tflite")
    first, second = (one.artifacts[-1].quality for one in (plain, coded))
    assert first is not None
    assert second is not None
    assert second.sqnr_db == pytest.approx(first.sqnr_db, abs=0.2)


@pytest.mark.parametrize("kind", ["int8", pytest.param("uint8", marks=pytest.mark.slow)])
def test_such_a_file_is_compared_with_its_source(compiled, kind: str, edgec: Callable[..., Any]) -> None:
    pytest.importorskip("ai_edge_litert")
    report, x = compiled(NETS["two outputs"], kind)
    plain, _ = compiled(NETS["two outputs"], "float", formats=("onnx", "tflite"))
    onnx.save(parse(NETS["two outputs"]), report.folder / "source.onnx")
    np.savez(report.folder / "x.npz", x=x["x"])
    said = []
    for run in (report, plain):
        words = (
            report.folder / "source.onnx",
            run.folder / "model.int8.onnx",
            "--data",
            report.folder / "x.npz",
            "--json",
        )
        code, out, err = edgec("verify", *words)
        assert code == 0, err
        said.append(
            {one["value"]: one["sqnr_db"] for one in json.loads(out)["layers"] if one["value"] in ("s", "y")}
        )
    assert said[0] == pytest.approx(said[1], abs=1e-3)
    tflite = plain.folder / "model.int8.tflite"
    code, out, err = edgec(
        "verify", report.folder / "model.int8.onnx", tflite, "--data", report.folder / "x.npz", "--json"
    )
    assert code == 0, err
    assert all(one["sqnr_db"] is None or one["sqnr_db"] > 30 for one in json.loads(out)["layers"])
    before = LoadedArtifact(report.folder / "source.onnx").run({"x": x["x"]})
    after = loaded(plain, "onnx").run({"x": x["x"]})
    for name, stated in said[0].items():
        lost = np.square(before[name] - after[name]).sum() / np.square(before[name]).sum()
        assert stated == pytest.approx(-10 * np.log10(lost), abs=0.01)


@pytest.mark.parametrize("kind", [pytest.param("int8", marks=pytest.mark.slow), "uint8"])
def test_a_bundle_feeds_and_reads_codes(compiled, kind: str, tmp_path: Path) -> None:
    report, x = compiled(NETS["classes"], kind)
    bundle = make_bundle(report.folder, tmp_path / "bundle", DeployOptions())
    said = json.loads((bundle.path / "bundle.json").read_text())
    quantised = {one["file"]: set(one["quantised"]) for one in said["artifacts"]}
    assert quantised["model.int8.onnx"] == {"x", "y"}
    done = subprocess.run(
        [sys.executable, "selftest.py", "--json"],
        cwd=bundle.path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    np.save(tmp_path / "one.npy", x["x"][0])
    ran = subprocess.run(
        [sys.executable, "run.py", "--artifact", "model.int8.onnx", "--json", "--raw", str(tmp_path / "one.npy")],
        cwd=bundle.path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    found = np.asarray(json.loads(ran.stdout)["outputs"]["y"], np.float32)
    np.testing.assert_allclose(found, loaded(report, "onnx")(x["x"][:1]), rtol=1e-6)


WRONG = [
    ({"precision": "fp32"}, "the run makes none"),
    ({"target": "jetson-orin-nano"}, "no codes at the ends"),
    ({"io_type": "int4"}, "float, int8, uint8"),
]


@pytest.mark.parametrize(("more", "words"), WRONG)
def test_what_cannot_be_is_refused(more: dict[str, Any], words: str, tmp_path: Path) -> None:
    x = np.zeros((8, 3, 8, 8), np.float32)
    options = {**FAST, "io_type": "int8", "data": x, **more}
    with pytest.raises(UsageError, match=words):
        package.compile(parse(NETS["classes"]), tmp_path / "out", **options)
