"""Where the windows of convolutions and pools lie: TFLite pads as SAME or VALID, ONNX by numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgec.graph.errors import ModelError
from edgec.graph.tflite.lift.call import Call
from edgec.graph.tflite.schema import Padding


@dataclass(frozen=True)
class Window:
    """Along one axis: its step, the distance of its taps, and the cells that padding adds before and behind."""

    stride: int
    dilation: int
    begin: int
    end: int


def window(call: Call, axis: int, taps: int) -> Window:
    """The window along height (0) or width (1) of the first operand."""
    if len(call.shape()) != 4:
        raise call.unsupported(f"its operand has {len(call.shape())} axes")
    side = "hw"[axis]
    stride = int(call.option(f"stride_{side}", 1))
    dilation = int(call.option(f"dilation_{side}_factor", 1))
    if stride < 1 or dilation < 1 or taps < 1:
        why = f"a window of {taps} taps, stride {stride}, dilation {dilation}"
        raise ModelError("the TFLite file is damaged", where=call.where, why=why)
    size = call.shape()[1 + axis]
    total = 0
    if int(call.option("padding", 0)) == Padding.SAME:
        total = max((-(-size // stride) - 1) * stride + (taps - 1) * dilation + 1 - size, 0)
    return Window(stride, dilation, total // 2, total - total // 2)


def pads_of(windows: Sequence[Window]) -> list[int]:
    """In ONNX's order: all begins, then all ends."""
    return [*(w.begin for w in windows), *(w.end for w in windows)]
