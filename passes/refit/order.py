"""The order in which the nodes of a student run: a skip before the branch beside it."""

from __future__ import annotations

import onnx_ir as ir

from edgec.passes.refit.layers import Layer


def skips_first(graph: ir.Graph) -> bool:
    """Move every node without weights to where its inputs are ready, in place; True where that moved any.

    Exporters put the Slice and Pad (or pool) of a shortcut behind the branch. Only what is computed before the
    last layer of a branch can be made up for by it, so they run first here. Layers keep their order.
    """
    nodes = list(graph)
    anchor: dict[ir.Node, int] = {}
    for number, node in enumerate(nodes):
        makers = [value.producer() for value in node.inputs if value is not None]
        after = [anchor[maker] for maker in makers if maker is not None]
        anchor[node] = number if Layer.of(node) is not None else max(after, default=-1)
    order = sorted(nodes, key=lambda node: anchor[node])
    if order == nodes:
        return False
    graph.remove(nodes)
    graph.extend(order)
    return True
