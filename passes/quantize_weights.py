"""Weight-only int8: a quarter of the bytes, float arithmetic, no data needed.

A program before and after::

    y = Conv(x, w, b)   ->   y = Conv(x, DequantizeLinear(int8 codes, scale per channel), b)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from edgec.graph.values import COUNT_OR_NONE
from edgec.graph.views import constant
from edgec.passes.base import NUMBER_FORMATS, Context, Note, Pass, PassResult, option
from edgec.passes.quantize.dialects import TFLITE
from edgec.passes.quantize.insert import insert_weight
from edgec.passes.quantize.quantiser import matcher, refuse_quantised
from edgec.passes.quantize.rules import rule_for


@dataclass(frozen=True)
class QuantizeWeights(Pass):
    """Weights as int8 codes per output channel behind a DequantizeLinear; activations and biases stay float."""

    name: ClassVar[str] = "quantize-weights"
    summary: ClassVar[str] = "int8 weights, float arithmetic: a smaller file, not a faster one"
    never_after: ClassVar[frozenset[str]] = NUMBER_FORMATS
    changes_function: ClassVar[bool] = True

    exclude: str = option("", "node names to leave alone: patterns with * and ?, separated by |")
    least: int = option(1024, "leave weights with fewer elements alone", COUNT_OR_NONE)

    def requires(self, model: ir.Model) -> None:
        refuse_quantised(model, self.name)

    def run(self, model: ir.Model, context: Context) -> PassResult:
        self.requires(model)
        excluded = matcher(self.exclude, model)
        count = 0
        for node in list(model.graph):
            rule = rule_for(node, TFLITE.rules).rule
            if rule is None or rule.weight is None or excluded(node.name or ""):
                continue
            weight = constant(node.inputs[1])
            if weight is not None and weight.size >= self.least:
                insert_weight(model.graph, node)
                count += 1
        RemoveUnusedNodesPass()(model)
        return PassResult(model, count > 0, (Note(f"the weights of {count} layers are int8"),))
