"""Weights and biases as codes: symmetric per output channel, bias in int32 at the accumulator's scale."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from edgec.graph.read.codes import spread

Array = np.ndarray[Any, np.dtype[Any]]

BIAS_LIMIT = float(2**30)
"""A bias code never takes more than half of the int32 accumulator."""


@dataclass(frozen=True)
class QuantisedWeight:
    """``codes`` int8; ``scales`` float32, one per index of ``axis`` (shape ()) for one scale in all)."""

    codes: Array
    scales: Array
    axis: int | None

    def dequantise(self) -> Array:
        """The weight as float32."""
        return self.codes.astype(np.float32) * spread(self.scales, self.axis, self.codes.ndim)


def weight_scales(weight: Array, axis: int | None, limit: int = 127) -> Array:
    """Symmetric min/max scales, so that the largest weight has code ``limit``; 1 for a channel of zeros."""
    axes = tuple(i for i in range(weight.ndim) if i != axis)
    peak = np.abs(weight.astype(np.float64)).max(axis=axes)
    scales = np.where(peak > 0, peak / limit, 1.0).astype(np.float32)
    return np.maximum(scales, np.float32(2.0**-100))


def guard_bias(scales: Array, bias: Array | None, input_scale: float) -> Array:
    """Raise the scale of (nearly dead) channels whose bias would not fit int32 at ``input_scale * scale``."""
    if bias is None:
        return scales
    peak = np.abs(bias) if scales.ndim else np.abs(bias).max(initial=0.0)
    least = (peak / (BIAS_LIMIT * input_scale)).astype(np.float32)
    return np.maximum(scales, least)


def quantise_weight(weight: Array, scales: Array, axis: int | None, limit: int = 127) -> QuantisedWeight:
    """Round to nearest at given scales; codes within [-limit, limit]."""
    ratio = weight.astype(np.float64) / spread(scales.astype(np.float64), axis, weight.ndim)
    codes = np.clip(np.rint(ratio), -limit, limit).astype(np.int8)
    return QuantisedWeight(codes, scales, axis)


def quantise_bias(bias: Array, input_scale: float, scales: Array) -> tuple[Array, Array]:
    """(int32 codes, float32 scales) of a bias at ``input_scale * scales``, computed as engines compute it."""
    product = np.asarray(np.float32(input_scale) * scales.astype(np.float32), np.float32)
    codes = np.rint(bias.astype(np.float64) / product.astype(np.float64))
    info = np.iinfo(np.int32)
    return np.clip(codes, info.min, info.max).astype(np.int32), product
