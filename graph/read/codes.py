"""Codes and the real numbers that they stand for: ``real = (code - zero) * scale``."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx_ir as ir

from edgec.graph.errors import UnsupportedError
from edgec.graph.views import attribute, constant

Array = np.ndarray[Any, np.dtype[Any]]
_SIX = 6.0


@dataclass(frozen=True, eq=False)
class Params:
    """Scale and zero point, of all codes or one per entry of ``axis``; ``block``: so many entries along it share them."""

    scale: Array
    zero: Array
    axis: int | None = None
    block: int = 0

    def along(self, axis: int) -> Params:
        """The same, one per entry of ``axis`` where there are several."""
        return replace(self, axis=axis)

    def times(self, factor: Array | np.float32) -> Params:
        """With another scale: that of a product."""
        return replace(self, scale=self.scale * factor)

    def without_zero(self) -> Params:
        return replace(self, zero=np.zeros((), np.int32))


def params_of(node: ir.Node) -> Params:
    """Of a QuantizeLinear or DequantizeLinear. Raises UnsupportedError where they are computed."""
    scale = constant(node.inputs[1])
    given = node.inputs[2] if len(node.inputs) > 2 else None
    zero = np.zeros((), np.uint8) if given is None else constant(given)
    if scale is None or zero is None:
        where = f"node {node.name!r} ({node.op_type})"
        raise UnsupportedError(
            "this quantised network cannot be dequantised", where=where, why="its scale is computed"
        )
    return Params(
        scale.astype(np.float32), zero, attribute(node, "axis", 1), attribute(node, "block_size", 0)
    )


def dequantised(codes: Array, params: Params) -> Array:
    """Real numbers of constant codes, float32."""
    scale, zero = (_spread(part, codes, params) for part in (params.scale, params.zero))
    real = (codes.astype(np.float64) - zero.astype(np.float64)) * scale.astype(np.float64)
    return np.asarray(real, np.float32)


def _spread(numbers: Array, codes: Array, params: Params) -> Array:
    """``numbers`` so that they broadcast against ``codes``."""
    if numbers.size == 1 or params.axis is None:
        return numbers.reshape(()) if numbers.size == 1 else numbers
    axis = params.axis % codes.ndim
    if params.block:
        return np.repeat(numbers, params.block, axis=axis).take(range(codes.shape[axis]), axis=axis)
    if numbers.ndim > 1:
        return numbers
    return spread(numbers, axis, codes.ndim)


def spread(scales: Array, axis: int | None, rank: int) -> Array:
    """``scales``, one per entry of ``axis`` or one in all, so that they broadcast against an array of ``rank`` axes."""
    return scales if axis is None else scales.reshape([-1 if i == axis else 1 for i in range(rank)])


def swallowed(params: Params) -> tuple[float, float | None] | None:
    """Bounds of the activation that these parameters make void: none below 0, and 6 where the codes end there.

    Quantisers take a Relu out where the lowest code is 0; from symmetric codes nothing can be told, and None is given.
    """
    if params.zero.size != 1 or params.zero.dtype.kind not in "iu" or params.zero.dtype == np.int32:
        return None
    limits = np.iinfo(params.zero.dtype)
    if int(params.zero.reshape(())) != limits.min:
        return None
    step = float(params.scale.reshape(()))
    top = step * (limits.max - limits.min)
    return (0.0, _SIX if abs(top - _SIX) <= step else None)
