"""Pad in all its modes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from edgec.compiler.emit.tflite.call import Call
from edgec.compiler.emit.tflite.context import Lowering, RefusalError
from edgec.compiler.emit.tflite.layout import UNIT, Layout, Shape
from edgec.compiler.emit.tflite.program import Tensor
from edgec.compiler.emit.tflite.quantisation import code_limits
from edgec.compiler.emit.tflite.registry import Registry
from edgec.graph.tflite.schema import MirrorPadMode
from edgec.graph.tflite.tensors import NUMPY_TYPE
from edgec.graph.views import attribute

Array = np.ndarray[Any, np.dtype[Any]]
Cells = Sequence[tuple[int, int]]

PAD = Registry()

MAX_RANK = 5


def pad_spatial(ctx: Lowering, x: Tensor, cells: Cells, name: str, fill: float | None = None) -> Tensor:
    """Pad height and width of a channels-last tensor with zeros (codes: the zero point), or with ``fill``."""
    return pad_constant(ctx, x, [(0, 0), *cells, (0, 0)], name, fill)


def pad_constant(ctx: Lowering, x: Tensor, cells: Cells, name: str, fill: float | None = None) -> Tensor:
    """PAD with zero, or PADV2 with ``fill`` (a number; codes take its nearest code, infinities their limit)."""
    if not any(a or b for a, b in cells):
        return x
    if len(cells) > MAX_RANK:
        raise RefusalError(f"it pads a tensor of {len(cells)} axes, TFLite takes {MAX_RANK}")
    shape = tuple(None if d is None else d + a + b for d, (a, b) in zip(x.shape, cells, strict=True))
    if any(d is None and (a or b) for d, (a, b) in zip(x.shape, cells, strict=True)):
        raise RefusalError("it pads the batch axis")
    y = ctx.program.tensor(name, x.type, shape, x.quantization)
    paddings = ctx.program.constant("paddings", np.asarray(cells, np.int32))
    if fill is None or fill == 0:
        ctx.program.add("PAD", [x, paddings], [y])
    else:
        ctx.program.add("PADV2", [x, paddings, _fill(ctx, x, fill)], [y])
    return y


def _fill(ctx: Lowering, x: Tensor, fill: float) -> Tensor:
    if x.quantization is None:
        return ctx.program.constant("fill", np.asarray([fill], NUMPY_TYPE[x.type]))
    low, high = code_limits(x.type)
    code = np.clip(fill / x.quantization.scale[0], low - 2.0 * high, high - 2.0 * low)  # infinities too
    code = np.clip(np.rint(code) + x.quantization.zero_point[0], low, high)
    return ctx.program.constant("fill", np.asarray([code], NUMPY_TYPE[x.type]), x.quantization)


@PAD.register("Pad")
def pad(ctx: Lowering, node: ir.Node) -> None:
    """PAD, PADV2 or MIRROR_PAD; edge and wrap gather the cells they repeat. Negative pads cut first."""
    call = Call(ctx, node, moves=True)
    shape = call.in_shape()
    pads = _pads(call, shape)
    mode = attribute(node, "mode", "constant")
    x = call.take(0)
    layout, tensor = _unshuffled(call, x.layout, x.tensor, pads)
    cells = [(0, 0) if axis == UNIT else pads[axis] for axis in layout.perm]
    tensor = _cut(ctx, tensor, cells, call.name)
    cells = [(max(a, 0), max(b, 0)) for a, b in cells]
    if mode == "constant":
        fill = call.optional(2, "fill value")
        y = pad_constant(
            ctx, tensor, cells, call.name, None if fill is None or not fill.size else float(fill.item())
        )
    elif mode == "reflect" and _mirrors(tensor.shape, cells):
        y = _mirror(ctx, tensor, cells, call.name)
    else:
        y = _gathered(ctx, tensor, cells, mode, call.name)
    call.finish(y, layout)


def _pads(call: Call, shape: Shape) -> list[tuple[int, int]]:
    flat = [int(p) for p in call.constant(1, "padding").reshape(-1)]
    axes = call.optional(3, "axes")
    rank = len(shape)
    named = list(range(rank)) if axes is None else [int(a) % rank for a in axes.reshape(-1)]
    pads = [(0, 0)] * rank
    for k, axis in enumerate(named):
        pads[axis] = (flat[k], flat[k + len(named)])
    return pads


def _unshuffled(call: Call, layout: Layout, tensor: Tensor, pads: Cells) -> tuple[Layout, Tensor]:
    """Padded axes must not be shuffled."""
    if any(any(pads[axis]) for axis, _ in layout.orders):
        plain = call.take(0, layout.without_orders())
        return plain.layout, plain.tensor
    return layout, tensor


def _cut(ctx: Lowering, x: Tensor, cells: Cells, name: str) -> Tensor:
    """Remove the cells that negative pads take away."""
    if all(a >= 0 and b >= 0 for a, b in cells):
        return x
    begin = [max(-a, 0) for a, _ in cells]
    shape = tuple(
        d if d is None else d + min(a, 0) + min(b, 0) for d, (a, b) in zip(x.shape, cells, strict=True)
    )
    y = ctx.program.tensor(name, x.type, shape, x.quantization)
    size = [-1 if d is None else d for d in shape]
    ctx.program.add("SLICE", [x, ctx.ints(begin), ctx.ints(size)], [y])
    return y


def _mirrors(shape: Shape, cells: Cells) -> bool:
    """MIRROR_PAD reflects at most size - 1 cells."""
    return (
        all(d is None or max(c) <= d - 1 for d, c in zip(shape, cells, strict=True))
        and len(shape) <= MAX_RANK
    )


def _mirror(ctx: Lowering, x: Tensor, cells: Cells, name: str) -> Tensor:
    if not any(a or b for a, b in cells):
        return x
    shape = tuple(None if d is None else d + a + b for d, (a, b) in zip(x.shape, cells, strict=True))
    y = ctx.program.tensor(name, x.type, shape, x.quantization)
    paddings = ctx.program.constant("paddings", np.asarray(cells, np.int32))
    ctx.program.add("MIRROR_PAD", [x, paddings], [y], {"mode": int(MirrorPadMode.REFLECT)})
    return y


def _gathered(ctx: Lowering, x: Tensor, cells: Cells, mode: str, name: str) -> Tensor:
    """Padding as the copying that it is: rows of each axis by index."""
    numpy_mode = {"edge": "edge", "wrap": "wrap", "reflect": "reflect"}.get(mode)
    if numpy_mode is None:
        raise RefusalError(f"it pads in mode {mode!r}")
    for position, (a, b) in enumerate(cells):
        size = x.shape[position]
        if not (a or b):
            continue
        if size is None:
            raise RefusalError("it pads the batch axis")
        index = np.pad(np.arange(size), (a, b), mode=numpy_mode)  # type: ignore[call-overload]
        x = ctx.gather(x, position, index, name)
    return x
