"""A TFLite program while it is being built: tensors, operators, shared constants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgec.graph.tflite.schema import TensorType
from edgec.graph.tflite.tensors import TYPE_OF_NUMPY, Quantization

Array = np.ndarray[Any, np.dtype[Any]]
Shape = tuple["int | None", ...]


@dataclass(eq=False)
class Tensor:
    """One tensor; ``data`` is set for constants. A None in ``shape`` is the open batch axis.

    ``is_result`` marks the tensor that holds a value of the ONNX graph: it gets the value's name, helpers a suffix.
    """

    name: str
    type: TensorType
    shape: Shape
    quantization: Quantization | None = None
    data: Array | None = None
    is_result: bool = False


@dataclass(eq=False)
class Operator:
    """One operator. A None input is an optional operand left out."""

    code: str
    inputs: list[Tensor | None]
    outputs: list[Tensor]
    options: dict[str, Any] = field(default_factory=dict)


class Program:
    """Tensors and operators in order; constants with equal content are one tensor."""

    def __init__(self) -> None:
        self.operators: list[Operator] = []
        self.inputs: list[tuple[str, Tensor]] = []
        self.outputs: list[tuple[str, Tensor]] = []
        self._constants: dict[Any, Tensor] = {}

    def tensor(
        self, name: str, kind: TensorType, shape: Shape, quantization: Quantization | None = None
    ) -> Tensor:
        """A new activation tensor."""
        return Tensor(name, kind, shape, quantization)

    def constant(self, name: str, array: Array, quantization: Quantization | None = None) -> Tensor:
        """A constant tensor; one that was made before is reused."""
        array = np.ascontiguousarray(array).reshape(np.shape(array))
        kind = TYPE_OF_NUMPY[array.dtype.name]
        key = (kind, array.shape, quantization, array.tobytes())
        if key not in self._constants:
            self._constants[key] = Tensor(name, kind, array.shape, quantization, array)
        return self._constants[key]

    def add(
        self,
        code: str,
        inputs: Sequence[Tensor | None],
        outputs: Sequence[Tensor],
        options: Mapping[str, Any] | None = None,
    ) -> None:
        """Append an operator."""
        self.operators.append(Operator(code, list(inputs), list(outputs), dict(options or {})))

    def prune(self) -> None:
        """Drop operators that no output depends on."""
        needed = {tensor for _, tensor in self.outputs}
        kept: list[Operator] = []
        for op in reversed(self.operators):
            if any(y in needed for y in op.outputs):
                kept.append(op)
                needed.update(x for x in op.inputs if x is not None)
        self.operators = kept[::-1]
