"""GroupNormalization of both meanings, any rank and batch form, against onnxruntime on the file as it came."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from edgec.graph.canonicalise import canonicalise
from edgec.graph.execute import Executor, session

SIZES = {2: "", 3: ",9", 4: ",6,5", 5: ",4,3,2"}


@pytest.mark.parametrize("opset", [18, 20, 21, 23])
@pytest.mark.parametrize("rank", SIZES)
@pytest.mark.parametrize("batch", ["N", "1", "2"])
def test_it_is_written_out(opset: int, rank: int, batch: str) -> None:
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
    expected = session(model).run(None, {"x": x})[0]
    graph = canonicalise(model)
    assert "GroupNormalization" not in {node.op_type for node in graph.graph}
    np.testing.assert_allclose(Executor(graph).run({"x": x})["y"], expected, rtol=1e-4, atol=1e-5)
