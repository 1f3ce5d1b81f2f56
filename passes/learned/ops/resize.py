"""Resize: along each axis a choice of cells, or a product with a matrix of weights, made when the node is built.

Coordinates and weights are those of the ONNX specification (Resize, opset 19).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor

from edgec.graph.views import attribute, shape_of
from edgec.passes.learned.ops.op import Array, Op, Table, refuse, static

ROUNDED: dict[str, Callable[[Any], Any]] = {
    "round_prefer_floor": lambda x: np.ceil(x - 0.5),
    "round_prefer_ceil": lambda x: np.floor(x + 0.5),
    "floor": np.floor,
    "ceil": np.ceil,
}


@dataclass(frozen=True)
class Axis:
    """One axis that changes its size: ``weights`` (new, old), or with ``places`` the cell that each new one copies."""

    axis: int
    places: Array | None = None
    weights: Array | None = None

    def apply(self, x: Tensor) -> Tensor:
        if self.places is not None:
            return self._copied(x, self.places)
        weights = torch.from_numpy(self.weights).to(x)
        made: Tensor = torch.tensordot(x, weights, dims=([self.axis], [1]))
        return made.movedim(-1, self.axis)

    def _copied(self, x: Tensor, places: Array) -> Tensor:
        size = x.shape[self.axis]
        times, rest = divmod(len(places), size)
        if not rest and np.array_equal(places, np.arange(len(places)) // times):
            wide = x.unsqueeze(self.axis + 1).expand(
                *x.shape[: self.axis + 1], times, *x.shape[self.axis + 1 :]
            )
            return wide.flatten(self.axis, self.axis + 1)
        return x.index_select(self.axis, torch.from_numpy(places).to(x.device))


def resize(x: Tensor, *, axes: tuple[Axis, ...]) -> Tensor:
    for axis in axes:
        x = axis.apply(x)
    return x


def _resize(node: ir.Node) -> Op:
    before, after = shape_of(node.inputs[0]), shape_of(node.outputs[0])
    rank = len(before)
    axes = [axis % rank for axis in attribute(node, "axes", tuple(range(rank)))]
    scales, roi = static(node, 2), static(node, 1)
    rule = attribute(node, "coordinate_transformation_mode", "half_pixel")
    mode = attribute(node, "mode", "nearest")
    crops = rule == "tf_crop_and_resize"
    found = []
    for place, axis in enumerate(axes):
        old, new = before[axis], after[axis]
        if old == new and not crops and (scales is None or not len(scales) or scales[place] == 1):
            continue
        if old is None or new is None:
            refuse(node, f"the size of axis {axis} is not known")
        scale = (
            float(scales[place])
            if scales is not None and len(scales)
            else _fitted(node, before, after, axes, axis)
        )
        region = (0.0, 1.0)
        if crops:
            if roi is None or not len(roi):
                refuse(node, "it has no region to crop")
            region = (float(roi[place]), float(roi[place + len(axes)]))
        at = _coordinates(node, rule, old, new, scale, region)
        outside = (at < 0) | (at > old - 1) if crops else None
        if outside is not None and outside.any():
            refuse(node, "its region reaches beyond the map")
        if mode == "nearest":
            rounded = ROUNDED[attribute(node, "nearest_mode", "round_prefer_floor")](at)
            found.append(Axis(axis, places=np.clip(rounded, 0, old - 1).astype(np.int64)))
        else:
            found.append(Axis(axis, weights=_weights(node, mode, at, old, scale)))
    return Op(partial(resize, axes=tuple(found)))


def _fitted(
    node: ir.Node, before: tuple[int | None, ...], after: tuple[int | None, ...], axes: list[int], axis: int
) -> float:
    """The scale that sizes stand for; where the proportions are kept, one for all axes."""
    old, new = before[axis], after[axis]
    policy = attribute(node, "keep_aspect_ratio_policy", "stretch")
    if policy == "stretch" or old is None or new is None:
        return (new or 1) / (old or 1)
    wanted = static(node, 3)
    if wanted is None:
        refuse(node, "it has neither scales nor sizes")
    ratios = [float(size) / (before[one] or 1) for one, size in zip(axes, wanted, strict=True)]
    return min(ratios) if policy == "not_larger" else max(ratios)


def _coordinates(
    node: ir.Node, rule: str, old: int, new: int, ratio: float, region: tuple[float, float]
) -> Array:
    """Where each new cell lies among the old ones; in float32, as runtimes compute it: halves are rounded alike."""
    place, scale, half = np.arange(new, dtype=np.float32), np.float32(ratio), np.float32(0.5)
    alone = np.zeros(1, np.float32)
    if rule == "half_pixel":
        return (place + half) / scale - half
    if rule == "half_pixel_symmetric":
        offset = np.float32(old / 2) * (1 - np.float32(new) / (scale * np.float32(old)))
        return offset + (place + half) / scale - half
    if rule == "pytorch_half_pixel":
        return (place + half) / scale - half if new > 1 else alone
    if rule == "align_corners":
        return place * np.float32(old - 1) / np.float32(new - 1) if new > 1 else alone
    if rule == "asymmetric":
        return place / scale
    if rule != "tf_crop_and_resize":
        refuse(node, f"its coordinates are {rule!r}")
    low, high = (np.float32(one) for one in region)
    if new == 1:
        return alone + half * (low + high) * (old - 1)
    return low * (old - 1) + place * (high - low) * (old - 1) / (new - 1)


def _weights(node: ir.Node, mode: str, at: Array, old: int, scale: float) -> Array:
    """(new, old): linear or cubic, wider where the map shrinks and ``antialias`` is set."""
    if mode not in ("linear", "cubic"):
        refuse(node, f"its mode is {mode!r}")
    slope = attribute(node, "cubic_coeff_a", -0.75)
    shrink = min(scale, 1.0) if attribute(node, "antialias", 0) else 1.0
    reach = (1.0 if mode == "linear" else 2.0) / shrink
    excluded = bool(attribute(node, "exclude_outside", 0))
    made = np.zeros((len(at), old))
    for row, centre in enumerate(at):
        cells = np.arange(math.floor(centre - reach), math.ceil(centre + reach) + 1)
        distance = np.abs(cells - centre) * shrink
        weights = np.maximum(1 - distance, 0) if mode == "linear" else _cubic(distance, slope)
        if excluded:
            weights = np.where((cells >= 0) & (cells < old), weights, 0.0)
        weights = weights / weights.sum()
        np.add.at(made[row], np.clip(cells, 0, old - 1), weights)
    return made.astype(np.float32)


def _cubic(distance: Array, a: float) -> Array:
    """Keys' kernel ("Cubic convolution interpolation for digital image processing", 1981)."""
    near = (a + 2) * distance**3 - (a + 3) * distance**2 + 1
    far = a * distance**3 - 5 * a * distance**2 + 8 * a * distance - 4 * a
    return np.where(distance <= 1, near, np.where(distance < 2, far, 0.0))


OPS: Table = {"Resize": _resize}
