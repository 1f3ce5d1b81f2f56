"""What a TFLite tensor's numbers are: their types in numpy, and how codes stand for real numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgec.graph.tflite.schema import TensorType

NUMPY_TYPE: dict[TensorType, str] = {
    TensorType.FLOAT32: "float32",
    TensorType.FLOAT16: "float16",
    TensorType.INT32: "int32",
    TensorType.UINT8: "uint8",
    TensorType.INT64: "int64",
    TensorType.BOOL: "bool",
    TensorType.INT16: "int16",
    TensorType.INT8: "int8",
    TensorType.UINT32: "uint32",
}
TYPE_OF_NUMPY = {name: kind for kind, name in NUMPY_TYPE.items()}


@dataclass(frozen=True)
class Quantization:
    """Affine quantisation: ``real = scale * (code - zero_point)``, per tensor or along one axis."""

    scale: tuple[float, ...]
    zero_point: tuple[int, ...]
    axis: int = 0

    @staticmethod
    def per_tensor(scale: float, zero_point: int) -> Quantization:
        return Quantization((float(np.float32(scale)),), (int(zero_point),))
