"""Padding of sliding windows: ONNX's explicit pads as TFLite's SAME, VALID, or PAD + VALID.

TFLite knows two rules only. VALID pads nothing. SAME pads as much as makes ``ceil(size / stride)`` outputs, the odd cell
at the end. Everything else is a PAD in front of a VALID window, which XNNPACK folds into the window again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from edgec.compiler.emit.tflite.context import RefusalError
from edgec.graph.tflite.schema import Padding
from edgec.graph.views import attribute


@dataclass(frozen=True)
class Window:
    """One spatial axis of a sliding window."""

    size: int
    out: int
    kernel: int
    stride: int
    dilation: int
    begin: int
    end: int
    """Cells that windows reach behind the input; negative where the last ones are never read."""

    @property
    def extent(self) -> int:
        return self.dilation * (self.kernel - 1) + 1

    @property
    def is_valid(self) -> bool:
        return self.begin == 0 and self.end <= 0

    @property
    def is_same(self) -> bool:
        """True when TFLite's SAME pads exactly like this."""
        total = max((self.out - 1) * self.stride + self.extent - self.size, 0)
        return self.out == -(-self.size // self.stride) and self.begin == total // 2


def windows(
    node: ir.Node, sizes: Sequence[int | None], outs: Sequence[int | None], kernel: Sequence[int]
) -> tuple[Window, ...]:
    """The windows of a Conv or pooling node over its spatial axes; sizes are input and output extents."""
    rank = len(kernel)
    strides = attribute(node, "strides", (1,) * rank)
    dilations = attribute(node, "dilations", (1,) * rank)
    found = []
    for i in range(rank):
        size, out = sizes[i], outs[i]
        if size is None or out is None:
            raise RefusalError("a spatial axis is open", "Fix it with --input-shape.")
        extent = dilations[i] * (kernel[i] - 1) + 1
        begin = _begin(node, i, rank, size, out, extent, strides[i])
        end = (out - 1) * strides[i] + extent - size - begin
        if begin < 0:
            raise RefusalError("its padding is negative")
        found.append(Window(size, out, kernel[i], strides[i], dilations[i], begin, end))
    return tuple(found)


def _begin(node: ir.Node, i: int, rank: int, size: int, out: int, extent: int, stride: int) -> int:
    auto = attribute(node, "auto_pad", "NOTSET")
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        total = max((out - 1) * stride + extent - size, 0)
        return total // 2 if auto == "SAME_UPPER" else total - total // 2
    if auto == "VALID":
        return 0
    return int(attribute(node, "pads", (0,) * 2 * rank)[i])


def scheme(found: Sequence[Window]) -> tuple[Padding, list[tuple[int, int]] | None]:
    """TFLite's padding rule, and the cells to PAD before it (None: none)."""
    if all(w.is_valid for w in found):
        return Padding.VALID, None
    if all(w.is_same for w in found):
        return Padding.SAME, None
    return Padding.VALID, [(w.begin, max(w.end, 0)) for w in found]
