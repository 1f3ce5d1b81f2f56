"""An ONNX file as its rules look at it: who makes a tensor, who reads it, what is constant, how large it is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Array = np.ndarray[Any, np.dtype[Any]]
QUANTIZE, DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"


class OnnxView:
    """Read only; inner graphs are left to the runtime."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.nodes: Sequence[onnx.NodeProto] = model.graph.node
        self.makers: dict[str, onnx.NodeProto] = {
            name: node for node in self.nodes for name in node.output if name
        }
        self.readers: dict[str, list[tuple[onnx.NodeProto, int]]] = {}
        for node in self.nodes:
            for index, name in enumerate(node.input):
                self.readers.setdefault(name, []).append((node, index))
        self.stored: dict[str, onnx.TensorProto] = {tensor.name: tensor for tensor in model.graph.initializer}
        for node in self.nodes:
            if node.op_type == "Constant":
                self.stored.update((node.output[0], one.t) for one in node.attribute if one.name == "value")
        self.inputs: list[onnx.ValueInfoProto] = [
            value for value in model.graph.input if value.name not in self.stored
        ]
        self.outputs: set[str] = {value.name for value in model.graph.output}

    @property
    def opset(self) -> int:
        """Of the default domain."""
        return next((one.version for one in self.model.opset_import if one.domain in ("", "ai.onnx")), 1)

    def of(self, *ops: str) -> Iterator[onnx.NodeProto]:
        """Nodes of these types, in the file's order."""
        return (node for node in self.nodes if node.op_type in ops)

    def maker(self, node: onnx.NodeProto, index: int) -> onnx.NodeProto | None:
        """What computes an input."""
        return self.makers.get(node.input[index]) if index < len(node.input) else None

    def array(self, node: onnx.NodeProto, index: int) -> Array | None:
        """A constant input; None for a computed or missing one."""
        name = node.input[index] if index < len(node.input) else ""
        return numpy_helper.to_array(self.stored[name]) if name in self.stored else None

    def is_stored(self, node: onnx.NodeProto, index: int) -> bool:
        """Whether an input is there and constant."""
        return index < len(node.input) and node.input[index] in self.stored

    def type_of(self, name: str) -> int:
        """The element type of a tensor (`TensorProto`), 0 where it is not known."""
        return self.stored[name].data_type if name in self.stored else self._types.get(name, 0)

    def shape(self, name: str) -> list[int | None] | None:
        """Sizes, None for a free one; None where the rank is not known."""
        return list(self.stored[name].dims) if name in self.stored else self._shapes.get(name)

    def place(self, node: onnx.NodeProto) -> str:
        """How a Q or DQ is called in a finding: its own name says little, the op that reads it is named too."""
        reader, seen = node, 0
        while reader.op_type in (QUANTIZE, DEQUANTIZE) and seen < 4:
            readers = self.readers.get(reader.output[0], [])
            if not readers:
                return label(node)
            reader, seen = readers[0][0], seen + 1
        return label(node) if reader is node else f"{label(node)}, in front of {label(reader)}"

    @cached_property
    def _inferred(self) -> onnx.GraphProto:
        try:
            return onnx.shape_inference.infer_shapes(self.model, data_prop=True).graph
        except (
            RuntimeError
        ):  # onnx's, for a file that breaks its rules: what it declares is known all the same
            return self.model.graph

    @cached_property
    def _types(self) -> dict[str, int]:
        graph = self._inferred
        values = (*graph.input, *graph.value_info, *graph.output)
        return {value.name: value.type.tensor_type.elem_type for value in values}

    @cached_property
    def _shapes(self) -> dict[str, list[int | None]]:
        graph, found = self._inferred, {}
        for value in (*graph.input, *graph.value_info, *graph.output):
            if value.type.tensor_type.HasField("shape"):
                dims = value.type.tensor_type.shape.dim
                found[value.name] = [dim.dim_value if dim.HasField("dim_value") else None for dim in dims]
        return found


def attribute(node: onnx.NodeProto, name: str, default: Any = None) -> Any:
    """The attribute's plain value, or ``default``."""
    found = next((one for one in node.attribute if one.name == name), None)
    return default if found is None else helper.get_attribute_value(found)


def label(node: onnx.NodeProto) -> str:
    """How a node is called in a finding."""
    return node.name or (node.output[0] if node.output else node.op_type)


def type_name(kind: int) -> str:
    """``int8``."""
    return str(TensorProto.DataType.Name(kind)).lower() if kind else "unknown"
