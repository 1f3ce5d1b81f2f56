"""`decompose-spatial`: a k x k convolution becomes a k x 1 and a 1 x k convolution with r channels between them.

Jaderberg et al. (arXiv 1405.3866) by the SVD of the kernel unfolded to (row, input) x (column, output); here whitened by the
covariance of a column of the patch, and the second piece is the least-squares solution under all of it. Both orders are tried.

Use it on k x k convolutions, the larger k the better. Let `recover-lsq` follow.

1. Two-dimensional convolutions of one group whose kernel is at least 2 x 2, with any stride, padding and dilation: each piece
   keeps its axis'.
2. A layer stays where two pieces would cost more than the one or be no faster, with its numbers in a note.

A program before and after::

    y = Conv3x3(x, w[256,128], b)   ->   p = Conv3x1(x, w1[96,128])
                                         y = Conv1x3(p, w2[256,96], b)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from edgec.passes.decomposition.cuts import SPATIAL, Form
from edgec.passes.decomposition.run import Decomposition


@dataclass(frozen=True)
class DecomposeSpatial(Decomposition):
    """A column and a row instead of a square."""

    name: ClassVar[str] = "decompose-spatial"
    summary: ClassVar[str] = "split k x k convolutions into k x 1 and 1 x k"
    forms: ClassVar[tuple[Form, ...]] = SPATIAL
