"""`decompose-depthwise`: a k x k convolution becomes a sum of depthwise and pointwise pairs.

Network decoupling (Guo et al., arXiv 1808.05517), which FSKD compresses with: per input channel the SVD of tap x output. T pairs
are one depthwise convolution with T kernels per channel and one 1x1 convolution. Here the kernels are whitened by the patch's
covariance, the 1x1 is the least-squares solution, and the two are solved in turn.

Use it where depthwise convolutions are fast. Let `recover-lsq` follow, or `recover-fskd fold-pointwise` as in the paper.

1. Convolutions of one group whose kernel is not 1x1, with any stride, padding and dilation: the depthwise piece keeps them.
2. A layer stays where the pieces would cost more than the one or be no faster, with its numbers in a note.

A program before and after::

    y = Conv3x3(x, w[256,128], b)   ->   p = Conv3x3(x, w1[256,1], group=128)   # two kernels a channel
                                         y = Conv1x1(p, w2[256,256], b)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from edgec.passes.decomposition.cuts import DEPTHWISE, Form
from edgec.passes.decomposition.run import Decomposition


@dataclass(frozen=True)
class DecomposeDepthwise(Decomposition):
    """Depthwise kernels, summed by a pointwise convolution."""

    name: ClassVar[str] = "decompose-depthwise"
    summary: ClassVar[str] = "split k x k convolutions into depthwise and 1x1"
    forms: ClassVar[tuple[Form, ...]] = (DEPTHWISE,)
