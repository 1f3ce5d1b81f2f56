"""Shortcuts run before the branches that make up for them."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir

from edgec.graph.verify import verify
from edgec.passes.refit.order import skips_first

OPTION_A = """<ir_version: 9, opset_import: ["" : 18]>
net (float[1,3,4,4] x) => (float[1,6,2,2] y)
<float[6,3,3,3] w1, float[6,6,1,1] w2, int64[1] i = {0}, int64[1] j = {4}, int64[1] a = {2}, int64[1] s = {2},
 int64[1] b = {3}, int64[8] p = {0,1,0,0,0,2,0,0}> {
    c1 = Conv<pads=[1,1,1,1], strides=[2,2]>(x, w1)
    r1 = Relu(c1)
    c2 = Conv(r1, w2)
    t = Slice(x, i, j, a, s)
    u = Slice(t, i, j, b, s)
    q = Pad(u, p)
    y = Add(c2, q)
}"""


def model() -> ir.Model:
    proto = onnx.parser.parse_model(OPTION_A)
    for name, shape in (("w1", (6, 3, 3, 3)), ("w2", (6, 6, 1, 1))):
        proto.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros(shape, np.float32), name))
    for node in proto.graph.node:
        node.name = node.output[0]
    return ir.from_proto(onnx.shape_inference.infer_shapes(proto))


def test_slice_and_pad_move_in_front_of_the_branch():
    student = model()
    assert skips_first(student.graph)
    assert [node.name for node in student.graph] == ["t", "u", "q", "c1", "r1", "c2", "y"]
    verify(student)
    assert not skips_first(student.graph)
