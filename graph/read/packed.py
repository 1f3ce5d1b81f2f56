"""Weights of MatMulNBits, onnxruntime's product with weights of 2, 4 or 8 bits: several codes in a byte, blocks with scales.

Its documentation: `B` (N, blocks, bytes), the lowest bits of a byte first; scales and zero points for each block of a column;
without zero points the middle code is zero; zero points are packed like codes, column by column, or real numbers.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx_ir as ir

from edgec.graph.errors import UnsupportedError
from edgec.graph.views import attribute, constant

Array = np.ndarray[Any, np.dtype[Any]]
ZEROS, ORDER, BIAS = 3, 4, 5
"""Operands; the second says to which block each row of the product belongs, where blocks are not rows in order."""
WIDTHS = (2, 4, 8)


def packed_weight(node: ir.Node) -> Array:
    """(K, N) float32: what the codes of a MatMulNBits stand for.

    Raises UnsupportedError where they are computed, reordered, of a width that does not divide a byte, or not as many as it says.
    """
    rows, columns, size = (int(attribute(node, name, 0)) for name in ("K", "N", "block_size"))
    bits = int(attribute(node, "bits", 4))
    if bits not in WIDTHS:
        raise _unknown(node, f"its weights have {bits} bits")
    if min(rows, columns, size) < 1:
        raise _unknown(node, f"its weight is {rows} x {columns} in blocks of {size}")
    if _operand(node, ORDER) is not None:
        raise _unknown(node, "the rows of its weight are reordered")
    blocks = -(-rows // size)
    codes = _stored(node, 1, (columns, blocks, -(-size * bits // 8)))
    scales = _stored(node, 2, (columns, blocks, 1)).astype(np.float32)
    real = (_codes(codes, bits)[..., :size] - _zeros(node, columns, blocks, bits)) * scales
    return np.ascontiguousarray(real.reshape(columns, -1)[:, :rows].T, np.float32)


def _zeros(node: ir.Node, columns: int, blocks: int, bits: int) -> Array:
    """(columns, blocks, 1): the code of zero in each block."""
    given = _operand(node, ZEROS)
    if given is None:
        return np.full((columns, blocks, 1), 2.0 ** (bits - 1), np.float32)
    if given.dtype == ir.DataType.UINT8:
        packed = _stored(node, ZEROS, (columns, -(-blocks * bits // 8)))
        return _codes(packed, bits)[:, :blocks, None]
    return _stored(node, ZEROS, (columns, blocks, 1)).astype(np.float32)


def _codes(packed: Array, bits: int) -> Array:
    """The last axis spread into single codes."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    single = (packed.astype(np.uint8)[..., None] >> shifts) & np.uint8(2**bits - 1)
    return single.reshape(*packed.shape[:-1], -1).astype(np.float32)


def _operand(node: ir.Node, index: int) -> ir.Value | None:
    return node.inputs[index] if index < len(node.inputs) else None


def _stored(node: ir.Node, index: int, shape: tuple[int, ...]) -> Array:
    value = _operand(node, index)
    found = None if value is None else constant(value)
    if found is None:
        raise _unknown(node, "its weight is computed")
    if found.size != math.prod(shape):
        raise _unknown(node, f"operand {index} has {found.size} numbers where {math.prod(shape)} are said")
    return found.reshape(shape)


def _unknown(node: ir.Node, why: str) -> UnsupportedError:
    where = f"node {node.name!r} ({node.op_type})"
    hint = "Bring the network as it was before it was quantised."
    return UnsupportedError("this quantised network cannot be dequantised", where=where, why=why, hint=hint)
