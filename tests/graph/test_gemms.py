"""Gemm as exporters of every age write it: one form in the canonical graph, the same numbers, pruned and quantised as any layer."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import onnxruntime
import pytest

from edgec.graph.canonicalise import canonicalise
from edgec.graph.channels import groups
from edgec.graph.execute import Executor
from edgec.graph.views import GemmView, attribute

BIASES: dict[str, tuple[int, ...] | None] = {
    "none": None, "number": (), "one": (1,), "one by one": (1, 1), "vector": (7,), "row": (1, 7),
}  # fmt: skip


def network(bias: tuple[int, ...] | None, attributes: str, before: str = "") -> onnx.ModelProto:
    text = f"""<ir_version: 8, opset_import: ["" : 11]> g (float[N,3,6,6] x) => (float[N,4] y) {{
        c = Conv(x, w) r = Relu(c) p = GlobalAveragePool(r) f = Flatten(p) {before}
        h = Gemm<{attributes}>({"t" if before else "f"}, v{"" if bias is None else ", b"}) a = Relu(h) y = Gemm(a, u) }}"""
    model: onnx.ModelProto = onnx.parser.parse_model(text)
    rng = np.random.default_rng(0)
    shapes = {"w": (5, 3, 3, 3), "v": (7, 5) if "transB" in attributes else (5, 7), "u": (7, 4)}
    shapes |= {} if bias is None else {"b": bias}
    model.graph.initializer.extend(
        onnx.numpy_helper.from_array(np.asarray(rng.standard_normal(shape), np.float32), name)
        for name, shape in shapes.items()
    )
    return model


@pytest.mark.parametrize("bias", BIASES.values(), ids=BIASES)
@pytest.mark.parametrize(
    "attributes", ["transB = 1", "alpha = 0.5", "beta = 2.0", "alpha = 2.0, beta = -0.5, transB = 1"]
)
def test_scales_and_biases_end_in_the_layer(attributes: str, bias: tuple[int, ...] | None) -> None:
    check(network(bias, attributes))


def test_an_input_that_lies_turned_is_turned_by_a_transpose() -> None:
    check(network((7,), "transA = 1, alpha = 0.5", "t = Transpose<perm = [1, 0]>(f)"))


def check(source: onnx.ModelProto) -> None:
    model = canonicalise(source)
    gemms = [node for node in model.graph if node.op_type == "Gemm"]
    assert len(gemms) == 2
    assert all(GemmView.of(node) is not None and not attribute(node, "transA", 0) for node in gemms)
    assert "Transpose" not in {node.op_type for node in model.graph}
    made = {member.node for group in groups(model) if group.prunable for member in group.producers}
    assert {gemms[0].name} <= made, "its units can be pruned"
    x = np.random.default_rng(1).standard_normal((3, 3, 6, 6)).astype(np.float32)
    session = onnxruntime.InferenceSession(source.SerializeToString())
    np.testing.assert_allclose(
        Executor(model).run({"x": x})["y"], session.run(None, {"x": x})[0], rtol=1e-4, atol=1e-5
    )


def test_a_bias_of_another_number_for_each_sample_stays() -> None:
    text = """<ir_version: 8, opset_import: ["" : 11]> g (float[2,5] x) => (float[2,7] y) { y = Gemm<beta = 0.5>(x, v, b) }"""
    source: onnx.ModelProto = onnx.parser.parse_model(text)
    rng = np.random.default_rng(0)
    arrays = {"v": rng.standard_normal((5, 7)), "b": rng.standard_normal((2, 1))}
    source.graph.initializer.extend(
        onnx.numpy_helper.from_array(np.asarray(array, np.float32), name) for name, array in arrays.items()
    )
    x = rng.standard_normal((2, 5)).astype(np.float32)
    model = canonicalise(source)
    want = onnxruntime.InferenceSession(source.SerializeToString()).run(None, {"x": x})[0]
    given = x[None] if len(model.graph.inputs[0].shape or ()) == 3 else x
    np.testing.assert_allclose(
        Executor(model).run({"x": given})["y"].reshape(2, 7), want, rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("opset", [11, 13, 17])
def test_outputs_that_declare_no_shape_get_theirs(opset: int) -> None:
    source = network((7,), "transB = 1")
    source.opset_import[0].version = opset
    source.graph.output[0].type.tensor_type.ClearField("shape")
    assert [str(size) for size in canonicalise(source).graph.outputs[0].shape or ()] == ["batch", "4"]
