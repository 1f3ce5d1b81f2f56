"""Reading the quantisation table of a QDQ graph in TFLite's terms.

TFLite stores signed codes. ONNX's unsigned ones are the same table shifted: ``code_i8 = code_u8 - 128``, and the zero
point with them. Nothing is chosen here: scales and zero points are the ones in the graph.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from edgec.compiler.emit.tflite.context import RefusalError
from edgec.graph.tflite.schema import TensorType
from edgec.graph.tflite.tensors import Quantization
from edgec.graph.views import attribute, constant

Array = np.ndarray[Any, np.dtype[Any]]

_CODE_TYPES = {
    "int8": TensorType.INT8,
    "uint8": TensorType.INT8,
    "int16": TensorType.INT16,
    "int32": TensorType.INT32,
}


@dataclass(frozen=True)
class CodeForm:
    """How codes are written: their type and their scale and zero point."""

    type: TensorType
    quantization: Quantization

    def range(self) -> tuple[float, float]:
        """The lowest and highest number that a code stands for (per tensor)."""
        low, high = code_limits(self.type)
        scale, zero = self.quantization.scale[0], self.quantization.zero_point[0]
        return scale * (low - zero), scale * (high - zero)


def code_limits(kind: TensorType) -> tuple[int, int]:
    """The lowest and highest code of a type."""
    info = np.iinfo({TensorType.INT8: "int8", TensorType.INT16: "int16"}.get(kind, "int32"))
    return int(info.min), int(info.max)


def code_form(node: ir.Node) -> CodeForm:
    """Type, scale and zero point of the codes that a QuantizeLinear writes or a DequantizeLinear reads."""
    scale = constant(node.inputs[1])
    zero_value = node.inputs[2] if len(node.inputs) > 2 else None
    zero = constant(zero_value)
    if scale is None or (zero_value is not None and zero is None):
        raise RefusalError("its scale or zero point is computed", "Quantise with constant parameters.")
    codes = node.inputs[0] if node.op_type == "DequantizeLinear" else node.outputs[0]
    dtype = zero.dtype.name if zero is not None else _dtype_name(codes)
    if dtype not in _CODE_TYPES:
        raise RefusalError(f"codes of type {dtype} have no TFLite form", "Quantise to 8 bit.")
    if zero is None:
        zero = np.zeros(scale.shape, np.int64)
    shift = 128 if dtype == "uint8" else 0
    axis = int(attribute(node, "axis", 1))
    if axis < 0 and codes is not None and codes.shape is not None:
        axis += len(codes.shape)
    if attribute(node, "block_size", 0):
        raise RefusalError("it is quantised in blocks", "Quantise per tensor or per channel.")
    zeros = tuple(int(z) - shift for z in np.atleast_1d(zero).reshape(-1))
    scales = tuple(float(s) for s in np.atleast_1d(scale).astype(np.float32).reshape(-1))
    kind = _CODE_TYPES[dtype]
    if kind == TensorType.INT16 and any(zeros):
        raise RefusalError("16-bit codes have a zero point", "Quantise 16-bit activations symmetrically.")
    return CodeForm(kind, Quantization(scales, zeros, axis if len(scales) > 1 else 0))


def signed(codes: Array) -> Array:
    """Constant codes in TFLite's signed form."""
    if codes.dtype == np.uint8:
        return (codes.astype(np.int16) - 128).astype(np.int8)
    return codes


def quantise(array: Array, form: CodeForm) -> Array:
    """Codes of real numbers, per tensor: round half to even, then saturate, as ONNX's QuantizeLinear does."""
    low, high = code_limits(form.type)
    scale, zero = np.float32(form.quantization.scale[0]), form.quantization.zero_point[0]
    codes = np.rint(np.asarray(array, np.float32) / scale).astype(np.float64) + zero
    stored: Array = np.clip(codes, low, high).astype(
        {TensorType.INT8: "int8", TensorType.INT16: "int16"}[form.type]
    )
    return stored


def _dtype_name(value: ir.Value | None) -> str:
    """The type of codes; ONNX's default is uint8."""
    if value is None or value.dtype is None:
        return "uint8"
    return value.dtype.numpy().name
