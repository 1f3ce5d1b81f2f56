"""Conv and ConvTranspose."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir as ir

from edgec.compiler.emit.tflite.call import Call
from edgec.compiler.emit.tflite.context import FixedBatchError, Lowering, RefusalError
from edgec.compiler.emit.tflite.layout import Shape, channels_last
from edgec.compiler.emit.tflite.ops.pad import pad_spatial
from edgec.compiler.emit.tflite.padding import Window, scheme, windows
from edgec.compiler.emit.tflite.program import Tensor
from edgec.compiler.emit.tflite.registry import Registry
from edgec.compiler.emit.tflite.weights import Weight, bias_tensor, weight_of, weight_tensor
from edgec.graph.tflite.schema import ActivationFunctionType as Activation
from edgec.graph.tflite.schema import Padding
from edgec.graph.views import attribute

Array = np.ndarray[Any, np.dtype[Any]]

CONV = Registry()


@CONV.register("Conv")
def conv(ctx: Lowering, node: ir.Node) -> None:
    """CONV_2D or DEPTHWISE_CONV_2D; a one-dimensional Conv is one of height 1."""
    call = Call(ctx, node, fuse=True)
    in_shape, out_shape = call.in_shape(), call.out_shape()
    rank, channels = len(in_shape), in_shape[1]
    if rank not in (3, 4):
        raise RefusalError(f"it has {rank - 2} spatial axes, TFLite's has two")
    weight = weight_of(ctx, call.operand(1), call.quantised)
    group = int(attribute(node, "group", 1))
    depthwise = group == channels and group > 1 and weight.array.shape[1] == 1
    x = call.take(0, channels_last(rank), free=() if group > 1 and not depthwise else (1,))
    found = spatial_windows(node, in_shape, out_shape, weight.array.shape[2:])
    rule, pads = scheme(found)
    order = x.layout.order_of(1)
    layout = channels_last(rank)
    options: dict[str, Any] = {
        "padding": int(rule),
        "stride_w": found[1].stride,
        "stride_h": found[0].stride,
        "fused_activation_function": int(call.activation),
        "dilation_w_factor": found[1].dilation,
        "dilation_h_factor": found[0].dilation,
    }
    kernel = weight if rank == 4 else replace(weight, array=weight.array[:, :, None, :])
    if depthwise:
        multiplier = weight.array.shape[0] // group
        code, options["depth_multiplier"] = "DEPTHWISE_CONV_2D", multiplier
        if order is not None:
            spread = np.asarray(order)[:, None] * multiplier + np.arange(multiplier)
            kernel = kernel.take_out(spread.reshape(-1))
            layout = layout.with_orders({1: tuple(int(i) for i in spread.reshape(-1))})
        filters = weight_tensor(ctx, kernel, (1, 2, 3, 0), out_axis=3)
    else:
        code = "CONV_2D"
        if order is not None:
            kernel = replace(kernel, array=kernel.array[:, list(order)])
        filters = weight_tensor(ctx, kernel, (0, 2, 3, 1), out_axis=0)
    data = x.tensor if pads is None else pad_spatial(ctx, x.tensor, pads, call.name)
    bias = bias_tensor(ctx, call, weight, data, _bias_order(layout.order_of(1)))
    y = call.tensor(layout)
    ctx.program.add(code, [data, filters, bias], [y], options)
    call.finish(y, layout)


def _bias_order(order: tuple[int, ...] | None) -> Array | None:
    return None if order is None else np.asarray(order)


def spatial_windows(
    node: ir.Node, in_shape: Shape, out_shape: Shape, kernel: tuple[int, ...]
) -> tuple[Window, Window]:
    """Windows over height and width; a signal has a height of 1."""
    found = windows(node, in_shape[2:], out_shape[2:], kernel)
    flat = Window(1, 1, 1, 1, 1, 0, 0)
    return (flat, found[0]) if len(found) == 1 else (found[0], found[1])


@CONV.register("ConvTranspose")
def conv_transpose(ctx: Lowering, node: ir.Node) -> None:
    """TRANSPOSE_CONV, which pads as SAME or VALID only: other paddings are cut from the VALID result.

    Groups become zeros in a dense weight, and dilation zeros between its taps.
    """
    call = Call(ctx, node, void=True)
    in_shape, out_shape = call.in_shape(), call.out_shape()
    rank = len(in_shape)
    if rank not in (3, 4):
        raise RefusalError(f"it has {rank - 2} spatial axes, TFLite's has two")
    if in_shape[0] is None:
        raise FixedBatchError
    weight = _dilated(_dense(ctx, call), attribute(node, "dilations", (1,) * (rank - 2)))
    x = call.take(0, channels_last(rank), free=(1,))
    order = x.layout.order_of(1)
    if order is not None:
        weight = replace(weight, array=weight.array[list(order)])
    strides = attribute(node, "strides", (1,) * (rank - 2))
    taps = weight.array.shape[2:]
    begins = [_transposed_begin(node, in_shape, out_shape, taps, strides, i) for i in range(rank - 2)]
    sizes = [int(s or 0) for s in in_shape[2:]]
    outs = [int(s or 0) for s in out_shape[2:]]
    if rank == 3:
        weight = replace(weight, array=weight.array[:, :, None, :])
        strides, begins, sizes, outs, taps = (1, *strides), [0, *begins], [1, *sizes], [1, *outs], (1, *taps)
    filters = weight_tensor(ctx, weight, (1, 2, 3, 0), out_axis=0)
    bias = bias_tensor(ctx, call, weight, x.tensor, None)
    same = all(
        size == -(-out // s) and b == max((size - 1) * s + k - out, 0) // 2
        for size, out, s, k, b in zip(sizes, outs, strides, taps, begins, strict=True)
    )
    full = [
        out if same else max((size - 1) * s + k, out + b)
        for size, out, s, k, b in zip(sizes, outs, strides, taps, begins, strict=True)
    ]
    layout = channels_last(rank)
    channels = weight.array.shape[1]
    y = call.tensor(layout, shape=(in_shape[0], *full, channels))
    shape = ctx.ints([in_shape[0], *full, channels])
    options = {
        "padding": int(Padding.SAME if same else Padding.VALID),
        "stride_w": strides[1],
        "stride_h": strides[0],
        "fused_activation_function": int(Activation.NONE),
    }
    ctx.program.add("TRANSPOSE_CONV", [shape, filters, x.tensor, bias], [y], options)
    call.finish(y if same else _cropped(ctx, y, begins, outs, call.name), layout)


def _transposed_begin(
    node: ir.Node, in_shape: Shape, out_shape: Shape, taps: tuple[int, ...], strides: tuple[int, ...], i: int
) -> int:
    """How many cells of the full result lie before the first one that is kept."""
    rank = len(taps)
    size, out = in_shape[2 + i], out_shape[2 + i]
    if size is None or out is None:
        raise RefusalError("a spatial axis is open", "Fix it with --input-shape.")
    auto = attribute(node, "auto_pad", "NOTSET")
    given = attribute(node, "output_shape", None)
    if auto in ("SAME_UPPER", "SAME_LOWER") or given is not None:
        extra = attribute(node, "output_padding", (0,) * rank)[i]
        total = max((size - 1) * strides[i] + extra + taps[i] - out, 0)
        return int(total // 2 if auto == "SAME_UPPER" else total - total // 2)
    begin = 0 if auto == "VALID" else int(attribute(node, "pads", (0,) * 2 * rank)[i])
    if begin < 0:
        raise RefusalError("its padding is negative")
    return begin


def _dense(ctx: Lowering, call: Call) -> Weight:
    """(in, out/group, ...) -> (in, out, ...), zero outside the blocks of the groups.

    Scales count the outputs of one group, or along the inputs where every channel is a group of its own.
    """
    group = int(attribute(call.node, "group", 1))
    depthwise = group > 1 and ctx.shape(call.operand(1))[:2] == (group, 1)
    weight = weight_of(ctx, call.operand(1), call.quantised, out_axis=0 if depthwise else 1)
    if group == 1:
        return weight
    inputs, outs = weight.array.shape[:2]
    dense = np.zeros((inputs, outs * group, *weight.array.shape[2:]), weight.array.dtype)
    step = inputs // group
    for g in range(group):
        dense[g * step : (g + 1) * step, g * outs : (g + 1) * outs] = weight.array[g * step : (g + 1) * step]
    scale = weight.scale
    if scale is not None and scale.size > 1 and not depthwise:
        scale = np.tile(scale, group)
    return replace(weight, array=dense, scale=scale, out_axis=1)


def _dilated(weight: Weight, dilations: tuple[int, ...]) -> Weight:
    if all(d == 1 for d in dilations):
        return weight
    taps = [d * (k - 1) + 1 for k, d in zip(weight.array.shape[2:], dilations, strict=True)]
    wide = np.zeros((*weight.array.shape[:2], *taps), weight.array.dtype)
    wide[(slice(None), slice(None), *(slice(None, None, d) for d in dilations))] = weight.array
    return replace(weight, array=wide)


def _cropped(ctx: Lowering, y: Tensor, begins: list[int], outs: list[int], name: str) -> Tensor:
    if not any(begins) and tuple(outs) == y.shape[1:3]:
        return y
    shape = (y.shape[0], *outs, y.shape[3])
    z = ctx.program.tensor(name, y.type, shape, y.quantization)
    ctx.program.add("SLICE", [y, ctx.ints([0, *begins, 0]), ctx.ints([-1, *outs, -1])], [z])
    return z
