"""What a quantisation rule says of an op, and which nodes of a graph the rules of a dialect hold for (design section 4).

A dialect's table (`dialects`) says for every op of the canonical spec where the parameters of its output come from:

======  ======================================================================================================
OWN     the output has a range of its own, which calibration finds
SAME    the output has the parameters of the first input: the op moves or selects codes, it computes none
JOINT   all inputs and the output have one range
FIXED   the parameters are constants of the runtime
ACT     OWN, and void behind a quantiser whose range lies within the activation's bounds (Relu, Clip)
======  ======================================================================================================

An op that is not in the table has no int8 form there and stays float.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgec.graph.views import attribute, constant, is_constant
from edgec.passes.quantize.qparams import QParams


class Kind(enum.Enum):
    """Where the parameters of a node's output come from; the table in this module's docstring."""

    OWN = "own"
    SAME = "same"
    JOINT = "joint"
    FIXED = "fixed"
    ACT = "act"


@dataclass(frozen=True)
class Rule:
    """How one op is quantised.

    ``data`` is the number of leading inputs that carry activations (None: all of them); further inputs are
    shapes, bounds or axes. ``weight`` is the input with constant weights, quantised per output channel along
    ``axis``; the input behind it is the bias. ``anchor`` marks the ops that are worth a quantised region of
    their own.
    """

    kind: Kind
    data: int | None = 1
    weight: int | None = None
    fixed: QParams | None = None
    anchor: bool = False


@dataclass(frozen=True)
class Verdict:
    """The rule for a node, or why it stays float."""

    rule: Rule | None
    reason: str = ""


def rule_for(node: ir.Node, rules: Mapping[str, Rule]) -> Verdict:
    """Which of ``rules`` holds for ``node``, after a look at operands and attributes that rule int8 out."""
    rule = rules.get(node.op_type) if node.domain in ("", "ai.onnx") else None
    if rule is None:
        return Verdict(None, f"{node.op_type} has no int8 form")
    if any(value.dtype not in (ir.DataType.FLOAT, None) for value in node.outputs):
        return Verdict(None, "its output is not float32")
    if rule.weight is not None:
        return _linear(node, rule)
    check = _CHECKS.get(node.op_type)
    reason = check(node) if check else ""
    return Verdict(None, reason) if reason else Verdict(rule)


def data_inputs(node: ir.Node, rule: Rule) -> list[int]:
    """Indices of the inputs that carry activations (constants among them included)."""
    count = len(node.inputs) if rule.data is None else min(rule.data, len(node.inputs))
    return [index for index in range(count) if node.inputs[index] is not None]


def activation_bounds(node: ir.Node) -> tuple[float, float]:
    """(low, high) that a Relu or Clip lets through; infinite where it has no bound."""
    if node.op_type == "Relu":
        return 0.0, float("inf")
    bounds = [-float("inf"), float("inf")]
    for index in (1, 2):
        value = node.inputs[index] if len(node.inputs) > index else None
        if value is not None:
            array = constant(value)
            if array is not None:
                bounds[index - 1] = float(array)
    return bounds[0], bounds[1]


def _linear(node: ir.Node, rule: Rule) -> Verdict:
    weight = constant(node.inputs[1])
    if weight is None:
        if node.op_type == "MatMul":
            return Verdict(Rule(Kind.OWN, data=2))
        return Verdict(None, "its weight is computed")
    if len(node.inputs) > 2 and node.inputs[2] is not None and not is_constant(node.inputs[2]):
        return Verdict(None, "its bias is computed")
    if not np.all(np.isfinite(weight)):
        return Verdict(None, "its weight holds NaN or infinity")
    if node.op_type in ("Gemm", "MatMul") and weight.ndim != 2:
        return Verdict(None, "its weight is not a matrix")
    if node.op_type == "Gemm":
        plain = attribute(node, "alpha", 1.0) == 1.0 and attribute(node, "beta", 1.0) == 1.0
        if not plain or attribute(node, "transA", 0):
            return Verdict(None, "alpha, beta or transA is not the default")
        bias = constant(node.inputs[2]) if len(node.inputs) > 2 else None
        if bias is not None and bias.size not in (1, weight.shape[0 if attribute(node, "transB", 0) else 1]):
            return Verdict(None, "its bias varies over the batch")
    return Verdict(rule)


def weight_axis(node: ir.Node) -> int:
    """The axis of the weight that counts output channels, those of one group for a grouped ConvTranspose."""
    if node.op_type == "Conv":
        return 0
    if node.op_type == "ConvTranspose":
        weight = constant(node.inputs[1])
        group = attribute(node, "group", 1)
        depthwise = weight is not None and group > 1 and weight.shape[:2] == (group, 1)
        return 0 if depthwise else 1
    if node.op_type == "Gemm":
        return 0 if attribute(node, "transB", 0) else 1
    return 1


def _clip(node: ir.Node) -> str:
    computed = any(value is not None and not is_constant(value) for value in node.inputs[1:])
    return "its bounds are computed" if computed else ""


def _pad(node: ir.Node) -> str:
    if attribute(node, "mode", "constant") != "constant":
        return ""
    fill = node.inputs[2] if len(node.inputs) > 2 else None
    array = None if fill is None else constant(fill)
    if fill is not None and (array is None or float(array) != 0.0):
        return "it pads with something else than zero"
    return ""


def _average(node: ir.Node) -> str:
    if any(d != 1 for d in attribute(node, "dilations", (1,))):
        return "its window has gaps, for which there is no int8 kernel"
    if attribute(node, "ceil_mode", 0) and attribute(node, "count_include_pad", 0):
        return "it counts its padding and rounds its size up, which int8 kernels count differently"
    return ""


def _resize(node: ir.Node) -> str:
    overshoots = attribute(node, "mode", "nearest") not in ("nearest", "linear")
    return "cubic interpolation overshoots" if overshoots else ""


def _softmax(node: ir.Node) -> str:
    value = node.inputs[0]
    rank = None if value is None or value.shape is None else len(value.shape)
    axis = attribute(node, "axis", -1)
    usual = rank is None or axis in (-1, 1, rank - 1)
    return "" if usual else "its axis is neither the channels nor the last"


def _data_constant(node: ir.Node) -> str:
    return "its data is constant" if is_constant(node.inputs[0]) else ""


_CHECKS = {
    "AveragePool": _average,
    "Clip": _clip,
    "Pad": _pad,
    "Resize": _resize,
    "Softmax": _softmax,
    "Gather": _data_constant,
    "Expand": _data_constant,
}
