"""What a bundle's own program feeds is what edgec fed: every kind of input, every form in which a sample comes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from PIL import Image

from edgec.compiler.api import compile as compile_model
from edgec.compiler.deploy.bundle import Bundle, DeployOptions, make_bundle
from edgec.runtime.report import read

Array = np.ndarray[Any, np.dtype[Any]]

HEAD = '<ir_version: 8, opset_import: ["" : 17]>'
BODY = """
  w = Constant <value = float[4,3,3,3] {%s}> ()
  c = Conv <pads = [1,1,1,1]> (%s, w)
  r = Relu (c)
  g = GlobalAveragePool (r)
  f = Flatten (g)
"""
WEIGHTS = ", ".join(f"{value:.3f}" for value in np.random.default_rng(0).normal(0, 0.3, 108))


def body(x: str) -> str:
    return BODY % (WEIGHTS, x)


NETS = {
    "float": f"{HEAD} g (float[N,3,8,8] x) => (float[N,4] y) {{ {body('x')} y = Identity (f) }}",
    "float last": f"{HEAD} g (float[N,8,8,3] x) => (float[N,4] y) {{ t = Transpose <perm = [0,3,1,2]> (x) {body('t')} y = Identity (f) }}",
    "uint8": f"{HEAD} g (uint8[N,3,8,8] x) => (float[N,4] y) {{ t = Cast <to = 1> (x) {body('t')} y = Identity (f) }}",
    "uint8 last": f"{HEAD} g (uint8[N,8,8,3] x) => (float[N,4] y) {{ c0 = Cast <to = 1> (x) t = Transpose <perm = [0,3,1,2]> (c0) {body('t')} y = Identity (f) }}",
    "int64 beside": f"{HEAD} g (float[N,3,8,8] x, int64[N] k) => (float[N,4] y) {{ {body('x')} q = Cast <to = 1> (k) a = Constant <value = int64[1] {{1}}> () u = Unsqueeze (q, a) y = Add (f, u) }}",
    "scalar beside": f"{HEAD} g (float[N,3,8,8] x, float t) => (float[N,4] y) {{ {body('x')} y = Sub (f, t) }}",
    "no batch": f"{HEAD} g (float[3,8,8] x) => (float[4] y) {{ a = Constant <value = int64[1] {{0}}> () u = Unsqueeze (x, a) {body('u')} y = Squeeze (f, a) }}",
    "square": f"{HEAD} g (float[N,3,3,3] x) => (float[N,4] y) {{ {body('x')} y = Identity (f) }}",
}  # fmt: skip
SIDE = {"square": 3}
RAW = {"uint8", "uint8 last"}


def pictures(name: str) -> Array:
    side = SIDE.get(name, 8)
    return np.random.default_rng(1).integers(0, 256, (12, side, side, 3)).astype(np.uint8)


def bundled(name: str, folder: Path, channels: str) -> Bundle:
    onnx.save(onnx.parser.parse_model(NETS[name]), folder / "m.onnx")
    data = {"x": pictures(name)}
    if name == "int64 beside":
        data["k"] = np.arange(12) % 5
    if name == "scalar beside":
        data["t"] = np.full(12, 0.25, np.float32)
    np.savez(folder / "data.npz", **data)
    steps: dict[str, Any] = {"channels": channels}
    if name not in RAW:
        steps |= {"scale": 1 / 255, "mean": (0.4, 0.45, 0.5)}
    if name == "square":
        steps["layout"] = "nhwc"
    compile_model(
        folder / "m.onnx", folder / "run", data=folder / "data.npz", precision="int8", target="rpi4",
        formats=("onnx", "tflite"), preprocess=steps, measure=False, threads=1, quiet=True,
    )  # fmt: skip
    return make_bundle(folder / "run", folder / "bundle", DeployOptions())


def expected(name: str, source: Path, picture: Array, channels: str, beside: dict[str, Array]) -> Array:
    """The source network in onnxruntime, fed by hand."""
    pixels = picture[..., ::-1] if channels == "bgr" else picture
    if name not in RAW:
        pixels = pixels.astype(np.float32) * np.float32(1 / 255) - np.asarray((0.4, 0.45, 0.5), np.float32)
    x = pixels if name.endswith("last") else pixels.transpose(2, 0, 1)
    feeds = {"x": x if name == "no batch" else x[None], **beside}
    session = onnxruntime.InferenceSession(source, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, feeds)[0]).reshape(-1)


CODE = """
import json, sys
from run import Model
told = []
for artifact in ("model.onnx", "model.tflite", "model.int8.onnx", "model.int8.tflite"):
    model = Model(artifact)
    for file in sys.argv[1:]:
        (found,) = model(file).values()
        told.append([artifact, file, found.ravel().tolist()])
print(json.dumps(told))
"""
CASES = {name: "bgr" if name in ("float", "float last", "uint8 last") else "rgb" for name in NETS}
QUICK = ("float last",)


@pytest.mark.parametrize(
    ("name", "channels"),
    [
        pytest.param(name, channels, marks=() if name in QUICK else pytest.mark.slow)
        for name, channels in CASES.items()
    ],
)
def test_the_board_feeds_what_the_host_fed(name: str, channels: str, tmp_path: Path) -> None:
    folder = bundled(name, tmp_path, channels).path
    done = subprocess.run(
        [sys.executable, "selftest.py", "--json"], cwd=folder, capture_output=True, text=True, check=False
    )
    told = json.loads(done.stdout)
    assert told["passed"], told
    assert not any(one["skipped"] for one in told["artifacts"])
    assert "calibration samples" in json.loads((folder / "bundle.json").read_text())["selftest"]
    one = pictures(name)[3]
    beside: dict[str, Array] = {}
    if name == "int64 beside":
        beside = {"k": np.array([3])}
    if name == "scalar beside":
        beside = {"t": np.asarray(0.25, np.float32)}
    if beside:
        np.savez(folder / "one.npz", x=one, **beside)
        files = ["one.npz"]
    else:
        Image.fromarray(one).save(folder / "one.png")
        np.save(folder / "one.npy", one)
        np.save(folder / "led.npy", one[None])
        np.save(folder / "chw.npy", np.ascontiguousarray(one.transpose(2, 0, 1)))
        files = ["one.png", "one.npy", "led.npy"] + (["chw.npy"] if name != "square" else [])
    want = expected(name, tmp_path / "m.onnx", one, channels, beside)
    command = [sys.executable, "-c", CODE, *files]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for artifact, file, got in json.loads(done.stdout):
        limit = (0.05 if "int8" in artifact else 1e-4) * float(np.abs(want).max())
        np.testing.assert_allclose(got, want, rtol=0, atol=limit, err_msg=f"{artifact} {file}")
    if name == "no batch":
        assert any("leading axis of 1" in line for line in read(tmp_path / "run").warnings)
    if name == "uint8":
        np.save(folder / "half.npy", np.full((3, 8, 8), 0.5, np.float32))
        command = [sys.executable, "run.py", "half.npy"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 3
        assert "takes uint8, and the sample holds other numbers" in done.stderr


def test_a_picture_is_prepared_as_at_compile_time(tmp_path: Path) -> None:
    """The self-test's PNG gives the same input on both sides, and it is noticed where it does not."""
    folder = bundled("float", tmp_path, "bgr").path

    def said() -> dict[str, Any]:
        command = [sys.executable, "selftest.py", "--json"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=120)
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    right = said()
    assert right["passed"]
    assert right["picture"]["result"] == "gives the same input as at compile time"
    bundle = json.loads((folder / "bundle.json").read_text())
    bundle["preprocess"]["channels"] = "rgb"
    (folder / "bundle.json").write_text(json.dumps(bundle))
    wrong = said()
    assert not wrong["passed"]
    assert "its input differs" in wrong["picture"]["result"]
