"""Property: any graph of the op set computes in LiteRT what it computes in onnxruntime."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from edgec.compiler.emit.tflite import emit

pytest.importorskip("ai_edge_litert")

Shape = tuple[int, ...]


@dataclass
class Net:
    """A graph as hypothesis grows it: values with their shapes, nodes, constants."""

    values: list[tuple[str, Shape]]
    nodes: list[Any] = field(default_factory=list)
    constants: list[Any] = field(default_factory=list)
    seed: int = 0

    def constant(self, shape: Shape, dtype: str = "float32", array: Any = None) -> str:
        name = f"c{len(self.constants)}"
        if array is None:
            array = np.random.default_rng(self.seed + len(self.constants)).standard_normal(shape) * 0.4
        self.constants.append(numpy_helper.from_array(np.asarray(array, dtype).reshape(shape), name))
        return name

    def add(self, op: str, inputs: list[str], shape: Shape, **attributes: Any) -> None:
        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [name], name=f"{op}_{name}", **attributes))
        self.values.append((name, shape))

    def model(self, outputs: list[str]) -> ir.Model:
        shapes = dict(self.values)
        first, shape = self.values[0]
        graph = helper.make_graph(
            self.nodes,
            "net",
            [helper.make_tensor_value_info(first, TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info(n, TensorProto.FLOAT, shapes[n]) for n in outputs],
            self.constants,
        )
        proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
        return ir.from_proto(onnx.shape_inference.infer_shapes(proto, strict_mode=True))


def conv(draw: st.DrawFn, net: Net, name: str, shape: Shape) -> None:
    n, c, h, w = shape
    group = draw(st.sampled_from([1, c]))
    out = draw(st.sampled_from([2, 4, 6])) * (c if group > 1 else 1)
    k = draw(st.sampled_from([1, 3]))
    s = draw(st.sampled_from([1, 2]))
    p = draw(st.integers(0, k // 2))
    if h + 2 * p < k or w + 2 * p < k or out > 32:
        return
    sizes = ((h + 2 * p - k) // s + 1, (w + 2 * p - k) // s + 1)
    weight, bias = net.constant((out, c // group, k, k)), net.constant((out,))
    net.add("Conv", [name, weight, bias], (n, out, *sizes), strides=[s, s], pads=[p] * 4, group=group)


def unary(draw: st.DrawFn, net: Net, name: str, shape: Shape) -> None:
    op = draw(
        st.sampled_from(
            ["Relu", "Sigmoid", "Tanh", "HardSwish", "LeakyRelu", "Abs", "Neg", "Identity", "Elu"]
        )
    )
    net.add(op, [name], shape)


def binary(draw: st.DrawFn, net: Net, name: str, shape: Shape) -> None:
    op = draw(st.sampled_from(["Add", "Sub", "Mul", "Max", "Min"]))
    same = [v for v, s in net.values if s == shape]
    kind = draw(st.integers(0, 2))
    if kind == 0 and same:
        net.add(op, [name, draw(st.sampled_from(same))], shape)
    else:
        rank = draw(st.integers(0, len(shape)))
        tail = tuple(draw(st.sampled_from([1, d])) for d in shape[len(shape) - rank :])
        other = net.constant(tail)
        net.add(op, [name, other] if kind == 1 else [other, name], shape)


def transpose(draw: st.DrawFn, net: Net, name: str, shape: Shape) -> None:
    perm = draw(st.permutations(range(len(shape))))
    net.add("Transpose", [name], tuple(shape[p] for p in perm), perm=list(perm))


def reshape(draw: st.DrawFn, net: Net, name: str, shape: Shape) -> None:
    """Split one axis, or merge two neighbours."""
    axis = draw(st.integers(0, len(shape) - 1))
    size = shape[axis]
    factors = [f for f in range(2, size) if size % f == 0]
    if factors and len(shape) < 5 and draw(st.booleans()):
        f = draw(st.sampled_from(factors))
        target = (*shape[:axis], f, size // f, *shape[axis + 1 :])
    elif axis + 1 < len(shape):
        target = (*shape[:axis], size * shape[axis + 1], *shape[axis + 2 :])
    else:
        target = (*shape[:axis], 1, size)
    net.add("Reshape", [name, net.constant((len(target),), "int64", target)], target)


def concat(draw: st.DrawFn, net: Net, name: str, shape: Shape) -> None:
    axis = draw(st.integers(0, len(shape) - 1))
    same = [v for v, s in net.values if s == shape]
    parts = [name, *draw(st.lists(st.sampled_from(same), min_size=1, max_size=2))]
    total = (*shape[:axis], shape[axis] * len(parts), *shape[axis + 1 :])
    if np.prod(total) <= 4096:
        net.add("Concat", parts, total, axis=axis)


def cut(draw: st.DrawFn, net: Net, name: str, shape: Shape) -> None:
    axis = draw(st.integers(0, len(shape) - 1))
    size = shape[axis]
    if size < 2:
        return
    start, step = draw(st.integers(0, size - 2)), draw(st.sampled_from([1, 2]))
    length = len(range(start, size, step))
    ints = [net.constant((1,), "int64", [v]) for v in (start, size, axis, step)]
    net.add("Slice", [name, *ints], (*shape[:axis], length, *shape[axis + 1 :]))


def pool(draw: st.DrawFn, net: Net, name: str, shape: Shape) -> None:
    n, c, h, w = shape
    if min(h, w) < 2:
        return
    op = draw(st.sampled_from(["MaxPool", "AveragePool"]))
    net.add(op, [name], (n, c, h // 2, w // 2), kernel_shape=[2, 2], strides=[2, 2])


def reduce(draw: st.DrawFn, net: Net, name: str, shape: Shape) -> None:
    op = draw(st.sampled_from(["ReduceMean", "ReduceMax", "ReduceSum"]))
    axes = draw(st.lists(st.integers(0, len(shape) - 1), min_size=1, max_size=2, unique=True))
    keep = draw(st.booleans()) or len(axes) == len(shape)
    target = tuple(1 if a in axes else d for a, d in enumerate(shape) if keep or a not in axes)
    net.add(op, [name, net.constant((len(axes),), "int64", axes)], target, keepdims=int(keep))


def linear(draw: st.DrawFn, net: Net, name: str, shape: Shape) -> None:
    out = draw(st.sampled_from([3, 5]))
    net.add("MatMul", [name, net.constant((shape[-1], out))], (*shape[:-1], out))


def softmax(draw: st.DrawFn, net: Net, name: str, shape: Shape) -> None:
    net.add("Softmax", [name], shape, axis=draw(st.integers(0, len(shape) - 1)))


def pad(draw: st.DrawFn, net: Net, name: str, shape: Shape) -> None:
    if len(shape) > 5:
        return  # TFLite's PAD takes 5 axes; the emitter says so
    cells = [draw(st.integers(0, 1)) for _ in range(2 * len(shape))]
    target = tuple(d + cells[k] + cells[k + len(shape)] for k, d in enumerate(shape))
    net.add("Pad", [name, net.constant((len(cells),), "int64", cells)], target)


STEPS_4 = (conv, conv, pool)
STEPS = (unary, binary, binary, transpose, reshape, reshape, concat, cut, reduce, softmax, pad)


@st.composite
def nets(draw: st.DrawFn) -> tuple[ir.Model, Shape]:
    shape = (1, draw(st.sampled_from([2, 4])), draw(st.sampled_from([4, 6])), draw(st.sampled_from([4, 5])))
    net = Net([("x", shape)], seed=draw(st.integers(0, 1000)))
    for _ in range(draw(st.integers(2, 8))):
        name, current = net.values[-1] if draw(st.booleans()) else draw(st.sampled_from(net.values))
        choices = [*STEPS, *(STEPS_4 if len(current) == 4 and current[0] == 1 else ())]
        if len(current) >= 2:
            choices.append(linear)
        draw(st.sampled_from(choices))(draw, net, name, current)
    if not net.nodes:
        net.add("Relu", ["x"], shape)
    read_by_others = {name for node in net.nodes for name in node.input}
    ends = [name for name, _ in net.values[1:] if name not in read_by_others]
    return net.model(ends), shape


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(nets(), st.sampled_from(["nchw", "nhwc"]))
def test_litert_computes_what_onnxruntime_computes(
    tflite: Any, onnx_run: Any, net: tuple[ir.Model, Shape], io_layout: Any
) -> None:
    model, shape = net
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    want = onnx_run(model, {"x": x}, fused=False)
    channels_last = io_layout == "nhwc" and not _first_reads_transposed(model)
    data = emit(model, io_layout=io_layout)
    have = tflite(data, {"x": x.transpose(0, 2, 3, 1) if channels_last else x})
    for name, value in want.items():
        result = have[name]
        if io_layout == "nhwc" and value.ndim == 4 and result.shape != value.shape:
            result = result.transpose(0, 3, 1, 2)
        scale = max(1.0, float(np.abs(value).max()))
        if result.shape == value.shape and np.allclose(result, value, rtol=1e-4, atol=1e-4 * scale):
            continue
        assert io_layout == "nhwc", name
        assert value.ndim == 4
        np.testing.assert_allclose(have[name].transpose(0, 3, 1, 2), value, rtol=1e-4, atol=1e-4 * scale)


def _first_reads_transposed(model: ir.Model) -> bool:
    uses = model.graph.inputs[0].uses()
    return bool(uses) and all(
        u.node.op_type == "Transpose" and tuple(u.node.attributes["perm"].as_ints()) == (0, 3, 1, 2)
        for u in uses
    )
