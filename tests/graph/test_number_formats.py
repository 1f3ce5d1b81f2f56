"""Number formats at the door: what the network computes with becomes float32, what it takes and gives stays its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from edgec.compiler.emit.onnx import emit
from edgec.graph.canonicalise import canonicalise
from edgec.graph.data import open_data
from edgec.graph.equivalence import worst_difference
from edgec.graph.errors import DataError
from edgec.graph.execute import Executor, session
from edgec.graph.preprocess import Preprocess
from tests.conftest import parse

FLOATS = {"float16": TensorProto.FLOAT16, "double": TensorProto.DOUBLE, "bfloat16": TensorProto.BFLOAT16}
ROUNDING = {"float16": 2e-2, "double": 1e-5, "bfloat16": 1e-1}
"""What the source's own arithmetic loses, of an output's range."""
WHOLE = {"uint8": np.uint8, "int8": np.int8, "int32": np.int32, "int64": np.int64, "bool": np.bool_}


def floating(kind: str, *, ends: bool = True) -> onnx.ModelProto:
    """A network that computes in ``kind``; ``ends``: its input and output are of that type too."""
    inner = "{ t = Conv(%s, w)  u = Relu(t)  %s = Clip(u, low, high) }"
    body = inner % ("x", "y") if ends else f"{{ h = Cast<to={FLOATS[kind]}>(x) " + (inner % ("h", "v"))[1:-1]
    body += "" if ends else " y = Cast<to=1>(v) }"
    outer = kind if ends else "float"
    proto = parse(f"net ({outer}[N,3,8,8] x) => ({outer}[N,4,6,6] y) {body}")
    rng = np.random.default_rng(0)
    constants = {"w": rng.normal(0, 0.3, (4, 3, 3, 3)), "low": np.array(0.1), "high": np.array(1.5)}
    for name, array in constants.items():
        flat = [float(value) for value in np.ravel(array)]
        proto.graph.initializer.append(helper.make_tensor(name, FLOATS[kind], array.shape, flat))
    return proto


@pytest.mark.parametrize("ends", [True, False], ids=["throughout", "inside"])
@pytest.mark.parametrize("kind", FLOATS)
def test_networks_of_other_floats_compute_in_float32(kind: str, ends: bool) -> None:
    source = floating(kind, ends=ends)
    model = canonicalise(source)
    inner = [v.dtype.name for node in model.graph for v in node.outputs if node.op_type != "Cast"]
    assert set(inner) == {"FLOAT"}
    x = np.random.default_rng(1).random((2, 3, 8, 8))
    kept = {"float16": np.float16, "double": np.float64}.get(kind, np.float32) if ends else np.float32
    got = Executor(model).run({"x": x.astype(kept)})["y"]
    assert got.dtype == kept
    weight = numpy_helper.to_array(next(t for t in source.graph.initializer if t.name == "w")).astype(
        np.float64
    )
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(2, 3))
    expected = np.clip(np.einsum("nchwij,ocij->nohw", windows, weight), 0.1, 1.5)
    assert worst_difference(expected, got.astype(np.float64)) < ROUNDING[kind]


def test_a_mask_below_float32_is_its_lowest_number() -> None:
    proto = parse("net (double[N,4] x) => (double[N,4] y) { y = Add(x, m) }")
    proto.graph.initializer.append(numpy_helper.from_array(np.full(4, np.finfo(np.float64).min), "m"))
    got = Executor(canonicalise(proto)).run({"x": np.zeros((1, 4))})["y"]
    assert (got == np.finfo(np.float32).min).all()


def whole(kind: str, *, last: bool = False) -> onnx.ModelProto:
    """Normalisation inside, behind an input of whole numbers; ``last``: channels last."""
    kinds = {"bool": "bool", **{k: k for k in WHOLE}}
    shape = "8,6,3" if last else "3,8,6"
    turn = "t = Transpose<perm=[0,3,1,2]>(x)" if last else "t = Identity(x)"
    proto = parse(
        f"net ({kinds[kind]}[N,{shape}] x) => (float[N,4,6,4] y) <float[1] s = {{ 0.25 }}>"
        f"{{ {turn}  f = Cast<to=1>(t)  g = Mul(f, s)  y = Conv(g, w) }}"
    )
    weight = np.random.default_rng(0).normal(0, 0.3, (4, 3, 3, 3)).astype(np.float32)
    proto.graph.initializer.append(numpy_helper.from_array(weight, "w"))
    return proto


@pytest.mark.parametrize("last", [False, True], ids=["nchw", "nhwc"])
@pytest.mark.parametrize("kind", WHOLE)
def test_whole_numbers_are_data_and_stay(kind: str, last: bool, tmp_path: Path) -> None:
    source = whole(kind, last=last)
    model = canonicalise(source)
    high = 2 if kind == "bool" else 100
    samples = np.random.default_rng(1).integers(0, high, (5, 8, 6, 3)).astype(WHOLE[kind])
    np.save(tmp_path / "last.npy", samples)
    np.save(tmp_path / "first.npy", samples.transpose(0, 3, 1, 2))
    both = [next(open_data(tmp_path / f"{n}.npy", model).batches(5))["x"] for n in ("last", "first")]
    assert both[0].dtype == both[1].dtype == WHOLE[kind]
    np.testing.assert_array_equal(both[0], both[1])
    artifact = session(emit(model))
    assert artifact.get_inputs()[0].type == session(source).get_inputs()[0].type
    expected = ReferenceEvaluator(source).run(None, {"x": both[0]})[0]
    assert worst_difference(expected, artifact.run(None, {"x": both[0]})[0]) < 1e-5


def test_numbers_that_an_input_cannot_hold_are_refused(tmp_path: Path) -> None:
    model = canonicalise(whole("uint8"))
    for name, samples in (("half", np.full((1, 3, 8, 6), 0.5)), ("high", np.full((1, 3, 8, 6), 256))):
        np.save(tmp_path / f"{name}.npy", samples)
        with pytest.raises(DataError, match="do not fit the model"):
            open_data(tmp_path / f"{name}.npy", model)
    np.save(tmp_path / "raw.npy", np.full((1, 3, 8, 6), 7, np.uint8))
    with pytest.raises(DataError, match="do not fit the model"):
        open_data(tmp_path / "raw.npy", model, Preprocess(scale=1 / 255))


@pytest.mark.parametrize("channels", ["rgb", "bgr"])
@pytest.mark.parametrize("last", [False, True], ids=["nchw", "nhwc"])
def test_pictures_and_arrays_of_them_give_the_same_input(last: bool, channels: str, tmp_path: Path) -> None:
    from PIL import Image

    proto = whole("uint8", last=last)
    proto.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT
    model = canonicalise(proto)
    pixels = np.random.default_rng(2).integers(0, 256, (4, 8, 6, 3)).astype(np.uint8)
    (tmp_path / "png").mkdir()
    for index, one in enumerate(pixels):
        Image.fromarray(one).save(tmp_path / "png" / f"{index}.png")
    np.savez(tmp_path / "u8.npz", x=pixels)
    preprocess = Preprocess(mean=(1.0, 2.0, 3.0), std=(2.0,), channels=channels)
    png, array = (
        next(open_data(tmp_path / name, model, preprocess).batches(4))["x"] for name in ("png", "u8.npz")
    )
    np.testing.assert_array_equal(png, array)
    ordered = pixels[..., ::-1] if channels == "bgr" else pixels
    plain = ((ordered - np.array([1.0, 2.0, 3.0])) / 2).astype(np.float32)
    np.testing.assert_allclose(png, plain if last else plain.transpose(0, 3, 1, 2), atol=1e-6)


SCALES = {"doubled": (2.0, 2.0), "tripled": (3.0, 3.0), "uneven": (1.5, 2.0)}


@pytest.mark.parametrize("scales", SCALES)
@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize(("opset", "op"), [(7, "Upsample"), (8, "Upsample"), (9, "Upsample"), (10, "Resize")])
def test_old_resizing_is_exact(opset: int, op: str, mode: str, scales: str) -> None:
    factors = np.array([1, 1, *SCALES[scales]], np.float32)
    node = helper.make_node(op, ["c", "s"] if opset > 8 else ["c"], ["u"], mode=mode)
    if opset < 9:
        node.attribute.append(helper.make_attribute("scales", factors.tolist()))
    weight = np.random.default_rng(0).normal(0, 0.3, (4, 3, 3, 3)).astype(np.float32)
    constants = [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(factors, "s")]
    size = [int(8 * factor) for factor in SCALES[scales]]
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]), node, helper.make_node("Relu", ["u"], ["y"])],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4, *size])],
        constants if opset > 8 else constants[:1],
    )  # fmt: skip
    source = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=5)
    x = np.random.default_rng(1).random((1, 3, 8, 8), np.float32)
    expected = session(source).run(None, {"x": x})[0]
    got = Executor(canonicalise(source)).run({"x": x})["y"]
    np.testing.assert_allclose(got, expected, atol=1e-6)
