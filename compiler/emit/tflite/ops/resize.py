"""Resize: by TFLite's operators where one of their coordinate rules gives the same map, by GATHER otherwise.

ONNX has six coordinate rules and four roundings, TFLite three rules. Which of them coincide depends on the sizes too,
so the maps themselves are compared: source cells for nearest, interpolation weights for linear.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from edgec.compiler.emit.tflite.call import Call
from edgec.compiler.emit.tflite.context import Lowering, Refusal
from edgec.compiler.emit.tflite.layout import channels_last
from edgec.compiler.emit.tflite.ops.elementwise import binary_tensors
from edgec.compiler.emit.tflite.program import Tensor
from edgec.compiler.emit.tflite.registry import Registry
from edgec.graph.views import attribute, constant

Array = np.ndarray[Any, np.dtype[Any]]

RESIZE = Registry()

_RULES = (
    {"align_corners": False, "half_pixel_centers": False},
    {"align_corners": False, "half_pixel_centers": True},
    {"align_corners": True, "half_pixel_centers": False},
)


@RESIZE.register("Resize", "Upsample")
def resize(ctx: Lowering, node: ir.Node) -> None:
    """RESIZE_NEAREST_NEIGHBOR, RESIZE_BILINEAR, or GATHER along each axis."""
    mode = attribute(node, "mode", "nearest")
    if mode not in ("nearest", "linear"):
        raise Refusal(f"it interpolates by {mode!r}", "Use nearest or linear interpolation.")
    call = Call(ctx, node, moves=mode == "nearest")
    maps = _maps(call)
    changed = [axis for axis, m in enumerate(maps) if m is not None]
    if not changed:
        x = call.take(0)
        call.finish(x.tensor, x.layout)
        return
    if mode == "nearest":
        _nearest(call, maps, changed)
    else:
        _linear(call, maps, changed)


def _spatial(call: Call, changed: list[int]) -> bool:
    return len(call.in_shape()) in (3, 4) and min(changed) >= 2


def _nearest(call: Call, maps: list[Array | None], changed: list[int]) -> None:
    ctx = call.ctx
    cells = [None if m is None else np.argmax(m, axis=1) for m in maps]
    if _spatial(call, changed):
        for rule in _RULES:
            if all(np.array_equal(cells[a], _tflite_nearest(*_sizes(call, a), rule)) for a in changed):
                _emit(call, "RESIZE_NEAREST_NEIGHBOR", rule)
                return
    x = call.take(0)
    if any(axis in changed for axis, _ in x.layout.orders):
        x = call.take(0, x.layout.without_orders())
    tensor = x.tensor
    for axis in changed:
        index = cells[axis]
        if index is not None:
            tensor = ctx.gather(tensor, x.layout.position(axis), index, call.name)
    call.finish(tensor, x.layout)


def _linear(call: Call, maps: list[Array | None], changed: list[int]) -> None:
    for rule in _RULES if _spatial(call, changed) else ():
        if all(np.allclose(maps[a], _tflite_linear(*_sizes(call, a), rule), atol=1e-5) for a in changed):
            _emit(call, "RESIZE_BILINEAR", rule)
            return
    _interpolated(call, maps, changed)


def _interpolated(call: Call, maps: list[Array | None], changed: list[int]) -> None:
    """Any other linear map: two GATHERs along each axis, weighted and added, on real numbers."""
    ctx = call.ctx
    if call.quantised:
        call = Call(ctx, call.node, real=True)
    x = call.take(0)
    if any(axis in changed for axis, _ in x.layout.orders):
        x = call.take(0, x.layout.without_orders())
    tensor = x.tensor
    for axis in changed:
        matrix = maps[axis]
        if matrix is None:
            continue
        position = x.layout.position(axis)
        low = np.argmax(matrix > 0, axis=1)
        high = np.minimum(low + 1, matrix.shape[1] - 1)
        share = np.where(high > low, matrix[np.arange(len(low)), high], 0.0)
        parts = [
            binary_tensors(
                ctx, "MUL", ctx.gather(tensor, position, cells, call.name), _along(ctx, weight, position, tensor), call.name
            )
            for cells, weight in ((low, 1 - share), (high, share))
        ]
        tensor = binary_tensors(ctx, "ADD", parts[0], parts[1], call.name)
    call.finish(tensor, x.layout)


def _along(ctx: Lowering, weight: Array, position: int, like: Tensor) -> Tensor:
    shape = [-1 if p == position else 1 for p in range(len(like.shape))]
    return ctx.program.constant("weights", weight.astype(np.float32).reshape(shape))


def _sizes(call: Call, axis: int) -> tuple[int, int]:
    return int(call.in_shape()[axis] or 1), int(call.out_shape()[axis] or 1)


def _emit(call: Call, code: str, rule: dict[str, bool]) -> None:
    ctx, rank = call.ctx, len(call.in_shape())
    x = call.take(0, channels_last(rank), free=(1,))
    layout = channels_last(rank).with_orders({1: x.layout.order_of(1)})
    y = call.tensor(layout, like=x.tensor)
    size = ctx.ints([int(d or 1) for d in layout.shape(call.out_shape())[1:3]])
    ctx.program.add(code, [x.tensor, size], [y], dict(rule))
    call.finish(y, layout)


def _maps(call: Call) -> list[Array | None]:
    """For every axis the matrix (out, in) that resizes it, None where nothing changes."""
    node = call.node
    shape, out_shape = call.in_shape(), call.out_shape()
    scales = _scales(call)
    coordinates = attribute(node, "coordinate_transformation_mode", "half_pixel")
    if node.op_type == "Upsample":
        coordinates = "asymmetric"
    if coordinates == "tf_crop_and_resize":
        raise Refusal("it crops (tf_crop_and_resize)", "Crop with a Slice and resize what is left.")
    maps: list[Array | None] = []
    for axis, (size, out, scale) in enumerate(zip(shape, out_shape, scales, strict=True)):
        if size is None or out is None or (size == out and scale == 1.0):
            maps.append(None)
            continue
        if attribute(node, "antialias", 0) and scale < 1:
            raise Refusal("it shrinks with antialias", "Use an average pool, or resize without antialias.")
        at = _source(np.arange(out, dtype=np.float32), size, out, np.float32(scale), coordinates, axis)
        maps.append(_matrix(at, size, node))
    return maps


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
        raise Refusal(f"a scale of {scale} gives {size * scale:g} cells, {out} after rounding", "Resize by sizes.")


def _source(x: Array, size: int, out: int, scale: np.float32, rule: str, axis: int) -> Array:
    """Where ONNX reads for output cells ``x``, in cells of the source."""
    half = np.float32(0.5)
    if rule == "asymmetric":
        return x / scale
    if rule == "align_corners":
        return x * np.float32((size - 1) / (out - 1)) if out > 1 else np.zeros_like(x)
    if rule == "pytorch_half_pixel" and out == 1:
        return np.zeros_like(x)
    if rule in ("half_pixel", "pytorch_half_pixel"):
        return (x + half) / scale - half
    if rule == "half_pixel_symmetric":
        adjustment = np.float32(out) / (scale * np.float32(size))
        return np.float32(size / 2) * (1 - adjustment) + (x + half) / scale - half
    raise Refusal(f"its coordinate rule {rule!r} is not known (axis {axis})")


def _matrix(at: Array, size: int, node: ir.Node) -> Array:
    matrix = np.zeros((len(at), size), np.float64)
    rows = np.arange(len(at))
    if attribute(node, "mode", "nearest") == "nearest":
        default = "floor" if node.op_type == "Upsample" else "round_prefer_floor"
        rounded = {
            "round_prefer_floor": lambda v: np.ceil(v - np.float32(0.5)),
            "round_prefer_ceil": lambda v: np.floor(v + np.float32(0.5)),
            "floor": np.floor,
            "ceil": np.ceil,
        }[attribute(node, "nearest_mode", default)](at)
        matrix[rows, np.clip(rounded, 0, size - 1).astype(int)] = 1
        return matrix
    return _lerp(at, size)


def _lerp(at: Array, size: int) -> Array:
    at = np.clip(at.astype(np.float64), 0, size - 1)
    low = np.floor(at).astype(int)
    matrix = np.zeros((len(at), size), np.float64)
    rows = np.arange(len(at))
    np.add.at(matrix, (rows, low), 1 - (at - low))
    np.add.at(matrix, (rows, np.minimum(low + 1, size - 1)), at - low)
    return matrix


def _tflite_scale(size: int, out: int, rule: dict[str, bool]) -> np.float32:
    if rule["align_corners"] and out > 1:
        return np.float32((size - 1) / (out - 1))
    return np.float32(size / out)


def _tflite_nearest(size: int, out: int, rule: dict[str, bool]) -> Array:
    """Source cells of RESIZE_NEAREST_NEIGHBOR."""
    offset = np.float32(0.5 if rule["half_pixel_centers"] else 0.0)
    at = (np.arange(out, dtype=np.float32) + offset) * _tflite_scale(size, out, rule)
    cell = np.floor(at + np.float32(0.5)) if rule["align_corners"] else np.floor(at)
    return np.clip(cell, 0, size - 1).astype(int)


def _tflite_linear(size: int, out: int, rule: dict[str, bool]) -> Array:
    """Weights of RESIZE_BILINEAR."""
    x, scale = np.arange(out, dtype=np.float32), _tflite_scale(size, out, rule)
    if rule["half_pixel_centers"]:
        return _lerp((x + np.float32(0.5)) * scale - np.float32(0.5), size)
    return _lerp(x * scale, size)
