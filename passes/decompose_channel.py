"""`decompose-channel`: a k x k convolution becomes one of r filters and a 1x1 convolution behind it.

The response of a layer lies near a subspace; the r filters span it (Zhang et al., arXiv 1505.06798, the linear case, and
Jaderberg et al., arXiv 1405.3866). The directions are those of the outputs under the data, in closed form; ``whitened=no`` takes
those of the weights.

Use it on networks of wide k x k convolutions. Let `recover-lsq` follow: it fits both pieces together.

1. Convolutions of one group with any stride, padding and dilation: the first piece keeps them.
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
class DecomposeChannel(Pass):
    """Fewer filters and a 1x1 convolution that mixes them."""

    name: ClassVar[str] = "decompose-channel"
    summary: ClassVar[str] = "split k x k convolutions into fewer filters and a 1x1 convolution"
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
    return "its kernel is 1x1: see decompose-svd" if len(layer.patches.taps) == 1 else None
