"""Re-fit weights to the inputs that the quantised network really gives them, by ridge regression (design 3.1).

A program before and after::

    h = Conv(xq, DequantizeLinear(codes, scale), bq)   ->   h = Conv(xq, DequantizeLinear(codes', scale'), bq')
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from edgec.graph.data import Dataset
from edgec.passes.base import Context, Need, Pass, PassResult, option
from edgec.passes.options import SAMPLES
from edgec.passes.quantize.compose import split_data
from edgec.passes.quantize.correction import correct
from edgec.passes.quantize.fit import FitOptions


@dataclass(frozen=True)
class RefitQuantized(Pass):
    """Least squares towards the float network's layer outputs, front to back; weights are then rounded."""

    name: ClassVar[str] = "refit-quantized"
    summary: ClassVar[str] = "re-fit int8 layers to their quantised inputs by least squares"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.DATA})
    requires_before: ClassVar[frozenset[str]] = frozenset({"quantize"})
    changes_function: ClassVar[bool] = True
    recovers: ClassVar[bool] = True

    gptq: bool = option(True, "round the re-fitted weights with error feedback instead of to nearest")
    samples: int = option(256, "samples used at most", SAMPLES)

    def unseen(self, context: Context) -> Dataset | None:
        return None if context.data is None else split_data(context.data, self.samples, context.seed)[1]

    def run(self, model: ir.Model, context: Context) -> PassResult:
        return correct(self.name, model, FitOptions(gptq=self.gptq), self.samples, context)
