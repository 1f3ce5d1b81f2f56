"""`decompose-svd`: a fully connected layer or a 1x1 convolution becomes two of lower rank.

The best map of rank r under the data is the truncated SVD of ``W H^(1/2)``, not of W (design section 3.6; the linear case of
Zhang et al., arXiv 1505.06798); ``whitened=no`` takes the SVD of W, as Denton et al. (arXiv 1404.0736) did.

Use it where wide pointwise layers or a large classifier hold most of the cost. Let `recover-lsq` follow.

1. Gemm with a bias, and 1x1 convolutions of one group, with any stride.
2. A layer stays where two pieces would cost more than the one, with its break-even rank in a note.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from edgec.passes.base import Context, Need, Pass, PassResult, option
from edgec.passes.decomposition import Options, budget_of, decompose
from edgec.passes.recovery.layers import Layer


@dataclass(frozen=True)
class DecomposeSvd(Pass):
    """Low-rank factors of pointwise and fully connected layers."""

    name: ClassVar[str] = "decompose-svd"
    summary: ClassVar[str] = "split 1x1 convolutions and fully connected layers into two of lower rank"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.DATA})

    macs: str = option("", "budget of multiplications: 60%, 20M")
    params: str = option("", "budget of parameters: 60%, 1.2M")
    whitened: bool = option(True, "directions that matter under the data, else those of the weights alone")
    rows: float = option(20.0, "rows per unknown above which pixels are sampled")
    flips: str = option("auto", "mirror the pictures too: auto, yes, no")

    def run(self, model: ir.Model, context: Context) -> PassResult:
        """Raises UsageError for none or several budgets, and PassError without data."""
        budget = budget_of(self.name, self.macs, self.params)
        return decompose(
            model, context, Options(self.name, budget, self.whitened, self.rows, self.flips), _eligible
        )


def _eligible(layer: Layer) -> str | None:
    return "its kernel is not 1x1: see decompose-channel" if len(layer.patches.taps) > 1 else None
