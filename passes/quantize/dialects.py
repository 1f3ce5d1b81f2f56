"""Quantisation dialects as data: what one runtime wants of an int8 network, in one frozen table each.

A target's card names its dialect; planning, calibration and insertion read the table and know no target. The three
8-bit tables share TFLite's rules, so that one set of scales and zero points makes both artifacts; they differ in how
codes are stored and in what saturates. TensorRT's is another: it quantises the inputs of operators, not tensors.

=============  =========================================================================================
tflite         int8 codes, as LiteRT's and XNNPACK's kernels take them
tflite-16x8    int16 codes with zero point 0: TFLite's mode for accelerators that have it
ort-x86        uint8 codes (U8S8): onnxruntime fuses them on x86 and leaves S8S8 half unfused
ort-arm        int8 codes (S8S8): the fewest instructions in onnxruntime on Arm
tensorrt       int8 codes with zero point 0, pairs on operators' inputs, weights and biases stored as floats
=============  =========================================================================================

Nothing else knows about zero points.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from edgec.passes.quantize.qparams import PROBABILITY, SIGNED_UNIT, QParams, affine
from edgec.passes.quantize.rules import Kind, Rule

CodeType = Literal["uint8", "int8", "int16"]
HOST_CODES: CodeType = "uint8"
"""What 8-bit work is done in: every host executes it in fused kernels. The file's own type comes last."""


@dataclass(frozen=True)
class Dialect:
    """How one runtime wants activations, weights and operators quantised."""

    name: str
    codes: CodeType
    """The type of activation codes in the file."""
    rules: Mapping[str, Rule]
    """Op -> where the parameters of its output come from; an op without a rule stays float."""
    symmetric: bool = False
    """Activations have zero point 0."""
    weight_limit: int = 127
    """Weight codes lie within plus and minus this."""
    weight_limit_without_dot: int = 127
    """The same where the CPU multiplies without a dot product instruction."""
    opset: int = 13
    """The first opset of ONNX whose QuantizeLinear takes these codes along an axis."""
    inputs_only: bool = False
    """Pairs stand on the inputs of operators that run on codes (`placement`); else behind every tensor (`plan`). Biases stay
    float, and weights are float numbers in front of a pair of their own."""
    depthwise_gates: bool = True
    """A depthwise convolution with a SiLU behind it runs on codes."""

    @property
    def bits(self) -> int:
        """Width of an activation code."""
        return np.iinfo(self.codes).bits

    def parameters(self, low: float, high: float) -> QParams:
        """Scale and zero point that cover [low, high] and zero."""
        return affine(low, high, self.bits, symmetric=self.symmetric)

    def on_host(self) -> Dialect:
        """The same with the codes that hosts work in."""
        return replace(self, codes=HOST_CODES) if self.bits == 8 else self

    def stored(self, codes: Any) -> np.ndarray[Any, np.dtype[Any]]:
        """Signed codes in the type of the file."""
        shift = 128 if self.codes == "uint8" else 0
        return np.asarray(np.asarray(codes, np.int32) + shift, self.codes)


_OWN = Rule(Kind.OWN)
_OWN2 = Rule(Kind.OWN, data=2)
_SAME = Rule(Kind.SAME)
_ACT = Rule(Kind.ACT)
_LINEAR = Rule(Kind.OWN, weight=1, anchor=True)
_PROBABILITY = Rule(Kind.FIXED, fixed=PROBABILITY)

RULES: Mapping[str, Rule] = {
    "Conv": _LINEAR,
    "ConvTranspose": _LINEAR,
    "Gemm": _LINEAR,
    "MatMul": _LINEAR,
    "Relu": _ACT,
    "Clip": _ACT,
    "LeakyRelu": _OWN,
    "PRelu": _OWN2,
    "HardSwish": _OWN,
    "Gelu": _OWN,
    "Sigmoid": _PROBABILITY,
    "Softmax": _PROBABILITY,
    "Tanh": Rule(Kind.FIXED, fixed=SIGNED_UNIT),
    "Add": _OWN2,
    "Sub": _OWN2,
    "Mul": _OWN2,
    "Max": Rule(Kind.JOINT, data=None),
    "Min": Rule(Kind.JOINT, data=None),
    "Concat": Rule(Kind.JOINT, data=None),
    "MaxPool": _SAME,
    "AveragePool": _SAME,
    "GlobalMaxPool": _SAME,
    "ReduceMax": _SAME,
    "GlobalAveragePool": _OWN,
    "ReduceMean": _OWN,
    "ReduceSum": _OWN,
    "Reshape": _SAME,
    "Flatten": _SAME,
    "Squeeze": _SAME,
    "Unsqueeze": _SAME,
    "Transpose": _SAME,
    "Pad": _SAME,
    "Resize": _SAME,
    "Slice": _SAME,
    "Split": _SAME,
    "Gather": _SAME,
    "DepthToSpace": _SAME,
    "SpaceToDepth": _SAME,
    "Expand": _SAME,
    "Identity": _SAME,
}

_UNIT_16 = QParams(1.0 / 32768.0, 0, 16)

TFLITE = Dialect("tflite", "int8", RULES)
TFLITE_16X8 = Dialect(
    "tflite-16x8",
    "int16",
    {op: replace(rule, fixed=_UNIT_16) if rule.fixed else rule for op, rule in RULES.items()},
    symmetric=True,
    opset=21,
)
ORT_X86 = Dialect("ort-x86", "uint8", RULES, weight_limit_without_dot=63)
ORT_ARM = Dialect("ort-arm", "int8", RULES)

TENSORRT_RULES: Mapping[str, Rule] = {
    "Conv": _LINEAR,
    "ConvTranspose": _LINEAR,
    "Gemm": _LINEAR,
    "MatMul": _LINEAR,
    "Add": _OWN2,
    "Concat": Rule(Kind.JOINT, data=None),
    "MaxPool": _SAME,
    "GlobalMaxPool": _SAME,
    "AveragePool": _OWN,
    "GlobalAveragePool": _OWN,
    "Pad": _SAME,
    "Resize": _SAME,
}
TENSORRT = Dialect("tensorrt", "int8", TENSORRT_RULES, symmetric=True, inputs_only=True)

DIALECTS: Mapping[str, Dialect] = {one.name: one for one in (TFLITE, TFLITE_16X8, ORT_X86, ORT_ARM, TENSORRT)}
"""Every dialect by the name that a target's card gives."""
