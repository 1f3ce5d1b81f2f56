"""Zeros joined to channels become a Pad: nothing as large as the map is stored, and the batch of 1 in it goes."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from edgec.graph.canonicalise import canonicalise
from edgec.graph.execute import Executor
from tests.conftest import parse

JOINS = {
    "behind": ("c = Concat<axis=1>(r, zeros)", 12),
    "in front": ("c = Concat<axis=1>(zeros, r)", 12),
    "around two maps": ("c = Concat<axis=1>(zeros, r, x, zeros)", 19),
}


def network(join: str, channels: int) -> onnx.ModelProto:
    """The constant is written as exporters of Keras do: a ConstantOfShape."""
    return parse(
        f"net (float[1,3,8,8] x) => (float[1,5,8,8] y) <float[8,3,3,3] w, float[5,{channels},1,1] v, int64[4] size = {{1,4,8,8}}> "
        f"{{ zeros = ConstantOfShape(size)  a = Conv<pads=[1,1,1,1]>(x, w)  r = Relu(a)  {join}  y = Conv(c, v) }}"
    )


@pytest.mark.parametrize("name", JOINS)
def test_zeros_joined_to_channels_are_padding(name: str) -> None:
    source = network(*JOINS[name])
    model = canonicalise(source)
    ops = [node.op_type for node in model.graph]
    assert ops.count("Pad") == 1
    assert ops.count("Concat") == (name == "around two maps")
    assert sum(value.const_value.size for value in model.graph.initializers.values()) < 8 * 27 + 5 * 19 + 40
    x = np.random.default_rng(0).standard_normal((3, 3, 8, 8)).astype(np.float32)
    session = onnxruntime.InferenceSession(source.SerializeToString())
    wanted = np.concatenate([session.run(None, {"x": one[None]})[0] for one in x])
    assert np.allclose(Executor(model).run({"x": x})["y"], wanted, atol=1e-5)


def test_other_constants_and_other_axes_stay() -> None:
    ones = parse(
        "net (float[1,3,8,8] x) => (float[1,5,8,8] y) <float[2,3,1,1] w> "
        "{ a = Conv(x, w)  y = Concat<axis=1>(a, k) }"
    )
    ones.graph.initializer.append(numpy_helper.from_array(np.ones((1, 3, 8, 8), np.float32), "k"))
    assert "Pad" not in [node.op_type for node in canonicalise(ones).graph]
    batch = parse(
        "net (float[1,3,8,8] x) => (float[2,2,8,8] y) <float[2,3,1,1] w> "
        "{ a = Conv(x, w)  y = Concat<axis=0>(a, k) }"
    )
    batch.graph.initializer.append(numpy_helper.from_array(np.zeros((1, 2, 8, 8), np.float32), "k"))
    assert "Pad" not in [node.op_type for node in canonicalise(batch).graph]
