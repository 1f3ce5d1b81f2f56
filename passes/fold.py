"""`fold`: everything that can be computed before inference is; the function stays.

The rules are onnxscript's. Cases:
1. BatchNormalization behind Conv, ConvTranspose or Gemm goes into their weights;
2. a per-channel Mul/Add behind or before a Conv goes into it (before: only where the Conv does not pad);
3. Pad before a Conv goes into its pads (zeros only);
4. constant sub-expressions, identities, no-op casts, reshapes and transposes go.

A program before and after::

    h = Conv(x, w)                 ->   y = Conv(x, w * s, b)
    y = BatchNormalization(h, ...)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from edgec.graph.fuse import fuse
from edgec.graph.tidy import tidy
from edgec.passes.base import Context, Note, Pass, PassResult


@dataclass(frozen=True)
class Fold(Pass):
    """Fold BatchNorm, affine, pad and identity nodes into the layers beside them, and constants into constants."""

    name: ClassVar[str] = "fold"
    summary: ClassVar[str] = "fold BatchNorm, affine, pad and identity nodes into their neighbours"
    changes_function: ClassVar[bool] = False

    def run(self, model: ir.Model, context: Context) -> PassResult:
        before = model.graph.num_nodes()
        modified = fuse(model)
        tidy(model)
        note = Note(f"nodes {before} -> {model.graph.num_nodes()}")
        return PassResult(model, modified=modified or model.graph.num_nodes() != before, notes=(note,))
