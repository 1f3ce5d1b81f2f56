"""Put gated blocks into a graph: only Conv, Clip (or Relu), Mul and Add, which every engine and int8 TFLite have.

    gate = Clip(Conv(z), 0, 1)        value = Conv(z)        output = Conv_1x1(gate * value) + skip

The sharpness of the gate's edge is in the weights of its convolution. The sum keeps the name of the one that it replaces.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from edgec.graph.edit import take_over
from edgec.graph.views import add_initializer, fresh_name
from edgec.passes.blocks.gated.parts import Part

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Kernel:
    """An ONNX convolution weight (out, in, kh, kw) and its bias (out,)."""

    weight: Array
    bias: Array


@dataclass(frozen=True)
class BlockWeights:
    """``gate`` is None for a plain ReLU block, ``projection`` the 1x1 convolution on the skip, where there is one."""

    gate: Kernel | None
    value: Kernel
    out: Kernel
    projection: Kernel | None = None


@dataclass(frozen=True)
class Placed:
    """Names of a block's convolutions ``C2`` and ``C3``, and of the value that its skip adds (None: its input, or nothing)."""

    value: str
    out: str
    skip: str | None


def put_in(model: ir.Model, part: Part, weights: BlockWeights) -> Placed:
    """Replace the nodes of ``part``, in place; nodes of its skip stay."""
    graph = model.graph
    nodes = {node.name: node for node in graph}
    end = nodes[part.nodes[-1]].outputs[0]
    z = next(v for v in _values(graph) if v.name == part.input)
    builder = _Builder(graph, part, end)
    value = builder.conv("value", z, weights.value, part.geometry.stride)
    first = builder.made[-1].name or ""
    if weights.gate is None:
        inner = builder.node("Relu", "relu", [value])
    else:
        raw = builder.conv("gate", z, weights.gate, part.geometry.stride)
        bounds = [builder.constant("low", np.float32(0)), builder.constant("high", np.float32(1))]
        inner = builder.node("Mul", "gated", [builder.node("Clip", "open", [raw, *bounds]), value])
    out = builder.conv("out", inner, weights.out, 1)
    last = builder.made[-1].name or ""
    skip = skip_value(model, part)
    if weights.projection is not None:
        skip = builder.conv("skip", z, weights.projection, part.geometry.stride)
    if skip is not None:
        out = builder.node("Add", "sum", [out, skip])
    join = nodes[part.nodes[-1]]
    graph.insert_before(join, builder.made)
    take_over(graph, end, out)
    kept = set(part.skip or ())
    graph.remove([nodes[gone] for gone in part.nodes if gone not in kept], safe=True)
    for key, initialiser in list(graph.initializers.items()):
        if not initialiser.uses() and not initialiser.is_graph_output():
            del graph.initializers[key]
    return Placed(first, last, None if skip is None or skip is z else skip.name)


def skip_value(model: ir.Model, part: Part) -> ir.Value | None:
    """What the skip that stays makes: the part's input where it computes nothing, None where there is none."""
    if part.skip is None:
        return None
    if not part.skip:
        return next(v for v in _values(model.graph) if v.name == part.input)
    return next(node for node in model.graph if node.name == part.skip[-1]).outputs[0]


def _values(graph: ir.Graph) -> list[ir.Value]:
    return [*graph.inputs, *(value for node in graph for value in node.outputs)]


class _Builder:
    """New nodes of one block, named after it, shaped like the value that it replaces."""

    def __init__(self, graph: ir.Graph, part: Part, end: ir.Value) -> None:
        self.graph, self.part, self.end = graph, part, end
        self.made: list[ir.Node] = []

    def node(
        self, op: str, role: str, inputs: list[ir.Value], channels: int | None = None, **attributes: Any
    ) -> ir.Value:
        """Append a node; its output has ``channels``, or those of its first input."""
        name = fresh_name(self.graph, f"{self.part.name}/{role}")
        size = list(self.end.shape or [])
        first = inputs[0].shape
        size[1] = channels if channels is not None else (first[1] if first is not None else size[1])
        out = ir.Value(name=f"{name}_out", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(size))
        self.made.append(
            ir.Node("", op, inputs, ir.convenience.convert_attributes(attributes), outputs=[out], name=name)
        )
        return out

    def conv(self, role: str, x: ir.Value, kernel: Kernel, stride: int) -> ir.Value:
        """A convolution with the padding that keeps the size up to its stride."""
        taps = kernel.weight.shape[2]
        weight = self.constant(f"{role}_weight", kernel.weight)
        bias = self.constant(f"{role}_bias", kernel.bias)
        return self.node(
            "Conv",
            role,
            [x, weight, bias],
            channels=len(kernel.weight),
            kernel_shape=[taps, taps],
            pads=[taps // 2] * 4,
            strides=[stride, stride],
            dilations=[1, 1],
            group=1,
        )

    def constant(self, role: str, array: Any) -> ir.Value:
        return add_initializer(self.graph, f"{self.part.name}/{role}", np.asarray(array, np.float32))
