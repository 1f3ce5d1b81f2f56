"""The lowest operator version that admits what an operator does.

A runtime refuses a file that names a version above the ones it registers, so a version written too high shuts old
runtimes out for nothing. The rules follow TensorFlow's ``op_version.cc``, for the cases that edgec emits.
"""

from __future__ import annotations

import math

from edgec.compiler.emit.tflite.program import Operator, Tensor
from edgec.graph.tflite.schema import ActivationFunctionType, TensorType

INT8, INT16 = TensorType.INT8, TensorType.INT16

_INT8_IS_2 = frozenset(
    {
        "ARG_MAX", "ARG_MIN", "AVERAGE_POOL_2D", "BATCH_MATMUL", "CONCATENATION", "DEPTH_TO_SPACE", "EQUAL", "EXP",
        "GATHER", "GELU", "GREATER", "GREATER_EQUAL", "LESS", "LESS_EQUAL", "LOG", "LOGISTIC", "LOG_SOFTMAX",
        "MAXIMUM", "MAX_POOL_2D", "MEAN", "MINIMUM", "MIRROR_PAD", "NOT_EQUAL", "PACK", "PAD", "PADV2", "REDUCE_MAX",
        "REDUCE_MIN", "REDUCE_PROD", "RELU", "RELU6", "RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR", "RSQRT", "SLICE",
        "SOFTMAX", "SPACE_TO_DEPTH", "SPLIT", "SPLIT_V", "SQUARED_DIFFERENCE", "STRIDED_SLICE", "SUB", "SUM", "TANH",
        "TOPK_V2", "TRANSPOSE", "ABS", "ADD", "DEQUANTIZE",
    }
)  # fmt: skip
_INT16_IS = {
    "AVERAGE_POOL_2D": 3, "MAX_POOL_2D": 3, "CONCATENATION": 3, "TANH": 3, "LOGISTIC": 3, "SOFTMAX": 3, "MEAN": 3,
    "MIRROR_PAD": 3, "REDUCE_MAX": 3, "REDUCE_MIN": 3, "RELU": 3, "RELU6": 3, "RSQRT": 3, "PAD": 3, "PADV2": 3,
    "MAXIMUM": 4, "MINIMUM": 4, "SLICE": 4, "GATHER": 4, "MUL": 4, "SPLIT": 4, "RESIZE_BILINEAR": 4,
    "RESIZE_NEAREST_NEIGHBOR": 4, "TRANSPOSE": 5, "SUB": 5, "ADD": 3, "BATCH_MATMUL": 3, "EXP": 2, "LOG": 2, "ABS": 3,
    "LEAKY_RELU": 2, "DEQUANTIZE": 3,
}  # fmt: skip
_RANK_OVER_4 = {"SLICE": 5, "STRIDED_SLICE": 4, "PAD": 4, "PADV2": 4, "TRANSPOSE": 4}
_BROADCAST_OVER_4 = {"MAXIMUM": 3, "MINIMUM": 3, "SUB": 3, "DIV": 2}
_BOOL_IS_3 = frozenset({"GATHER", "TRANSPOSE", "STRIDED_SLICE"})


def operator_version(op: Operator) -> int:
    """The version to write for ``op``."""
    special = _SPECIAL.get(op.code)
    if special is not None:
        return special(op)
    data = op.inputs[1] if op.code == "SPLIT" else op.inputs[0]
    return max(_by_type(op.code, data), _by_rank(op), _by_options(op))


def _by_type(code: str, data: Tensor | None) -> int:
    if data is None:
        return 1
    if data.type == INT8 and code in _INT8_IS_2:
        return 2
    if data.type == INT16:
        return _INT16_IS.get(code, 1)
    if data.type == TensorType.BOOL and code in _BOOL_IS_3:
        return 3
    if data.type == TensorType.INT64 and code in ("ADD", "SUB"):
        return 4
    return 1


def _by_rank(op: Operator) -> int:
    shapes = [t.shape for t in op.inputs[:2] if t is not None]
    if len(shapes[0]) > 5 and op.code == "TRANSPOSE":
        return 6
    version = _RANK_OVER_4.get(op.code, 1) if len(shapes[0]) > 4 else 1
    if len(shapes) > 1 and shapes[0] != shapes[1] and max(map(len, shapes)) > 4:
        version = max(version, _BROADCAST_OVER_4.get(op.code, 1))
    return version


def _by_options(op: Operator) -> int:
    half_pixel = op.options.get("half_pixel_centers", False)
    if op.code == "RESIZE_BILINEAR" and half_pixel:
        return 3
    if op.code == "RESIZE_NEAREST_NEIGHBOR" and (half_pixel or op.options.get("align_corners", False)):
        return 3
    if op.code == "GATHER" and op.options.get("batch_dims", 0):
        return 5
    return 1


def _input_type(op: Operator, index: int = 0) -> TensorType | None:
    tensor = op.inputs[index]
    return None if tensor is None else tensor.type


def _conv(op: Operator) -> int:
    x, weight = op.inputs[0], op.inputs[1]
    if x is None or weight is None:
        return 1
    if x.shape[-1] != weight.shape[-1]:
        return 6
    return {INT8: 3, INT16: 4}.get(x.type, 1)


def _depthwise(op: Operator) -> int:
    dilated = op.options["dilation_w_factor"] != 1 or op.options["dilation_h_factor"] != 1
    return {INT8: 3, INT16: 5}.get(_input_type(op) or TensorType.FLOAT32, 2 if dilated else 1)


def _fully_connected(op: Operator) -> int:
    kind = _input_type(op)
    if kind == INT16:
        return 7
    if op.options.get("keep_num_dims", False):
        return 5
    return 4 if kind == INT8 else 1


def _transpose_conv(op: Operator) -> int:
    if op.options.get("fused_activation_function", 0) != ActivationFunctionType.NONE:
        return 4
    if len(op.inputs) == 4 and op.inputs[3] is not None:
        return 3
    return 2 if _input_type(op, 1) == INT8 else 1


def _mul(op: Operator) -> int:
    a, b, y = op.inputs[0], op.inputs[1], op.outputs[0]
    if a is None or b is None:
        return 1
    if a.type == INT16:
        return 4
    if a.type == TensorType.INT64:
        return 5
    if a.quantization is None or b.quantization is None or y.quantization is None:
        return 1
    rescale = math.prod((a.quantization.scale[0], b.quantization.scale[0])) / y.quantization.scale[0]
    return 3 if rescale >= 1.0 else 2


def _quantize(op: Operator) -> int:
    return 2 if op.outputs[0].type == INT16 else 1


def _dequantize(op: Operator) -> int:
    kind = _input_type(op)
    if kind == TensorType.FLOAT16:
        return 3
    return _by_type("DEQUANTIZE", op.inputs[0])


def _tile(op: Operator) -> int:
    return 3 if _input_type(op) == INT8 else 1


def _broadcast_to(op: Operator) -> int:
    return 3 if _input_type(op) in (INT8, INT16) else 2


def _split_int32(op: Operator) -> int:
    return 3 if _input_type(op, 1) == TensorType.INT32 else _by_type("SPLIT", op.inputs[1])


def _cast(op: Operator) -> int:
    types = (_input_type(op), op.outputs[0].type)
    if INT8 in types:
        return 3
    return 2 if TensorType.UINT32 in types else 1


def _abs(op: Operator) -> int:
    return 5 if _input_type(op) == TensorType.INT32 else _by_type("ABS", op.inputs[0])


_SPECIAL = {
    "CONV_2D": _conv,
    "DEPTHWISE_CONV_2D": _depthwise,
    "FULLY_CONNECTED": _fully_connected,
    "TRANSPOSE_CONV": _transpose_conv,
    "MUL": _mul,
    "QUANTIZE": _quantize,
    "DEQUANTIZE": _dequantize,
    "TILE": _tile,
    "BROADCAST_TO": _broadcast_to,
    "SPLIT": _split_int32,
    "CAST": _cast,
    "ABS": _abs,
}
