"""Quantised values: codes as floats, rounded on the way forward and not on the way back (straight-through, arXiv 1308.3432)."""

from __future__ import annotations

from functools import partial

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor

from edgec.graph.views import attribute
from edgec.passes.learned.ops.op import Op, Table, operand, refuse, static

LIMIT = "edgec.limit"
"""Attribute of a QuantizeLinear in front of latent weights (`learned.latent`): its largest code."""


def quantise(
    x: Tensor, scale: Tensor, zero: Tensor | None, *, axis: int, low: float | None, high: float | None
) -> Tensor:
    """Codes of ``x``. Its gradient is that of x / scale where x is in range, and 0 beyond."""
    real = x / _along(scale, axis, x.ndim)
    codes = real + (torch.round(real) - real).detach()
    if zero is not None:
        codes = codes + _along(zero.to(codes.dtype), axis, x.ndim)
    return codes if low is None else torch.clamp(codes, low, high)


def dequantise(codes: Tensor, scale: Tensor, zero: Tensor | None, *, axis: int) -> Tensor:
    """Real numbers of ``codes``, whole or as `quantise` makes them."""
    real = codes.to(scale.dtype)
    if zero is not None:
        real = real - _along(zero.to(scale.dtype), axis, codes.ndim)
    return real * _along(scale, axis, codes.ndim)


def _along(values: Tensor, axis: int, rank: int) -> Tensor:
    """One value in all, or one for each entry of ``axis``."""
    if values.numel() == 1:
        return values.reshape(())
    return values.reshape([-1 if place == axis % rank else 1 for place in range(rank)])


def _operands(node: ir.Node) -> tuple[tuple[int, ...], int]:
    scale = static(node, 1)
    if scale is None or scale.ndim > 1 or attribute(node, "block_size", 0):
        refuse(node, "its scales lie along several axes")
    reads = (0, 1, 2) if operand(node, 2) is not None else (0, 1, 9)  # 9: left out
    return reads, int(attribute(node, "axis", 1))


def _quantise(node: ir.Node) -> Op:
    reads, axis = _operands(node)
    limit = int(attribute(node, LIMIT, 0))
    low: float | None = -float(limit)
    high: float | None = float(limit)
    if not limit:
        zero = static(node, 2)
        kind = np.dtype(np.uint8) if zero is None else zero.dtype
        if kind.kind not in "iu":
            refuse(node, f"its codes are {kind}")
        low, high = (
            (None, None) if kind.itemsize > 2 else (float(np.iinfo(kind).min), float(np.iinfo(kind).max))
        )
    return Op(partial(quantise, axis=axis, low=low, high=high), reads, (0,))


def _dequantise(node: ir.Node) -> Op:
    reads, axis = _operands(node)
    return Op(partial(dequantise, axis=axis), reads)


OPS: Table = {"DequantizeLinear": _dequantise, "QuantizeLinear": _quantise}
