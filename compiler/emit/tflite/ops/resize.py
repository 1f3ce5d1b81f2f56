"""Resize: by TFLite's operators where one of their coordinate rules gives the same map, by GATHER otherwise.

ONNX has six coordinate rules and four roundings, TFLite three rules. Which of them coincide depends on the sizes too,
so the maps themselves are compared (`interpolation`).
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import onnx_ir as ir

from edgec.compiler.emit.tflite.call import Call
from edgec.compiler.emit.tflite.context import Lowering, Placed, RefusalError
from edgec.compiler.emit.tflite.interpolation import (
    COORDINATES,
    TFLITE_RULES,
    TfliteRule,
    lerp,
    nearest_cells,
    source_positions,
)
from edgec.compiler.emit.tflite.layout import channels_last
from edgec.compiler.emit.tflite.ops.elementwise import binary_tensors
from edgec.compiler.emit.tflite.program import Tensor
from edgec.compiler.emit.tflite.registry import Registry
from edgec.graph.views import attribute, constant

Array = np.ndarray[Any, np.dtype[Any]]

RESIZE = Registry()


@RESIZE.register("Resize", "Upsample")
def resize(ctx: Lowering, node: ir.Node) -> None:
    """RESIZE_NEAREST_NEIGHBOR, RESIZE_BILINEAR, or GATHER along each axis."""
    mode = attribute(node, "mode", "nearest")
    if mode not in ("nearest", "linear"):
        raise RefusalError(f"it interpolates by {mode!r}", "Use nearest or linear interpolation.")
    call = Call(ctx, node, moves=mode == "nearest")
    positions = _positions(call)
    if not positions:
        x = call.take(0)
        call.finish(x.tensor, x.layout)
    elif mode == "nearest":
        _nearest(call, positions)
    else:
        _linear(call, positions)


def _nearest(call: Call, positions: dict[int, Array]) -> None:
    default = "floor" if call.node.op_type == "Upsample" else "round_prefer_floor"
    rounding = attribute(call.node, "nearest_mode", default)
    cells = {axis: nearest_cells(at, _sizes(call, axis)[0], rounding) for axis, at in positions.items()}
    if _spatial(call, positions):
        for rule in TFLITE_RULES:
            if all(np.array_equal(cells[axis], rule.nearest(*_sizes(call, axis))) for axis in cells):
                _emit(call, "RESIZE_NEAREST_NEIGHBOR", rule)
                return
    x = _unshuffled(call, positions)
    tensor = x.tensor
    for axis, index in cells.items():
        tensor = call.ctx.gather(tensor, x.layout.position(axis), index, call.name)
    call.finish(tensor, x.layout)


def _linear(call: Call, positions: dict[int, Array]) -> None:
    maps = {axis: lerp(at, _sizes(call, axis)[0]) for axis, at in positions.items()}
    for rule in TFLITE_RULES if _spatial(call, positions) else ():
        if all(np.allclose(maps[axis], rule.linear(*_sizes(call, axis)), atol=1e-5) for axis in maps):
            _emit(call, "RESIZE_BILINEAR", rule)
            return
    _interpolated(call, maps)


def _interpolated(call: Call, maps: dict[int, Array]) -> None:
    """Any other linear map: two GATHERs along each axis, weighted and added, on real numbers."""
    ctx = call.ctx
    call = Call(ctx, call.node, real=True)
    x = _unshuffled(call, maps)
    tensor = x.tensor
    for axis, matrix in maps.items():
        position = x.layout.position(axis)
        low = np.argmax(matrix > 0, axis=1)
        high = np.minimum(low + 1, matrix.shape[1] - 1)
        share = np.where(high > low, matrix[np.arange(len(low)), high], 0.0)
        parts = []
        for cells, weight in ((low, 1 - share), (high, share)):
            rows = ctx.gather(tensor, position, cells, call.name)
            factor = _along(ctx, weight, position, len(rows.shape))
            parts.append(binary_tensors(ctx, "MUL", rows, factor, call.name))
        tensor = binary_tensors(ctx, "ADD", parts[0], parts[1], call.name)
    call.finish(tensor, x.layout)


def _along(ctx: Lowering, weight: Array, position: int, rank: int) -> Tensor:
    shape = [-1 if p == position else 1 for p in range(rank)]
    return ctx.program.constant("weights", weight.astype(np.float32).reshape(shape))


def _unshuffled(call: Call, changed: dict[int, Array]) -> Placed:
    x = call.take(0)
    if any(axis in changed for axis, _ in x.layout.orders):
        x = call.take(0, x.layout.without_orders())
    return x


def _spatial(call: Call, changed: dict[int, Array]) -> bool:
    return len(call.in_shape()) in (3, 4) and min(changed) >= 2


def _sizes(call: Call, axis: int) -> tuple[int, int]:
    return int(call.in_shape()[axis] or 1), int(call.out_shape()[axis] or 1)


def _emit(call: Call, code: str, rule: TfliteRule) -> None:
    ctx, rank = call.ctx, len(call.in_shape())
    x = call.take(0, channels_last(rank), free=(1,))
    layout = channels_last(rank).with_orders({1: x.layout.order_of(1)})
    y = call.tensor(layout, like=x.tensor)
    size = ctx.ints([int(d or 1) for d in layout.shape(call.out_shape())[1:3]])
    ctx.program.add(code, [x.tensor, size], [y], asdict(rule))
    call.finish(y, layout)


def _positions(call: Call) -> dict[int, Array]:
    """For every axis that changes, where ONNX reads."""
    node = call.node
    rule = attribute(node, "coordinate_transformation_mode", "half_pixel")
    if node.op_type == "Upsample":
        rule = "asymmetric"
    if rule not in COORDINATES:
        raise RefusalError(f"its coordinate rule is {rule!r}", "Crop with a Slice and resize what is left.")
    found: dict[int, Array] = {}
    shapes = zip(call.in_shape(), call.out_shape(), _scales(call), strict=True)
    for axis, (size, out, scale) in enumerate(shapes):
        if size is None or out is None or (size == out and scale == 1.0):
            continue
        if attribute(node, "antialias", 0) and scale < 1:
            raise RefusalError(
                "it shrinks with antialias", "Use an average pool, or resize without antialias."
            )
        found[axis] = source_positions(size, out, scale, rule)
    return found


def _scales(call: Call) -> list[float]:
    """The factor of every axis, as ONNX's coordinate formulas use it."""
    node, shape, out_shape = call.node, call.in_shape(), call.out_shape()
    ratio = [1.0 if s is None or o is None else o / s for s, o in zip(shape, out_shape, strict=True)]
    index = 1 if node.op_type == "Upsample" else 2
    axes = [a % len(shape) for a in attribute(node, "axes", tuple(range(len(shape))))]
    given = constant(node.inputs[index]) if len(node.inputs) > index else None
    if given is not None and given.size:
        for axis, scale in zip(axes, given.reshape(-1), strict=True):
            _check_length(node, shape[axis], out_shape[axis], float(scale))
            ratio[axis] = float(scale)
        return ratio
    policy = attribute(node, "keep_aspect_ratio_policy", "stretch")
    sizes = constant(node.inputs[3]) if len(node.inputs) > 3 else None
    if policy != "stretch" and sizes is not None:
        wanted = [float(s) / (shape[a] or 1) for a, s in zip(axes, sizes.reshape(-1), strict=True)]
        common = min(wanted) if policy == "not_larger" else max(wanted)
        for axis in axes:
            ratio[axis] = common
    return ratio


def _check_length(node: ir.Node, size: int | None, out: int | None, scale: float) -> None:
    """With align_corners ONNX's text and onnxruntime part where a scale gives a broken length."""
    aligned = attribute(node, "coordinate_transformation_mode", "half_pixel") == "align_corners"
    if aligned and size is not None and out is not None and abs(size * scale - out) > 1e-3:
        raise RefusalError(f"a scale of {scale} gives {size * scale:g} cells, not {out}", "Resize by sizes.")
