"""`decompose-svd`: a fully connected layer or a 1x1 convolution becomes two of lower rank.

The best map of rank r under the data is the truncated SVD of ``W H^(1/2)``, not of W (design section 3.6; the linear case of
Zhang et al., arXiv 1505.06798); ``whitened=no`` takes the SVD of W, as Denton et al. (arXiv 1404.0736) did.

Use it where wide pointwise layers or a large classifier hold most of the cost. Let `recover-lsq` follow.

1. Gemm with a bias, and 1x1 convolutions of one group, with any stride.
2. A layer stays where two pieces would cost more than the one or be no faster, with its numbers in a note.

A program before and after::

    y = Conv1x1(x, w[256,256], b)   ->   p = Conv1x1(x, w1[64,256])
                                         y = Conv1x1(p, w2[256,64], b)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from edgec.passes.decomposition.cuts import SVD, Form
from edgec.passes.decomposition.run import Decomposition


@dataclass(frozen=True)
class DecomposeSvd(Decomposition):
    """Low-rank factors of pointwise and fully connected layers."""

    name: ClassVar[str] = "decompose-svd"
    summary: ClassVar[str] = "split 1x1 convolutions and fully connected layers into two of lower rank"
    forms: ClassVar[tuple[Form, ...]] = (SVD,)
