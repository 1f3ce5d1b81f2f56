"""After a crash: take the graph node by node and say each name first, so that the last name said is the culprit's."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import numpy as np
import onnx

from edgec.graph.boundary import node_name
from edgec.graph.equivalence import random_inputs
from edgec.graph.execute import session
from edgec.graph.listener import Listener
from edgec.graph.load import read
from edgec.graph.simplify import simplify
from edgec.graph.sizes import OpenSizeError, fix_shapes, stand_in

Array = np.ndarray[Any, np.dtype[Any]]


def probe(arguments: Mapping[str, Any], listener: Listener) -> bytes:
    """Simplify and run every node by itself. Nothing comes of it but the stages; an error of one node is no crash."""
    model = read(arguments["source"], trust=bool(arguments["trust"]))
    try:
        fix_shapes(model, arguments["input_shape"])
    except OpenSizeError:
        shape, _ = stand_in(model) or ({}, "")
        fix_shapes(model, shape)
    known = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    types = {value.name: value for value in (*model.graph.value_info, *model.graph.input)}
    for node in model.graph.node:
        listener.stage(node_name(node))
        with suppress(Exception):
            _try(model, node, known, types)
    return b""


def _try(
    model: onnx.ModelProto,
    node: onnx.NodeProto,
    known: dict[str, Array],
    types: dict[str, onnx.ValueInfoProto],
) -> None:
    """Infer, fold and run one node; its outputs become known, or their types."""
    names = list(dict.fromkeys(_read_by(node)))
    graph = onnx.helper.make_graph(
        [node],
        "probe",
        [types.get(name) or onnx.ValueInfoProto(name=name) for name in names if name not in known],
        [onnx.ValueInfoProto(name=name) for name in node.output if name],
        [onnx.numpy_helper.from_array(known[name], name) for name in names if name in known],
    )
    single = onnx.ModelProto(ir_version=model.ir_version, graph=graph)
    single.opset_import.extend(model.opset_import)
    single.functions.extend(model.functions)
    inferred = onnx.shape_inference.infer_shapes(single, data_prop=True)
    for value in inferred.graph.output:
        if value.type.WhichOneof("value") is not None:
            types[value.name] = value
    with suppress(Exception):  # what cannot be simplified may still run
        simplify(single)
    runner = session(inferred)
    results = runner.run(None, random_inputs(inferred.graph.input, 0))
    if not inferred.graph.input:
        known.update(zip((value.name for value in inferred.graph.output), results, strict=True))


def _read_by(node: onnx.NodeProto) -> list[str]:
    """The values that a node reads, those of its subgraphs too."""
    found = [name for name in node.input if name]
    for attribute in node.attribute:
        for graph in ([attribute.g] if attribute.HasField("g") else []) + list(attribute.graphs):
            inner = {name for one in graph.node for name in one.output}
            inner |= {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
            found += [name for one in graph.node for name in _read_by(one) if name not in inner]
    return found
