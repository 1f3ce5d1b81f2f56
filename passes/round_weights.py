"""Round the weights of a quantised graph so that layer outputs, not weights, err least (GPTQ, arXiv 2210.17323).

A program before and after::

    h = Conv(xq, DequantizeLinear(codes, scale), bq)   ->   h = Conv(xq, DequantizeLinear(codes', scale'), bq)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from edgec.graph.data import Dataset
from edgec.graph.values import Range
from edgec.passes.base import Context, Need, Pass, PassResult, option
from edgec.passes.options import SAMPLES
from edgec.passes.quantize.compose import split_data
from edgec.passes.quantize.correction import correct
from edgec.passes.quantize.fit import FitOptions


@dataclass(frozen=True)
class RoundWeights(Pass):
    """Weight codes by successive rounding with error feedback, from the Gram matrix of each layer's inputs."""

    name: ClassVar[str] = "round-weights"
    summary: ClassVar[str] = "round int8 weights by the data (GPTQ) instead of to nearest"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.DATA})
    requires_before: ClassVar[frozenset[str]] = frozenset({"quantize"})
    changes_function: ClassVar[bool] = True
    recovers: ClassVar[bool] = True

    damping: float = option(
        0.01, "added to the Gram matrix, as a share of its mean diagonal", Range(0, 1e6, above=True)
    )
    search_ranges: bool = option(True, "search the range of each output channel too")
    samples: int = option(256, "samples used at most", SAMPLES)

    def unseen(self, context: Context) -> Dataset | None:
        return None if context.data is None else split_data(context.data, self.samples, context.seed)[1]

    def run(self, model: ir.Model, context: Context) -> PassResult:
        self.requires(model)
        options = FitOptions(refit=False, scales=self.search_ranges, damping=self.damping)
        return correct(self.name, model, options, self.samples, context)
