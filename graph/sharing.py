"""Weights that several layers read: they stay one tensor, whatever is tried on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from edgec.graph.spec import LAYERS
from edgec.graph.views import constant


def shares_weight(node: ir.Node) -> bool:
    """True for a layer whose weight another layer reads too."""
    value = _weight(node)
    return value is not None and sum(_weight(use.node) is value for use in value.uses()) > 1


@dataclass(frozen=True)
class SharedWeights:
    """Which layers of a graph read one weight, as it stood when this was made."""

    layers: tuple[tuple[ir.Value, tuple[ir.Node, ...]], ...]

    @staticmethod
    def of(graph: ir.Graph) -> SharedWeights:
        found: dict[ir.Value, list[ir.Node]] = {}
        for node in graph:
            value = _weight(node)
            if value is not None:
                found.setdefault(value, []).append(node)
        return SharedWeights(tuple((value, tuple(nodes)) for value, nodes in found.items() if len(nodes) > 1))

    def names(self) -> Sequence[Sequence[str]]:
        """Names of the layers that belong together."""
        return [[node.name or "" for node in nodes] for _, nodes in self.layers]

    def restore(self, graph: ir.Graph) -> None:
        """Layers that were given weights of their own read one again, the first layer's; in place.

        Of another shape than the first layer's, a weight stays its own.
        """
        for _, nodes in self.layers:
            kept = nodes[0].inputs[1]
            array = constant(kept)
            for node in nodes:
                own, other = node.inputs[1], constant(node.inputs[1])
                if own is kept or own is None or array is None or other is None:
                    continue
                if other.shape != array.shape:
                    continue
                node.replace_input_with(1, kept)
                if not own.uses() and own.name is not None and own.name in graph.initializers:
                    del graph.initializers[own.name]


def _weight(node: ir.Node) -> ir.Value | None:
    if node.op_type not in LAYERS or len(node.inputs) < 2:
        return None
    value = node.inputs[1]
    return value if value is not None and value.is_initializer() else None
