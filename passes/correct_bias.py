"""Empirical bias correction: make the mean output of every quantised layer what it is in the float network.

Nagel et al., Data-Free Quantization Through Weight Equalization and Bias Correction, arXiv 1906.04721, section 4.2, with
means over calibration data.

A program before and after::

    h = Conv(xq, wq, DequantizeLinear(codes))   ->   h = Conv(xq, wq, DequantizeLinear(codes'))
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
class CorrectBias(Pass):
    """Biases only, front to back, each with the layers before it already corrected."""

    name: ClassVar[str] = "correct-bias"
    summary: ClassVar[str] = "put the mean output of every int8 layer right"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.DATA})
    requires_before: ClassVar[frozenset[str]] = frozenset({"quantize"})
    changes_function: ClassVar[bool] = True
    recovers: ClassVar[bool] = True

    samples: int = option(256, "samples used at most", SAMPLES)

    def unseen(self, context: Context) -> Dataset | None:
        return None if context.data is None else split_data(context.data, self.samples, context.seed)[1]

    def run(self, model: ir.Model, context: Context) -> PassResult:
        return correct(self.name, model, FitOptions(weights=False, refit=False), self.samples, context)
