"""Checks of a model file's form, before any library that would rather crash than say no gets to see it.

onnxsim and onnxruntime trust what a file says: a stride of 0 divides by it, an If without a branch follows a null pointer.
What is checked here is what ONNX demands of every file, so nothing sound is refused.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import onnx

from edgec.graph.boundary import first_line, node_name
from edgec.graph.errors import ModelError, UnsupportedError
from edgec.graph.external import MOST_AXES, MOST_BYTES, byte_size, element_count, tensors
from edgec.graph.text import shortened

_LONGEST = 100
"""Characters of a name in a message."""

MOST_ELEMENTS = 1 << 29
"""Of one value: 2 GB of float32."""
_SMALL = 256
"""Elements of a constant that may say a shape."""
MOST_DEPTH = 24
"""Graphs inside graphs; protobuf's own limit is a little above."""
_LIMIT = (1 << 31) - 1
_MAIN = ("", "ai.onnx")
_ATTRIBUTE = onnx.AttributeProto

_POSITIVE = frozenset(
    {"kernel_shape", "strides", "dilations", "group", "blocksize", "block_size", "num_outputs"}
)
_AXES = frozenset({"axis", "axes", "batch_dims", "perm", "batch_axis", "time_axis"})
_SIZES = frozenset({"pads", "output_padding", "output_shape", "split", "scales", "hidden_size", "size"})
_WINDOWED = frozenset(
    {"Conv", "ConvTranspose", "ConvInteger", "QLinearConv", "MaxPool", "AveragePool", "LpPool", "MaxUnpool"}
)
_FIELDS: dict[int, str] = {
    onnx.TensorProto.STRING: "string_data",
    onnx.TensorProto.FLOAT: "float_data",
    onnx.TensorProto.COMPLEX64: "float_data",
    onnx.TensorProto.DOUBLE: "double_data",
    onnx.TensorProto.COMPLEX128: "double_data",
    onnx.TensorProto.INT64: "int64_data",
    onnx.TensorProto.UINT32: "uint64_data",
    onnx.TensorProto.UINT64: "uint64_data",
}
"""Where a type's values stand when not in raw_data; every other type's in int32_data."""


def check_form(model: onnx.ModelProto) -> None:
    """Raise ModelError, naming the node or the tensor, for a model whose form no ONNX file may have.

    UnsupportedError for an opset that the installed onnx does not know: what its ops mean cannot be known.
    """
    opsets = _opsets(model.opset_import, "model")
    for place, tensor in tensors(model):
        _check_tensor(tensor, place)
    functions = {(f.domain, f.name): f for f in model.functions}
    if len(functions) < len(model.functions):
        raise ModelError("two functions share a name")
    _check_recursion(functions)
    _check_graph(model.graph, opsets, set(), 0)
    for function in model.functions:
        where = f"function {function.name!r}"
        own = _opsets(function.opset_import, where) or opsets
        _check_nodes(function.node, own, {*function.input}, 0)


def check_sizes(model: onnx.ModelProto) -> None:
    """Raise ModelError, naming the node, where one writes more than any tensor may hold (a Range to 10^10, an Expand), or
    another type than the output that it writes is declared with.

    Sizes are those that ONNX infers without computing values: computing them is what such a file is made for.
    """
    inferred = onnx.shape_inference.infer_shapes(_without_weights(model))
    writers = {name: node for node in model.graph.node for name in node.output}
    declared = {value.name: value.type.tensor_type.elem_type for value in model.graph.output}
    for value in inferred.graph.output:
        found, said = value.type.tensor_type.elem_type, declared[value.name]
        if found and said and found != said and value.name in writers:
            kinds = onnx.TensorProto.DataType
            what = f"it writes {kinds.Name(found)} where the output says {kinds.Name(said)}"
            raise ModelError(what, where=node_name(writers[value.name]), why=f"output {value.name!r}")
    for value in (*inferred.graph.value_info, *inferred.graph.output):
        sizes = [dim.dim_value for dim in value.type.tensor_type.shape.dim if dim.dim_value > 0]
        if math.prod(sizes) > MOST_ELEMENTS and value.name in writers:
            what, most = f"it writes {math.prod(sizes)} elements", f"at most {MOST_ELEMENTS} are supported"
            raise ModelError(what, where=node_name(writers[value.name]), why=most)


def _without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with its large constants as inputs of their type, for inference looks at no values of theirs.

    Shapes that the file declares for inner values and outputs are left out: they may be lies.
    """
    light = onnx.ModelProto(ir_version=max(model.ir_version, 4))
    light.opset_import.extend(model.opset_import)
    light.functions.extend(model.functions)
    graph = light.graph
    graph.node.extend(model.graph.node)
    graph.input.extend(model.graph.input)
    graph.output.extend(onnx.ValueInfoProto(name=value.name) for value in model.graph.output)
    for tensor in model.graph.initializer:
        if math.prod(tensor.dims) <= _SMALL:
            graph.initializer.append(tensor)
        else:
            graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    return light


def _opsets(imports: Iterable[Any], where: str) -> dict[str, int]:
    found = {entry.domain: entry.version for entry in imports}
    for domain, version in found.items():
        if version < 1:
            raise ModelError(f"opset {version} of {domain or 'ai.onnx'!r} does not exist", where=where)
        newest = onnx.defs.onnx_opset_version()
        if domain in _MAIN and version > newest:
            why = f"onnx {onnx.__version__} knows opsets up to {newest}"
            hint = "Export for an older opset, or upgrade onnx."
            raise UnsupportedError(f"opset {version} is not known here", where=where, why=why, hint=hint)
    return found


def _check_tensor(tensor: onnx.TensorProto, place: str) -> None:
    """As many values as the dimensions say, in the place that the type says."""
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        raise ModelError("external data was not read", where=place)
    count = element_count(tensor, place)
    if tensor.HasField("raw_data"):
        expected, found = byte_size(tensor, place), len(tensor.raw_data)
        what = "bytes"
    else:
        field = _FIELDS.get(tensor.data_type, "int32_data")
        expected, found, what = count, len(getattr(tensor, field)), "values"
        if tensor.data_type in (onnx.TensorProto.COMPLEX64, onnx.TensorProto.COMPLEX128):
            expected = 2 * count
        elif tensor.data_type != onnx.TensorProto.STRING and byte_size(tensor, place) < count:
            return  # two or four values to the int32: the libraries unpack and count them
    if found != expected:
        why = f"{found} {what} for dimensions {list(tensor.dims)[:9]}, which need {expected}"
        raise ModelError("its data does not fit its dimensions", where=place, why=why)


def _check_sparse(sparse: onnx.SparseTensorProto, where: str) -> None:
    """Indices inside the tensor: the libraries write where they point."""
    try:
        onnx.checker.check_sparse_tensor(sparse)
    except onnx.checker.ValidationError as error:
        raise ModelError("a sparse tensor is not valid", where=where, why=first_line(error)) from error


def _check_recursion(functions: dict[tuple[str, str], Any]) -> None:
    """No function may call itself, by whatever way."""
    done: set[tuple[str, str]] = set()
    for start in functions:
        stack: list[tuple[tuple[str, str], list[tuple[str, str]]]] = [(start, _called(start, functions))]
        path = [start]
        while stack:
            key, rest = stack[-1]
            if not rest:
                stack.pop()
                path.pop()
                done.add(key)
                continue
            following = rest.pop()
            if following in path:
                raise ModelError("a function calls itself", where=f"function {following[1]!r}")
            if following not in done:
                stack.append((following, _called(following, functions)))
                path.append(following)


def _called(key: tuple[str, str], functions: dict[tuple[str, str], Any]) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    nodes = list(functions[key].node)
    while nodes:
        node = nodes.pop()
        if (node.domain, node.op_type) in functions:
            found.append((node.domain, node.op_type))
        for attribute in node.attribute:
            nodes.extend(attribute.g.node)
            for graph in attribute.graphs:
                nodes.extend(graph.node)
    return found


def _check_graph(graph: onnx.GraphProto, opsets: dict[str, int], outer: set[str], depth: int) -> None:
    if depth > MOST_DEPTH:
        raise ModelError("the graph is nested too deeply", where=f"graph {graph.name!r}")
    constants = [tensor.name for tensor in graph.initializer]
    constants += [sparse.values.name for sparse in graph.sparse_initializer]
    inputs = [value.name for value in graph.input]
    for sparse in graph.sparse_initializer:
        _check_sparse(sparse, f"sparse tensor {sparse.values.name!r}")
    _unique(constants, "initialisers")
    _unique(inputs, "inputs")
    for value in graph.input:
        _check_value(value)
    known = {*constants, *inputs}
    written = _check_nodes(graph.node, opsets, known | outer, depth, taken=known)
    outputs = [value.name for value in graph.output]
    _unique(outputs, "outputs")
    if depth:
        return
    for name in outputs:
        if name in inputs and name not in constants:
            raise ModelError("an input is given out as it is", where=f"output {name!r}")
        if name not in written and name not in known:
            raise ModelError("nothing writes this output", where=f"output {name!r}")


def _unique(names: Sequence[str], what: str) -> None:
    seen: set[str] = set()
    for name in names:
        if not name:
            raise ModelError(f"one of the {what} has no name")
        if name in seen:
            raise ModelError(f"two {what} share a name", where=repr(name))
        seen.add(name)


def _check_value(value: onnx.ValueInfoProto) -> None:
    tensor = value.type.tensor_type
    if tensor.elem_type not in onnx.TensorProto.DataType.values():
        what = f"its element type {tensor.elem_type} does not exist"
        raise ModelError(what, where=f"input {value.name!r}")
    if value.type.WhichOneof("value") != "tensor_type" or not tensor.HasField("shape"):
        return
    if len(tensor.shape.dim) > MOST_AXES:
        raise ModelError(f"it has {len(tensor.shape.dim)} axes", where=f"input {value.name!r}")
    count = 1
    for axis, dim in enumerate(tensor.shape.dim):
        if dim.WhichOneof("value") == "dim_value":
            if dim.dim_value == 0:
                raise ModelError(f"axis {axis} has size 0", where=f"input {value.name!r}")
            count *= max(1, dim.dim_value)
    if count > MOST_BYTES:
        raise ModelError("it is above 2 GB", where=f"input {value.name!r}", why=f"{count} elements")


def _check_words(node: onnx.NodeProto) -> None:
    """Raise ModelError for a name that is not UTF-8: protobuf hands it out as bytes, which no library expects."""
    attributes = (name for one in node.attribute for name in (one.name, one.ref_attr_name))
    words: Iterable[object] = (
        node.op_type, node.domain, node.name, node.overload, *node.input, *node.output, *attributes,
    )  # fmt: skip
    for word in words:
        if not isinstance(word, str):
            where, why = (shortened(repr(one), _LONGEST) for one in (node.name, word))
            raise ModelError("a name in the model is not text", where=f"node {where}", why=f"it is {why}")


def _check_nodes(
    nodes: Any, opsets: dict[str, int], known: set[str], depth: int, taken: set[str] | None = None
) -> set[str]:
    """Check nodes; the names of what they write. ``taken`` are names that they may not write."""
    written: set[str] = set()
    for node in nodes:
        _check_words(node)
        names = [name for name in node.output if name]
        if not node.op_type:
            raise ModelError("a node has no op type", where=f"node {node.name!r}")
        if not names:
            raise ModelError("it writes nothing", where=f"node {node.name!r} ({node.op_type})")
        for name in names:
            if name in written or (taken is not None and name in taken):
                why = (
                    f"{name!r} is written twice" if name in written else f"{name!r} is an input or a constant"
                )
                raise ModelError("two values share a name", where=node_name(node), why=why)
            written.add(name)
        _check_node(node, opsets)
    visible = known | written
    for node in nodes:
        for name in node.input:
            if name and name not in visible:
                raise ModelError(f"nothing writes its input {name!r}", where=node_name(node))
        for attribute in node.attribute:
            for graph in ([attribute.g] if attribute.HasField("g") else []) + list(attribute.graphs):
                _check_graph(graph, opsets, visible, depth + 1)
    return written


def _check_node(node: onnx.NodeProto, opsets: dict[str, int]) -> None:
    seen: set[str] = set()
    for attribute in node.attribute:
        if attribute.name in seen:
            raise ModelError(f"its attribute {attribute.name!r} stands twice", where=node_name(node))
        seen.add(attribute.name)
        if not attribute.ref_attr_name:
            _check_numbers(node, attribute)
        for sparse in ([attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else []) + list(
            attribute.sparse_tensors
        ):
            _check_sparse(sparse, node_name(node))
    if node.domain in _MAIN:
        _check_schema(node, seen, opsets.get("", opsets.get("ai.onnx", 0)))
        if node.op_type in _WINDOWED:
            _check_window(node)


def _number(kind: Any) -> int:
    """An attribute type of a schema as AttributeProto counts them."""
    return int(kind.value)


@dataclass(frozen=True)
class _Schema:
    """What ONNX says of an op: types of its attributes (numbers of AttributeProto), and its operands."""

    attributes: Mapping[str, int]
    required: tuple[str, ...]
    min_input: int
    max_input: int
    max_output: int
    optional: tuple[bool, ...]


@lru_cache(maxsize=1024)
def _schema(op_type: str, opset: int) -> _Schema | None:
    try:
        found = onnx.defs.get_schema(op_type, max_inclusive_version=opset, domain="")
    except onnx.defs.SchemaError:
        return None
    attributes = found.attributes
    option = onnx.defs.OpSchema.FormalParameterOption.Optional
    return _Schema(
        attributes={name: _number(one.type) for name, one in attributes.items()},
        required=tuple(name for name, one in attributes.items() if one.required),
        min_input=found.min_input,
        max_input=found.max_input,
        max_output=found.max_output,
        optional=tuple(formal.option == option for formal in found.inputs),
    )


def _check_schema(node: onnx.NodeProto, given: set[str], opset: int) -> None:
    """Attributes that the op demands, their types, and the number of its operands."""
    schema = _schema(node.op_type, opset)
    if schema is None:
        return  # an op that this onnx does not know; the loader says so where it matters
    for name in schema.required:
        if name not in given:
            raise ModelError(f"it lacks its attribute {name!r}", where=node_name(node))
    if node.op_type == "Constant" and len(given) != 1:
        raise ModelError("a constant has one value", where=node_name(node), why=f"{len(given)} are given")
    for attribute in node.attribute:
        known = schema.attributes.get(attribute.name)
        if known is not None and attribute.type not in (known, 0):
            kind = _ATTRIBUTE.AttributeType.Name(known)
            raise ModelError(f"its attribute {attribute.name!r} is no {kind}", where=node_name(node))
    count = len(node.input)
    if not schema.min_input <= count <= schema.max_input:
        most = "any number" if schema.max_input >= _LIMIT else schema.max_input
        why = f"{count} where {schema.min_input} to {most} are allowed"
        raise ModelError("wrong number of inputs", where=node_name(node), why=why)
    for index in range(schema.min_input):
        if not node.input[index] and not schema.optional[min(index, len(schema.optional) - 1)]:
            raise ModelError(f"its input {index} is missing", where=node_name(node))
    if len(node.output) > schema.max_output:
        why = f"{len(node.output)} where {schema.max_output} are allowed"
        raise ModelError("too many outputs", where=node_name(node), why=why)


def _check_numbers(node: onnx.NodeProto, attribute: onnx.AttributeProto) -> None:
    """Strides of 0, axes of -2^63: numbers that no op can mean."""
    values = [attribute.i] if attribute.HasField("i") else []
    values += list(attribute.ints)
    if attribute.name in _POSITIVE:
        low, high = 1, _LIMIT
    elif attribute.name in _AXES:
        low, high = -MOST_AXES, MOST_AXES
    elif attribute.name in _SIZES:
        low, high = -_LIMIT, _LIMIT
    else:
        return
    for value in values:
        if not low <= value <= high:
            what = f"{attribute.name} = {value} is impossible"
            raise ModelError(what, where=node_name(node), why=f"it must be from {low} to {high}")


def _check_window(node: onnx.NodeProto) -> None:
    """Kernel, strides, dilations and pads must speak of the same number of axes."""
    lengths = {a.name: len(a.ints) for a in node.attribute if a.name in _POSITIVE | {"pads"} and a.ints}
    axes = {n // 2 if name == "pads" else n for name, n in lengths.items()}
    if len(axes) > 1 or lengths.get("pads", 0) % 2 or any(n > MOST_AXES for n in axes):
        why = ", ".join(f"{name} has {n}" for name, n in sorted(lengths.items()))
        raise ModelError("its window is inconsistent", where=node_name(node), why=why)
