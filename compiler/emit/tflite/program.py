"""A TFLite program while it is being built: tensors, operators, shared constants, and the way to bytes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgec.compiler.emit.tflite.flatbuffer import write_model
from edgec.compiler.emit.tflite.schema import (
    BUILTIN_CODE,
    OPERATOR_OPTIONS,
    PLACEHOLDER_CODE,
    SCHEMA_VERSION,
    TensorType,
)
from edgec.compiler.emit.tflite.versions import operator_version

Array = np.ndarray[Any, np.dtype[Any]]
Shape = tuple["int | None", ...]

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

DESCRIPTION = "edgec"
SIGNATURE = "serving_default"


@dataclass(frozen=True)
class Quantization:
    """Affine quantisation: ``real = scale * (code - zero_point)``, per tensor or along one axis."""

    scale: tuple[float, ...]
    zero_point: tuple[int, ...]
    axis: int = 0

    @staticmethod
    def per_tensor(scale: float, zero_point: int) -> Quantization:
        return Quantization((float(np.float32(scale)),), (int(zero_point),))


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

    def serialise(self, metadata: Mapping[str, bytes]) -> bytes:
        """The file. Signature ``serving_default`` names inputs and outputs as the ONNX graph does."""
        tensors = self._numbered()
        buffers, place = _buffers(tensors)
        entries = []
        for name in sorted(metadata):
            entries.append({"name": name, "buffer": len(buffers)})
            buffers.append({"data": np.frombuffer(metadata[name], np.uint8)})
        index = {id(t): i for i, t in enumerate(tensors)}
        names = self._names(tensors)
        codes = sorted({(op.code, operator_version(op)) for op in self.operators})
        content = {
            "version": SCHEMA_VERSION,
            "operator_codes": [_operator_code(code, version) for code, version in codes],
            "subgraphs": [
                {
                    "tensors": [_tensor_table(t, names[id(t)], place[id(t)]) for t in tensors],
                    "inputs": [index[id(t)] for _, t in self.inputs],
                    "outputs": [index[id(t)] for _, t in self.outputs],
                    "operators": [_operator_table(op, codes, index) for op in self.operators],
                    "name": "main",
                }
            ],
            "description": DESCRIPTION,
            "buffers": buffers,
            "metadata": entries,
            "signature_defs": [
                {
                    "inputs": [{"name": n, "tensor_index": index[id(t)]} for n, t in self.inputs],
                    "outputs": [{"name": n, "tensor_index": index[id(t)]} for n, t in self.outputs],
                    "signature_key": SIGNATURE,
                    "subgraph_index": 0,
                }
            ],
        }
        data_bytes = sum(b["data"].nbytes for b in buffers if "data" in b)
        return write_model(content, size_hint=data_bytes + 256 * (len(tensors) + len(self.operators)) + 4096)

    def _numbered(self) -> list[Tensor]:
        """Every tensor in use, in order of first appearance."""
        seen: dict[int, Tensor] = {}
        for _, tensor in self.inputs:
            seen.setdefault(id(tensor), tensor)
        for op in self.operators:
            for operand in (*op.inputs, *op.outputs):
                if operand is not None:
                    seen.setdefault(id(operand), operand)
        for _, tensor in self.outputs:
            seen.setdefault(id(tensor), tensor)
        return list(seen.values())

    def _names(self, tensors: Iterable[Tensor]) -> dict[int, str]:
        """Unique names: inputs and outputs keep theirs, then results, others get a suffix where one is taken."""
        names = {id(tensor): name for name, tensor in (*self.inputs, *self.outputs)}
        taken = set(names.values())
        counts: dict[str, int] = {}
        for tensor in sorted(tensors, key=lambda t: not t.is_result):
            if id(tensor) in names:
                continue
            name = tensor.name
            while name in taken:
                counts[tensor.name] = counts.get(tensor.name, 0) + 1
                name = f"{tensor.name};{counts[tensor.name]}"
            taken.add(name)
            names[id(tensor)] = name
        return names


def _buffers(tensors: Iterable[Tensor]) -> tuple[list[dict[str, Any]], dict[int, int]]:
    """Buffer tables, and the buffer of each tensor. Buffer 0 is the empty one by convention; equal bytes share."""
    buffers: list[dict[str, Any]] = [{}]
    by_content: dict[bytes, int] = {}
    place: dict[int, int] = {}
    for tensor in tensors:
        if tensor.data is None:
            place[id(tensor)] = 0
            continue
        raw = np.ascontiguousarray(tensor.data).reshape(-1).view(np.uint8)
        content = raw.tobytes()
        if content not in by_content:
            by_content[content] = len(buffers)
            buffers.append({"data": raw})
        place[id(tensor)] = by_content[content]
    return buffers, place


def _operator_code(code: str, version: int) -> dict[str, Any]:
    number = BUILTIN_CODE[code]
    return {
        "deprecated_builtin_code": min(number, PLACEHOLDER_CODE),
        "version": version,
        "builtin_code": number,
    }


def _tensor_table(tensor: Tensor, name: str, buffer: int) -> dict[str, Any]:
    table: dict[str, Any] = {
        "shape": [1 if d is None else d for d in tensor.shape],
        "type": int(tensor.type),
        "buffer": buffer,
        "name": name,
    }
    if None in tensor.shape:
        table["shape_signature"] = [-1 if d is None else d for d in tensor.shape]
    if tensor.quantization is not None:
        table["quantization"] = {
            "scale": np.asarray(tensor.quantization.scale, np.float32),
            "zero_point": np.asarray(tensor.quantization.zero_point, np.int64),
            "quantized_dimension": tensor.quantization.axis,
        }
    return table


def _operator_table(
    op: Operator, codes: Sequence[tuple[str, int]], index: Mapping[int, int]
) -> dict[str, Any]:
    table: dict[str, Any] = {
        "opcode_index": codes.index((op.code, operator_version(op))),
        "inputs": [-1 if t is None else index[id(t)] for t in op.inputs],
        "outputs": [index[id(t)] for t in op.outputs],
    }
    if op.code in OPERATOR_OPTIONS:
        table["builtin_options"] = (OPERATOR_OPTIONS[op.code], op.options)
    return table
