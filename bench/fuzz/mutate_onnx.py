"""One change to an ONNX model, by somebody who knows the format. Every function says what it did.

A change that does not apply to the model says so by returning None; another is tried then.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import onnx
import onnx.helper as oh
from google.protobuf.message import DecodeError
from mutate_around import around, opset, ports, value
from mutate_tensor import external, spoil_tensor, tensor, tensor_list
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto
from walk import graphs, nodes, values
from wild import integer, number, text

Mutation = Callable[[random.Random, ModelProto], "str | None"]

ATTRIBUTES: dict[str, object] = {
    "strides": [2, 2], "pads": [1, 1, 1, 1], "dilations": [1, 1], "group": 1, "kernel_shape": [3, 3], "axis": 1, "axes": [2, 3],
    "perm": [0, 2, 1, 3], "to": 1, "ceil_mode": 1, "auto_pad": "SAME_UPPER", "mode": "linear", "batch_dims": 1, "allowzero": 1,
    "keepdims": 0, "storage_order": 1, "blocksize": 2, "epsilon": 1e-5, "alpha": 0.1, "beta": 0.1, "transA": 1, "transB": 1,
    "block_size": 16, "size": 3, "p": 2, "output_padding": [1, 1], "output_shape": [8, 8], "count_include_pad": 1, "start": 0,
    "end": 1, "split": [1, 1], "num_outputs": 2, "equation": "ij->ji", "direction": "reverse", "hidden_size": 4, "exclusive": 1,
    "coordinate_transformation_mode": "align_corners", "nearest_mode": "ceil", "noop_with_empty_axes": 1, "axis_": 0,
    "keep_aspect_ratio_policy": "not_larger", "antialias": 1, "training_mode": 1, "saturate": 0, "reduction": "add", "dtype": 7,
}  # fmt: skip
"""Attributes that edgec or a library reads somewhere, with a sane value."""

OPS = (
    "Conv", "MaxPool", "AveragePool", "GlobalAveragePool", "Resize", "Reshape", "Concat", "Split", "Gemm", "MatMul", "Pad",
    "Transpose", "Flatten", "Squeeze", "Unsqueeze", "Softmax", "BatchNormalization", "QuantizeLinear", "DequantizeLinear",
    "ConvTranspose", "Slice", "Gather", "GatherND", "ReduceMean", "Constant", "ConstantOfShape", "Range", "If", "Loop",
    "Identity", "Cast", "Clip", "Shape", "Expand", "Tile", "TopK", "ArgMax", "DepthToSpace", "Relu", "Add", "Mul",
    "Dropout", "OneHot", "Einsum", "LayerNormalization", "Upsample", "Where", "Nope",
)  # fmt: skip


def _set_attribute(rng: random.Random, one: AttributeProto) -> str:
    """A wild value of the attribute's own type."""
    kind = AttributeProto.AttributeType.Name(one.type)
    if kind == "INT":
        one.i = integer(rng)
        return str(one.i)
    if kind == "FLOAT":
        one.f = number(rng)
        return str(one.f)
    if kind == "STRING":
        one.s = text(rng).encode() if rng.random() < 0.7 else rng.randbytes(8)
        return repr(one.s[:40])
    if kind == "INTS":
        return _set_list(rng, one.ints, integer)
    if kind == "FLOATS":
        return _set_list(rng, one.floats, number)
    if kind == "STRINGS":
        one.strings.append(text(rng).encode())
        return "one more text"
    if kind == "TENSOR":
        return spoil_tensor(rng, one.t)
    if kind == "GRAPH":
        how = rng.choice(("node", "output", "input", "initializer"))
        one.g.ClearField(how)
        return f"its graph without {how}"
    one.ClearField("ref_attr_name")
    return f"{kind} cleared"


def _set_list(rng: random.Random, field: object, one: Callable[[random.Random], object]) -> str:
    items = list(field)  # type: ignore[call-overload]
    how = rng.choice(("element", "element", "element", "short", "long", "empty", "all", "many"))
    if how in ("element", "all") and items:
        wild = one(rng)
        items = [wild] * len(items) if how == "all" else items
        items[rng.randrange(len(items))] = wild
    elif how == "short":
        items = items[:-1]
    elif how == "long":
        items = [*items, one(rng)]
    elif how == "many":
        items = [one(rng)] * rng.choice((9, 65, 20_000))
    else:
        items = []
    del field[:]  # type: ignore[attr-defined]
    field.extend(items)  # type: ignore[attr-defined]
    return f"{how} {items[:6]}"


def attribute_value(rng: random.Random, model: ModelProto) -> str | None:
    found = [(n, a) for n in nodes(model) for a in n.attribute]
    if not found:
        return None
    node, one = rng.choice(found)
    return f"{node.op_type}.{one.name} = {_set_attribute(rng, one)}"


def attribute_shape(rng: random.Random, model: ModelProto) -> str | None:
    """Delete, duplicate, retype, rename, or refer to a function's attribute that is not there."""
    found = [(n, i) for n in nodes(model) for i in range(len(n.attribute))]
    if not found:
        return None
    node, index = rng.choice(found)
    one = node.attribute[index]
    name = f"{node.op_type}.{one.name}"
    how = rng.choice(("delete", "duplicate", "retype", "retype by field", "rename", "reference", "no value"))
    if how == "delete":
        del node.attribute[index]
    elif how == "duplicate":
        node.attribute.add().CopyFrom(one)
        _set_attribute(rng, node.attribute[-1])
    elif how == "retype":
        one.type = rng.choice(list(AttributeProto.AttributeType.values()))
    elif how == "retype by field":
        other = rng.choice((integer(rng), number(rng), text(rng), [integer(rng)] * 2, [number(rng)]))
        one.CopyFrom(oh.make_attribute(one.name or "axis", other))
    elif how == "rename":
        one.name = text(rng)
    elif how == "reference":
        one.ref_attr_name = "nobody"
    else:
        kind, kept = one.type, one.name
        one.Clear()
        one.name, one.type = kept, kind
    return f"{how} {name}"


def attribute_new(rng: random.Random, model: ModelProto) -> str | None:
    """An attribute that the node need not have, sane or wild."""
    found = nodes(model)
    if not found:
        return None
    node, name = rng.choice(found), rng.choice(list(ATTRIBUTES))
    node.attribute.append(oh.make_attribute(name, ATTRIBUTES[name]))
    wild = _set_attribute(rng, node.attribute[-1]) if rng.random() < 0.8 else "sane"
    return f"{node.op_type} gets {name} {wild}"


def edge(rng: random.Random, model: ModelProto) -> str | None:
    found = [n for n in nodes(model) if n.input or n.output]
    if not found:
        return None
    node = rng.choice(found)
    names = [name for n in nodes(model) for name in (*n.input, *n.output)] + [v.name for v in values(model)]
    how = rng.choice(
        (
            "swap",
            "missing",
            "cycle",
            "drop",
            "empty",
            "more",
            "no inputs",
            "output twice",
            "no output",
            "output empty",
            "many",
        )
    )
    if how in ("swap", "missing", "cycle", "empty") and node.input:
        index = rng.randrange(len(node.input))
        other = {
            "swap": rng.choice(names),
            "missing": "not-there",
            "cycle": (list(node.output) or [""])[0],
            "empty": "",
        }
        node.input[index] = other[how]
    elif how == "drop" and node.input:
        del node.input[rng.randrange(len(node.input))]
    elif how == "more":
        node.input.append(rng.choice(names))
    elif how == "no inputs":
        del node.input[:]
    elif how == "output twice":
        node.output.append(rng.choice(names))
    elif how == "no output":
        del node.output[:]
    elif how == "output empty" and node.output:
        node.output[0] = ""
    elif how == "many":
        node.input.extend([rng.choice(names)] * rng.choice((40, 3000)))
    return f"edge of {node.op_type}: {how}"


def node(rng: random.Random, model: ModelProto) -> str | None:
    graph = rng.choice(list(graphs(model)))
    if not graph.node:
        return None
    index = rng.randrange(len(graph.node))
    one = graph.node[index]
    name = one.op_type
    how = rng.choice(("delete", "duplicate", "move", "op", "op", "domain", "no op", "nest", "chain", "name"))
    if how == "delete":
        del graph.node[index]
    elif how == "duplicate":
        graph.node.add().CopyFrom(one)
    elif how == "move":
        copy = NodeProto()
        copy.CopyFrom(one)
        del graph.node[index]
        graph.node.insert(rng.randrange(len(graph.node) + 1), copy)
    elif how == "op":
        one.op_type = rng.choice(OPS)
    elif how == "domain":
        one.domain = rng.choice(("ai.onnx.ml", "com.microsoft", "nobody.knows", "ai.onnx", text(rng)))
    elif how == "no op":
        one.ClearField("op_type")
    elif how == "nest":
        return f"{_nest(rng, one)} around {name}"
    elif how == "chain":
        return _chain(rng, graph, one)
    else:
        one.name = text(rng)
    return f"node {name}: {how} {one.op_type if how == 'op' else ''}".rstrip()


def _nest(rng: random.Random, one: NodeProto) -> str:
    """If in If in If."""
    depth = rng.choice((2, 20, 90))
    inner = NodeProto()
    inner.CopyFrom(one)
    for level in range(depth):
        body = oh.make_graph(
            [inner], f"b{level}", [], [oh.make_empty_tensor_value_info(o) for o in inner.output]
        )
        inner = oh.make_node(
            "If", ["nest_c"], list(one.output), then_branch=body, else_branch=body if depth == 2 else None
        )
        if depth > 2:
            other = oh.make_graph([], f"e{level}", [], [oh.make_empty_tensor_value_info("nest_c")])
            inner.attribute.append(oh.make_attribute("else_branch", other))
    one.CopyFrom(inner)
    return f"{depth} nested Ifs"


def _chain(rng: random.Random, graph: GraphProto, one: NodeProto) -> str:
    """A long tail of small nodes, or one that doubles its size at each step."""
    if not one.output:
        return "no chain"
    op, count = rng.choice((("Relu", 2000), ("Concat", 40), ("Add", 60), ("Identity", 3000)))
    last = one.output[0]
    for step in range(count):
        extra = {"axis": 0} if op == "Concat" else {}
        inputs = [last, last] if op in ("Concat", "Add") else [last]
        graph.node.append(oh.make_node(op, inputs, [f"chain{step}"], **extra))
        last = f"chain{step}"
    graph.output.append(oh.make_empty_tensor_value_info(last))
    return f"{count} x {op}"


def rename(rng: random.Random, model: ModelProto) -> str | None:
    """A wild name, used consistently: the model stays sound."""
    names = sorted(
        {n for one in nodes(model) for n in (*one.input, *one.output) if n} | {v.name for v in values(model)}
    )
    if not names:
        return None
    old, new = rng.choice(names), text(rng)
    for one in nodes(model):
        for side in (one.input, one.output):
            for index, name in enumerate(side):
                if name == old:
                    side[index] = new
        if old in one.output:
            one.name = new
    for item in (*values(model), *(t for g in graphs(model) for t in g.initializer)):
        if item.name == old:
            item.name = new
    return f"{old!r} is now {new[:30]!r}"


MUTATIONS: tuple[tuple[Mutation, int], ...] = (
    (attribute_value, 20), (attribute_shape, 8), (attribute_new, 10), (edge, 10), (node, 10), (tensor, 10), (tensor_list, 4),
    (value, 12), (ports, 5), (rename, 8), (opset, 5), (around, 5), (external, 10),
)  # fmt: skip
"""With how often each is taken."""


def mutate(rng: random.Random, model: ModelProto, count: int) -> list[str]:
    """Apply ``count`` changes. A library that refuses one (a text that no protobuf can hold) leaves the model as it was."""
    kinds, weights = zip(*MUTATIONS, strict=True)
    done: list[str] = []
    for _ in range(count):
        (one,) = rng.choices(kinds, weights)
        try:
            said = one(rng, model)
        except (ValueError, TypeError, AttributeError, DecodeError, onnx.checker.ValidationError):
            continue
        if said is not None:
            done.append(said)
    return done
