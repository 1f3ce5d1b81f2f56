"""Weights of MatMulNBits, onnxruntime's product with weights of 2, 4 or 8 bits: several codes in a byte, blocks with scales.

Its documentation: `B` (N, blocks, bytes), the lowest bits of a byte first; scales and zero points for each block of a column;
without zero points the middle code is zero; zero points are packed like codes, column by column, or real numbers.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from edgec.graph.errors import UnsupportedError
from edgec.graph.views import attribute, constant

Array = np.ndarray[Any, np.dtype[Any]]
ORDER = 4
"""Operand that says to which block each row of the product belongs, where blocks are not rows in order."""
BIAS = 5


def packed_weight(node: ir.Node) -> Array:
    """(K, N) float32: what the codes of a MatMulNBits stand for.

    Raises UnsupportedError where they are computed, reordered, or of a width that does not divide a byte.
    """
    rows, columns, bits = (int(attribute(node, name, 4)) for name in ("K", "N", "bits"))
    size = int(attribute(node, "block_size", 32))
    if 8 % bits:
        raise _unknown(node, f"its weights have {bits} bits")
    if _operand(node, ORDER) is not None:
        raise _unknown(node, "the rows of its weight are reordered")
    codes, scales = (_stored(node, index) for index in (1, 2))
    blocks = -(-rows // size)
    numbers = _codes(codes.reshape(columns, blocks, -1), bits).reshape(columns, blocks, -1)[..., :size]
    real = (numbers - _zeros(node, columns, blocks, bits)) * scales.astype(np.float32).reshape(
        columns, blocks, 1
    )
    return np.ascontiguousarray(real.reshape(columns, -1)[:, :rows].T, np.float32)


def _zeros(node: ir.Node, columns: int, blocks: int, bits: int) -> Array:
    """(columns, blocks, 1): the code of zero in each block."""
    if _operand(node, 3) is None:
        return np.full((columns, blocks, 1), 2.0 ** (bits - 1), np.float32)
    found = _stored(node, 3)
    if found.dtype == np.uint8:
        found = _codes(found.reshape(columns, -1), bits)[:, :blocks]
    return found.astype(np.float32).reshape(columns, blocks, 1)


def _codes(packed: Array, bits: int) -> Array:
    """The last axis spread into single codes."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    single = (packed[..., None] >> shifts) & np.uint8(2**bits - 1)
    return single.reshape(*packed.shape[:-1], -1).astype(np.float32)


def _operand(node: ir.Node, index: int) -> ir.Value | None:
    return node.inputs[index] if index < len(node.inputs) else None


def _stored(node: ir.Node, index: int) -> Array:
    value = _operand(node, index)
    found = None if value is None else constant(value)
    if found is None:
        raise _unknown(node, "its weight is computed")
    return found


def _unknown(node: ir.Node, why: str) -> UnsupportedError:
    where = f"node {node.name!r} ({node.op_type})"
    hint = "Bring the network as it was before it was quantised."
    return UnsupportedError("this quantised network cannot be dequantised", where=where, why=why, hint=hint)
