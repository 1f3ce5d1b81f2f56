"""Constants in half precision: stored as float16, widened by a DEQUANTIZE that runtimes fold when they load the file."""

from __future__ import annotations

from edgec.compiler.emit.tflite.program import Operator, Program, Tensor
from edgec.graph.tflite.schema import TensorType
from edgec.passes.cast_fp16 import halved

MIN_ELEMENTS = 128
"""Below this the DEQUANTIZE takes more bytes than it saves."""


def halve_constants(program: Program) -> None:
    """Store the large float constants of ``program`` as float16; values that would overflow keep theirs in float32."""
    found: dict[Tensor, Operator] = {}
    for op in program.operators:
        for tensor in op.inputs:
            if tensor is not None and tensor not in found and _fits(tensor):
                found[tensor] = _stored(tensor)
    for tensor in found:
        tensor.data = None
    program.operators[:0] = found.values()


def _fits(tensor: Tensor) -> bool:
    data = tensor.data
    if data is None or tensor.type != TensorType.FLOAT32 or data.size < MIN_ELEMENTS:
        return False
    return halved(data) is not None


def _stored(tensor: Tensor) -> Operator:
    data = None if tensor.data is None else halved(tensor.data)
    half = Tensor(f"{tensor.name}_half", TensorType.FLOAT16, tensor.shape, None, data)
    return Operator("DEQUANTIZE", [half], [tensor])
