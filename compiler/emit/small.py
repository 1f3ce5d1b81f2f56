"""Write an int8 graph with nothing in the file that a reader can work out: measured, a fifth of a small network.

1. Equal constants are stored once: scales and zero points repeat in every pair, weights where layers share them.
2. What quantisation added gets short names. Inputs, outputs, nodes and tensors of the source keep theirs, so that a report
   and a profile name layers as before.
3. A shape or type that inference finds again is left out; one that it does not find stays.
4. Weights of layers that stay float, and are float16 to the bit (`passes.quantize.remaining`), are stored so behind a Cast, which
   runtimes fold when they load the file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterator, Mapping

import numpy as np
import onnx

from edgec.graph.names import free_name
from edgec.graph.spec import LAYERS
from edgec.passes.cast_fp16 import halved

ROUNDING = ("QuantizeLinear", "DequantizeLinear")
_WORTH = 512
"""Bytes of weights: what reads them again takes a hundred itself."""
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


def shrink(proto: onnx.ModelProto, *, halves: bool = True) -> None:
    """In place, for a graph that holds QuantizeLinear or DequantizeLinear; any other is left as it is. ``halves``: case 4 too."""
    if not any(node.op_type in ROUNDING for node in proto.graph.node):
        return
    _share_weights(proto.graph)
    _share_constants(proto.graph)
    if halves:
        _store_halves(proto.graph)
    _shorten_names(proto.graph)
    _drop_inferred(proto)


def _share_constants(graph: onnx.GraphProto) -> None:
    fixed = {value.name for value in (*graph.input, *graph.output)}
    first: dict[tuple[object, ...], str] = {}
    same: dict[str, str] = {}
    kept = []
    alone = _of_weights(graph)
    for tensor in graph.initializer:
        key = (tensor.data_type, tuple(tensor.dims), onnx.numpy_helper.to_array(tensor).tobytes())
        if tensor.name in alone:
            kept.append(tensor)
            continue
        if tensor.name not in fixed and key in first:
            same[tensor.name] = first[key]
            continue
        first.setdefault(key, tensor.name)
        kept.append(tensor)
    _rename(graph, same)
    del graph.initializer[:]
    graph.initializer.extend(kept)


def _of_weights(graph: onnx.GraphProto) -> frozenset[str]:
    """Codes of weights and their zero points. Where x86 has no VNNI, `session.x64quantprecision` has onnxruntime turn these to
    unsigned, each under a name made of the old one: it stops where two layers share them."""
    stored = {tensor.name for tensor in graph.initializer if tensor.data_type == onnx.TensorProto.INT8}
    names = {name for node in _dequantised(graph, stored) for name in (node.input[0], *node.input[2:3])}
    floats = {tensor.name for tensor in graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT}
    pairs = (node for node in graph.node if node.op_type == "QuantizeLinear" and node.input[0] in floats)
    return frozenset(names.union(*(node.input[2:3] for node in pairs)))


def _dequantised(graph: onnx.GraphProto, stored: Container[str]) -> Iterator[onnx.NodeProto]:
    return (node for node in graph.node if node.op_type == "DequantizeLinear" and node.input[0] in stored)


def _share_weights(graph: onnx.GraphProto) -> None:
    """Weights of several layers are stored once: the later ones read them through a Reshape to their own shape, which
    onnxruntime folds to a constant before it turns weights to unsigned (see `_of_weights`).

    Before and after::

        w1 -> DequantizeLinear -> Conv 1        w1 -> DequantizeLinear -> Conv 1
        w2 -> DequantizeLinear -> Conv 2        w1 -> Reshape -> DequantizeLinear -> Conv 2
    """
    stored = {one.name: one for one in graph.initializer if one.data_type == onnx.TensorProto.INT8}
    first: dict[tuple[object, ...], str] = {}
    views: list[onnx.NodeProto] = []
    for node in list(_dequantised(graph, stored)):
        name = node.input[0]
        codes = onnx.numpy_helper.to_array(stored[name])
        if codes.nbytes < _WORTH:
            continue
        key = (codes.shape, codes.tobytes())
        if key not in first:
            first[key] = name
            continue
        again = f"{name}_again_{len(views)}"
        shape = onnx.numpy_helper.from_array(np.array(codes.shape, np.int64), f"{again}_shape")
        views.append(onnx.helper.make_node("Reshape", [first[key], shape.name], [again], name=again))
        graph.initializer.append(shape)
        node.input[0] = again
    nodes = [*views, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    read = {name for node in _nodes(graph) for name in node.input} | {value.name for value in graph.output}
    kept = [one for one in graph.initializer if one.name in read or one.name not in stored]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def _store_halves(graph: onnx.GraphProto) -> None:
    readers = Counter(name for node in _nodes(graph) for name in node.input)
    readers.update(value.name for value in graph.output)
    layers = Counter(node.input[1] for node in graph.node if node.op_type in LAYERS)
    taken = {tensor.name for tensor in graph.initializer} | {value.name for value in graph.input}
    taken.update(name for node in _nodes(graph) for name in (node.name, *node.output))
    casts = []
    for tensor in graph.initializer:
        name = tensor.name
        alone = readers[name] == layers[name] > 0  # only layers read it, as their weight
        if not alone or tensor.data_type != onnx.TensorProto.FLOAT:
            continue
        whole = onnx.numpy_helper.to_array(tensor)
        half = halved(whole)
        if half is None or whole.nbytes < _WORTH or (half.astype(np.float32) != whole).any():
            continue
        stored, cast = free_name(f"{name}_half", taken), free_name(f"{name}_cast", taken)
        tensor.CopyFrom(onnx.numpy_helper.from_array(half, stored))
        casts.append(onnx.helper.make_node("Cast", [stored], [name], cast, to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)


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
