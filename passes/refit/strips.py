"""Strips of large maps, for fits that need neighbouring pixels: full rows, from a border on the left to one on the right.

A joint fit cannot take single pixels, since kernels overlap, and takes few images where it takes them whole. Some rows of each of
many images say as much and cost a fraction. What a chain makes of a strip is what it makes there of the whole map: the rows above
and below that its kernels read come along, and nothing is padded there. So no strip lies at the upper or lower border; what zeros
do at a border is seen at the left and right.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from edgec.passes.solvers.gram import Patches

Array = np.ndarray[Any, np.dtype[Any]]

PIXELS = 1024
"""Output pixels of a strip, as far as rows are whole."""


class Cut(NamedTuple):
    """Slices of the rows of a chain's input and of its output."""

    inner: slice
    outer: slice


@dataclass(frozen=True)
class Strips:
    """The strips of a chain's maps: ``rows`` of ``width`` pixels of the output, from one of ``first`` to ``last`` on; of the
    input ``read`` rows, from ``stride`` times that less ``before`` on."""

    rows: int
    width: int
    first: int
    last: int
    read: int
    stride: int
    before: int

    @staticmethod
    def of(chain: Sequence[Patches], spatial: Sequence[int] | None) -> Strips | None:
        """Of ``chain`` on an input of size ``spatial``. None where maps are small, or do not have two axes of a known size."""
        if spatial is None or len(spatial) != 2 or any(one.is_spread for one in chain):
            return None
        heights = [int(spatial[0])]
        size = tuple(spatial)
        for one in chain:
            size = one.out_shape(size)
            heights.append(size[0])
        rows = math.ceil(PIXELS / max(size[1], 1))
        if rows >= heights[-1]:
            return None
        first, last = 0, heights[-1] - rows
        read, stride, before = rows, 1, 0
        for one, height in zip(reversed(chain), reversed(heights[:-1]), strict=True):
            read = (read - 1) * one.strides[0] + (one.kernel[0] - 1) * one.dilations[0] + 1
            stride, before = stride * one.strides[0], before * one.strides[0] + one.pads[0]
            # What the layer reads lies within its input.
            first = max(first, -(-before // stride))
            last = min(last, (height - read + before) // stride)
        return Strips(rows, size[1], first, last, read, stride, before) if first <= last else None

    @property
    def pixels(self) -> int:
        """Of the output."""
        return self.rows * self.width

    def cut(self, number: int) -> Cut:
        """The strip of image ``number``, somewhere in the map, but the same every time."""
        start = int(np.random.default_rng(number).integers(self.first, self.last + 1))
        begin = start * self.stride - self.before
        return Cut(slice(begin, begin + self.read), slice(start, start + self.rows))

    @staticmethod
    def inside(patches: Patches) -> Patches:
        """The layer as it is within a strip: nothing is padded above and below."""
        return replace(patches, pads=(0, patches.pads[1], 0, patches.pads[3]))
