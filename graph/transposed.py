"""A transposed convolution as the convolution that it is: of its input with zeros between the pixels.

Output pixel q gets ``x[j] W[k]`` wherever ``q = stride j + dilation k - pad``. That is a convolution of stride 1 over x spread
out by ``stride``, with the kernel back to front and ``dilation (kernel - 1) - pad`` zeros around.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from edgec.graph.errors import UnsupportedError
from edgec.graph.provenance import place
from edgec.graph.views import attribute, constant, own_constant

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class TransposedView:
    """A ConvTranspose with constant weights, in the terms of that convolution.

    ``weight`` is (out, in/group, *kernel), back to front; ``pads`` are begin then end, and may be negative.
    """

    node: ir.Node

    @staticmethod
    def of(node: ir.Node | None) -> TransposedView | None:
        """The view, or None where ``node`` is no such layer, or its pads follow from its output's size."""
        if node is None or node.op_type != "ConvTranspose" or constant(node.inputs[1]) is None:
            return None
        if len(node.inputs) > 2 and node.inputs[2] is not None and constant(node.inputs[2]) is None:
            return None
        sized = "output_shape" in node.attributes or attribute(node, "auto_pad", "NOTSET") != "NOTSET"
        return None if sized else TransposedView(node)

    @property
    def x(self) -> ir.Value:
        """The input activation."""
        value = self.node.inputs[0]
        if value is None:
            raise UnsupportedError("ConvTranspose without an input", where=place(self.node))
        return value

    @property
    def y(self) -> ir.Value:
        """The output activation."""
        return self.node.outputs[0]

    @property
    def group(self) -> int:
        return int(attribute(self.node, "group", 1))

    @property
    def _stored(self) -> Array:
        """(in, out/group, *kernel)."""
        array = constant(self.node.inputs[1])
        if array is None:
            raise UnsupportedError("the weight is computed", where=place(self.node))
        return array

    @property
    def weight(self) -> Array:
        """(out, in/group, *kernel)."""
        return turned(self._stored, self.group)

    @property
    def bias(self) -> Array | None:
        """(out,) or None."""
        return constant(self.node.inputs[2]) if len(self.node.inputs) > 2 else None

    @property
    def kernel(self) -> tuple[int, ...]:
        return tuple(self._stored.shape[2:])

    @property
    def spread(self) -> tuple[int, ...]:
        """From one pixel of the input to the next, where zeros stand between them."""
        return tuple(attribute(self.node, "strides", (1,) * len(self.kernel)))

    @property
    def dilations(self) -> tuple[int, ...]:
        return tuple(attribute(self.node, "dilations", (1,) * len(self.kernel)))

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
        return int(self._stored.shape[1]) * self.group

    @property
    def in_channels(self) -> int:
        return int(self._stored.shape[0])

    def set(self, *, weight: Array | None = None, bias: Array | None = None) -> None:
        """Replace weight (out, in/group, *kernel) and bias; initialisers that other nodes share stay for those."""
        graph = self.node.graph
        if not isinstance(graph, ir.Graph):
            raise UnsupportedError("the node belongs to no graph", where=place(self.node))
        if weight is not None:
            own_constant(graph, self.node, 1, turned(weight, self.group), "_weight")
        if bias is not None:
            own_constant(graph, self.node, 2, bias, "_bias")


def turned(weight: Array, group: int) -> Array:
    """(a, b/group, *kernel) -> (b, a/group, *kernel) with the kernel back to front: its own inverse."""
    kernel = weight.shape[2:]
    parts = weight.reshape(group, -1, *weight.shape[1:]).swapaxes(1, 2)
    whole = parts.reshape(-1, parts.shape[2], *kernel)
    return np.ascontiguousarray(np.flip(whole, tuple(range(2, 2 + len(kernel)))))
