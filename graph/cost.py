"""What a graph costs: multiplications, parameters, and bytes, node by node, for one sample.

One MAC is one multiplication with its addition. Counted are convolutions, fully connected layers, and matrix products of
two activations; everything else costs memory traffic, which is what ``in_elements`` and ``out_elements`` are for.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import onnx_ir as ir

from edgec.graph.spec import LAYOUT, POOL, REDUCE
from edgec.graph.views import constant, is_constant, shape_of


@dataclass(frozen=True)
class NodeCost:
    """One node. ``kind`` is one of pointwise, dense, depthwise, transposed, linear, matmul, pool, elementwise, layout.

    ``weight_bytes`` are the bytes of its constants as stored; ``activation_bytes`` are those it reads and writes.
    """

    name: str
    op: str
    kind: str
    macs: int
    params: int
    weight_bytes: int
    in_elements: int
    out_elements: int
    activation_bytes: int
    kernel: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()


@dataclass(frozen=True)
class ModelCost:
    """All nodes in order. Constants that several nodes share are counted once, at their first reader."""

    nodes: tuple[NodeCost, ...]
    peak_activation_bytes: int

    @property
    def macs(self) -> int:
        return sum(node.macs for node in self.nodes)

    @property
    def params(self) -> int:
        return sum(node.params for node in self.nodes)

    @property
    def weight_bytes(self) -> int:
        return sum(node.weight_bytes for node in self.nodes)


def cost(model: ir.Model) -> ModelCost:
    """MACs, parameters and bytes of ``model`` at batch 1. Raises UnsupportedError where a rank is unknown."""
    seen: set[int] = set()
    nodes = tuple(_node_cost(node, seen) for node in model.graph)
    return ModelCost(nodes, _peak_activation_bytes(model))


def _node_cost(node: ir.Node, seen: set[int]) -> NodeCost:
    params = weight_bytes = 0
    stored = [_stored_constant(value) for value in node.inputs]
    for value in stored:
        if value is None or id(value) in seen or _only_dequantises(node):
            continue
        seen.add(id(value))
        size = elements(value)
        if value.dtype is not None and (
            value.dtype.is_floating_point() or value.dtype.bitwidth <= 8 or size > 8
        ):
            weight_bytes += size * value.dtype.bitwidth // 8
            if _is_weight(node, value):
                params += size
    activations = [v for v in node.inputs if v is not None and _stored_constant(v) is None]
    in_elements = sum(elements(value) for value in activations)
    out_elements = sum(elements(value) for value in node.outputs)
    moved = sum(bytes_of(value) for value in (*activations, *node.outputs))
    kernel, stride = _geometry(node)
    return NodeCost(
        name=node.name or "",
        op=node.op_type,
        kind=kind_of(node),
        macs=macs_of(node),
        params=params,
        weight_bytes=weight_bytes,
        in_elements=in_elements,
        out_elements=out_elements,
        activation_bytes=moved,
        kernel=kernel,
        stride=stride,
    )


def _stored_constant(value: ir.Value | None) -> ir.Value | None:
    """The initialiser behind ``value``, seen through a DequantizeLinear of a constant; None for activations."""
    if value is None:
        return None
    if is_constant(value):
        return value
    producer = value.producer()
    if producer is not None and producer.op_type == "DequantizeLinear" and is_constant(producer.inputs[0]):
        return producer.inputs[0]
    return None


def _only_dequantises(node: ir.Node) -> bool:
    """A DequantizeLinear of a constant: the constant belongs to the layer that reads it."""
    return node.op_type == "DequantizeLinear" and is_constant(node.inputs[0])


def _is_weight(node: ir.Node, value: ir.Value) -> bool:
    """Parameters are the float (or quantised) constants of layers, not shapes, scales and zero points."""
    if node.op_type in ("QuantizeLinear", "DequantizeLinear", "Clip", *LAYOUT):
        return False
    integer_index = value.dtype in (ir.DataType.INT64,)
    return not integer_index


def kind_of(node: ir.Node) -> str:
    """The cost class of a node."""
    if node.op_type == "Conv":
        weight = _shape(node.inputs[1])
        group = _group(node)
        if group > 1 and len(weight) > 1 and weight[1] == 1:
            return "depthwise"
        return "pointwise" if all(k == 1 for k in weight[2:]) else "dense"
    if node.op_type == "ConvTranspose":
        return "transposed"
    if node.op_type in ("Gemm", "MatMul"):
        return "linear" if _stored_constant(node.inputs[1]) is not None else "matmul"
    if node.op_type in POOL or node.op_type in REDUCE:
        return "pool"
    if node.op_type in LAYOUT:
        return "layout"
    return "elementwise"


def macs_of(node: ir.Node) -> int:
    """Multiply-accumulates of one node for one sample."""
    if node.op_type == "Conv":
        return elements(node.outputs[0]) * math.prod(_shape(node.inputs[1])[1:])
    if node.op_type == "ConvTranspose":
        return elements(node.inputs[0]) * math.prod(_shape(node.inputs[1])[1:])
    if node.op_type in ("Gemm", "MatMul"):
        left = _shape(node.inputs[0])
        inner = left[0] if node.op_type == "Gemm" and _flag(node, "transA") else left[-1]
        return elements(node.outputs[0]) * inner
    return 0


def elements(value: ir.Value | None) -> int:
    """Number of elements of a value for one sample (an open batch axis counts as 1)."""
    return math.prod(_shape(value))


def bytes_of(value: ir.Value | None) -> int:
    """Bytes of an activation for one sample; unknown types count as float32."""
    if value is None:
        return 0
    bits = value.dtype.bitwidth if value.dtype is not None and value.dtype != ir.DataType.STRING else 32
    return elements(value) * bits // 8


def _shape(value: ir.Value | None) -> tuple[int, ...]:
    if value is None or (not value.name and value.shape is None):
        return (0,)
    array = constant(value) if value.shape is None else None
    if array is not None:
        return tuple(array.shape)
    return tuple(1 if size is None else size for size in shape_of(value))


def _group(node: ir.Node) -> int:
    attribute = node.attributes.get("group")
    return 1 if attribute is None else attribute.as_int()


def _flag(node: ir.Node, name: str) -> bool:
    attribute = node.attributes.get(name)
    return attribute is not None and bool(attribute.as_int())


def _geometry(node: ir.Node) -> tuple[tuple[int, ...], tuple[int, ...]]:
    if node.op_type in ("Conv", "ConvTranspose"):
        kernel = _shape(node.inputs[1])[2:]
    elif "kernel_shape" in node.attributes:
        kernel = tuple(node.attributes["kernel_shape"].as_ints())
    else:
        return (), ()
    strides = node.attributes.get("strides")
    return kernel, tuple(strides.as_ints()) if strides is not None else (1,) * len(kernel)


def _peak_activation_bytes(model: ir.Model) -> int:
    """The largest sum of live activations while running node by node in order, each freed after its last reader."""
    order = list(model.graph)
    last: dict[int, int] = {}
    for index, node in enumerate(order):
        for value in node.inputs:
            if value is not None:
                last[id(value)] = index
    for value in model.graph.outputs:
        last[id(value)] = len(order)
    live = {id(v): bytes_of(v) for v in model.graph.inputs}
    peak = sum(live.values())
    for index, node in enumerate(order):
        live.update({id(v): bytes_of(v) for v in node.outputs})
        peak = max(peak, sum(live.values()))
        for value in (*node.inputs, *node.outputs):
            if value is not None and last.get(id(value), -1) <= index:
                live.pop(id(value), None)
    return peak
