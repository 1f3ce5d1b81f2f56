"""`decompose-channel`: a k x k convolution becomes one of r filters and a 1x1 convolution behind it.

The response of a layer lies near a subspace; the r filters span it (Zhang et al., arXiv 1505.06798, the linear case). The
directions are those of the outputs under the data, in closed form; ``whitened=no`` takes those of the weights.

Use it on networks of wide k x k convolutions. Let `recover-lsq` follow: it fits the pieces together.

1. Convolutions of one group with any stride, padding and dilation: the first piece keeps them.
2. A layer stays where two pieces would cost more than the one or be no faster, with its numbers in a note.

A program before and after::

    y = Conv3x3(x, w[256,128], b)   ->   p = Conv3x3(x, w1[96,128])
                                         y = Conv1x1(p, w2[256,96], b)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from edgec.passes.decomposition.cuts import CHANNEL, Form
from edgec.passes.decomposition.run import Decomposition


@dataclass(frozen=True)
class DecomposeChannel(Decomposition):
    """Fewer filters and a 1x1 convolution that mixes them."""

    name: ClassVar[str] = "decompose-channel"
    summary: ClassVar[str] = "split k x k convolutions into fewer filters and a 1x1 convolution"
    forms: ClassVar[tuple[Form, ...]] = (CHANNEL,)
