"""Half, double and bfloat16 networks become float32 inside.

Constants, casts and types are rewritten; float16 and float64 inputs and outputs keep their type behind a Cast, so that programs
which feed the network need no change. A bfloat16 input becomes float32, because no array of numpy holds bfloat16.
Whole numbers and booleans stay what they are: they are data.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgec.graph.external import tensors
from edgec.graph.names import free_name

_NAMES: dict[int, str] = {
    TensorProto.FLOAT16: "float16",
    TensorProto.DOUBLE: "float64",
    TensorProto.BFLOAT16: "bfloat16",
}
_KEPT = (TensorProto.FLOAT16, TensorProto.DOUBLE)
"""At the ends."""
_TYPE_ATTRIBUTES = ("to", "dtype")
_LARGEST = float(np.finfo(np.float32).max)


def to_float32(model: onnx.ModelProto) -> tuple[str, ...]:
    """Rewrite ``model`` in place; the names of the number formats that went, sorted."""
    found: set[int] = set()
    for _, tensor in tensors(model):
        if tensor.data_type in _NAMES:
            found.add(tensor.data_type)
            _widen(tensor)
    for graph in _graphs(model.graph):
        for value in (*graph.value_info, *(() if graph is model.graph else (*graph.input, *graph.output))):
            found |= _retype(value)
    for nodes in (*(graph.node for graph in _graphs(model.graph)), *(f.node for f in model.functions)):
        for node in nodes:
            for attribute in node.attribute:
                if attribute.name in _TYPE_ATTRIBUTES and attribute.i in _NAMES:
                    found.add(attribute.i)
                    attribute.i = TensorProto.FLOAT
    return tuple(sorted(_NAMES[kind] for kind in found | _ends(model.graph)))


def _ends(graph: onnx.GraphProto) -> set[int]:
    """Casts behind inputs and before outputs; the types found there."""
    inputs = [value for value in graph.input if value.type.tensor_type.elem_type in _NAMES]
    outputs = [value for value in graph.output if value.type.tensor_type.elem_type in _NAMES]
    found = {value.type.tensor_type.elem_type for value in (*inputs, *outputs)}
    kept = {value.name: value.type.tensor_type.elem_type for value in (*inputs, *outputs)}
    for value in (*inputs, *outputs):
        if kept[value.name] not in _KEPT:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
            del kept[value.name]
    taken = {name for node in graph.node for name in node.output} | {value.name for value in graph.input}
    inner = {name: free_name(f"{name}_float32", taken) for name in kept}
    for one in _graphs(graph):
        for node in one.node:
            _rename(node.input, inner)
            _rename(node.output, inner)
    before = [_cast(v.name, inner[v.name], TensorProto.FLOAT) for v in inputs if v.name in inner]
    made = {name for node in graph.node for name in node.output}
    behind = [
        _cast(inner[v.name], v.name, kept[v.name])
        for v in outputs
        if v.name in inner and inner[v.name] in made
    ]
    nodes = [*before, *graph.node, *behind]
    del graph.node[:]
    graph.node.extend(nodes)
    return found


def _cast(source: str, result: str, kind: int) -> onnx.NodeProto:
    return helper.make_node("Cast", [source], [result], name=f"{result}_cast", to=kind)


def _rename(names: Sequence[str], new: dict[str, str]) -> None:
    for index, name in enumerate(names):
        if name in new:
            names[index] = new[name]  # type: ignore[index]  # a repeated field of the untyped protobuf


def _widen(tensor: onnx.TensorProto) -> None:
    """Numbers beyond float32 become its largest: masks are written with a double's lowest number."""
    wide = numpy_helper.to_array(tensor).astype(np.float64)
    near = np.where(np.isfinite(wide), np.clip(wide, -_LARGEST, _LARGEST), wide).astype(np.float32)
    tensor.CopyFrom(numpy_helper.from_array(near, tensor.name))


def _retype(value: onnx.ValueInfoProto) -> set[int]:
    kind = value.type.tensor_type.elem_type if value.type.HasField("tensor_type") else 0
    if kind not in _NAMES:
        return set()
    value.type.tensor_type.elem_type = TensorProto.FLOAT
    return {kind}


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """A graph, and those inside its nodes."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in ([attribute.g] if attribute.HasField("g") else []) + list(attribute.graphs):
                yield from _graphs(inner)
