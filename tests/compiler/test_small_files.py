"""Int8 ONNX files hold nothing that a reader can work out, and compute the same bits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from edgec.compiler.emit.onnx import emit
from edgec.compiler.emit.small import shrink
from edgec.passes.base import Context
from edgec.passes.quantize import Quantize

NET = """
g (float[N,3,8,8] image) => (float[N,8] scores)
<float[8,3,3,3] w1, float[8] b1, float[8,8,3,3] w2, float[8] b2, float[8,8,3,3] w3, float[8] b3> {
  a_rather_long_name_of_a_tensor = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(image, w1, b1)
  r1 = Relu(a_rather_long_name_of_a_tensor)
  c2 = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(r1, w2, b2)
  r2 = Relu(c2)
  c3 = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(r2, w3, b3)
  s = Add(c3, r1)
  p = GlobalAveragePool(s)
  scores = Flatten(p)
}
"""


@pytest.fixture
def twin(canonical: Callable[..., ir.Model], noise: Callable[..., Any], tmp_path: Path) -> ir.Model:
    """The int8 form of the network."""
    model = canonical(NET)
    context = Context(teacher=model, scratch=tmp_path, data=noise(model))
    return Quantize(method="minmax", correct="none", equalize="no").run(model.clone(), context).model


def outputs(data: bytes, given: np.ndarray[Any, Any], exact: str = "0") -> np.ndarray[Any, Any]:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.add_session_config_entry("session.x64quantprecision", exact)
    session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    found: np.ndarray[Any, Any] = session.run(["scores"], {"image": given})[0]
    return found


def test_the_small_file_computes_the_same_bits(twin: ir.Model) -> None:
    plain = ir.to_proto(twin).SerializeToString()
    small = emit(twin)
    assert len(small) < 0.75 * len(plain)
    given = np.random.default_rng(0).standard_normal((3, 3, 8, 8)).astype(np.float32)
    np.testing.assert_array_equal(outputs(small, given), outputs(plain, given))


@pytest.mark.parametrize("activations", ["int8", "uint8"])
@pytest.mark.parametrize("precise", ["0", "1"])
def test_every_session_opens_it(
    activations: str,
    precise: str,
    canonical: Callable[..., ir.Model],
    noise: Callable[..., Any],
    tmp_path: Path,
) -> None:
    import onnxruntime as ort

    model = canonical(NET)
    context = Context(teacher=model, scratch=tmp_path, data=noise(model))
    quantize = Quantize(method="minmax", correct="none", equalize="no", activations=activations)
    options = ort.SessionOptions()
    options.add_session_config_entry("session.x64quantprecision", precise)
    small = emit(quantize.run(model.clone(), context).model)
    assert ort.InferenceSession(small, options, providers=["CPUExecutionProvider"]).get_outputs()


@pytest.mark.parametrize("equal", ["", "bytes", "name"])
def test_a_processor_without_vnni_loads_it_too(twin: ir.Model, equal: str) -> None:
    """There onnxruntime turns weights and their zero points to unsigned, each of them once."""
    proto = ir.to_proto(twin)
    if equal:
        stored = {t.name: t for t in proto.graph.initializer}
        readers = [n for n in proto.graph.node if n.op_type == "DequantizeLinear" and n.input[0] in stored]
        first, second = (
            stored[n.input[0]] for n in readers if tuple(stored[n.input[0]].dims) == (8, 8, 3, 3)
        )
        second.raw_data = first.raw_data
        if equal == "name":
            next(n for n in readers if n.input[0] == second.name).input[0] = first.name
            proto.graph.initializer.remove(second)
    plain = proto.SerializeToString()
    exact_too = ("0",) if equal == "name" else ("0", "1")  # onnxruntime itself does not load the plain file
    shrink(proto)
    small = proto.SerializeToString()
    given = np.random.default_rng(0).standard_normal((3, 3, 8, 8)).astype(np.float32)
    for exact in ("0", "1"):
        wanted = outputs(plain, given, exact if exact in exact_too else "0")
        np.testing.assert_allclose(outputs(small, given, exact), wanted, rtol=0, atol=0.08)  # two codes
        if exact in exact_too:
            np.testing.assert_array_equal(outputs(small, given, exact), wanted)
    copies = [t for t in proto.graph.initializer if tuple(t.dims) == (8, 8, 3, 3)]
    assert len(copies) == (1 if equal else 2)


def test_nothing_is_stored_twice_or_can_be_inferred(twin: ir.Model) -> None:
    graph = onnx.load_from_string(emit(twin)).graph
    assert not graph.value_info
    stored = [
        (t.data_type, tuple(t.dims), t.raw_data)
        for t in graph.initializer
        if t.data_type != onnx.TensorProto.INT8
    ]
    zeros = {n.input[2] for n in graph.node if n.op_type == "DequantizeLinear" and len(n.input) > 2}
    weights = {t.name for t in graph.initializer if t.data_type == onnx.TensorProto.INT8} & zeros
    stored = [(t.data_type, tuple(t.dims), t.raw_data) for t in graph.initializer if t.name not in weights]
    assert len(stored) == len(set(stored))
    names = [*(t.name for t in graph.initializer), *(name for node in graph.node for name in node.output)]
    assert len(names) == len(set(names))


def test_names_of_the_source_stay(twin: ir.Model) -> None:
    """A report and a profile name layers by them."""
    graph = onnx.load_from_string(emit(twin)).graph
    assert ([v.name for v in graph.input], [v.name for v in graph.output]) == (["image"], ["scores"])
    layers = [node for node in twin.graph if node.op_type == "Conv"]
    assert [node.name for node in graph.node if node.op_type == "Conv"] == [node.name for node in layers]
    assert "a_rather_long_name_of_a_tensor" in {name for node in graph.node for name in node.output}
    added = [node for node in graph.node if node.op_type.endswith("Linear")]
    assert added
    assert all(len(name) <= 4 for node in added for name in (node.name, *node.input[1:]))


def test_short_names_are_not_those_of_the_source(twin: ir.Model) -> None:
    """A network may have tensors called q0, q1, ... of its own."""
    proto = ir.to_proto(twin)
    for index, node in enumerate(n for n in proto.graph.node if n.op_type == "Conv"):
        node.name = f"q{index}"
    shrink(proto)
    names = [node.name for node in proto.graph.node]
    assert len(names) == len(set(names))
    onnx.checker.check_model(proto, full_check=True)


def test_what_inference_does_not_find_is_kept() -> None:
    text = """<ir_version: 10, opset_import: ["" : 20, "own" : 1]>
    g (float[1,4] x) => (float[1,4] y) <float s = {0.1}, uint8 z = {128}> {
      q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) h = own.Thing(d) y = Relu(h) }"""
    proto = onnx.parser.parse_model(text)
    for name in ("d", "h"):
        proto.graph.value_info.append(
            onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 4])
        )
    shrink(proto)
    assert [value.name for value in proto.graph.value_info] == ["h"]


def test_a_float_graph_is_left_as_it_is(canonical: Callable[..., ir.Model]) -> None:
    proto = ir.to_proto(canonical(NET))
    before = proto.SerializeToString(deterministic=True)
    shrink(proto)
    assert proto.SerializeToString(deterministic=True) == before
