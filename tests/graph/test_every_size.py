"""Networks whose height and width are open: they stay so, or the node that belongs to one size is named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from edgec.compiler.api import compile as compile_model
from edgec.compiler.deploy.bundle import DeployOptions, make_bundle
from edgec.graph.errors import UnsupportedError, UsageError
from edgec.graph.load import load
from edgec.graph.read.metadata import open_sides
from edgec.graph.sizes import OpenSizeError
from tests.conftest import parse

HEAD = "net (float[{shape}] x) => (float[{out}] y) <float[8,3,3,3] w, float[8] b, float[4,8,1,1] v> {{"
CONV = "a = Conv<pads=[1,1,1,1], strides=[2,2]>(x, w, b) c = Relu(a) "
BODIES = {
    "convolutions": "y = Conv(c, v)",
    "a global pool": "p = GlobalAveragePool(c) y = Conv(p, v)",
    "upsampling by scales": (
        "s = Constant<value = float[4] {{1, 1, 2, 2}}>() u = Resize<mode = \"nearest\">(c, , s) y = Conv(u, v)"
    ),
    "resizing to another map": (
        "p = MaxPool<kernel_shape=[2,2], strides=[2,2]>(c) n = Shape(c) s = Slice(n, two, four) k = Shape(p) "
        "h = Slice(k, zero, two) z = Concat<axis=0>(h, s) u = Resize<mode = \"nearest\">(p, , , z) y = Conv(u, v)"
    ),
    "tokens": "t = Constant<value = int64[3] {{0, 8, -1}}>() f = Reshape(c, t) y = Transpose<perm=[0,2,1]>(f)",
    "tokens and back": (
        "n = Shape(c) t = Constant<value = int64[3] {{0, 8, -1}}>() f = Reshape(c, t) g = Sigmoid(f) "
        "m = Reshape(g, n) y = Conv(m, v)"
    ),
    "tokens and back without zeros": (
        "n = Shape(c) t = Constant<value = int64[3] {{1, 8, -1}}>() o = Slice(n, zero, one) r = Slice(t, one, three) "
        "q = Concat<axis=0>(o, r) f = Reshape<allowzero=1>(c, q) m = Reshape<allowzero=1>(f, n) y = Conv(m, v)"
    ),
    "a pool laid out over a map": (
        "p = GlobalAveragePool(c) n = Shape(c) s = Slice(n, two, four) k = Shape(p) h = Slice(k, zero, two) "
        "z = Concat<axis=0>(h, s) u = Resize<mode = \"linear\">(p, , , z) e = Add(u, c) y = Conv(e, v)"
    ),
    "a pool spread over a map": (
        "p = GlobalAveragePool(c) n = Shape(c) e = Expand(p, n) z = Add(e, c) y = Conv(z, v)"
    ),
    "maps of both roundings": (
        "d = MaxPool<kernel_shape=[2,2], strides=[2,2]>(c) f = MaxPool<kernel_shape=[3,3], pads=[1,1,1,1], strides=[2,2]>(d) "
        "n = Shape(d) s = Slice(n, two, four) k = Shape(f) h = Slice(k, zero, two) z = Concat<axis=0>(h, s) "
        "u = Resize<mode = \"nearest\">(f, , , z) e = Add(u, d) y = Conv(e, v)"
    ),
}  # fmt: skip
MADE_FOR_A_SIZE = {
    "a pool of the map's size": "p = AveragePool<kernel_shape=[128,128]>(c) y = Conv(p, v)",
    "a flattened map": "f = Flatten(c) y = MatMul(f, m)",
}


def written(folder: Path, body: str, shape: str = "N,3,H,W", rank: int = 4) -> Path:
    text = (HEAD + CONV + body + "}}").format(shape=shape, out=",".join("NabcdW"[:rank]))
    model = parse(text)
    rng = np.random.default_rng(0)
    more = {"zero": [0], "one": [1], "two": [2], "three": [3], "four": [4]}
    read = {name for node in model.graph.node for name in node.input} | {
        value.name for value in model.graph.input
    }
    for name, array in more.items():
        if name in read:
            model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(array, np.int64), name))
    if "m" in read and not any("m" in node.output for node in model.graph.node):
        made = rng.standard_normal((8 * 128 * 128, 2)).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(made, "m"))
    path = folder / "net.onnx"
    onnx.save(model, path)
    return path


def agrees(source: Path, artifact: Path, sizes: list[tuple[int, int]]) -> None:
    first, second = (ort.InferenceSession(str(path)) for path in (source, artifact))
    rng = np.random.default_rng(1)
    for tall, wide in sizes:
        x = rng.standard_normal((2, 3, tall, wide)).astype(np.float32)
        theirs, ours = first.run(None, {"x": x})[0], second.run(None, {"x": x})[0]
        assert theirs.shape == ours.shape
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


FIXED = {
    "sizes of two axes": 's = Constant<value = int64[2] {{64, 64}}>() u = Resize<mode = "linear", axes = [2, 3]>(c, , , s) y = Conv(u, v)',
    "sizes that are a multiple here": 's = Constant<value = int64[2] {{256, 256}}>() u = Resize<mode = "nearest", axes = [2, 3]>(c, , , s) y = Conv(u, v)',
    "sizes of all axes": (
        "n = Shape(c) h = Slice(n, zero, two) s = Constant<value = int64[2] {{40, 56}}>() z = Concat<axis=0>(h, s) "
        'u = Resize<mode = "linear">(c, , , z) y = Conv(u, v)'
    ),
}  # fmt: skip
"""A Resize that makes one size of every picture, as exporters write it."""


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_the_artifact_keeps_height_and_width_open(body: str, tmp_path: Path) -> None:
    source = written(tmp_path, body, rank=3 if body.startswith("t =") else 4)
    report = compile_model(source, tmp_path / "out", measure=False)
    assert any("stays so in the artifact" in line for line in report.warnings)
    agrees(source, tmp_path / "out" / "model.onnx", [(256, 256), (64, 96), (160, 32), (8, 40), (37, 51)])


ONLY_MULTIPLES = {
    "a skip over a scale": (
        "d = MaxPool<kernel_shape=[2,2], strides=[2,2]>(c) s = Constant<value = float[4] {{1, 1, 2, 2}}>() "
        'u = Resize<mode = "nearest">(d, , s) e = Add(u, c) y = Conv(e, v)'
    ),
    "TensorFlow's padding": (
        'd = MaxPool<kernel_shape=[3,3], strides=[2,2], auto_pad="SAME_UPPER">(c) y = Conv(d, v)'
    ),
    "scales made of sizes": (
        "d = MaxPool<kernel_shape=[3,3], pads=[1,1,1,1], strides=[2,2]>(c) n = Shape(c) k = Shape(d) f = Cast<to=1>(n) "
        'g = Cast<to=1>(k) s = Div(f, g) u = Resize<mode = "nearest">(d, , s) e = Add(u, c) y = Conv(e, v)'
    ),
}


@pytest.mark.parametrize("body", ONLY_MULTIPLES.values(), ids=ONLY_MULTIPLES)
def test_where_only_multiples_are_alike_the_note_says_so(body: str, tmp_path: Path) -> None:
    source = written(tmp_path, body)
    report = compile_model(source, tmp_path / "out", measure=False)
    assert any("for multiples of 4" in line for line in report.warnings)
    agrees(source, tmp_path / "out" / "model.onnx", [(256, 256), (36, 52), (20, 28)])


@pytest.mark.parametrize(
    ("shape", "sides"), [("N,3,H,W", "hw"), ("N,3,48,W", "w"), ("1,3,H,64", "h"), ("N,3,S,S", "hw")]
)
def test_only_what_was_open_stays_open(shape: str, sides: str, tmp_path: Path) -> None:
    path = written(tmp_path, BODIES["convolutions"], shape)
    assert open_sides(load(path)) == sides
    compile_model(path, tmp_path / "out", measure=False)
    (value,) = onnx.load(tmp_path / "out" / "model.onnx").graph.input
    for dim, side in zip(list(value.type.tensor_type.shape.dim)[2:], "hw", strict=True):
        assert bool(dim.dim_param) == (side in sides)


@pytest.mark.parametrize("body", MADE_FOR_A_SIZE.values(), ids=MADE_FOR_A_SIZE)
def test_what_belongs_to_one_size_is_named(body: str, tmp_path: Path) -> None:
    path = written(tmp_path, body, rank=2 if "Flatten" in body else 4)
    with pytest.raises(OpenSizeError, match=r"AveragePool|Flatten|MatMul|Gemm|Reshape") as caught:
        load(path)
    assert "--input-shape" in caught.value.hint


@pytest.mark.parametrize("shape", ["N,C,H,W", "N,3,L", "N,3,D,H,W"])
def test_other_open_axes_are_refused_as_before(shape: str, tmp_path: Path) -> None:
    rank = shape.count(",") + 1
    path = tmp_path / "net.onnx"
    onnx.save(
        parse(f"net (float[{shape}] x) => (float[{','.join('abcde'[:rank])}] y) {{ y = Relu(x) }}"), path
    )
    with pytest.raises(UnsupportedError, match="no fixed size"):
        load(path)


NEEDS: dict[str, Callable[[Path], dict[str, object]]] = {
    "samples": lambda folder: {"data": folder},
    "TFLite": lambda folder: {"formats": ("onnx", "tflite")},
    "TensorRT": lambda folder: {"target": "jetson-orin-nano", "precision": "fp16"},
    "resolution": lambda folder: {"resolution": 128},
}


@pytest.mark.parametrize("asked", NEEDS)
def test_what_needs_one_size_asks_for_it(asked: str, tmp_path: Path) -> None:
    path = written(tmp_path, BODIES["convolutions"])
    (tmp_path / "pictures").mkdir()
    with pytest.raises(OpenSizeError, match=r"for one size|from a network") as caught:
        compile_model(path, tmp_path / "out", measure=False, **NEEDS[asked](tmp_path / "pictures"))  # type: ignore[arg-type]
    assert "--input-shape" in caught.value.hint


def test_it_is_measured_at_the_size_that_stands_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgec.runtime import bench

    compare, seen = bench.compare, []

    def quick(paths: list[Path], options: bench.BenchOptions, device: object) -> object:
        seen.append(options.shapes)
        return compare(
            paths, bench.BenchOptions(runs=5, seconds=0.1, restarts=1, shapes=options.shapes), device
        )  # type: ignore[arg-type]

    monkeypatch.setattr(bench, "compare", quick)
    report = compile_model(written(tmp_path, BODIES["convolutions"]), tmp_path / "out", threads=1)
    assert seen == [{"x": (1, 3, 256, 256)}]
    assert report.artifacts[0].latency is not None


def test_a_bundle_is_of_one_size(tmp_path: Path) -> None:
    compile_model(written(tmp_path, BODIES["convolutions"]), tmp_path / "out", measure=False)
    with pytest.raises(UsageError, match="no bundle") as caught:
        make_bundle(tmp_path / "out", tmp_path / "bundle", DeployOptions(target="rpi4"))
    assert "--input-shape" in caught.value.hint
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize("body", FIXED.values(), ids=FIXED)
def test_a_resize_to_one_size_is_said_to_be_one(body: str, tmp_path: Path) -> None:
    with pytest.raises(
        OpenSizeError, match=r"\(Resize\): it makes \d+ x \d+ of a picture of any size"
    ) as caught:
        load(written(tmp_path, body))
    assert "--input-shape" in caught.value.hint
