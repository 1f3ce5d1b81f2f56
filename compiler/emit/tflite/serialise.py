"""From a TFLite program to the bytes of its file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from edgec.compiler.emit.tflite.flatbuffer import write_model
from edgec.compiler.emit.tflite.program import Operator, Program, Tensor
from edgec.compiler.emit.tflite.versions import operator_version
from edgec.graph.tflite.schema import (
    BUILTIN_CODE,
    OPERATOR_OPTIONS,
    PLACEHOLDER_CODE,
    SCHEMA_VERSION,
)

DESCRIPTION = "edgec"
SIGNATURE = "serving_default"


def serialise(program: Program, metadata: Mapping[str, bytes]) -> bytes:
    """The file. Signature ``serving_default`` names inputs and outputs as the ONNX graph does."""
    tensors = _numbered(program)
    buffers, place = _buffers(tensors)
    entries = []
    for name in sorted(metadata):
        entries.append({"name": name, "buffer": len(buffers)})
        buffers.append({"data": np.frombuffer(metadata[name], np.uint8)})
    index = {id(t): i for i, t in enumerate(tensors)}
    names = _names(program, tensors)
    codes = sorted({(op.code, operator_version(op)) for op in program.operators})
    content = {
        "version": SCHEMA_VERSION,
        "operator_codes": [_operator_code(code, version) for code, version in codes],
        "subgraphs": [
            {
                "tensors": [_tensor_table(t, names[id(t)], place[id(t)]) for t in tensors],
                "inputs": [index[id(t)] for _, t in program.inputs],
                "outputs": [index[id(t)] for _, t in program.outputs],
                "operators": [_operator_table(op, codes, index) for op in program.operators],
                "name": "main",
            }
        ],
        "description": DESCRIPTION,
        "buffers": buffers,
        "metadata": entries,
        "signature_defs": [
            {
                "inputs": [{"name": n, "tensor_index": index[id(t)]} for n, t in program.inputs],
                "outputs": [{"name": n, "tensor_index": index[id(t)]} for n, t in program.outputs],
                "signature_key": SIGNATURE,
                "subgraph_index": 0,
            }
        ],
    }
    data_bytes = sum(b["data"].nbytes for b in buffers if "data" in b)
    return write_model(content, size_hint=data_bytes + 256 * (len(tensors) + len(program.operators)) + 4096)


def _numbered(program: Program) -> list[Tensor]:
    """Every tensor in use, in order of first appearance."""
    seen: dict[int, Tensor] = {}
    for _, tensor in program.inputs:
        seen.setdefault(id(tensor), tensor)
    for op in program.operators:
        for operand in (*op.inputs, *op.outputs):
            if operand is not None:
                seen.setdefault(id(operand), operand)
    for _, tensor in program.outputs:
        seen.setdefault(id(tensor), tensor)
    return list(seen.values())


def _names(program: Program, tensors: Iterable[Tensor]) -> dict[int, str]:
    """Unique names: inputs and outputs keep theirs, then results, others get a suffix where one is taken."""
    names = {id(tensor): name for name, tensor in (*program.inputs, *program.outputs)}
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
