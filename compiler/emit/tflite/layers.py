"""Cut a TFLite file into one file per operator, for times per layer.

Neither runtime's Python package profiles operators. Each operator alone, with the real shapes, constants and
quantisation of its tensors, comes within a few percent of its share of the whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgec.compiler.emit.tflite.file_cost import macs_of
from edgec.compiler.emit.tflite.program import Program, Tensor
from edgec.compiler.emit.tflite.serialise import serialise
from edgec.graph.tflite.read import OperatorInfo, TensorInfo, TfliteFile, read
from edgec.graph.tflite.schema import OPERATOR_OPTIONS
from edgec.graph.tflite.tensors import NUMPY_TYPE


@dataclass(frozen=True)
class Layer:
    """One operator of a file: the name of its result, its code, its MACs, and a TFLite file of it alone."""

    name: str
    op: str
    macs: int
    data: bytes


def split_layers(source: str | Path | bytes) -> tuple[Layer, ...]:
    """One file per operator, in execution order.

    A PAD goes with the convolution behind it, as XNNPACK runs them; DEQUANTIZE of a constant goes with its reader.
    Operators whose options edgec cannot write are left out.
    """
    file = read(source)
    widening = {op.outputs[0]: op for op in file.operators if _widens(file, op)}
    pads = _folded_pads(file)
    found = []
    for op in file.operators:
        if _widens(file, op) or any(op is pad for pad in pads.values()):
            continue
        pad = pads.get(op.inputs[0]) if op.inputs else None
        group = [op] if pad is None else [pad, op]
        if all(_writable(file, part) for part in group):
            found.append(_layer(file, group, widening))
    return tuple(found)


def _folded_pads(file: TfliteFile) -> dict[int, OperatorInfo]:
    """PADs by their result, where one convolution alone reads it."""
    readers: dict[int, list[str]] = {}
    for op in file.operators:
        for i in op.inputs:
            readers.setdefault(i, []).append(op.code)
    return {
        op.outputs[0]: op
        for op in file.operators
        if op.code == "PAD"
        and readers.get(op.outputs[0], []) in (["CONV_2D"], ["DEPTHWISE_CONV_2D"])
        and op.outputs[0] not in file.outputs
    }


def _widens(file: TfliteFile, op: OperatorInfo) -> bool:
    return op.code == "DEQUANTIZE" and file.tensors[op.inputs[0]].data is not None


def _writable(file: TfliteFile, op: OperatorInfo) -> bool:
    known = bool(op.options) == (op.code in OPERATOR_OPTIONS)
    types = all(file.tensors[i].type in NUMPY_TYPE for i in (*op.inputs, *op.outputs) if i >= 0)
    return known and types and not op.code.startswith(("CUSTOM", "BUILTIN_"))


def _layer(file: TfliteFile, group: list[OperatorInfo], widening: dict[int, OperatorInfo]) -> Layer:
    program = Program()
    tensors: dict[int, Tensor] = {}

    def tensor(index: int) -> Tensor | None:
        if index < 0:
            return None
        if index in tensors:
            return tensors[index]
        made = tensors[index] = _copied(file.tensors[index])
        if index in widening:
            source = tensor(widening[index].inputs[0])
            program.add("DEQUANTIZE", [source], [made])
        elif made.data is None and index not in made_here:
            program.inputs.append((made.name, made))
        return made

    made_here = {i for op in group for i in op.outputs}
    for op in group:
        inputs = [tensor(i) for i in op.inputs]
        program.add(op.code, inputs, [_present(tensor(i)) for i in op.outputs], op.options)
    last = group[-1]
    program.outputs = [(file.tensors[i].name, _present(tensor(i))) for i in last.outputs]
    name = file.tensors[last.outputs[0]].name
    return Layer(name, last.code, sum(macs_of(file, op) for op in group), serialise(program, {}))


def _present(tensor: Tensor | None) -> Tensor:
    if tensor is None:
        raise ValueError("an operator leaves out a result")
    return tensor


def _copied(info: TensorInfo) -> Tensor:
    data = None if info.data is None else info.array()
    return Tensor(info.name, info.type, info.shape, info.quantization, data)
