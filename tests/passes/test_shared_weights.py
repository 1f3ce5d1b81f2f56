"""A weight that several layers read stays one: in the graph behind every pass, in the file, with the codes of one layer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from edgec.compiler.api import compile as compile_model
from edgec.graph.sharing import SharedWeights

HEADS = """
g (float[N,3,8,8] x) => (float[N,16] y, float[N,16] z)
<float[16,3,3,3] wa, float[16] ba, float[16,16,3,3] wb, float[16] bb, float[16,16,3,3] ws, float[16] bs> {
  a0 = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(x, wa, ba)
  a = Relu(a0)
  b0 = Conv<kernel_shape=[3,3], pads=[1,1,1,1], strides=[2,2]>(a, wb, bb)
  b = Relu(b0)
  h0 = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(a, ws, bs)
  h = Relu(h0)
  k0 = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(b, ws, bs)
  k = Relu(k0)
  hp = GlobalAveragePool(h)
  kp = GlobalAveragePool(k)
  y = Flatten(hp)
  z = Flatten(kp)
}
"""
TWICE = """
g (float[N,3,8,8] x) => (float[N,16] y)
<float[16,3,3,3] wa, float[16] ba, float[16,16,3,3] ws, float[16] bs> {
  a0 = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(x, wa, ba)
  a = Relu(a0)
  h0 = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(a, ws, bs)
  h = Relu(h0)
  k0 = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(h, ws, bs)
  k = Relu(k0)
  p = GlobalAveragePool(k)
  y = Flatten(p)
}
"""
SIAMESE = """
g (float[N,3,8,8] left, float[N,3,8,8] right) => (float[N,16] y)
<float[16,3,3,3] wa, float[16] ba, float[16,16,3,3] wb, float[16] bb> {
  l0 = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(left, wa, ba)
  l1 = Relu(l0)
  l2 = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(l1, wb, bb)
  l3 = GlobalAveragePool(l2)
  r0 = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(right, wa, ba)
  r1 = Relu(r0)
  r2 = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(r1, wb, bb)
  r3 = GlobalAveragePool(r2)
  d = Sub(l3, r3)
  y = Flatten(d)
}
"""
NETS = {"heads": HEADS, "twice": TWICE, "siamese": SIAMESE}


def sharing(model: ir.Model) -> int:
    return sum(len(nodes) for _, nodes in SharedWeights.of(model.graph).layers)


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_shared_weight_is_pruned_and_quantised_once(
    name: str, precision: str, canonical: Callable[..., ir.Model], tmp_path: Path
) -> None:
    model = canonical(NETS[name])
    shared = sharing(model)
    assert shared >= 2
    onnx.save(ir.to_proto(model), tmp_path / "m.onnx")
    rng = np.random.default_rng(0)
    data: dict[str, Any] = {
        v.name or "": rng.standard_normal((24, 3, 8, 8)).astype(np.float32) for v in model.graph.inputs
    }
    np.savez(tmp_path / "data.npz", **data)
    compile_model(
        tmp_path / "m.onnx", tmp_path / "run", data=tmp_path / "data.npz", budget="macs=60%",
        precision=precision, formats=("onnx", "tflite"), measure=False, threads=1, quiet=True,
    )  # fmt: skip
    for file in sorted((tmp_path / "run").glob("*.onnx")):
        proto = onnx.load(file)
        convs = [node for node in proto.graph.node if node.op_type == "Conv"]
        stored = [t.raw_data for t in proto.graph.initializer if len(t.dims) == 4]
        assert len(set(stored)) == len(convs) - shared // 2, file.name
        large = [codes for codes in stored if len(codes) >= 512]  # less is not worth a Reshape
        assert len(large) == len(set(large))
    sizes = {file.name: file.stat().st_size for file in (tmp_path / "run").glob("model*.*") if file.is_file()}
    assert sizes["model.onnx"] < (tmp_path / "m.onnx").stat().st_size
