"""A transposed convolution as the convolution that it is: of its input with zeros between the pixels.

Output pixel q gets ``x[j] W[k]`` wherever ``q = stride j + dilation k - pad``. That is a convolution of stride 1 over x spread
out by ``stride``, with the kernel back to front and ``dilation (kernel - 1) - pad`` zeros around.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from edgec.graph.views import KernelView, attribute

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class TransposedView(KernelView):
    """A ConvTranspose with constant weights, in the terms of that convolution.

    ``weight`` is (out, in/group, *kernel), back to front; ``pads`` are begin then end, and may be negative.
    """

    @staticmethod
    def of(node: ir.Node | None) -> TransposedView | None:
        """The view, or None where ``node`` is no such layer, or its pads follow from its output's size."""
        if node is None or node.op_type != "ConvTranspose" or not KernelView.has_constants(node):
            return None
        sized = "output_shape" in node.attributes or attribute(node, "auto_pad", "NOTSET") != "NOTSET"
        return None if sized else TransposedView(node)

    @property
    def weight(self) -> Array:
        """(out, in/group, *kernel)."""
        return turned(self.stored, self.group)

    @property
    def spread(self) -> tuple[int, ...]:
        """From one pixel of the input to the next, where zeros stand between them."""
        return tuple(attribute(self.node, "strides", (1,) * len(self.kernel)))

    @property
    def pads(self) -> tuple[int, ...]:
        """Zeros around the spread input: begin of every spatial axis, then end."""
        rank = len(self.kernel)
        cut = tuple(attribute(self.node, "pads", (0,) * 2 * rank))
        more = (*(0,) * rank, *attribute(self.node, "output_padding", (0,) * rank))
        reach = [d * (k - 1) for d, k in zip(self.dilations, self.kernel, strict=True)] * 2
        return tuple(r - c + m for r, c, m in zip(reach, cut, more, strict=True))

    @property
    def out_channels(self) -> int:
        return int(self.stored.shape[1]) * self.group

    @property
    def in_channels(self) -> int:
        return int(self.stored.shape[0])

    def set(self, *, weight: Array | None = None, bias: Array | None = None) -> None:
        """Replace weight (out, in/group, *kernel) and bias; initialisers that other nodes share stay for those."""
        self.store(None if weight is None else turned(weight, self.group), bias)


def turned(weight: Array, group: int) -> Array:
    """(a, b/group, *kernel) -> (b, a/group, *kernel) with the kernel back to front: its own inverse."""
    kernel = weight.shape[2:]
    parts = weight.reshape(group, -1, *weight.shape[1:]).swapaxes(1, 2)
    whole = parts.reshape(-1, parts.shape[2], *kernel)
    return np.ascontiguousarray(np.flip(whole, tuple(range(2, 2 + len(kernel)))))
