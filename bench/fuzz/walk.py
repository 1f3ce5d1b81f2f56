"""The parts of an ONNX model, wherever they stand."""

from __future__ import annotations

from collections.abc import Iterator

from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto


def graphs(model: ModelProto) -> Iterator[GraphProto]:
    """The graph, and those inside attributes."""
    waiting = [model.graph]
    while waiting:
        graph = waiting.pop()
        yield graph
        for node in graph.node:
            for attribute in node.attribute:
                waiting += [attribute.g] if attribute.HasField("g") else list(attribute.graphs)


def nodes(model: ModelProto) -> list[NodeProto]:
    """All nodes, those of subgraphs and functions too."""
    return [n for g in graphs(model) for n in g.node] + [n for f in model.functions for n in f.node]


def tensors(model: ModelProto) -> list[TensorProto]:
    """All stored tensors: initialisers and those in attributes."""
    kept = [t for g in graphs(model) for t in g.initializer]
    return kept + [a.t for n in nodes(model) for a in n.attribute if a.HasField("t")]


def values(model: ModelProto) -> list[ValueInfoProto]:
    return [v for g in graphs(model) for v in (*g.input, *g.output, *g.value_info)]
