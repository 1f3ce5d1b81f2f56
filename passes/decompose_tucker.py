"""`decompose-tucker`: a k x k convolution becomes 1x1, k x k and 1x1, narrow in the middle.

Tucker-2 (Kim et al., arXiv 1511.06530) by singular vectors of the unfolded kernel; here those of the inputs are whitened by the
channels' covariance, the core is the least-squares solution under the whole patch's, and the directions of the outputs are
those of its answers.

Use it on wide k x k convolutions. Let `recover-lsq` follow.

1. Convolutions of one group whose kernel is not 1x1, with any stride, padding and dilation: the middle piece keeps them.
2. A layer stays where three pieces would cost more than the one or be no faster, with its numbers in a note.

A program before and after::

    y = Conv3x3(x, w[256,128], b)   ->   p = Conv1x1(x, w1[48,128])
                                         q = Conv3x3(p, w2[64,48])
                                         y = Conv1x1(q, w3[256,64], b)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from edgec.passes.decomposition.cuts import TUCKER, Form
from edgec.passes.decomposition.run import Decomposition


@dataclass(frozen=True)
class DecomposeTucker(Decomposition):
    """Narrow the channels, convolve, widen them again."""

    name: ClassVar[str] = "decompose-tucker"
    summary: ClassVar[str] = "split k x k convolutions into 1x1, narrow k x k, 1x1"
    forms: ClassVar[tuple[Form, ...]] = (TUCKER,)
