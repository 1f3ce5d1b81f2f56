"""What onnxruntime wants of a QDQ file on a CPU: pairs that agree, biases at the accumulator's scale, codes that it has."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from onnx import TensorProto

from edgec.compiler.check.finding import Level, Rule, bad_scale
from edgec.compiler.check.onnx_view import DEQUANTIZE, QUANTIZE, OnnxView, attribute, label, type_name
from edgec.compiler.check.pairs import channel_axis, scale_of, weight_node
from edgec.graph.spec import LAYERS

Found = Iterator[tuple[Level, str, str]]
NEWEST_OPSET = 21
"""Of onnxruntime 1.19, the oldest that boards install."""
BIAS_TOLERANCE = 1e-3


@dataclass(frozen=True)
class OnnxruntimeView:
    """A file, and the codes that the target's kernels are fastest with."""

    file: OnnxView
    codes: str


def _opset(view: OnnxruntimeView) -> Found:
    if view.file.opset > NEWEST_OPSET:
        yield (
            "warning",
            "",
            f"opset {view.file.opset}: onnxruntime 1.19, which old systems have, reads up to {NEWEST_OPSET}",
        )


def _scales(view: OnnxruntimeView) -> Found:
    for node in view.file.of(QUANTIZE, DEQUANTIZE):
        scale = scale_of(view.file, node)
        if scale is None:
            yield "warning", label(node), "its scale is computed: nothing is fused around it"
        elif wrong := bad_scale(scale):
            yield "error", label(node), wrong


def _pairs(view: OnnxruntimeView) -> Found:
    for node in view.file.of(DEQUANTIZE):
        quantise = view.file.maker(node, 0)
        if quantise is None or quantise.op_type != QUANTIZE:
            continue
        for index, what in ((1, "scale"), (2, "zero point")):
            a, b = view.file.array(quantise, index), view.file.array(node, index)
            if a is not None and b is not None and not np.array_equal(a, b):
                yield "error", label(node), f"its {what} is not that of the QuantizeLinear before it"


def _codes(view: OnnxruntimeView) -> Found:
    kinds = {
        type_name(view.file.type_of(node.output[0]))
        for node in view.file.of(QUANTIZE)
        if not view.file.is_stored(node, 0)
    }
    if odd := sorted(kinds - {view.codes, "unknown"}):
        text = f"activations in {' and '.join(odd)}: this target's kernels are fastest with {view.codes}"
        yield "warning", "", text


def _weights(view: OnnxruntimeView) -> Found:
    for layer in view.file.of(*LAYERS):
        node = weight_node(view.file, layer)
        zero = None if node is None else view.file.array(node, 2)
        scale = None if node is None else scale_of(view.file, node)
        if (
            node is None
            or zero is None
            or scale is None
            or view.file.type_of(node.input[0]) != TensorProto.INT8
        ):
            continue
        if np.any(zero):
            yield "error", label(layer), "an int8 weight with a zero point other than 0"
        weight = view.file.array(node, 0)
        if scale.size > 1 and weight is not None and layer.op_type != "ConvTranspose":
            axis = int(attribute(node, "axis", 1)) % weight.ndim
            if axis != channel_axis(layer, weight.ndim):
                yield "error", label(layer), f"an int8 weight with scales along axis {axis}"


def _biases(view: OnnxruntimeView) -> Found:
    for layer in view.file.of("Conv", "ConvTranspose", "Gemm"):
        bias, data, weight = (view.file.maker(layer, index) for index in (2, 0, 1))
        if any(one is None or one.op_type != DEQUANTIZE for one in (bias, data, weight)):
            continue
        scales = [None if one is None else scale_of(view.file, one) for one in (data, weight, bias)]
        if any(one is None for one in scales):
            continue
        x, w, b = (np.asarray(one, np.float64) for one in scales)
        if x.size != 1 or (w.size not in (1, b.size) and b.size % max(w.size, 1)):
            continue
        wanted = np.resize(x * w, b.shape)
        if not np.allclose(b, wanted, rtol=BIAS_TOLERANCE):
            yield (
                "error",
                label(layer),
                "its bias has another scale than its accumulator: fused kernels add it as if it had not",
            )


ONNXRUNTIME_RULES: tuple[Rule[OnnxruntimeView], ...] = (
    Rule("opset", "the opset is one that boards read", _opset),
    Rule("scale-positive", "scales are positive constants", _scales),
    Rule("pairs-agree", "a DQ has the parameters of its Q", _pairs),
    Rule("code-type", "activations have the codes of the target's kernels", _codes),
    Rule("weight-form", "weights are symmetric along their output channels", _weights),
    Rule("bias-scale", "biases have the accumulator's scale", _biases),
)
