"""Normalisations that onnx infers no shapes behind, of any meaning, rank and batch form, against onnxruntime on the file as it came."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from edgec.graph.canonicalise import canonicalise
from edgec.graph.errors import UnsupportedError
from edgec.graph.execute import Executor, session

SIZES = {2: "", 3: ",9", 4: ",6,5", 5: ",4,3,2"}


@pytest.mark.parametrize("opset", [18, 20, 21, 23])
@pytest.mark.parametrize("rank", SIZES)
@pytest.mark.parametrize("batch", ["N", "1", "2"])
def test_groups_are_written_out(opset: int, rank: int, batch: str) -> None:
    if opset < 21 and rank == 2:
        pytest.skip("onnxruntime takes no such input")
    count = 8 if opset >= 21 else 4
    shape = f"float[{batch},8{SIZES[rank]}]"
    model = onnx.parser.parse_model(
        f'<ir_version: 10, opset_import: ["" : {opset}]> net ({shape} x) => ({shape} y) '
        f"<float[{count}] s = {{{','.join(str(1 + i / 7) for i in range(count))}}}, "
        f"float[{count}] b = {{{','.join(str(i / 3 - 1) for i in range(count))}}}> "
        "{ t = Relu(x)  g = GroupNormalization<num_groups=4, epsilon=0.01>(t, s, b) "
        " h = GroupNormalization<num_groups=4>(g, s, b)  y = Sigmoid(h) }"
    )
    samples = 2 if batch == "2" else 1
    x = (
        np.random.default_rng(0)
        .standard_normal((samples, 8, *map(int, SIZES[rank].split(",")[1:])))
        .astype(np.float32)
    )
    try:
        expected = session(model).run(None, {"x": x})[0]
    except UnsupportedError as error:
        pytest.skip(f"this onnxruntime cannot run the original: {error}")
    graph = canonicalise(model)
    assert "GroupNormalization" not in {node.op_type for node in graph.graph}
    np.testing.assert_allclose(Executor(graph).run({"x": x})["y"], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("opset", [9, 13, 18, 21])
@pytest.mark.parametrize(
    ("axes", "batch"), [("2,3", "N"), ("1,2,3", "1"), ("0,2,3", "2"), ("", "2"), ("1", "N")]
)
def test_mean_and_variance_are_written_out(opset: int, axes: str, batch: str) -> None:
    given = f"<axes=[{axes}]>" if axes else ""
    model = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : {opset}]> net (float[{batch},4,6,5] x) => (float[{batch},4,6,5] y) '
        f"{{ t = Sigmoid(x)  g = MeanVarianceNormalization{given}(t)  h = Sigmoid(g)  y = MeanVarianceNormalization{given}(h) }}"
    )
    x = np.random.default_rng(0).standard_normal((2 if batch == "2" else 1, 4, 6, 5)).astype(np.float32)
    expected = session(model).run(None, {"x": x})[0]
    graph = canonicalise(model)
    assert "MeanVarianceNormalization" not in {node.op_type for node in graph.graph}
    whole = x[None] if len(graph.graph.inputs[0].shape or ()) > 4 else x
    found = Executor(graph).run({"x": whole})["y"]
    np.testing.assert_allclose(found.reshape(expected.shape), expected, rtol=1e-3, atol=1e-4)
