"""`normalise`: names, order, constants and shapes as the canonical graph wants them; the function stays.

Cases:
1. constants computed by nodes become initialisers;
2. unused nodes and initialisers go;
3. nodes are sorted, nameless ones named after what they write;
4. shapes are inferred afresh.

A program before and after::

    c = Constant([0, -1])   ->   y = Reshape(x, c)   # c is an initialiser
    y = Reshape(x, c)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from edgec.graph.tidy import tidy
from edgec.passes.base import Context, Note, Pass, PassResult


@dataclass(frozen=True)
class Normalise(Pass):
    """Tidy the graph: constants lifted, unused parts removed, nodes named and sorted, shapes inferred."""

    name: ClassVar[str] = "normalise"
    summary: ClassVar[str] = "tidy names, order, constants and shapes"
    changes_function: ClassVar[bool] = False

    def run(self, model: ir.Model, context: Context) -> PassResult:
        before = (model.graph.num_nodes(), len(model.graph.initializers))
        tidy(model)
        after = (model.graph.num_nodes(), len(model.graph.initializers))
        note = Note(f"nodes {before[0]} -> {after[0]}, constants {before[1]} -> {after[1]}")
        return PassResult(model, modified=before != after, notes=(note,))
