"""The one way to let a value stand for another."""

from __future__ import annotations

import onnx_ir as ir

from edgec.graph.views import fresh_name


def take_over(graph: ir.Graph, old: ir.Value, new: ir.Value, suffix: str = "replaced") -> None:
    """``new`` stands for ``old``: its readers and the graph's outputs get ``new``, under the name of ``old``.

    The node that makes ``new`` may read ``old``, and goes on to do so. ``old`` is called ``<name>_<suffix>`` from then on, or
    the next free name; what makes it stays in the graph.
    """
    name, maker = old.name, new.producer()
    old.replace_all_uses_with(new, replace_graph_outputs=True)
    for index, value in enumerate(maker.inputs if maker is not None else ()):
        if value is new:
            maker.replace_input_with(index, old)  # type: ignore[union-attr]
    old.name, new.name = fresh_name(graph, f"{name}_{suffix}"), name
