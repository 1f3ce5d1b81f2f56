"""Operators that work number by number, on one operand or two that broadcast."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edgec.graph.tflite.lift.call import Call, Handler, plain_order
from edgec.graph.tflite.lift.lifting import Order
from edgec.graph.tflite.schema import TensorType

_UNARY = {
    "RELU": "Relu", "LOGISTIC": "Sigmoid", "TANH": "Tanh", "HARD_SWISH": "HardSwish", "ELU": "Elu", "EXP": "Exp",
    "LOG": "Log", "SQRT": "Sqrt", "ABS": "Abs", "NEG": "Neg", "FLOOR": "Floor", "CEIL": "Ceil", "ROUND": "Round",
    "SIN": "Sin", "COS": "Cos", "SIGN": "Sign", "LOGICAL_NOT": "Not", "QUANTIZE": "", "DEQUANTIZE": "", "DENSIFY": "",
}  # fmt: skip
"""'': real numbers stay what they are."""
_BOUNDED = {"RELU6": (0.0, 6.0), "RELU_N1_TO_1": (-1.0, 1.0), "RELU_0_TO_1": (0.0, 1.0)}
_BINARY = {
    "ADD": "Add", "SUB": "Sub", "MUL": "Mul", "DIV": "Div", "MAXIMUM": "Max", "MINIMUM": "Min", "POW": "Pow",
    "LESS": "Less", "LESS_EQUAL": "LessOrEqual", "GREATER": "Greater", "GREATER_EQUAL": "GreaterOrEqual",
    "EQUAL": "Equal", "LOGICAL_AND": "And", "LOGICAL_OR": "Or", "ADD_N": "Sum",
}  # fmt: skip
_ONNX_TYPE = {
    TensorType.FLOAT32: 1, TensorType.UINT8: 2, TensorType.INT8: 3, TensorType.INT16: 5, TensorType.INT32: 6,
    TensorType.INT64: 7, TensorType.BOOL: 9, TensorType.FLOAT16: 1, TensorType.UINT32: 12, TensorType.FLOAT64: 11,
}  # fmt: skip
"""Halves become float32 inside, as everywhere."""


def onnx_type(call: Call, kind: TensorType) -> int:
    """ONNX's number for a type. Raises UnsupportedError for strings, complex numbers and the like."""
    if kind not in _ONNX_TYPE:
        raise call.unsupported(f"it works on {kind.name}")
    return _ONNX_TYPE[kind]


def unary(call: Call) -> None:
    """One ONNX op of the same meaning; constants that are only stored in another form stay constants."""
    op_type = _UNARY[call.op.code]
    constant = call.lifting.constant(call.index())
    if not op_type and constant is not None:
        call.lifting.give_constant(call.output(), constant)
        return
    order = call.preferred()
    x = call.take(0, order)
    call.finish(call.add(op_type, [x]) if op_type else x, order)


def bounded(call: Call) -> None:
    """RELU6 and its kin."""
    order = call.preferred()
    call.finish(call.clip(call.take(0, order), *_BOUNDED[call.op.code]), order)


def leaky_relu(call: Call) -> None:
    """LEAKY_RELU."""
    order = call.preferred()
    call.finish(call.add("LeakyRelu", [call.take(0, order)], alpha=float(call.option("alpha", 0.0))), order)


def gelu(call: Call) -> None:
    """GELU, exact or by tanh."""
    order = call.preferred()
    rule = "tanh" if call.option("approximate", False) else "none"
    call.finish(call.add("Gelu", [call.take(0, order)], approximate=rule), order)


def prelu(call: Call) -> None:
    """PRELU: the slope broadcasts to the operand."""
    order = call.preferred()
    call.finish(call.add("PRelu", [call.take(0, order), spread(call, 1, order)]), order)


def square(call: Call) -> None:
    """SQUARE."""
    order = call.preferred()
    x = call.take(0, order)
    call.finish(call.add("Mul", [x, x]), order)


def rsqrt(call: Call) -> None:
    """RSQRT."""
    order = call.preferred()
    root = call.add("Sqrt", [call.take(0, order)], f"{call.stem}_root")
    call.finish(call.add("Reciprocal", [root]), order)


def cast(call: Call) -> None:
    """CAST; the types are those of the tensors."""
    order = call.preferred()
    kind = call.lifting.tensor(call.output()).type
    call.finish(call.add("Cast", [call.take(0, order)], to=onnx_type(call, kind)), order)


def binary(call: Call) -> None:
    """Operands broadcast against each other."""
    order = shared_order(call, range(len(call.op.inputs)))
    names = [spread(call, at, order) for at in range(len(call.op.inputs))]
    call.finish(call.add(_BINARY[call.op.code], names), order)


def not_equal(call: Call) -> None:
    """NOT_EQUAL."""
    order = shared_order(call, (0, 1))
    same = call.add("Equal", [spread(call, 0, order), spread(call, 1, order)], f"{call.stem}_equal")
    call.finish(call.add("Not", [same]), order)


def squared_difference(call: Call) -> None:
    """SQUARED_DIFFERENCE."""
    order = shared_order(call, (0, 1))
    difference = call.add("Sub", [spread(call, 0, order), spread(call, 1, order)], f"{call.stem}_difference")
    call.finish(call.add("Mul", [difference, difference]), order)


def floor_div(call: Call) -> None:
    """FLOOR_DIV of real numbers: whole ones would be cut towards zero."""
    if call.tensor().type != TensorType.FLOAT32:
        raise call.unsupported(f"it works on {call.tensor().type.name}")
    order = shared_order(call, (0, 1))
    quotient = call.add("Div", [spread(call, 0, order), spread(call, 1, order)], f"{call.stem}_quotient")
    call.finish(call.add("Floor", [quotient]), order)


def select(call: Call) -> None:
    """SELECT and SELECT_V2."""
    order = shared_order(call, (0, 1, 2))
    call.finish(call.add("Where", [spread(call, at, order) for at in range(3)]), order)


def shared_order(call: Call, operands: Sequence[int]) -> Order:
    """The order of axes that suits operands which broadcast: that of a computed one of full rank, pictures first."""
    rank = len(call.out_shape())
    found = [
        call.preferred(at)
        for at in operands
        if len(call.shape(at)) == rank and call.lifting.constant(call.index(at)) is None
    ]
    moved = [order for order in found if order != plain_order(rank)]
    return (moved or found or [plain_order(rank)])[0]


def spread(call: Call, at: int, order: Order) -> str:
    """Operand ``at`` so that it broadcasts against values in ``order``."""
    shape, rank = call.shape(at), len(order)
    if len(shape) == rank:
        return call.take(at, order)
    wide = (1,) * (rank - len(shape)) + shape
    array = call.lifting.constant(call.index(at))
    if array is not None:
        lone = array.reshape(()) if array.size == 1 else np.transpose(array.reshape(wide), order)
        return call.lifting.store(_trimmed(lone), f"{call.stem}_operand")
    target = call.lifting.ints(wide, f"{call.stem}_wide_shape")
    name = call.add("Reshape", [call.lifting.flat(call.index(at)), target], f"{call.stem}_wide")
    if order == plain_order(rank):
        return name
    return call.add("Transpose", [name], f"{call.stem}_wide_transpose", perm=list(order))


def _trimmed(array: np.ndarray[Any, np.dtype[Any]]) -> np.ndarray[Any, np.dtype[Any]]:
    """Without leading axes of size 1: broadcasting adds them."""
    while array.ndim and array.shape[0] == 1:
        array = array[0]
    return array


HANDLERS: Mapping[str, Handler] = {
    **dict.fromkeys(_UNARY, unary), **dict.fromkeys(_BOUNDED, bounded), **dict.fromkeys(_BINARY, binary),
    "LEAKY_RELU": leaky_relu, "GELU": gelu, "PRELU": prelu, "SQUARE": square, "RSQRT": rsqrt, "CAST": cast,
    "NOT_EQUAL": not_equal, "SQUARED_DIFFERENCE": squared_difference, "FLOOR_DIV": floor_div, "SELECT": select,
    "SELECT_V2": select,
}  # fmt: skip
