"""A whole TFLite file as an ONNX model."""

from __future__ import annotations

from collections.abc import Mapping

import onnx
from onnx import TensorProto, helper

from edgec.graph.errors import ModelError, UnsupportedError
from edgec.graph.read.metadata import add_notes
from edgec.graph.tflite.lift import layers, moving, pointwise, reducing
from edgec.graph.tflite.lift.call import Call, Handler, plain_order
from edgec.graph.tflite.lift.lifting import CODES, Lifting
from edgec.graph.tflite.read import DAMAGE, OperatorInfo, TensorInfo, TfliteFile
from edgec.graph.tflite.schema import TensorType
from edgec.graph.tflite.words import words_of

HANDLERS: Mapping[str, Handler] = {
    **layers.HANDLERS, **pointwise.HANDLERS, **moving.HANDLERS, **reducing.HANDLERS,
}  # fmt: skip
"""What translates each operator; no other one is taken."""
_TYPES = {
    TensorType.FLOAT32: TensorProto.FLOAT, TensorType.FLOAT16: TensorProto.FLOAT, TensorType.INT32: TensorProto.INT32,
    TensorType.UINT8: TensorProto.UINT8, TensorType.INT64: TensorProto.INT64, TensorType.BOOL: TensorProto.BOOL,
    TensorType.INT16: TensorProto.INT16, TensorType.INT8: TensorProto.INT8, TensorType.UINT32: TensorProto.UINT32,
}  # fmt: skip
_OPSET, _GELU_OPSET = 18, 20
_IR_VERSION = 9
_HINTS = {
    "CUSTOM": "Export the network without custom operators, or cut the file before this one.",
    "control": "Export the network with its loops and branches unrolled.",
}
_CONTROL = ("IF", "WHILE", "CALL", "CALL_ONCE")


def to_onnx(file: TfliteFile) -> onnx.ModelProto:
    """The network of ``file`` in ONNX, in real numbers, channels last at its ends.

    Codes at inputs and outputs become the real numbers that they stand for. Raises UnsupportedError, naming the operator, for
    what cannot be translated, ModelError for a file that is damaged.
    """
    lifting = Lifting(file)
    inputs = [_input(lifting, index) for index in _ends(file.inputs)]
    results = [_free_name(lifting, index, file.inputs) for index in _ends(file.outputs)]
    for number, op in enumerate(file.operators):
        _translate(lifting, op, number)
    outputs = [_output(lifting, index, name) for index, name in zip(file.outputs, results, strict=True)]
    used = {name for node in lifting.nodes for name in node.input}
    stored = [tensor for tensor in lifting.initializers if tensor.name in used]
    graph = helper.make_graph(lifting.nodes, "tflite", inputs, outputs, stored)
    newest = _GELU_OPSET if any(node.op_type == "Gelu" for node in lifting.nodes) else _OPSET
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", newest)], ir_version=_IR_VERSION)
    for key, value in words_of(file).items():
        model.metadata_props.add(key=key, value=value)
    add_notes(model, _notes(lifting))
    return model


def _translate(lifting: Lifting, op: OperatorInfo, number: int) -> None:
    call = Call(lifting, op, number)
    handler = HANDLERS.get(op.code)
    if handler is None:
        kind = "control" if op.code in _CONTROL else op.code.split(":")[0]
        raise UnsupportedError("this operator is not supported", where=call.where, hint=_HINTS.get(kind))
    try:
        handler(call)
    except DAMAGE as error:
        raise ModelError("the TFLite file is damaged", where=call.where, why=str(error) or None) from error


def _ends(indices: tuple[int, ...]) -> tuple[int, ...]:
    if not indices or min(indices) < 0 or len(set(indices)) < len(indices):
        raise ModelError(
            "the TFLite file is damaged", why="its inputs or outputs are not told, or told twice"
        )
    return indices


def _free_name(lifting: Lifting, index: int, inputs: tuple[int, ...] = ()) -> str:
    """What the file's signature calls an end, or the tensor's own name; an input that is an output too keeps it."""
    name = lifting.file.signature.get(index) or lifting.tensor(index).name or f"tensor_{index}"
    return lifting.free(f"{name}_output" if index in inputs else name)


def _input(lifting: Lifting, index: int) -> onnx.ValueInfoProto:
    tensor, name = lifting.tensor(index), _free_name(lifting, index)
    lifting.give_input(index, name)
    return helper.make_tensor_value_info(name, _type(tensor), list(tensor.shape))


def _output(lifting: Lifting, index: int, name: str) -> onnx.ValueInfoProto:
    tensor = lifting.tensor(index)
    value = lifting.take(index, plain_order(len(tensor.shape)))
    lifting.nodes.append(helper.make_node("Identity", [value], [name], name=lifting.free(f"{name}_identity")))
    return helper.make_tensor_value_info(name, _type(tensor), list(lifting.shape(index)))


def _type(tensor: TensorInfo) -> int:
    if tensor.quantization is not None and tensor.type in CODES:
        return int(TensorProto.FLOAT)
    if tensor.type not in _TYPES:
        raise UnsupportedError(
            f"numbers of type {tensor.type.name} are not supported", where=f"tensor {tensor.name!r}"
        )
    return int(_TYPES[tensor.type])


def _notes(lifting: Lifting) -> list[str]:
    """What the user should hear: which numbers were stored in which form, and what the ends take now."""
    notes = []
    if lifting.weights and not any(node.op_type == "QuantizeLinear" for node in lifting.nodes):
        notes.append(f"constants came as {', '.join(sorted(lifting.weights))}: float32 inside")
    for index in lifting.file.inputs:
        tensor = lifting.tensor(index)
        codes = tensor.quantization
        if codes is not None and tensor.type in CODES and len(codes.scale) == 1:
            rule = f"(code - {codes.zero_point[0]}) * {codes.scale[0]:.6g}"
            notes.append(
                f"input {tensor.name!r} took {tensor.type.name.lower()} codes: it takes real numbers now, {rule}"
            )
    return notes
