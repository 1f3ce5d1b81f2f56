"""Scales and zero points: how a real range becomes codes.

All zero points are kept in the signed code domain (int8: -128..127, int16: -32768..32767), whatever type the
ONNX file is written in: ``code_u8 = code_i8 + 128``, so the one table serves both artifacts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

SMALLEST_SCALE = float(np.float32(2.0**-100))
"""Keeps products of scales normal in float32; a tensor of only zeros does not get here (its scale is 1)."""


@dataclass(frozen=True)
class QParams:
    """Affine parameters of one activation tensor: ``real = scale * (code - zero_point)``, signed codes."""

    scale: float
    zero_point: int
    bits: int = 8

    def __post_init__(self) -> None:
        if not (np.isfinite(self.scale) and self.scale > 0):
            raise ValueError(f"a scale must be positive and finite, not {self.scale}")
        if not self.code_min <= self.zero_point <= self.code_max:
            raise ValueError(f"zero point {self.zero_point} is outside [{self.code_min}, {self.code_max}]")

    @property
    def code_min(self) -> int:
        return -(1 << (self.bits - 1))

    @property
    def code_max(self) -> int:
        return (1 << (self.bits - 1)) - 1

    @property
    def low(self) -> float:
        """The least real number that a code stands for."""
        return self.scale * (self.code_min - self.zero_point)

    @property
    def high(self) -> float:
        """The greatest real number that a code stands for."""
        return self.scale * (self.code_max - self.zero_point)

    def quantise(self, x: Array) -> Array:
        """Signed codes of ``x`` (round half to even, saturating), as ONNX's QuantizeLinear does it."""
        codes = np.rint(np.asarray(x, np.float32) / np.float32(self.scale)) + self.zero_point
        clipped: Array = np.clip(codes, self.code_min, self.code_max)
        return clipped.astype(np.int8 if self.bits == 8 else np.int16)

    def dequantise(self, codes: Array) -> Array:
        """Real numbers (float32) of signed ``codes``."""
        real: Array = (codes.astype(np.float32) - np.float32(self.zero_point)) * np.float32(self.scale)
        return real


PROBABILITY = QParams(1.0 / 256.0, -128)
"""TFLite's fixed output parameters of LOGISTIC and SOFTMAX."""
SIGNED_UNIT = QParams(1.0 / 128.0, 0)
"""TFLite's fixed output parameters of TANH."""


def affine(low: float, high: float, bits: int = 8, *, symmetric: bool = False) -> QParams:
    """Parameters that cover [low, high] and zero, zero being a code exactly; code 0 where ``symmetric``.

    A range that touches zero on one side
    gets a scale rounded down, so that its far end never lies outside: a Relu or Clip with these bounds is
    then void behind the quantiser and engines drop it.
    """
    low, high = min(float(low), 0.0), max(float(high), 0.0)
    if low == high:
        return QParams(1.0, 0 if low < 0 or symmetric else -(1 << (bits - 1)), bits)
    if symmetric:
        return QParams(_float32(max(-low, high) / ((1 << (bits - 1)) - 1)), 0, bits)
    levels = (1 << bits) - 1
    code_min = -(1 << (bits - 1))
    one_sided = low == 0.0 or high == 0.0
    scale = _float32((high - low) / levels, round_down=one_sided)
    zero_point = round(code_min - low / scale)
    return QParams(scale, int(np.clip(zero_point, code_min, code_min + levels)), bits)


def _float32(scale: float, *, round_down: bool = False) -> float:
    value = np.float32(max(scale, SMALLEST_SCALE))
    if round_down and float(value) > scale:
        value = np.nextafter(value, np.float32(0))
    return float(max(value, np.float32(SMALLEST_SCALE)))
