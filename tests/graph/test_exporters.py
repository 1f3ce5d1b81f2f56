"""Small networks as exporters of other frameworks write them, in the batch forms that they have: read exactly, batch free, prunable."""

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

CONSTANTS = {
    "w": (8, 3, 3, 3), "d": (8, 1, 3, 3), "e": (12, 8, 1, 1), "u": (12, 5), "c": (5,), "row": (1, 5), "planes": (8, 1, 1),
    "s": (8,), "b": (8,), "m": (8,), "v": (8,), "last": (8,), "slope": (8, 1, 1), "places": (4, 4, 8), "gates": (12, 8, 1, 1),
    "dense": (192, 5),
}  # fmt: skip
WHOLE = {"zero": [0], "one": [1], "rest": [192], "all": [-1], "margin": [0, 1, 1, 0, 0, 1, 1, 0]}

KERAS = """
    a = Transpose<perm=[0,3,1,2]>(x) k = Conv<auto_pad="SAME_UPPER", strides=[2,2]>(a, w) t = Transpose<perm=[0,2,3,1]>(k)
    m1 = Mul(t, last) n = Add(m1, b) r = Relu(n) p = PRelu(r, places)
    q = Transpose<perm=[0,3,1,2]>(p) g = Conv<auto_pad="SAME_UPPER", group=8>(q, d) h = Conv(g, e) o = Transpose<perm=[0,2,3,1]>(h)
    l = Shape(o) i = Cast<to=6>(l) j = Cast<to=7>(i) f0 = Slice(j, zero, one, zero) f1 = Concat<axis=0>(f0, rest)
    f = Reshape(o, f1) z = MatMul(f, dense) y = Add(z, c)"""
KERAS_PADDED = """
    a0 = Pad(x, margin) a = Transpose<perm=[0,3,1,2]>(a0) k = Conv<strides=[2,2]>(a, w) t = Transpose<perm=[0,2,3,1]>(k)
    n = Add(t, b) r = LeakyRelu(n) q = Transpose<perm=[0,3,1,2]>(r) h = Conv(q, e) o = Transpose<perm=[0,2,3,1]>(h)
    g = ReduceMean<axes=[1,2], keepdims=0>(o) z = MatMul(g, u) y = Add(z, c)"""
PADDLE = """
    k = Conv<pads=[1,1,1,1], strides=[2,2]>(x, w) q = Mul(v, v) n = BatchNormalization(k, s, b, m, q)
    t3 = Add(n, three) t6 = Clip(t3, low, six) t = Mul(n, t6) r = Div(t, six)
    p = GlobalAveragePool(r) g0 = Conv(p, gates) g1 = HardSigmoid<alpha=0.2, beta=0.5>(g0)
    h0 = Conv(r, e) h = Mul(h0, g1) o = GlobalAveragePool(h)
    l = Shape(o) f0 = Slice(l, zero, one, zero) f1 = Concat<axis=0>(f0, all) f = Reshape(o, f1)
    z = MatMul(f, u) y0 = Add(z, c) y = Identity(y0)"""
MXNET = """
    k = Conv<pads=[1,1,1,1], strides=[2,2]>(x, w) q = Mul(v, v) n = BatchNormalization<momentum=0.9>(k, s, b, m, q)
    r = PRelu(n, slope) h = Conv(r, e) p = GlobalAveragePool(h) d0, d1 = Dropout(p) f = Flatten(d0)
    y = Gemm<alpha=0.5, beta=2.0>(f, u, row)"""
CNTK = """
    k = Conv<auto_pad="SAME_LOWER", strides=[2,2]>(x, w) n = Add(k, planes) r = Relu(n) h = Conv(r, e)
    o = MaxPool<kernel_shape=[4,4], auto_pad="NOTSET">(h) f = Reshape(o, tall) z = MatMul(f, u) y = Add(z, row)"""

FIRST, LAST = "3,8,8", "8,8,3"
CASES = {
    "Keras": (KERAS, LAST, (10, 11, 13, 15)),
    "Keras, padded": (KERAS_PADDED, LAST, (11, 13, 15)),
    "Paddle": (PADDLE, FIRST, (11, 12, 13, 15)),
    "MXNet": (MXNET, FIRST, (7, 8, 9)),
    "CNTK": (CNTK, FIRST, (7, 9, 11)),
}


@pytest.mark.parametrize("batch", ["1", "4", "unk__6"])
@pytest.mark.parametrize("name", CASES)
def test_networks_of_other_exporters(name: str, batch: str) -> None:
    body, sample, opsets = CASES[name]
    for opset in opsets:
        source = network(body, sample, batch, opset)
        model = canonicalise(source)
        assert is_free(model), opset
        assert not {"Shape", "BatchNormalization", "Dropout", "Identity"} & {
            node.op_type for node in model.graph
        }
        assert sum(group.prunable for group in groups(model)) == 2, opset
        x = np.random.default_rng(1).standard_normal((8, *map(int, sample.split(",")))).astype(np.float32)
        session = onnxruntime.InferenceSession(source.SerializeToString())
        step = int(batch) if batch.isdigit() else 1
        want = np.concatenate([session.run(None, {"x": x[i : i + step]})[0] for i in range(0, 8, step)])
        np.testing.assert_allclose(Executor(model).run({"x": x})["y"], want, rtol=1e-4, atol=1e-4)


def network(body: str, sample: str, batch: str, opset: int) -> onnx.ModelProto:
    text = f'<ir_version: 7, opset_import: ["" : {opset}]> g (float[{batch},{sample}] x) => (float[{batch},5] y) {{{body}}}'
    model: onnx.ModelProto = onnx.parser.parse_model(text)
    rng = np.random.default_rng(3)
    used = {name for node in model.graph.node for name in node.input}
    arrays = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in CONSTANTS.items()}
    arrays |= {
        "three": np.array(3, np.float32),
        "low": np.array(0, np.float32),
        "six": np.array(6, np.float32),
    }
    whole = {**WHOLE, "tall": [int(batch) if batch.isdigit() else -1, 12]}
    arrays |= {name: np.array(values, np.int64) for name, values in whole.items()}
    model.graph.initializer.extend(
        onnx.numpy_helper.from_array(array, name) for name, array in arrays.items() if name in used
    )
    return model
