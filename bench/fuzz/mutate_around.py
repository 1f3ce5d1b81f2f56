"""Changes to what stands around the nodes of an ONNX model: its ports and their types, its versions, its metadata."""

from __future__ import annotations

import random

import onnx.helper as oh
from onnx import ModelProto
from walk import graphs, values
from wild import INT_MAX, integer, text


def value(rng: random.Random, model: ModelProto) -> str | None:
    found = values(model)
    if not found:
        return None
    one = rng.choice(found)
    kind = one.type.tensor_type
    how = rng.choice(
        (
            "dim",
            "dim",
            "dim",
            "name of dim",
            "type",
            "no type",
            "no shape",
            "rank",
            "sequence",
            "optional",
            "sparse",
            "denotation",
        )
    )
    if how == "dim" and kind.shape.dim:
        kind.shape.dim[rng.randrange(len(kind.shape.dim))].dim_value = integer(rng)
    elif how == "name of dim" and kind.shape.dim:
        kind.shape.dim[rng.randrange(len(kind.shape.dim))].dim_param = text(rng)
    elif how == "type":
        kind.elem_type = rng.choice((0, 1, 2, 3, 5, 6, 7, 8, 9, 10, 11, 14, 16, 17, 22, 23, 99, -5))
    elif how == "no type":
        one.ClearField("type")
    elif how == "no shape":
        kind.ClearField("shape")
    elif how == "rank":
        for _ in range(rng.choice((1, 2, 60))):
            kind.shape.dim.add().dim_value = rng.choice((1, 1, 2, 0, 2**20))
    elif how == "sequence":
        one.type.sequence_type.elem_type.tensor_type.elem_type = 1
    elif how == "optional":
        one.type.optional_type.elem_type.tensor_type.elem_type = 1
    elif how == "sparse":
        one.type.sparse_tensor_type.elem_type = 1
    else:
        one.type.denotation = text(rng)
    return f"value {one.name[:20]!r}: {how}"


def ports(rng: random.Random, model: ModelProto) -> str | None:
    """The lists of inputs and outputs."""
    graph = rng.choice(list(graphs(model)))
    side = rng.choice((graph.input, graph.output))
    how = rng.choice(("clear", "duplicate", "drop", "input is output", "missing", "many", "swap"))
    if how == "clear":
        del side[:]
    elif how == "duplicate" and side:
        side.add().CopyFrom(side[0])
    elif how == "drop" and side:
        del side[rng.randrange(len(side))]
    elif how == "input is output" and graph.input:
        graph.output.add().CopyFrom(graph.input[0])
    elif how == "missing":
        side.append(oh.make_tensor_value_info("made-by-nobody", 1, [1, 3]))
    elif how == "many":
        for index in range(rng.choice((50, 2000))):
            side.append(oh.make_tensor_value_info(f"port{index}", 1, [1]))
    elif graph.input and graph.output:
        graph.input[0].name, graph.output[0].name = graph.output[0].name, graph.input[0].name
    return f"ports: {how}"


def opset(rng: random.Random, model: ModelProto) -> str | None:
    how = rng.choice(("version", "version", "missing", "twice", "domain", "ir"))
    if how == "version" and model.opset_import:
        model.opset_import[0].version = rng.choice((0, -1, 1, 2, 5, 6, 7, 9, 11, 13, 18, 24, 30, 99, 2**40))
        return f"opset {model.opset_import[0].version}"
    if how == "missing":
        del model.opset_import[:]
    elif how == "twice":
        model.opset_import.append(oh.make_opsetid("", rng.choice((7, 21))))
    elif how == "domain":
        model.opset_import.append(oh.make_opsetid(text(rng), 1))
    else:
        model.ir_version = rng.choice((0, 1, 2, 3, 11, 13, 99, -1, INT_MAX))
    return f"opset {how}"


def around(rng: random.Random, model: ModelProto) -> str | None:
    """What stands around the graph: metadata, documentation, producer, functions."""
    how = rng.choice(
        (
            "metadata",
            "big metadata",
            "same key",
            "words",
            "graph name",
            "training",
            "function",
            "recursion",
            "no graph",
        )
    )
    if how in ("metadata", "big metadata", "same key"):
        for _ in range(2):
            entry = model.metadata_props.add()
            entry.key = "mean" if how == "same key" else text(rng)
            entry.value = "v" * 5_000_000 if how == "big metadata" else text(rng)
    elif how == "words":
        model.producer_name = model.doc_string = model.producer_version = model.domain = text(rng)
    elif how == "graph name":
        model.graph.name = text(rng)
    elif how == "training":
        model.training_info.add().algorithm.CopyFrom(model.graph)
    elif how == "function":
        made = oh.make_function(
            "local", "Relu", ["a"], ["b"], [oh.make_node("Neg", ["a"], ["b"])], [oh.make_opsetid("", 18)]
        )
        made.domain = rng.choice(("", "local"))
        model.functions.append(made)
    elif how == "recursion":
        inner = oh.make_node("f", ["a"], ["b"], domain="local")
        model.functions.append(
            oh.make_function(
                "local", "f", ["a"], ["b"], [inner], [oh.make_opsetid("", 18), oh.make_opsetid("local", 1)]
            )
        )
        model.opset_import.append(oh.make_opsetid("local", 1))
        for one in model.graph.node[:1]:
            one.op_type, one.domain = "f", "local"
    else:
        model.ClearField("graph")
    return f"around: {how}"
