"""`drop-bias`: remove biases that are too small to be seen.

A program before and after::

    y = Conv(x, w, b)  # |b| <= 1e-7   ->   y = Conv(x, w)

Cases:
1. a Conv whose bias is at most ``below`` in every channel loses it;
2. any other Conv keeps it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from edgec.graph.values import Range
from edgec.graph.views import ConvView
from edgec.passes.base import Context, Note, Pass, PassResult, option


@dataclass(frozen=True)
class DropBias(Pass):
    """Remove biases that are too small to be seen."""

    name: ClassVar[str] = "drop-bias"
    summary: ClassVar[str] = "remove biases that are too small to be seen"
    changes_function: ClassVar[bool] = False

    below: float = option(1e-7, "the largest magnitude that goes", Range(0, 1e-6))

    def run(self, model: ir.Model, context: Context) -> PassResult:
        dropped = 0
        for node in model.graph:
            view = ConvView.of(node)
            if view is not None and view.bias is not None and abs(view.bias).max() <= self.below:
                node.resize_inputs(2)
                dropped += 1
        return PassResult(model, dropped > 0, (Note(f"{dropped} biases removed"),))
