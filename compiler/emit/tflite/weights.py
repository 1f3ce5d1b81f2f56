"""Constant weights and biases of Conv, ConvTranspose and fully connected layers, as numbers or as codes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx_ir as ir

from edgec.compiler.emit.tflite.call import Call
from edgec.compiler.emit.tflite.context import Lowering, RefusalError
from edgec.compiler.emit.tflite.program import Tensor
from edgec.graph.tflite.schema import TensorType
from edgec.graph.tflite.tensors import Quantization

Array = np.ndarray[Any, np.dtype[Any]]

_INT32 = np.iinfo(np.int32)
_INT64 = np.iinfo(np.int64)


@dataclass(frozen=True)
class Weight:
    """A constant weight in ONNX order; ``scale`` is set when ``array`` holds int8 codes (one, or one per channel)."""

    name: str
    array: Array
    scale: Array | None = None
    out_axis: int = 0

    def take_out(self, index: Array) -> Weight:
        """Output channels in this order."""
        scale = self.scale if self.scale is None or self.scale.size == 1 else self.scale[index]
        return replace(self, array=np.take(self.array, index, axis=self.out_axis), scale=scale)


def weight_of(ctx: Lowering, value: ir.Value, quantised: bool, out_axis: int = 0) -> Weight:
    """The weight behind ``value``: its codes for a quantised call, else its numbers. It must be constant."""
    home = ctx.codes(value) if quantised else ctx.real(value)
    if home is None:
        raise RefusalError(
            "its weight has no codes", "Quantise weights as int8 constants behind a DequantizeLinear."
        )
    if home.array is None:
        raise RefusalError("its weight is computed", "Make the weight a constant in the source network.")
    if not quantised:
        return Weight(home.name, home.array, None, out_axis)
    quantization = home.quantization
    if quantization is None or any(quantization.zero_point):
        raise RefusalError(
            "its weight is quantised asymmetrically", "TFLite's int8 kernels take symmetric weights."
        )
    if len(quantization.scale) > 1 and quantization.axis != out_axis:
        raise RefusalError(
            f"its weight is quantised along axis {quantization.axis}", f"Quantise it along axis {out_axis}."
        )
    return Weight(home.name, home.array, np.asarray(quantization.scale, np.float32), out_axis)


def weight_tensor(ctx: Lowering, weight: Weight, perm: Sequence[int], out_axis: int) -> Tensor:
    """The constant tensor of a weight with its axes in the order ``perm``; channels then count along ``out_axis``."""
    quantization = None
    if weight.scale is not None:
        scale = tuple(float(s) for s in weight.scale)
        quantization = Quantization(scale, (0,) * len(scale), out_axis if len(scale) > 1 else 0)
    return ctx.program.constant(weight.name, weight.array.transpose(perm), quantization)


def bias_tensor(
    ctx: Lowering, call: Call, weight: Weight, x: Tensor, order: Array | None, index: int = 2
) -> Tensor:
    """The bias, zeros where the node has none; of a quantised call int32 (int64 beside 16 bit) at ``s_x * s_w``.

    ``weight`` counts channels in ONNX order; the tensor holds them in ``order``.
    """
    value = call.node.inputs[index] if index < len(call.node.inputs) else None
    channels = weight.array.shape[weight.out_axis]
    name = f"{call.name}_bias" if value is None else value.name or "bias"
    if weight.scale is None or x.quantization is None:
        real = np.zeros(channels, np.float32) if value is None else _numbers(ctx, value, channels)
        return ctx.program.constant(name, real if order is None else real[order])
    scale = (np.float32(x.quantization.scale[0]) * weight.scale).astype(np.float32)
    limits, dtype = (_INT64, np.int64) if x.type == TensorType.INT16 else (_INT32, np.int32)
    codes = np.zeros(channels, dtype)
    if value is not None:
        codes = _bias_codes(ctx, value, channels, scale, limits).astype(dtype)
    if order is not None:
        codes, scale = codes[order], scale if scale.size == 1 else scale[order]
    quantization = Quantization(tuple(float(s) for s in scale), (0,) * len(scale))
    return ctx.program.constant(name, codes, quantization)


def _numbers(ctx: Lowering, value: ir.Value, channels: int) -> Array:
    home = ctx.real(value)
    if home.array is None:
        raise RefusalError("its bias is computed", "Make the bias a constant, or an Add behind the layer.")
    return np.broadcast_to(home.array.reshape(-1), (channels,)).astype(np.float32)


def _bias_codes(ctx: Lowering, value: ir.Value, channels: int, scale: Array, limits: Any) -> Array:
    """Bias codes at ``scale``; those of the graph when they stand at that scale already."""
    codes = ctx.codes(value)
    if codes is not None and codes.array is not None and codes.quantization is not None:
        stored = np.asarray(codes.quantization.scale, np.float32)
        if not any(codes.quantization.zero_point) and np.allclose(stored, scale, rtol=1e-5, atol=0):
            return np.broadcast_to(codes.array.reshape(-1), (channels,))
    real = _numbers(ctx, value, channels).astype(np.float64)
    rounded: Array = np.clip(np.rint(real / scale.astype(np.float64)), limits.min, limits.max)
    return rounded
