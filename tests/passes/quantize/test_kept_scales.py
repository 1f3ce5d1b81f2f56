"""`quantize{scales=source}`: a network that came quantised keeps its own scales, whoever wrote it and in whatever form."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from edgec.compiler.emit.tflite import emit
from edgec.compiler.read.asked import resolve_passes
from edgec.compiler.read.recipe import make_recipe
from edgec.graph.canonicalise import canonicalise
from edgec.graph.compare import sqnr_db
from edgec.graph.data import ArraySource, Dataset, InputSpec
from edgec.graph.errors import PassError, UsageError
from edgec.graph.execute import Executor, session
from edgec.graph.load import load
from edgec.graph.preprocess import Preprocess
from edgec.graph.read.own_codes import source_codes
from edgec.passes.base import Context
from edgec.passes.quantize.quantiser import Quantize

NET = """net (float[N,3,16,16] x) => (float[N,10] y) <float[8,3,3,3] w1, float[8] b1, float[8,8,3,3] w2, float[8] b2,
  float[10,8] w3, float[10] b3> {
  c1 = Conv<pads=[1,1,1,1], strides=[2,2]>(x, w1, b1)  r1 = Relu(c1)  c2 = Conv<pads=[1,1,1,1]>(r1, w2, b2)
  a = Add(r1, c2)  g = GlobalAveragePool(a)  f = Flatten(g)  y = Gemm<transB=1>(f, w3, b3) }"""
FORMS = {
    "qdq, int8": (QuantFormat.QDQ, QuantType.QInt8, True),
    "qdq, uint8, one scale per weight": (QuantFormat.QDQ, QuantType.QUInt8, False),
    "qlinear ops": (QuantFormat.QOperator, QuantType.QUInt8, True),
}


@pytest.fixture(scope="module")
def samples() -> np.ndarray:
    return np.random.default_rng(1).random((16, 3, 16, 16), np.float32)


class Reader(CalibrationDataReader):
    def __init__(self, samples: np.ndarray) -> None:
        self.rest = iter(samples)

    def get_next(self) -> dict[str, np.ndarray] | None:
        one = next(self.rest, None)
        return None if one is None else {"x": one[None]}


def quantised(proto: onnx.ModelProto, form: str, folder: Path, samples: np.ndarray) -> onnx.ModelProto:
    """What onnxruntime's quantiser makes; ranges from twice the samples, which no calibration would find."""
    kind, activations, per_channel = FORMS[form]
    onnx.save(proto, folder / "float.onnx")
    quantize_static(
        folder / "float.onnx", folder / "made.onnx", Reader(2 * samples), quant_format=kind, per_channel=per_channel,
        activation_type=activations, weight_type=QuantType.QInt8,
    )  # fmt: skip
    return onnx.load(folder / "made.onnx")


def again(model: ir.Model, samples: np.ndarray, folder: Path, **options: str) -> ir.Model:
    data = Dataset("noise", ArraySource({"x": samples}, Preprocess(), InputSpec.of(model)), tuple(range(16)))
    return Quantize(**options).run(model.clone(), Context(teacher=model, scratch=folder, data=data)).model


def outputs(model: bytes, samples: np.ndarray) -> np.ndarray:
    runner = session(model)
    return np.concatenate([runner.run(None, {"x": one[None]})[0] for one in samples])


@pytest.mark.parametrize("form", FORMS)
def test_the_codes_are_those_of_the_source(
    form: str, make_model: Callable[..., onnx.ModelProto], samples: np.ndarray, tmp_path: Path
) -> None:
    source = quantised(make_model(NET), form, tmp_path, samples)
    model = canonicalise(source)
    kept = again(model, samples, tmp_path, scales="source")
    wanted = outputs(source.SerializeToString(), samples)
    made = outputs(ir.to_proto(kept).SerializeToString(), samples)
    other = outputs(ir.to_proto(again(model, samples, tmp_path)).SerializeToString(), samples)
    assert sqnr_db(wanted, made) > max(sqnr_db(wanted, other) + 3, 38)
    theirs = {array.tobytes() for array in _codes(source)}
    assert {array.tobytes() for array in _codes(ir.to_proto(kept))} <= theirs


def _codes(proto: onnx.ModelProto) -> list[np.ndarray]:
    """Of weights."""
    arrays = [numpy_helper.to_array(one) for one in proto.graph.initializer]
    return [array for array in arrays if array.dtype == np.int8 and array.ndim > 1]


def test_own_files_come_back_as_they_were(
    canonical: Callable[..., ir.Model], samples: np.ndarray, tmp_path: Path
) -> None:
    first = again(canonical(NET), samples, tmp_path)
    second = again(canonicalise(ir.to_proto(first)), samples[:4].repeat(4, 0), tmp_path, scales="source")
    got, want = (Executor(one).run({"x": samples})["y"] for one in (second, first))
    np.testing.assert_array_equal(got, want)


def test_tflite_files_keep_theirs(
    canonical: Callable[..., ir.Model], samples: np.ndarray, tmp_path: Path
) -> None:
    first = again(canonical(NET), samples, tmp_path)
    (tmp_path / "first.tflite").write_bytes(emit(first, precision="int8", io_type="int8", io_layout="nchw"))
    model = load(tmp_path / "first.tflite")
    codes = source_codes(model)
    assert codes is not None
    assert len(codes.weights) == 3
    second = again(model, samples[:4].repeat(4, 0), tmp_path, scales="source")
    assert _scales(second) == _scales(first)
    got, want = (Executor(one).run({"x": samples})["y"] for one in (second, first))
    np.testing.assert_array_equal(got, want)


def _scales(model: ir.Model) -> set[float]:
    """Of the activations."""
    pairs = [node.inputs[1] for node in model.graph if node.op_type == "QuantizeLinear"]
    return {float(value.const_value.numpy()) for value in pairs}


def test_real_numbers_have_no_scales_to_keep(
    canonical: Callable[..., ir.Model], samples: np.ndarray, tmp_path: Path
) -> None:
    with pytest.raises(PassError, match="no scales to keep"):
        again(canonical(NET), samples, tmp_path, scales="source")


def test_a_file_from_elsewhere_cannot_say_what_its_scales_were(
    make_model: Callable[..., onnx.ModelProto],
) -> None:
    source = make_model(NET)
    source.metadata_props.add(key="edgec.source_codes", value="{")
    assert source_codes(canonicalise(source)) is None


def test_the_switch_is_the_option_of_the_pass() -> None:
    recipe = {"model": {"path": "m.onnx"}, "keep_quantized": True}
    with pytest.raises(UsageError, match="nothing is quantised"):
        resolve_passes(make_recipe(recipe))
    (one,) = resolve_passes(make_recipe({**recipe, "precision": "int8"}))
    assert isinstance(one, Quantize)
    assert one.scales == "source"
    *_, last = resolve_passes(make_recipe({**recipe, "passes": "fold quantize{method=minmax}"}))
    assert isinstance(last, Quantize)
    assert (last.scales, last.method) == ("source", "minmax")
