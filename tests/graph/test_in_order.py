"""Gathers of everything in its order are Reshapes, and no longer tie a network to the batch of its example."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import onnxruntime
import pytest

from edgec.graph.batch import is_free
from edgec.graph.canonicalise import canonicalise
from edgec.graph.channels import groups
from edgec.graph.execute import Executor
from edgec.graph.in_order import drop_gathers_in_order

CASES = {
    "of a flattened map": ("f = Reshape(x, all)  y = Gather<axis=0>(f, order)", 1),
    "in another order": ("f = Reshape(x, all)  y = Gather<axis=0>(f, back)", 0),
    "of one axis": ("y = Gather<axis=1>(x, three)", 1),
    "of one axis counted from the end": ("y = Gather<axis=-1>(x, four)", 1),
    "some of one axis": ("y = Gather<axis=-1>(x, three)", 0),
    "read on": ("f = Reshape(x, all)  g = Gather<axis=0>(f, order)  y = Relu(g)", 1),
}


@pytest.mark.parametrize("name", CASES)
def test_gathers_in_order_go_and_others_stay(name, build):
    body, gone = CASES[name]
    constants = (
        "all = Constant<value_ints=[-1]>()  three = Constant<value_ints=[0,1,2]>()  four = Constant<value_ints=[0,1,2,3]>()"
        f"  order = Constant<value={positions(range(96))}>()  back = Constant<value={positions(range(95, -1, -1))}>()"
    )
    model = build(f"net (float[2,3,4,4] x) => (float[a,b,c,d] y) {{ {constants}  {body} }}")
    feeds = {"x": np.random.default_rng(0).standard_normal((2, 3, 4, 4)).astype(np.float32)}
    want = Executor(model).run(feeds)["y"]
    assert drop_gathers_in_order(model) == gone
    assert sum(node.op_type == "Gather" for node in model.graph) == 1 - gone
    np.testing.assert_array_equal(Executor(model).run(feeds)["y"], want)


def positions(order, shape=(2, 3, 4, 4)) -> str:
    return f"int64[{','.join(map(str, shape))}] {{{','.join(map(str, order))}}}"


POOL_THEN_HEAD = """
  c = Conv(x, w)  a = Relu(c)  m = ReduceMean<keepdims=1>(a, axes)
  f = Reshape(m, all)  s = Gather<axis=0>(f, order)
  r = Reshape<allowzero=1>(s, flat)  y = Gemm(r, u)
"""
GATE = """
  c = Conv(x, w)  a = Relu(c)  m = ReduceMean<keepdims=1>(a, axes)
  f = Reshape(m, all)  s = Gather<axis=0>(f, order)
  q = Conv(s, e)  h = Sigmoid(q)  z = Mul(a, h)  o = Conv(z, p)
  n = ReduceMean<keepdims=1>(o, axes)  y = Flatten(n)
"""


@pytest.mark.parametrize("body", [POOL_THEN_HEAD, GATE], ids=["head", "gate"])
@pytest.mark.parametrize("batch", [1, 2, 4])
def test_a_pool_of_channels_last_maps_leaves_the_batch_free(body, batch):
    """What torch's dynamo exporter writes behind AdaptiveAvgPool2d(1) where the example is channels-last."""
    source = strided_pool(body, batch)
    model = canonicalise(source)
    assert is_free(model)
    assert not {"Gather", "Unsqueeze"} & {node.op_type for node in model.graph}
    assert any(group.name == "Conv_0" for group in groups(model)), "the pooled layer's channels can be pruned"
    x = np.random.default_rng(1).standard_normal((8, 3, 5, 5)).astype(np.float32)
    session = onnxruntime.InferenceSession(source.SerializeToString())
    want = np.concatenate([session.run(None, {"x": x[i : i + batch]})[0] for i in range(0, 8, batch)])
    np.testing.assert_allclose(Executor(model).run({"x": x})["y"], want, rtol=1e-4, atol=1e-5)


def strided_pool(body: str, batch: int) -> onnx.ModelProto:
    text = f'<ir_version: 9, opset_import: ["" : 18]> g (float[{batch},3,5,5] x) => (float[{batch},n] y) {{{body}}}'
    model: onnx.ModelProto = onnx.parser.parse_model(text)
    rng = np.random.default_rng(3)
    constants = {
        "w": rng.standard_normal((6, 3, 3, 3)).astype(np.float32),
        "e": rng.standard_normal((6, 6, 1, 1)).astype(np.float32),
        "p": rng.standard_normal((4, 6, 1, 1)).astype(np.float32),
        "u": rng.standard_normal((6, 5)).astype(np.float32),
        "axes": np.array([2, 3]),
        "all": np.array([-1]),
        "order": np.arange(batch * 6).reshape(batch, 6, 1, 1),
        "flat": np.array([batch, 6]),
    }
    used = {name for node in model.graph.node for name in node.input}
    model.graph.initializer.extend(
        onnx.numpy_helper.from_array(a, n) for n, a in constants.items() if n in used
    )
    return model
