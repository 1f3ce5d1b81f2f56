"""What stays float in an int8 network is stored in half precision where that loses nothing beside the codes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

from edgec.compiler.emit import tflite
from edgec.compiler.emit.onnx import emit
from edgec.graph.tflite.read import read
from edgec.graph.views import constant
from edgec.passes.base import Context
from edgec.passes.quantize.quantiser import Quantize
from edgec.passes.quantize.remaining import round_remaining

NET = """net (float[N,3,8,8] x) => (float[N,4,8,8] y) <float[8,3,3,3] a, float[16,8,3,3] coded, float[16,16,3,3] stays, float[4,16,3,3] c>
  { s = Conv<pads = [1, 1, 1, 1]>(x, a)  r = Relu(s)  t = Conv<pads = [1, 1, 1, 1]>(r, coded)  u = Relu(t)
    v = Conv<pads = [1, 1, 1, 1]>(u, stays)  q = Relu(v)
    y = Conv<pads = [1, 1, 1, 1]>(q, c) }"""


@pytest.fixture
def made(canonical: Callable[..., ir.Model], noise: Callable[..., Any], tmp_path: Path) -> ir.Model:
    """All in int8 but two layers in the middle, of which the first reads codes."""
    model = canonical(NET)
    context = Context(teacher=model, scratch=tmp_path, data=noise(model))
    middle = [
        node.name or ""
        for node in model.graph
        if {"coded", "stays"} & {one.name for one in node.inputs if one is not None}
    ]
    return Quantize(correct="none", exclude="|".join(middle)).run(model.clone(), context).model


def test_the_file_holds_halves_and_computes_the_same_bits(made: ir.Model) -> None:
    data = emit(made)
    types = {one.name: one.data_type for one in onnx.load_from_string(data).graph.initializer}
    assert types["stays_half"] == onnx.TensorProto.FLOAT16
    assert "stays" not in types
    x = {"x": np.random.default_rng(0).standard_normal((2, 3, 8, 8)).astype(np.float32)}
    plain = ort.InferenceSession(ir.to_proto(made).SerializeToString(), providers=["CPUExecutionProvider"])
    small = ort.InferenceSession(data, providers=["CPUExecutionProvider"])
    np.testing.assert_array_equal(small.run(None, x)[0], plain.run(None, x)[0])
    assert len(data) < len(emit(made, opset=18)) - 4000  # which has them as they are, for TensorRT


def test_so_does_the_tflite_file(made: ir.Model) -> None:
    tensors = read(tflite.emit(made, precision="int8")).tensors
    halves = sorted(tensor.shape for tensor in tensors if tensor.type.name == "FLOAT16")
    assert halves == [(16, 3, 3, 8), (16, 3, 3, 16)]


@pytest.mark.parametrize(
    ("channel", "rounded"), [(1.0, True), (1e-3, True), (1e-7, False), (1e5, False), (0.0, True)]
)
def test_a_channel_that_float16_cannot_hold_keeps_its_layer_in_float32(
    canonical: Callable[..., ir.Model], channel: float, rounded: bool
) -> None:
    model = canonical(NET)
    weight = next(one for one in model.graph.initializers.values() if one.name == "stays")
    array = np.random.default_rng(0).standard_normal((16, 16, 3, 3)).astype(np.float32)
    array[5] *= channel
    weight.const_value = ir.tensor(array)
    round_remaining(model, ())
    after = np.asarray(constant(weight))
    with np.errstate(over="ignore"):
        assert (after.astype(np.float16).astype(np.float32) == after).all() == rounded
    assert (after == array).all() != rounded
    assert np.abs(after - array).max() <= 2.0**-10 * np.abs(array).max()


def test_an_input_that_nearly_nothing_reads_costs_no_output_its_digits(
    canonical: Callable[..., ir.Model],
) -> None:
    model = canonical(NET)
    weight = next(one for one in model.graph.initializers.values() if one.name == "stays")
    array = np.random.default_rng(0).standard_normal((16, 16, 3, 3)).astype(np.float32)
    array[:, 5] *= 1e-8
    weight.const_value = ir.tensor(array)
    round_remaining(model, ())
    after = np.asarray(constant(weight))
    assert (after.astype(np.float16).astype(np.float32) == after).all()


def test_sixteen_bits_keep_their_digits(
    canonical: Callable[..., ir.Model], noise: Callable[..., Any], tmp_path: Path
) -> None:
    model = canonical(NET)
    context = Context(teacher=model, scratch=tmp_path, data=noise(model))
    result = Quantize(correct="none", activations="int16", exclude="*").run(model.clone(), context)
    weights = [
        np.asarray(constant(one)) for one in result.model.graph.initializers.values() if one.name == "stays"
    ]
    assert len(weights) == 1
    assert (weights[0].astype(np.float16).astype(np.float32) != weights[0]).any()
