"""The property of the reader: what the emitter writes is read, and computes in onnxruntime what LiteRT computes from the file."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from edgec.compiler.emit.tflite import emit
from edgec.graph.canonicalise import canonicalise
from edgec.graph.inputs import InputSpec
from edgec.graph.tflite.lift.model import to_onnx
from edgec.graph.tflite.read import read
from tests.compiler.emit_tflite.test_geometry import sample
from tests.compiler.emit_tflite.test_ops import FLOAT, INT8

NETS = {**FLOAT, **{f"window {k}": text for k, text in enumerate(sample())}}
LAYOUTS = ("nchw", "nhwc")


def read_back(data: bytes) -> ir.Model:
    proto = to_onnx(read(data))
    onnx.checker.check_model(proto, full_check=True)
    return ir.from_proto(proto)


def given(data: bytes) -> dict[str, Any]:
    """Gaussian numbers of the shapes that the file declares."""
    file, rng = read(data), np.random.default_rng(3)
    return {
        file.tensors[i].name: rng.standard_normal(file.tensors[i].shape).astype(np.float32)
        for i in file.inputs
    }


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", NETS)
def test_float(
    name: str, layout: Any, build: Callable[..., Any], tflite: Callable[..., Any], onnx_run: Any
) -> None:
    data = emit(build(NETS[name]), io_layout=layout)
    feeds = given(data)
    want = tflite(data, feeds)
    have = onnx_run(read_back(data), feeds)
    assert have.keys() == want.keys()
    for key, value in want.items():
        assert have[key].shape == value.shape
        np.testing.assert_allclose(have[key], value, rtol=2e-5, atol=3e-5 * max(1, np.abs(value).max()))


@pytest.mark.parametrize("activations", ["uint8", "int8"])
@pytest.mark.parametrize("name", [*INT8, *(f"window {k}" for k in range(0, 32, 5))])
def test_int8(
    name: str,
    activations: str,
    build: Callable[..., Any],
    quantise: Any,
    tflite: Any,
    onnx_run: Any,
    in_codes: Any,
) -> None:
    """Computed in float between the codes, the graph gives the codes of the file."""
    model = quantise(build(NETS[name]), activations)
    data = emit(model, precision="int8")
    feeds = given(data)
    want = tflite(data, feeds)["y"]
    steps = np.abs(onnx_run(read_back(data), feeds, fused=False)["y"] - want) / in_codes(model)
    assert steps.max() <= 3.01
    assert np.mean(steps <= 1.01) >= 0.98


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_halves_are_widened(precision: Any, build: Any, tflite: Any, onnx_run: Any) -> None:
    data = emit(build(FLOAT["residual"]), precision=precision)
    feeds = given(data)
    model = read_back(data)
    np.testing.assert_allclose(onnx_run(model, feeds)["y"], tflite(data, feeds)["y"], atol=2e-5)
    assert all(value.dtype != ir.DataType.FLOAT16 for value in model.graph.initializers.values())


def test_a_network_comes_back_as_it_was(build: Any) -> None:
    """Transposes stand at the ends only, the input is channels last, the batch is free, and the same file is written again."""
    first = emit(build(FLOAT["squeeze and excite"]), io_layout="nhwc")
    model = canonicalise(to_onnx(read(first)))
    assert [node.op_type for node in model.graph].count("Transpose") == 2
    (spec,) = InputSpec.of(model)
    assert spec.channels_last
    assert spec.shape == (6, 6, 4)
    assert str(model.graph.inputs[0].shape[0]) == "batch"
    again = read(emit(model, io_layout="nhwc"))
    assert [op.code for op in again.operators] == [op.code for op in read(first).operators]


def test_an_int8_file_of_a_channels_last_network_keeps_its_input(build: Any, quantise: Any) -> None:
    source = emit(build(FLOAT["residual"]), io_layout="nhwc")
    model = canonicalise(to_onnx(read(source)))
    again = read(emit(quantise(model), precision="int8", io_layout="nhwc", io_type="int8"))
    assert again.tensors[again.inputs[0]].shape == (1, 6, 6, 4)
    assert "TRANSPOSE" not in {op.code for op in again.operators}


def test_a_dequantised_network_says_so(build: Any, quantise: Any) -> None:
    data = emit(quantise(build(FLOAT["residual"])), precision="int8", io_type="int8")
    model = canonicalise(to_onnx(read(data)))
    assert "came quantised" in model.metadata_props["edgec.notes"]
    assert "takes real numbers now" in model.metadata_props["edgec.notes"]
    assert {node.op_type for node in model.graph} == {"Conv", "Add", "Relu"}
    assert all(value.dtype == ir.DataType.FLOAT for value in (*model.graph.inputs, *model.graph.outputs))
