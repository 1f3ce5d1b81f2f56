"""MaxPool, AveragePool, and the global pools."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from edgec.compiler.emit.tflite.call import Call, clip_bounds, is_read
from edgec.compiler.emit.tflite.context import Lowering, RefusalError
from edgec.compiler.emit.tflite.layout import channels_last
from edgec.compiler.emit.tflite.ops.conv import spatial_windows
from edgec.compiler.emit.tflite.ops.pad import pad_spatial
from edgec.compiler.emit.tflite.padding import Window, scheme
from edgec.compiler.emit.tflite.program import Tensor
from edgec.compiler.emit.tflite.registry import Registry
from edgec.graph.tflite.schema import ActivationFunctionType as Activation
from edgec.graph.tflite.schema import Padding
from edgec.graph.views import attribute

Array = np.ndarray[Any, np.dtype[Any]]

POOL = Registry()


def _pooled(
    ctx: Lowering, call: Call, code: str, x: Tensor, found: Sequence[Window], rule: Padding
) -> Tensor:
    y = call.tensor(channels_last(len(call.in_shape())), like=x)
    options = {
        "padding": int(rule),
        "stride_w": found[1].stride,
        "stride_h": found[0].stride,
        "filter_width": found[1].kernel,
        "filter_height": found[0].kernel,
        "fused_activation_function": int(call.activation),
    }
    ctx.program.add(code, [x], [y], options)
    return y


@POOL.register("MaxPool")
def max_pool(ctx: Lowering, node: ir.Node) -> None:
    """MAX_POOL_2D; other paddings than TFLite's are filled with the lowest value.

    Behind a Relu zero is as good, and PAD with zero is an operator that XNNPACK runs, PADV2 is not.
    """
    if any(is_read(value) for value in node.outputs[1:]):
        raise RefusalError("it returns indices")
    call = Call(ctx, node, moves=True, fuse=True)
    rank = len(call.in_shape())
    if rank not in (3, 4):
        raise RefusalError(f"it has {rank - 2} spatial axes, TFLite's has two")
    x = call.take(0, channels_last(rank), free=(1,))
    kernel = tuple(attribute(node, "kernel_shape", ()))
    found = spatial_windows(node, call.in_shape(), call.out_shape(), kernel)
    layout = channels_last(rank).with_orders({1: x.layout.order_of(1)})
    if any(w.dilation > 1 and w.kernel > 1 for w in found):
        call.finish(_dilated_max(ctx, call, x.tensor, found), layout)
        return
    rule, pads = scheme(found)
    fill = None if is_non_negative(node.inputs[0]) else _lowest(x.tensor)
    tensor = x.tensor if pads is None else pad_spatial(ctx, x.tensor, pads, call.name, fill)
    call.finish(_pooled(ctx, call, "MAX_POOL_2D", tensor, found, rule), layout)


_NEVER_NEGATIVE = frozenset({"Relu", "Sigmoid", "Softmax", "Abs", "Exp", "Sqrt", "HardSigmoid", "Softplus"})
_KEEPING_SIGN = frozenset(
    {"QuantizeLinear", "DequantizeLinear", "MaxPool", "AveragePool", "Transpose", "Identity"}
)


def is_non_negative(value: ir.Value | None) -> bool:
    """True when the graph shows that a value is never below zero."""
    while value is not None:
        node = value.producer()
        if node is None:
            return False
        if node.op_type == "Clip":
            bounds = clip_bounds(node)
            return bounds is not None and bounds[0] >= 0
        if node.op_type not in _KEEPING_SIGN:
            return node.op_type in _NEVER_NEGATIVE
        value = node.inputs[0]
    return False


def _lowest(x: Tensor) -> float:
    return float(np.finfo(np.float32).min) if x.quantization is None else -np.inf


def _dilated_max(ctx: Lowering, call: Call, x: Tensor, found: Sequence[Window]) -> Tensor:
    """TFLite's windows have no dilation: the maximum of one strided view per tap is the same."""
    if call.activation != Activation.NONE:
        raise RefusalError("a dilated max-pool has no fused activation")
    x = pad_spatial(ctx, x, [(w.begin, max(w.end, 0)) for w in found], call.name, _lowest(x))
    best: Tensor | None = None
    for row in range(found[0].kernel):
        for column in range(found[1].kernel):
            view = _tap(ctx, call, x, found, (row, column))
            if best is None:
                best = view
                continue
            y = call.tensor(channels_last(len(call.in_shape())), like=x)
            ctx.program.add("MAXIMUM", [best, view], [y])
            best = y
    if best is None:
        raise RefusalError("its kernel is empty")
    return best


def _tap(ctx: Lowering, call: Call, x: Tensor, found: Sequence[Window], tap: tuple[int, int]) -> Tensor:
    begin = [w.dilation * k for w, k in zip(found, tap, strict=True)]
    end = [b + (w.out - 1) * w.stride + 1 for w, b in zip(found, begin, strict=True)]
    y = call.tensor(channels_last(len(call.in_shape())), like=x)
    inputs = [
        x,
        ctx.ints([0, *begin, 0]),
        ctx.ints([0, *end, 0]),
        ctx.ints([1, *(w.stride for w in found), 1]),
    ]
    ctx.program.add(
        "STRIDED_SLICE", inputs, [y], {"begin_mask": 9, "end_mask": 9}
    )  # batch and channels whole
    return y


@POOL.register("AveragePool")
def average_pool(ctx: Lowering, node: ir.Node) -> None:
    """AVERAGE_POOL_2D. TFLite divides by the cells inside the map; where ONNX divides by others, a MUL corrects it."""
    kernel = tuple(attribute(node, "kernel_shape", ()))
    rank = 2 + len(kernel)
    if rank not in (3, 4):
        raise RefusalError(f"it has {rank - 2} spatial axes, TFLite's has two")
    shape_in, shape_out = ctx.shape(node.inputs[0]), ctx.shape(node.outputs[0])
    found = spatial_windows(node, shape_in, shape_out, kernel)
    if any(w.dilation > 1 and w.kernel > 1 for w in found):
        _dilated_average(ctx, node, found)
        return
    counts = _counts(node, found)
    cells = found[0].kernel * found[1].kernel
    rule, pads = scheme(found)
    if rule == Padding.SAME and not np.array_equal(counts, _inside(found)):
        rule, pads = Padding.VALID, [(w.begin, max(w.end, 0)) for w in found]
    corrected = rule != Padding.SAME and not np.all(counts == cells)
    call = Call(ctx, node, fuse=not corrected, real=corrected)
    x = call.take(0, channels_last(rank), free=(1,))
    tensor = x.tensor if pads is None else pad_spatial(ctx, x.tensor, pads, call.name)
    layout = channels_last(rank).with_orders({1: x.layout.order_of(1)})
    y = _pooled(ctx, call, "AVERAGE_POOL_2D", tensor, found, rule)
    if corrected:
        factor = ctx.program.constant("counts", (cells / counts).astype(np.float32)[None, :, :, None])
        z = call.tensor(layout)
        ctx.program.add("MUL", [y, factor], [z], {"fused_activation_function": int(Activation.NONE)})
        y = z
    call.finish(y, layout)


def _dilated_average(ctx: Lowering, node: ir.Node, found: Sequence[Window]) -> None:
    """TFLite's windows have no dilation: a depthwise convolution with weights of 1 sums, a MUL divides."""
    call = Call(ctx, node, real=True)
    rank, channels = len(call.in_shape()), call.in_shape()[1]
    if channels is None:
        raise RefusalError("its channels are open", "Fix them with --input-shape.")
    x = call.take(0, channels_last(rank), free=(1,))
    tensor = pad_spatial(ctx, x.tensor, [(w.begin, max(w.end, 0)) for w in found], call.name)
    ones = ctx.program.constant("ones", np.ones((1, found[0].kernel, found[1].kernel, channels), np.float32))
    bias = ctx.program.constant("zeros", np.zeros(channels, np.float32))
    layout = channels_last(rank).with_orders({1: x.layout.order_of(1)})
    total = call.tensor(layout)
    options = {
        "padding": int(Padding.VALID),
        "stride_w": found[1].stride,
        "stride_h": found[0].stride,
        "depth_multiplier": 1,
        "fused_activation_function": int(Activation.NONE),
        "dilation_w_factor": found[1].dilation,
        "dilation_h_factor": found[0].dilation,
    }
    ctx.program.add("DEPTHWISE_CONV_2D", [tensor, ones, bias], [total], options)
    share = ctx.program.constant("counts", (1 / _counts(node, found)).astype(np.float32)[None, :, :, None])
    y = call.tensor(layout)
    ctx.program.add("MUL", [total, share], [y], {"fused_activation_function": int(Activation.NONE)})
    call.finish(y, layout)


def _inside(found: Sequence[Window]) -> Array:
    """Cells of the map in every window, (out_h, out_w)."""
    return np.outer(*(_covered(w, 0, w.size) for w in found))


def _counts(node: ir.Node, found: Sequence[Window]) -> Array:
    """What ONNX divides by. Counting the padding never counts what ceil_mode reaches beyond it."""
    if not attribute(node, "count_include_pad", 0):
        return _inside(found)
    rank = len(attribute(node, "kernel_shape", ()))
    pads = attribute(node, "pads", (0,) * 2 * rank)
    ends = (
        (0, *pads[rank:])[-2:]
        if attribute(node, "auto_pad", "NOTSET") == "NOTSET"
        else [w.end for w in found]
    )
    return np.outer(*(_covered(w, -w.begin, w.size + e) for w, e in zip(found, ends, strict=True)))


def _covered(window: Window, low: int, high: int) -> Array:
    """How many cells of [low, high) every window covers along one axis."""
    start = np.arange(window.out)[:, None] * window.stride - window.begin
    cell = start + window.dilation * np.arange(window.kernel)[None]
    covered: Array = np.sum((cell >= low) & (cell < high), axis=1)
    return covered


@POOL.register("GlobalAveragePool", "GlobalMaxPool")
def global_pool(ctx: Lowering, node: ir.Node) -> None:
    """MEAN or REDUCE_MAX over the spatial axes."""
    largest = node.op_type == "GlobalMaxPool"
    call = Call(ctx, node, moves=largest)
    x = call.take(0)
    axes = [x.layout.position(axis) for axis in range(2, len(call.in_shape()))]
    layout = x.layout.with_orders({a: o for a, o in x.layout.orders if a < 2})
    y = call.tensor(layout, like=x.tensor if largest else None)
    ctx.program.add(
        "REDUCE_MAX" if largest else "MEAN", [x.tensor, ctx.ints(sorted(axes))], [y], {"keep_dims": True}
    )
    call.finish(y, layout)
