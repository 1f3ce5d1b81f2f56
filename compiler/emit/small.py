"""Write an int8 graph with nothing in the file that a reader can work out: measured, a fifth of a small network.

1. Equal constants are stored once: scales and zero points repeat in every pair. Signed codes and zero points are not shared.
2. What quantisation added gets short names. Inputs, outputs, nodes and tensors of the source keep theirs, so that a report
   and a profile name layers as before.
3. A shape or type that inference finds again is left out; one that it does not find stays.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import onnx

ROUNDING = ("QuantizeLinear", "DequantizeLinear")
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


def shrink(proto: onnx.ModelProto) -> None:
    """In place, for a graph that holds QuantizeLinear or DequantizeLinear; any other is left as it is."""
    if not any(node.op_type in ROUNDING for node in proto.graph.node):
        return
    _share_constants(proto.graph)
    _shorten_names(proto.graph)
    _drop_inferred(proto)


def _share_constants(graph: onnx.GraphProto) -> None:
    fixed = {value.name for value in (*graph.input, *graph.output)}
    first: dict[tuple[object, ...], str] = {}
    same: dict[str, str] = {}
    kept = []
    for tensor in graph.initializer:
        key = (tensor.data_type, tuple(tensor.dims), onnx.numpy_helper.to_array(tensor).tobytes())
        if tensor.name not in fixed and key in first and not _is_signed(tensor):
            same[tensor.name] = first[key]
            continue
        first.setdefault(key, tensor.name)
        kept.append(tensor)
    _rename(graph, same)
    del graph.initializer[:]
    graph.initializer.extend(kept)


def _is_signed(tensor: onnx.TensorProto) -> bool:
    """onnxruntime on x86 makes signed codes and zero points unsigned, each anew under the old one's name: twice is refused."""
    return tensor.data_type == onnx.TensorProto.INT8


def _shorten_names(graph: onnx.GraphProto) -> None:
    fixed = {value.name for value in (*graph.input, *graph.output)}
    readers: dict[str, set[str]] = {}
    taken = {tensor.name for tensor in graph.initializer} | fixed
    for node in _nodes(graph):
        taken.update((node.name, *node.output))
        for name in node.input:
            readers.setdefault(name, set()).add(node.op_type)
    fresh = _names(taken)
    short: dict[str, str] = {}
    for tensor in graph.initializer:
        if tensor.name not in fixed and readers.get(tensor.name, set()) <= set(ROUNDING):
            short[tensor.name] = next(fresh)
    for node in graph.node:
        if node.op_type in ROUNDING:
            node.name = next(fresh)
            short.update((name, next(fresh)) for name in node.output if name not in fixed)
    _rename(graph, short)


def _names(taken: set[str]) -> Iterator[str]:
    """Names of a letter and digits to the base of 36, but those that are taken."""
    count = 0
    while True:
        name, rest = "", count
        while rest or not name:
            name, rest = _DIGITS[rest % 36] + name, rest // 36
        count += 1
        if f"q{name}" not in taken:
            yield f"q{name}"


def _rename(graph: onnx.GraphProto, names: Mapping[str, str]) -> None:
    for tensor in graph.initializer:
        tensor.name = names.get(tensor.name, tensor.name)
    for node in _nodes(graph):
        for values in (node.input, node.output):
            for index, name in enumerate(values):
                values[index] = names.get(name, name)
    for value in graph.value_info:
        value.name = names.get(value.name, value.name)


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """All nodes, those of inner graphs too: they may read what the outer graph holds."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _nodes(inner)


def _drop_inferred(proto: onnx.ModelProto) -> None:
    stored = {value.name: value for value in proto.graph.value_info}
    del proto.graph.value_info[:]
    inferred = onnx.shape_inference.infer_shapes(proto, data_prop=True)
    found = {value.name: value for value in inferred.graph.value_info}
    made = {name for node in proto.graph.node for name in node.output}
    proto.graph.value_info.extend(
        value for name, value in stored.items() if name in made and not _tells(found.get(name), value)
    )


def _tells(found: onnx.ValueInfoProto | None, stored: onnx.ValueInfoProto) -> bool:
    """True when what inference found says as much as what is stored: the type, the rank, every fixed size."""
    if found is None or found.type.tensor_type.elem_type != stored.type.tensor_type.elem_type:
        return False
    if not stored.type.tensor_type.HasField("shape"):
        return True
    have, want = found.type.tensor_type.shape.dim, stored.type.tensor_type.shape.dim
    known = all(
        not b.HasField("dim_value") or a.dim_value == b.dim_value for a, b in zip(have, want, strict=False)
    )
    return len(have) == len(want) and known
