"""Constants in half precision: stored as float16, widened by a DEQUANTIZE that runtimes fold when they load the file."""

from __future__ import annotations

import numpy as np

from edgec.compiler.emit.tflite.program import Operator, Program, Tensor
from edgec.graph.tflite.schema import TensorType
from edgec.passes.cast_fp16 import halved

MIN_ELEMENTS = 128
"""Below this the DEQUANTIZE takes more bytes than it saves."""
LAYERS = ("CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV", "FULLY_CONNECTED")


def keep_halves(program: Program) -> None:
    """Store the weights of layers that are float16 to the bit, as those of a source that stores them so, as float16 again."""
    weights = [op.inputs[1] for op in program.operators if op.code in LAYERS]
    _store(
        program, [tensor for tensor in weights if tensor is not None and _fits(tensor) and _is_half(tensor)]
    )


def halve_constants(program: Program) -> None:
    """Store the large float constants of ``program`` as float16; values that would overflow keep theirs in float32."""
    operands = [tensor for op in program.operators for tensor in op.inputs]
    _store(program, [tensor for tensor in operands if tensor is not None and _fits(tensor)])


def _store(program: Program, tensors: list[Tensor]) -> None:
    found = {tensor: _stored(tensor) for tensor in dict.fromkeys(tensors)}
    for tensor in found:
        tensor.data = None
    program.operators[:0] = found.values()


def _fits(tensor: Tensor) -> bool:
    data = tensor.data
    if data is None or tensor.type != TensorType.FLOAT32 or data.size < MIN_ELEMENTS:
        return False
    return halved(data) is not None


def _is_half(tensor: Tensor) -> bool:
    data = tensor.data
    half = None if data is None else halved(data)
    return data is not None and half is not None and np.array_equal(half.astype(np.float32), data)


def _stored(tensor: Tensor) -> Operator:
    data = None if tensor.data is None else halved(tensor.data)
    half = Tensor(f"{tensor.name}_half", TensorType.FLOAT16, tensor.shape, None, data)
    return Operator("DEQUANTIZE", [half], [tensor])
