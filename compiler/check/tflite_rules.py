"""What TFLite's quantisation specification demands of an int8 file, and XNNPACK's kernels with it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from edgec.compiler.check.finding import Finding, Level, Rule, bad_scale, worst_first
from edgec.graph.tflite.read import OperatorInfo, TensorInfo, TfliteFile, read
from edgec.graph.tflite.schema import TensorType

Found = Iterator[tuple[Level, str, str]]
_LAYERS = frozenset({"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV"})
_SAME = frozenset(
    {
        "MAX_POOL_2D", "AVERAGE_POOL_2D", "RESHAPE", "TRANSPOSE", "SQUEEZE", "PAD", "RESIZE_NEAREST_NEIGHBOR",
        "STRIDED_SLICE", "SLICE", "SPLIT", "CONCATENATION",
    }
)  # fmt: skip
_FIXED = {"LOGISTIC": (1 / 256, -128), "SOFTMAX": (1 / 256, -128), "TANH": (1 / 128, 0)}
BIAS_TOLERANCE = 1e-3


def check_tflite(path: Path) -> tuple[Finding, ...]:
    """Every rule of the specification that can be read from the file."""
    file = read(path)
    return worst_first(one for rule in TFLITE_RULES for one in rule.check(file))


def _layers(file: TfliteFile) -> Iterator[tuple[OperatorInfo, tuple[TensorInfo | None, ...]]]:
    """Layers on int8 codes, with (data, weight, bias)."""
    for op in file.operators:
        if op.code in _LAYERS:
            operands = file.operands(op)
            if op.code == "TRANSPOSE_CONV":
                operands = (operands[2], operands[1], operands[3] if len(operands) > 3 else None)
            data, weight = operands[0], operands[1]
            if data is not None and weight is not None and data.type == weight.type == TensorType.INT8:
                yield op, (*operands, None)[:3]


def _name(file: TfliteFile, op: OperatorInfo) -> str:
    return file.tensors[op.outputs[0]].name


def _scales(file: TfliteFile) -> Found:
    for tensor in file.tensors:
        q = tensor.quantization
        if q is not None and (wrong := bad_scale(q.scale)):
            yield "error", tensor.name, wrong


def _weights(file: TfliteFile) -> Found:
    for op, (_, weight, _bias) in _layers(file):
        if weight is None or weight.quantization is None:
            continue
        q = weight.quantization
        if any(q.zero_point):
            yield "error", _name(file, op), "an int8 weight with a zero point other than 0"
        axis = 3 if op.code == "DEPTHWISE_CONV_2D" else 0
        if len(q.scale) > 1 and (q.axis != axis or len(q.scale) != weight.shape[axis]):
            yield (
                "error",
                _name(file, op),
                f"{len(q.scale)} weight scales along axis {q.axis}, for {weight.shape[axis]} along {axis}",
            )


def _biases(file: TfliteFile) -> Found:
    for op, (data, weight, bias) in _layers(file):
        if bias is None or data is None or weight is None:
            continue
        if bias.type != TensorType.INT32:
            yield "error", _name(file, op), "the bias of an int8 layer is not int32"
            continue
        parts = (data.quantization, weight.quantization, bias.quantization)
        if any(part is None or not part.scale for part in parts):
            continue
        x, w, b = (np.asarray(part.scale) for part in parts if part is not None)
        if not np.allclose(b, np.resize(x * w, b.shape), rtol=BIAS_TOLERANCE):
            yield "error", _name(file, op), "its bias has another scale than its accumulator"


def _same(file: TfliteFile) -> Found:
    for op in file.operators:
        if op.code not in _SAME:
            continue
        made = file.tensors[op.outputs[0]]
        read = [
            t for t in file.operands(op) if t is not None and t.data is None and t.type == TensorType.INT8
        ]
        for tensor in read if made.type == TensorType.INT8 else ():
            if _params(tensor) != _params(made):
                yield (
                    "error",
                    made.name,
                    f"{op.code} has other parameters at its output than at {tensor.name}",
                )


def _params(tensor: TensorInfo) -> tuple[tuple[float, ...], tuple[int, ...]] | None:
    q = tensor.quantization
    return None if q is None else (q.scale, q.zero_point)


def _fixed(file: TfliteFile) -> Found:
    for op in file.operators:
        made = file.tensors[op.outputs[0]]
        wanted, q = _FIXED.get(op.code), made.quantization
        if wanted is None or q is None or made.type != TensorType.INT8 or not q.scale:
            continue
        if not np.isclose(q.scale[0], wanted[0], rtol=1e-6) or q.zero_point[0] != wanted[1]:
            yield (
                "error",
                made.name,
                f"{op.code} gives ({q.scale[0]:g}, {q.zero_point[0]}): its kernel has ({wanted[0]:g}, {wanted[1]})",
            )


TFLITE_RULES: tuple[Rule[TfliteFile], ...] = (
    Rule("scale-positive", "scales are positive", _scales),
    Rule("weight-form", "weights are symmetric along their output channels", _weights),
    Rule("bias-scale", "biases are int32 at the accumulator's scale", _biases),
    Rule("same-parameters", "ops that move codes change no parameters", _same),
    Rule("fixed-parameters", "Softmax, Logistic and Tanh have their kernels' parameters", _fixed),
)
