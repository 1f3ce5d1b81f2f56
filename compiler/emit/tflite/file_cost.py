"""What a TFLite file costs, in the terms of :mod:`edgec.graph.cost`: operators under their ONNX names, one sample."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

from edgec.graph.cost import ModelCost, NodeCost
from edgec.graph.errors import ModelError
from edgec.graph.tflite.read import DAMAGE, OperatorInfo, TensorInfo, TfliteFile, read

ONNX_NAME = {
    "CONV_2D": "Conv", "DEPTHWISE_CONV_2D": "Conv", "TRANSPOSE_CONV": "ConvTranspose", "FULLY_CONNECTED": "Gemm",
    "BATCH_MATMUL": "MatMul", "ADD": "Add", "SUB": "Sub", "MUL": "Mul", "DIV": "Div", "MAXIMUM": "Max",
    "MINIMUM": "Min", "MAX_POOL_2D": "MaxPool", "AVERAGE_POOL_2D": "AveragePool", "MEAN": "ReduceMean",
    "REDUCE_MAX": "ReduceMax", "REDUCE_MIN": "ReduceMin", "SUM": "ReduceSum", "RELU": "Relu", "RELU6": "Clip",
    "RELU_N1_TO_1": "Clip", "LEAKY_RELU": "LeakyRelu", "PRELU": "PRelu", "LOGISTIC": "Sigmoid", "TANH": "Tanh",
    "HARD_SWISH": "HardSwish", "GELU": "Gelu", "SOFTMAX": "Softmax", "LOG_SOFTMAX": "LogSoftmax",
    "CONCATENATION": "Concat", "SPLIT": "Split", "SPLIT_V": "Split", "SLICE": "Slice", "STRIDED_SLICE": "Slice",
    "GATHER": "Gather", "PAD": "Pad", "PADV2": "Pad", "MIRROR_PAD": "Pad", "RESIZE_BILINEAR": "Resize",
    "RESIZE_NEAREST_NEIGHBOR": "Resize", "RESHAPE": "Reshape", "SQUEEZE": "Squeeze", "EXPAND_DIMS": "Unsqueeze",
    "TRANSPOSE": "Transpose", "DEPTH_TO_SPACE": "DepthToSpace", "SPACE_TO_DEPTH": "SpaceToDepth",
    "QUANTIZE": "QuantizeLinear", "DEQUANTIZE": "DequantizeLinear",
}  # fmt: skip

_LAYOUT = frozenset(
    {
        "RESHAPE", "SQUEEZE", "EXPAND_DIMS", "TRANSPOSE", "CONCATENATION", "SPLIT", "SPLIT_V", "SLICE",
        "STRIDED_SLICE", "GATHER", "PAD", "PADV2", "MIRROR_PAD", "RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR",
        "DEPTH_TO_SPACE", "SPACE_TO_DEPTH", "BROADCAST_TO", "TILE",
    }
)  # fmt: skip
_POOL = frozenset(
    {"MAX_POOL_2D", "AVERAGE_POOL_2D", "MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN", "REDUCE_PROD"}
)
_WEIGHTED = {"CONV_2D": 1, "DEPTHWISE_CONV_2D": 1, "FULLY_CONNECTED": 1, "TRANSPOSE_CONV": 1}


def cost_of(file: TfliteFile) -> ModelCost:
    """MACs, parameters and bytes of every operator. Constants that several operators share count once."""
    widened = {
        op.outputs[0]: op.inputs[0]
        for op in file.operators
        if op.code == "DEQUANTIZE" and file.tensors[op.inputs[0]].data is not None
    }
    seen: set[int] = set()
    nodes = tuple(_node(file, op, widened, seen) for op in file.operators if not _widens(file, op))
    return ModelCost(nodes, _peak(file))


def _widens(file: TfliteFile, op: OperatorInfo) -> bool:
    """The DEQUANTIZE of a float16 constant, which runtimes fold when they load the file."""
    return op.code == "DEQUANTIZE" and file.tensors[op.inputs[0]].data is not None


def _node(file: TfliteFile, op: OperatorInfo, widened: dict[int, int], seen: set[int]) -> NodeCost:
    stored = [widened.get(i, i) for i in op.inputs if i >= 0]
    constants = [i for i in stored if file.tensors[i].data is not None]
    fresh = [i for i in constants if i not in seen]
    seen.update(fresh)
    moved = [file.tensors[i] for i in stored if i not in constants]
    results = [file.tensors[i] for i in op.outputs]
    weights = [file.tensors[i] for i in fresh if op.code in _WEIGHTED or file.tensors[i].type.name != "INT32"]
    return NodeCost(
        name=results[0].name if results else "",
        op=ONNX_NAME.get(op.code, op.code),
        kind=kind_of(file, op),
        macs=macs_of(file, op),
        params=0 if op.code in _LAYOUT else sum(t.elements for t in weights),
        weight_bytes=sum(file.tensors[i].bytes for i in fresh),
        in_elements=sum(t.elements for t in moved),
        out_elements=sum(t.elements for t in results),
        activation_bytes=sum(t.bytes for t in (*moved, *results)),
        kernel=_kernel(file, op),
        stride=_stride(op),
    )


def kind_of(file: TfliteFile, op: OperatorInfo) -> str:
    """The cost class of an operator."""
    if op.code == "CONV_2D":
        return "pointwise" if _kernel(file, op) == (1, 1) else "dense"
    named = {"DEPTHWISE_CONV_2D": "depthwise", "TRANSPOSE_CONV": "transposed", "BATCH_MATMUL": "matmul"}
    if op.code in named:
        return named[op.code]
    if op.code == "FULLY_CONNECTED":
        return "linear"
    return "pool" if op.code in _POOL else "layout" if op.code in _LAYOUT else "elementwise"


def macs_of(file: TfliteFile, op: OperatorInfo) -> int:
    """Multiply-accumulates of one operator for one sample."""
    count = _MACS.get(op.code)
    if count is None:
        return 0
    return count([file.tensors[i] for i in op.inputs if i >= 0], file.tensors[op.outputs[0]], op)


def _matmul(operands: list[TensorInfo], y: TensorInfo, op: OperatorInfo) -> int:
    return y.elements * operands[0].shape[-2 if op.options.get("adj_x") else -1]


_MACS: dict[str, Callable[[list[TensorInfo], TensorInfo, OperatorInfo], int]] = {
    "CONV_2D": lambda x, y, op: y.elements * math.prod(x[1].shape[1:]),
    "DEPTHWISE_CONV_2D": lambda x, y, op: y.elements * math.prod(x[1].shape[1:3]),
    "TRANSPOSE_CONV": lambda x, y, op: x[2].elements * math.prod(x[1].shape[:3]),
    "FULLY_CONNECTED": lambda x, y, op: y.elements * x[1].shape[-1],
    "BATCH_MATMUL": _matmul,
}


def _kernel(file: TfliteFile, op: OperatorInfo) -> tuple[int, ...]:
    if op.code in ("CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV"):
        return file.tensors[op.inputs[1]].shape[1:3]
    if "filter_height" in op.options:
        return int(op.options["filter_height"]), int(op.options["filter_width"])
    return ()


def _stride(op: OperatorInfo) -> tuple[int, ...]:
    if "stride_h" in op.options:
        return int(op.options["stride_h"]), int(op.options["stride_w"])
    return ()


def _peak(file: TfliteFile) -> int:
    """The largest sum of live activations, each freed behind its last reader."""
    last = {i: k for k, op in enumerate(file.operators) for i in op.inputs if i >= 0}
    last.update(dict.fromkeys(file.outputs, len(file.operators)))
    live = set(file.inputs)
    held = peak = sum(file.tensors[i].bytes for i in live)
    for k, op in enumerate(file.operators):
        if _widens(file, op):
            continue
        fresh = set(op.outputs) - live
        live |= fresh
        held += sum(file.tensors[i].bytes for i in fresh)
        peak = max(peak, held)
        dead = {i for i in (*op.inputs, *op.outputs) if i in live and last.get(i, -1) <= k}
        live -= dead
        held -= sum(file.tensors[i].bytes for i in dead)
    return peak


def read_cost(source: str | Path | bytes) -> tuple[ModelCost, str]:
    """What a TFLite file costs in the terms of `graph.cost`, and its precision: fp32, fp16 or int8."""
    file = read(source)
    try:
        return cost_of(file), file.precision
    except DAMAGE as error:
        where = "TFLite bytes" if isinstance(source, bytes) else str(source)
        what = "an operator of the TFLite file lacks an operand"
        raise ModelError(what, where=where, why=str(error) or None) from error
