"""The maps behind Resize, as arrays: where ONNX reads, and where TFLite's operators read.

A map of one axis is a matrix (out, in) of weights; nearest maps have a single 1 per row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

_HALF = np.float32(0.5)

ROUNDINGS: dict[str, Callable[[Array], Array]] = {
    "round_prefer_floor": lambda v: np.asarray(np.ceil(v - _HALF)),
    "round_prefer_ceil": lambda v: np.asarray(np.floor(v + _HALF)),
    "floor": lambda v: np.asarray(np.floor(v)),
    "ceil": lambda v: np.asarray(np.ceil(v)),
}
"""ONNX's ``nearest_mode``."""

COORDINATES = ("half_pixel", "pytorch_half_pixel", "half_pixel_symmetric", "align_corners", "asymmetric")
"""ONNX's coordinate rules, but for the one that crops."""


@dataclass(frozen=True)
class TfliteRule:
    """The two flags of TFLite's resize operators."""

    align_corners: bool
    half_pixel_centers: bool

    def scale(self, size: int, out: int) -> np.float32:
        if self.align_corners and out > 1:
            return np.float32((size - 1) / (out - 1))
        return np.float32(size / out)

    def nearest(self, size: int, out: int) -> Array:
        """Source cells of RESIZE_NEAREST_NEIGHBOR."""
        offset = _HALF if self.half_pixel_centers else np.float32(0)
        at = (np.arange(out, dtype=np.float32) + offset) * self.scale(size, out)
        cell = np.floor(at + _HALF) if self.align_corners else np.floor(at)
        return np.asarray(np.clip(cell, 0, size - 1).astype(int))

    def linear(self, size: int, out: int) -> Array:
        """Weights of RESIZE_BILINEAR."""
        x, scale = np.arange(out, dtype=np.float32), self.scale(size, out)
        return lerp((x + _HALF) * scale - _HALF if self.half_pixel_centers else x * scale, size)


TFLITE_RULES = (TfliteRule(False, False), TfliteRule(False, True), TfliteRule(True, False))


def source_positions(size: int, out: int, scale: float, rule: str) -> Array:
    """Where ONNX reads for each output cell, in cells of the source."""
    x, factor = np.arange(out, dtype=np.float32), np.float32(scale)
    if rule == "asymmetric":
        return np.asarray(x / factor)
    if rule == "align_corners":
        return np.asarray(x * np.float32((size - 1) / (out - 1)) if out > 1 else np.zeros_like(x))
    if rule == "pytorch_half_pixel" and out == 1:
        return np.zeros_like(x)
    at = (x + _HALF) / factor - _HALF
    if rule == "half_pixel_symmetric":
        adjustment = np.float32(out) / (factor * np.float32(size))
        at = np.float32(size / 2) * (1 - adjustment) + at
    return np.asarray(at)


def nearest_cells(at: Array, size: int, rounding: str) -> Array:
    """Source cells of a nearest map."""
    return np.asarray(np.clip(ROUNDINGS[rounding](at), 0, size - 1).astype(int))


def lerp(at: Array, size: int) -> Array:
    """The matrix that interpolates linearly at these positions."""
    at = np.clip(at.astype(np.float64), 0, size - 1)
    low = np.floor(at).astype(int)
    matrix = np.zeros((len(at), size), np.float64)
    rows = np.arange(len(at))
    np.add.at(matrix, (rows, low), 1 - (at - low))
    np.add.at(matrix, (rows, np.minimum(low + 1, size - 1)), at - low)
    return matrix
