"""Convolutions, pools, and products of matrices."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edgec.graph.tflite.lift.call import Call, Handler, plain_order
from edgec.graph.tflite.lift.lifting import CHANNELS_FIRST, Order
from edgec.graph.tflite.lift.windows import Window, pads_of, window


def conv(call: Call) -> None:
    """CONV_2D: weight (out, kh, kw, in per group); groups where it reads fewer channels than there are."""
    _, rows, columns, each = call.constant(1, "weight").shape
    channels = call.shape()[3]
    if each == 0 or channels % each:
        raise call.unsupported(f"its weight reads {each} channels of {channels}")
    _convolve(call, (0, 3, 1, 2), (rows, columns), channels // each)


def depthwise(call: Call) -> None:
    """DEPTHWISE_CONV_2D: weight (1, kh, kw, channels * multiplier), a channel's outputs side by side."""
    _, rows, columns, _ = call.constant(1, "weight").shape
    _convolve(call, (3, 0, 1, 2), (rows, columns), call.shape()[3])


def _convolve(call: Call, order: Order, kernel: tuple[int, int], groups: int) -> None:
    found = [window(call, axis, kernel[axis]) for axis in (0, 1)]
    inputs = [call.picture(), call.weight(order), *_bias(call, 2)]
    name = call.add(
        "Conv", inputs, kernel_shape=list(kernel), strides=[w.stride for w in found],
        dilations=[w.dilation for w in found], pads=pads_of(found), group=groups,
    )  # fmt: skip
    call.finish(name, CHANNELS_FIRST)


def _bias(call: Call, at: int) -> list[str]:
    """The bias as a list of operands, empty where there is none."""
    return [call.take(at, (0,))] if call.has(at) else []


def transpose_conv(call: Call) -> None:
    """TRANSPOSE_CONV: output shape, weight (out, kh, kw, in), picture, bias. It cuts as the convolution it turns round pads."""
    _turned(call, 2, [int(call.option(f"stride_{side}", 1)) for side in "hw"])


def transpose_conv_bias(call: Call) -> None:
    """MediaPipe's Convolution2DTransposeBias: picture, weight (out, kh, kw, in), bias; its options are the kernel's own struct.

    That is ``padding, stride_width, stride_height``, 32 bits each; what it cuts follows from the sizes, as there.
    """
    if len(call.op.custom) < 12:
        raise call.unsupported("its options are missing")
    _, wide, tall = struct.unpack_from("<3i", call.op.custom)
    if min(tall, wide) < 1:
        raise call.unsupported(f"its strides are {tall} and {wide}")
    _turned(call, 0, [tall, wide])


def _turned(call: Call, picture: int, strides: Sequence[int]) -> None:
    """A transposed convolution of operand ``picture``, with weight 1; a bias stands behind both."""
    kernel = call.constant(1, "weight").shape[1:3]
    sizes, outs = call.shape(picture)[1:3], call.out_shape()[1:3]
    begins, ends, extras = [], [], []
    for size, out, stride, taps in zip(sizes, outs, strides, kernel, strict=True):
        cut = (size - 1) * stride + taps - out
        begins.append(max(cut, 0) // 2)
        ends.append(max(cut, 0) - max(cut, 0) // 2)
        extras.append(max(-cut, 0))
    inputs = [call.picture(picture), call.weight((3, 0, 1, 2)), *_bias(call, max(picture, 1) + 1)]
    name = call.add(
        "ConvTranspose", inputs, kernel_shape=list(kernel), strides=list(strides), pads=[*begins, *ends],
        output_padding=extras if any(extras) else None,
    )  # fmt: skip
    call.finish(name, CHANNELS_FIRST)


def fully_connected(call: Call) -> None:
    """FULLY_CONNECTED: weight (out, in); what stands before the features is flattened unless it keeps its axes."""
    if int(call.option("weights_format", 0)):
        raise call.unsupported("its weights are shuffled")
    outs, features = call.shape(1)
    if call.option("keep_num_dims", False) and len(call.shape()) > 2:
        weight = call.weight((1, 0), own=False)
        name = call.add("MatMul", [call.plain(), weight])
        for bias in _bias(call, 2):
            name = call.add("Add", [name, bias], f"{call.stem}_biased")
        call.finish(name, plain_order(len(call.shape())))
        return
    shape = call.shape()
    x = call.plain()
    if len(shape) != 2 or shape[1] != features:
        rows = 0 if math.prod(shape[1:]) == features else math.prod(shape) // max(features, 1)
        target = call.lifting.ints([rows, features], f"{call.stem}_shape")
        x = call.add("Reshape", [call.lifting.flat(call.index()), target], f"{call.stem}_flat")
    name = call.add("Gemm", [x, call.weight((0, 1), own=False), *_bias(call, 2)], transB=1)
    wanted = call.out_shape()
    if len(wanted) != 2:
        target = call.lifting.ints(wanted, f"{call.stem}_shape")
        name = call.add("Reshape", [name, target], f"{call.stem}_shaped")
    elif wanted[1] != outs:
        raise call.unsupported(f"its weight has {outs} rows, its result {wanted[1]} columns")
    call.finish(name, plain_order(len(wanted)))


def batch_matmul(call: Call) -> None:
    """BATCH_MATMUL: either side may be read transposed."""
    names = []
    for at, side in ((0, "adj_x"), (1, "adj_y")):
        order = plain_order(len(call.shape(at)))
        names.append(
            call.take(at, (*order[:-2], order[-1], order[-2]) if call.option(side, False) else order)
        )
    call.finish(call.add("MatMul", names), plain_order(len(call.out_shape())))


def average_pool(call: Call) -> None:
    """AVERAGE_POOL_2D, which divides by the cells inside the picture."""
    _pool(call, "AveragePool", count_include_pad=0)


def max_pool(call: Call) -> None:
    """MAX_POOL_2D."""
    _pool(call, "MaxPool")


def _pool(call: Call, op_type: str, **attributes: Any) -> None:
    taps = [int(call.option(f"filter_{side}", 0)) for side in ("height", "width")]
    found: list[Window] = [window(call, axis, taps[axis]) for axis in (0, 1)]
    name = call.add(
        op_type, [call.picture()], kernel_shape=taps, strides=[w.stride for w in found], pads=pads_of(found),
        **attributes,
    )  # fmt: skip
    call.finish(name, CHANNELS_FIRST)


def l2_normalization(call: Call) -> None:
    """L2_NORMALIZATION along the last axis; the kernel's floor under the length is 1e-6."""
    order = call.preferred()
    x = call.take(0, order)
    axis = call.lifting.ints([order.index(len(order) - 1)], f"{call.stem}_axis")
    floor = call.lifting.store(np.asarray(1e-6, np.float32), f"{call.stem}_floor")
    length = call.add("ReduceL2", [x, axis], f"{call.stem}_length", keepdims=1)
    length = call.add("Max", [length, floor], f"{call.stem}_max")
    call.finish(call.add("Div", [x, length]), order)


HANDLERS: Mapping[str, Handler] = {
    "CONV_2D": conv, "DEPTHWISE_CONV_2D": depthwise, "TRANSPOSE_CONV": transpose_conv,
    "CUSTOM:Convolution2DTransposeBias": transpose_conv_bias, "FULLY_CONNECTED": fully_connected,
    "BATCH_MATMUL": batch_matmul, "AVERAGE_POOL_2D": average_pool, "MAX_POOL_2D": max_pool,
    "L2_NORMALIZATION": l2_normalization,
}  # fmt: skip
