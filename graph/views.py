"""Thin typed views over onnx_ir nodes, and the few edits of constants that passes make.

A view reads the attributes of one node in ONNX's own terms (group, strides, pads, dilations) with their defaults filled
in, and gives its constant operands as numpy arrays. It holds no state of its own: it can be thrown away and made anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from edgec.graph.errors import UnsupportedError
from edgec.graph.names import free_name
from edgec.graph.provenance import place

Array = np.ndarray[Any, np.dtype[Any]]


def constant(value: ir.Value | None) -> Array | None:
    """The array behind an initialiser or a Constant node; None for everything that is computed."""
    if value is None:
        return None
    producer = value.producer()
    if producer is None:
        return None if value.const_value is None else np.asarray(value.const_value.numpy())
    if producer.op_type == "Constant" and producer.domain in ("", "ai.onnx"):
        tensor = value.const_value or ir.convenience.get_const_tensor(value)
        return None if tensor is None else np.asarray(tensor.numpy())
    return None


def is_constant(value: ir.Value | None) -> bool:
    """True for initialisers and Constant nodes."""
    if value is None or value.is_graph_input():
        return False
    producer = value.producer()
    return value.const_value is not None if producer is None else producer.op_type == "Constant"


def set_constant(value: ir.Value, array: Array) -> None:
    """Replace the array behind an initialiser, its type and its shape."""
    tensor = ir.tensor(np.ascontiguousarray(array).reshape(np.shape(array)), name=value.name)
    value.const_value = tensor
    value.shape = tensor.shape  # type: ignore[assignment]
    value.dtype = tensor.dtype


class Names:
    """The names of a graph's values and nodes, for somebody who adds many: they are looked up once, and every new one is kept."""

    def __init__(self, graph: ir.Graph) -> None:
        self.graph = graph
        self.taken: set[str] = {*graph.initializers, *(v.name or "" for v in graph.inputs)}
        for node in graph:
            self.taken.add(node.name or "")
            self.taken.update(v.name or "" for v in node.outputs)

    def fresh(self, stem: str) -> str:
        """``stem``, or ``stem_2``, ``stem_3``... where that name is taken by a value or a node."""
        return free_name(stem, self.taken)

    def initializer(self, stem: str, array: Array) -> ir.Value:
        """A new initialiser; its name is made unique."""
        name = self.fresh(stem)
        tensor = ir.tensor(np.ascontiguousarray(array).reshape(np.shape(array)), name=name)
        value = ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=tensor.shape, const_value=tensor)  # type: ignore[arg-type]
        self.graph.register_initializer(value)
        return value


def fresh_name(graph: ir.Graph, stem: str) -> str:
    """One new name (`Names.fresh`)."""
    return Names(graph).fresh(stem)


def add_initializer(graph: ir.Graph, name: str, array: Array) -> ir.Value:
    """One new initialiser; the name is made unique."""
    return Names(graph).initializer(name, array)


def own_constant(graph: ir.Graph, node: ir.Node, index: int, array: Array, suffix: str = "") -> ir.Value:
    """Give input ``index`` of ``node`` a new array without touching other readers of the old one."""
    old = node.inputs[index] if index < len(node.inputs) else None
    if old is not None and old.is_initializer() and len(old.uses()) == 1 and not old.is_graph_output():
        set_constant(old, array)
        return old
    stem = old.name if old is not None and old.name else f"{node.name}{suffix}"
    value = add_initializer(graph, stem, array)
    if index >= len(node.inputs):
        node.resize_inputs(index + 1)
    node.replace_input_with(index, value)
    return value


def shape_of(value: ir.Value | None) -> tuple[int | None, ...]:
    """The static shape, with None where a dimension is symbolic (the batch axis).

    Raises UnsupportedError where not even the rank is known.
    """
    if value is None or value.shape is None:
        name = "?" if value is None else value.name
        raise UnsupportedError("the shape is not known", where=f"value {name!r}", why="its rank is undefined")
    return tuple(d if isinstance(d, int) else None for d in value.shape)


def attribute(node: ir.Node, name: str, default: Any) -> Any:
    """The attribute's plain Python value (lists become tuples), or ``default``."""
    attr = node.attributes.get(name)
    if attr is None or attr.is_ref():
        return default
    value = attr.value
    return tuple(value) if isinstance(value, (list, tuple)) else value


def set_attribute(node: ir.Node, name: str, value: int | float | str | Sequence[int]) -> None:
    """Set an attribute from a plain Python value."""
    node.attributes[name] = ir.convenience.convert_attribute(
        name, value if isinstance(value, (int, float, str)) else list(value)
    )


def computed_from(values: Iterable[ir.Value]) -> set[ir.Value]:
    """``values`` and all that is computed from them."""
    found: set[ir.Value] = set()
    pending = list(values)
    while pending:
        value = pending.pop()
        if value not in found:
            found.add(value)
            pending += (made for node in value.consumers() for made in node.outputs)
    return found


def sole_consumer(value: ir.Value) -> ir.Node | None:
    """The one node that reads ``value``, when exactly one does and it is no graph output."""
    uses = tuple(value.uses())
    if len(uses) != 1 or value.is_graph_output():
        return None
    return uses[0].node


def per_input(factors: Array, group: int, shape: tuple[int, ...]) -> Array:
    """Factors of input channels laid out for a convolution's weight, (out, in/group, *kernel) of this ``shape``."""
    table = np.broadcast_to(factors.reshape(group, 1, shape[1]), (group, shape[0] // group, shape[1]))
    return table.reshape(shape[0], shape[1], *[1] * (len(shape) - 2))


@dataclass(frozen=True)
class KernelView:
    """What a Conv and a ConvTranspose with constant weights have in common."""

    node: ir.Node

    @staticmethod
    def has_constants(node: ir.Node) -> bool:
        """True where neither weight nor bias is computed."""
        bias = node.inputs[2] if len(node.inputs) > 2 else None
        return constant(node.inputs[1]) is not None and (bias is None or constant(bias) is not None)

    @property
    def x(self) -> ir.Value:
        """The input activation."""
        value = self.node.inputs[0]
        if value is None:
            raise UnsupportedError(f"{self.node.op_type} without an input", where=place(self.node))
        return value

    @property
    def y(self) -> ir.Value:
        """The output activation."""
        return self.node.outputs[0]

    @property
    def stored(self) -> Array:
        """The weight as the node has it."""
        array = constant(self.node.inputs[1])
        if array is None:
            raise UnsupportedError("the weight is computed", where=place(self.node))
        return array

    @property
    def bias(self) -> Array | None:
        """(out,) or None."""
        return constant(self.node.inputs[2]) if len(self.node.inputs) > 2 else None

    @property
    def kernel(self) -> tuple[int, ...]:
        return tuple(self.stored.shape[2:])

    @property
    def group(self) -> int:
        return int(attribute(self.node, "group", 1))

    @property
    def dilations(self) -> tuple[int, ...]:
        return tuple(attribute(self.node, "dilations", (1,) * len(self.kernel)))

    def store(self, weight: Array | None, bias: Array | None) -> None:
        """Replace weight, as the node has it, and bias; initialisers that other nodes share stay as they are for those."""
        graph = self.node.graph
        if not isinstance(graph, ir.Graph):
            raise UnsupportedError("the node belongs to no graph", where=place(self.node))
        if weight is not None:
            own_constant(graph, self.node, 1, weight, "_weight")
        if bias is not None:
            own_constant(graph, self.node, 2, bias, "_bias")


@dataclass(frozen=True)
class ConvView(KernelView):
    """A Conv with constant weights.

    ``weight`` is (out, in/group, *kernel); ``bias`` is (out,) or None; ``pads`` are begin then end, as in ONNX.
    """

    @staticmethod
    def of(node: ir.Node | None) -> ConvView | None:
        """The view, or None where ``node`` is no Conv or its weight or bias is computed."""
        if node is None or node.op_type != "Conv" or not KernelView.has_constants(node):
            return None
        return ConvView(node)

    @property
    def weight(self) -> Array:
        """(out, in/group, *kernel)."""
        return self.stored

    @property
    def strides(self) -> tuple[int, ...]:
        return tuple(attribute(self.node, "strides", (1,) * len(self.kernel)))

    @property
    def pads(self) -> tuple[int, ...]:
        """Begin of every spatial axis, then end. The canonical graph has no ``auto_pad``."""
        return tuple(attribute(self.node, "pads", (0,) * 2 * len(self.kernel)))

    @property
    def out_channels(self) -> int:
        return int(self.weight.shape[0])

    @property
    def in_channels(self) -> int:
        return int(self.weight.shape[1]) * self.group

    @property
    def is_depthwise(self) -> bool:
        """Every input channel has filters of its own (a channel multiplier above 1 counts too)."""
        return self.group > 1 and self.weight.shape[1] == 1

    def set(self, *, weight: Array | None = None, bias: Array | None = None) -> None:
        """Replace weight and bias; initialisers that other nodes share stay as they are for those."""
        self.store(weight, bias)


@dataclass(frozen=True)
class GemmView:
    """A fully connected layer: Gemm with alpha = beta = 1 and constant weight, or MatMul by a constant matrix.

    ``weight`` is (out, in) whatever the node's transB says.
    """

    node: ir.Node

    @staticmethod
    def of(node: ir.Node | None) -> GemmView | None:
        """The view, or None where ``node`` is no such layer."""
        if node is None or node.op_type not in ("Gemm", "MatMul"):
            return None
        weight = constant(node.inputs[1])
        if weight is None or weight.ndim != 2:
            return None
        if node.op_type == "Gemm":
            plain = attribute(node, "alpha", 1.0) == 1.0 and attribute(node, "beta", 1.0) == 1.0
            if not plain or attribute(node, "transA", 0):
                return None
            if len(node.inputs) > 2 and node.inputs[2] is not None and constant(node.inputs[2]) is None:
                return None
        return GemmView(node)

    @property
    def x(self) -> ir.Value:
        value = self.node.inputs[0]
        if value is None:
            raise UnsupportedError("Gemm without an input", where=place(self.node))
        return value

    @property
    def y(self) -> ir.Value:
        return self.node.outputs[0]

    @property
    def _transposed(self) -> bool:
        return self.node.op_type == "Gemm" and bool(attribute(self.node, "transB", 0))

    @property
    def weight(self) -> Array:
        """(out, in)."""
        array = constant(self.node.inputs[1])
        if array is None:
            raise UnsupportedError("the weight is computed", where=place(self.node))
        return array if self._transposed else array.T

    @property
    def bias(self) -> Array | None:
        """(out,), or None (a MatMul never has one)."""
        if self.node.op_type == "MatMul" or len(self.node.inputs) < 3:
            return None
        array = constant(self.node.inputs[2])
        return None if array is None else np.broadcast_to(array, (1, self.weight.shape[0]))[0].copy()

    @property
    def out_channels(self) -> int:
        return int(self.weight.shape[0])

    @property
    def in_channels(self) -> int:
        return int(self.weight.shape[1])

    def set(self, *, weight: Array | None = None, bias: Array | None = None) -> None:
        """Replace weight (out, in) and bias (out,). A MatMul takes no bias."""
        graph = self.node.graph
        if not isinstance(graph, ir.Graph):
            raise UnsupportedError("the node belongs to no graph", where=place(self.node))
        if bias is not None and self.node.op_type == "MatMul":
            raise UnsupportedError("MatMul has no bias to set", where=place(self.node))
        if weight is not None:
            own_constant(graph, self.node, 1, weight if self._transposed else weight.T, "_weight")
        if bias is not None:
            own_constant(graph, self.node, 2, bias, "_bias")
