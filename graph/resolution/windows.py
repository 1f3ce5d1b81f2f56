"""Convolutions, pools, resizing: what slides over a map, or changes how fine it is."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import onnx_ir as ir

from edgec.graph.resolution.axes import Axes, Axis, Factor, Side, fixed, refused
from edgec.graph.resolution.trace import Rule, Walk, integers, side_at
from edgec.graph.views import attribute, constant, shape_of


def _check_channels(walk: Walk, node: ir.Node) -> Axes:
    axes = walk.axes(node.inputs[0])
    if axes[1].follows:
        raise refused(node, f"it reads an axis of {axes[1].old} as channels, and that follows the size")
    return axes


def _windows(size: int, kernel: int, stride: int, dilation: int, pads: int, ceil: bool) -> int:
    room = size + pads - dilation * (kernel - 1) - 1
    if room < 0:
        return 0
    return (-(-room // stride) if ceil else room // stride) + 1


def _slid(walk: Walk, node: ir.Node, kernel: Sequence[int], out: int, *, whole: bool) -> Axes:
    """``out``: channels. ``whole``: a window that covers the whole map at the source's size covers it at any."""
    axes = _check_channels(walk, node)
    rank = len(kernel)
    strides = attribute(node, "strides", (1,) * rank)
    dilations = attribute(node, "dilations", (1,) * rank)
    pads = attribute(node, "pads", (0,) * 2 * rank)
    ceil = bool(attribute(node, "ceil_mode", 0))
    if attribute(node, "auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        raise refused(node, "its padding is not written out")
    found, covering = [], list(kernel)
    for i, axis in enumerate(axes[2:]):
        pad = pads[i] + pads[i + rank]
        if not axis.follows:
            size = _windows(axis.old, kernel[i], strides[i], dilations[i], pad, ceil)
            found.append(Axis.of(fixed(size)))
            continue
        covers = pad == 0 and dilations[i] == 1 and kernel[i] == axis.old and axis.old > 1
        if covers and whole:
            covering[i] = axis.new
            found.append(Axis.of(fixed(1)))
            continue
        if covers and axis.new != axis.old:
            why = f"its {_by(kernel)} kernel covers the whole map: its weights are made for that size"
            raise refused(node, why)
        sizes = [_windows(one, kernel[i], strides[i], dilations[i], pad, ceil) for one in axis.sizes]
        if sizes[0] == 1 < axis.old and sizes[1] != 1:
            why = f"its {_by(kernel)} window leaves one place of the map, and {sizes[1]} at this size"
            raise refused(node, why)
        found.append(axis.scaled(sizes[0], sizes[1], Fraction(strides[i])))
    if covering != list(kernel):
        walk.edit_attribute(node, "kernel_shape", tuple(covering))
        strided = [
            1 if new != old else step for new, old, step in zip(covering, kernel, strides, strict=True)
        ]
        walk.edit_attribute(node, "strides", tuple(strided))
    return (axes[0], Axis.of(fixed(out)), *found)


def _conv(walk: Walk, node: ir.Node) -> None:
    weight = shape_of(node.inputs[1])
    if walk.follows(node.inputs[1]):
        raise refused(node, "its weights follow the size")
    kernel = [int(one or 0) for one in weight[2:]]
    walk.set(node.outputs[0], _slid(walk, node, kernel, int(weight[0] or 0), whole=False))


def _pool(walk: Walk, node: ir.Node) -> None:
    channels = _check_channels(walk, node)[1].old
    axes = _slid(walk, node, attribute(node, "kernel_shape", ()), channels, whole=True)
    for value in node.outputs:
        walk.set(value, axes)


def _global_pool(walk: Walk, node: ir.Node) -> None:
    axes = _check_channels(walk, node)
    walk.set(node.outputs[0], (*axes[:2], *(Axis.of(fixed(1)) for _ in axes[2:])))


def _transposed(walk: Walk, node: ir.Node) -> None:
    axes = _check_channels(walk, node)
    weight = shape_of(node.inputs[1])
    kernel = [int(one or 0) for one in weight[2:]]
    rank = len(kernel)
    strides = attribute(node, "strides", (1,) * rank)
    dilations = attribute(node, "dilations", (1,) * rank)
    pads = attribute(node, "pads", (0,) * 2 * rank)
    more = attribute(node, "output_padding", (0,) * rank)
    if "output_shape" in node.attributes or attribute(node, "auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        raise refused(node, "its output's size is written into it")
    found = []
    for i, axis in enumerate(axes[2:]):
        beyond = more[i] + dilations[i] * (kernel[i] - 1) + 1 - pads[i] - pads[i + rank]
        old, new = (strides[i] * (one - 1) + beyond for one in axis.sizes)
        found.append(axis.scaled(old, new, Fraction(1, strides[i])) if axis.follows else Axis.of(fixed(old)))
    channels = int(weight[1] or 0) * attribute(node, "group", 1)
    walk.set(node.outputs[0], (axes[0], Axis.of(fixed(channels)), *found))


def _resize(walk: Walk, node: ir.Node) -> None:
    """A whole scale stays; a size is that of the map that it was, or stays in proportion."""
    axes = walk.axes(node.inputs[0])
    over = [axis % len(axes) for axis in attribute(node, "axes", tuple(range(len(axes))))]
    if attribute(node, "keep_aspect_ratio_policy", "stretch") != "stretch" or integers(node, 1):
        raise refused(node, "it keeps the aspect ratio, or crops")
    sizes = integers(node, 3)
    scales = None if sizes else _numbers(node, 2)
    result = list(axes)
    for i, axis in enumerate(over):
        out = node.outputs[0].shape
        target = out[axis] if out is not None else None
        if axes[axis].batch or not isinstance(target, int):
            continue
        side = side_at(axis, len(axes))
        scale = None if scales is None else scales[i]
        result[axis] = _resized(walk, node, axes[axis], target, scale, side)
    if sizes is not None:
        _edit_sizes(walk, node, over, result)
    elif scales is not None:
        told = [_scale(axes[axis], result[axis], scales[i]) for i, axis in enumerate(over)]
        if told != scales:
            walk.edit(node, 2, np.asarray(told, np.float32))
    walk.set(node.outputs[0], tuple(result))


def _resized(walk: Walk, node: ir.Node, axis: Axis, target: int, scale: float | None, side: Side) -> Axis:
    if not axis.follows:
        known = walk.level(side, target) or walk.level("", target) if target != axis.old else None
        return known or Axis.of(fixed(target))
    factor = axis.sole
    if factor is None:
        raise refused(node, "it resizes an axis that several were merged into")
    step = Fraction(axis.old, target)
    if scale is not None and (scale == int(scale) or 1 / scale == int(1 / scale)):
        return axis.scaled(target, int(np.floor(axis.new * scale + 1e-6)), step)
    known = walk.level(factor.side, target)
    if known is not None:
        return Axis.of(Factor(target, known.new, factor.side, factor.stride * step))
    if target % axis.old == 0 or axis.old % target == 0 or scale is not None:
        return axis.scaled(target, max(1, round(axis.new * target / axis.old)), step)
    raise refused(node, f"it resizes {axis.old} to {target}, which is no map's size and no whole multiple")


def _edit_sizes(walk: Walk, node: ir.Node, over: Sequence[int], result: Sequence[Axis]) -> None:
    given = integers(node, 3) or []
    told = [old if result[axis].batch else result[axis].new for axis, old in zip(over, given, strict=True)]
    if told != given:
        walk.edit(node, 3, told)


def _scale(before: Axis, after: Axis, scale: float) -> float:
    if before.batch or int(np.floor(before.new * scale + 1e-6)) == after.new:
        return scale
    return after.new / before.new


def _numbers(node: ir.Node, index: int) -> list[float]:
    value = node.inputs[index] if index < len(node.inputs) else None
    array = constant(value)
    if array is None:
        raise refused(node, "one of its settings is computed from sizes")
    return [float(one) for one in array.reshape(-1)]


def _to_space(walk: Walk, node: ir.Node) -> None:
    axes, block = _check_channels(walk, node), attribute(node, "blocksize", 1)
    channels = Axis.of(fixed(axes[1].old // block**2))
    grown = [axis.scaled(axis.old * block, axis.new * block, Fraction(1, block)) for axis in axes[2:]]
    walk.set(node.outputs[0], (axes[0], channels, *grown))


def _to_depth(walk: Walk, node: ir.Node) -> None:
    axes, block = _check_channels(walk, node), attribute(node, "blocksize", 1)
    if any(axis.new % block for axis in axes[2:]):
        raise refused(node, f"the map cannot be cut into squares of {block}")
    channels = Axis.of(fixed(axes[1].old * block**2))
    shrunk = [axis.scaled(axis.old // block, axis.new // block, Fraction(block)) for axis in axes[2:]]
    walk.set(node.outputs[0], (axes[0], channels, *shrunk))


def _by(sizes: Sequence[int]) -> str:
    return "x".join(map(str, sizes))


RULES: dict[str, Rule] = {
    "Conv": _conv,
    "ConvTranspose": _transposed,
    **dict.fromkeys(("AveragePool", "MaxPool", "LpPool"), _pool),
    **dict.fromkeys(("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"), _global_pool),
    "Resize": _resize,
    "DepthToSpace": _to_space,
    "SpaceToDepth": _to_depth,
}
