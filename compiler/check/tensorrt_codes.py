"""What TensorRT's importer demands of Q and DQ nodes: types, operands, scales. Errors, all of them.

Source: onnx/onnx-tensorrt, ``QuantDequantLinearHelper`` and ``docs/operators.md`` by branch; issues by number.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto

from edgec.compiler.check.finding import Level, Rule, bad_scale
from edgec.compiler.check.onnx_view import (
    DEQUANTIZE,
    QUANTIZE,
    Array,
    OnnxView,
    attribute,
    label,
    type_name,
)
from edgec.compiler.check.pairs import channel_axis, layers_on_codes, scale_of, weight_node, weight_of
from edgec.graph.spec import LAYERS
from edgec.targets.jetpack import JetPack

Found = Iterator[tuple[Level, str, str]]
_FOREIGN = frozenset(
    {
        "QLinearConv", "QLinearMatMul", "QLinearAdd", "QLinearMul", "QLinearConcat", "QLinearGlobalAveragePool",
        "QLinearAveragePool", "QLinearSigmoid", "QLinearLeakyRelu", "QLinearSoftmax", "QGemm", "ConvInteger",
        "MatMulInteger", "DynamicQuantizeLinear",
    }
)  # fmt: skip


@dataclass(frozen=True)
class TensorrtView:
    """A file, and the release that it is for."""

    file: OnnxView
    jetpack: JetPack

    @property
    def before_10(self) -> bool:
        """TensorRT 8."""
        return self.jetpack.tensorrt < (10, 0)


def _rounding(view: TensorrtView) -> Iterator[onnx.NodeProto]:
    return view.file.of(QUANTIZE, DEQUANTIZE)


def _quantised_ops(view: TensorrtView) -> Found:
    for node in view.file.nodes:
        if node.op_type in _FOREIGN:
            yield (
                "error",
                label(node),
                f"TensorRT has no {node.op_type}: it takes QuantizeLinear and DequantizeLinear only",
            )


def _domains(view: TensorrtView) -> Found:
    for node in view.file.nodes:
        if node.domain not in ("", "ai.onnx") and node.op_type not in _FOREIGN:
            yield (
                "error",
                label(node),
                f"{node.domain}.{node.op_type} is no op of ONNX: TensorRT needs a plugin for it",
            )


def _three_inputs(view: TensorrtView) -> Found:
    for node in _rounding(view):
        if view.before_10 and (len(node.input) < 3 or not node.input[2]):
            yield (
                "error",
                view.file.place(node),
                f"no zero point: TensorRT {view.jetpack.version} wants the third input",
            )


def _code_type(view: TensorrtView) -> Found:
    for node in _rounding(view):
        kind = view.file.type_of(node.input[2]) if len(node.input) > 2 and node.input[2] else 0
        if kind == TensorProto.UINT8:
            level: Level = "error" if view.before_10 else "warning"
            yield (
                level,
                view.file.place(node),
                "the codes are uint8: TensorRT takes int8"
                + ("" if view.before_10 else ", and reads these as such"),
            )
        elif kind not in (0, TensorProto.INT8, TensorProto.FLOAT8E4M3FN, TensorProto.INT4):
            is_bias = node.op_type == DEQUANTIZE and kind == TensorProto.INT32
            if not is_bias:
                yield "error", view.file.place(node), f"the codes are {type_name(kind)}: TensorRT takes int8"


def _wide_codes(view: TensorrtView) -> Found:
    for node in view.file.of(DEQUANTIZE):
        kind = view.file.type_of(node.input[0])
        if kind in (TensorProto.INT32, TensorProto.INT16, TensorProto.UINT16):
            readers = view.file.readers.get(node.output[0], [])
            bias = any(one.op_type in LAYERS and index == 2 for one, index in readers)
            what = "a bias" if bias else "codes"
            yield (
                "error",
                view.file.place(node),
                f"{what} in {type_name(kind)} behind a DequantizeLinear: store floats there",
            )


def _zero_point(view: TensorrtView) -> Found:
    for node in _rounding(view):
        zero = view.file.array(node, 2)
        if zero is not None and np.any(zero.astype(np.int64)):
            yield (
                "error",
                view.file.place(node),
                f"a zero point of {_worst(zero)}: TensorRT takes 0 only (symmetric scales)",
            )
        elif zero is None and len(node.input) > 2 and node.input[2]:
            yield "error", view.file.place(node), "its zero point is computed: TensorRT wants a constant"


def _worst(zero: Array) -> int:
    flat = zero.reshape(-1).astype(np.int64)
    return int(flat[np.argmax(np.abs(flat))])


def _zero_point_size(view: TensorrtView) -> Found:
    for node in _rounding(view):
        scale, zero = scale_of(view.file, node), view.file.array(node, 2)
        if scale is not None and zero is not None and scale.size != zero.size:
            yield (
                "error",
                view.file.place(node),
                f"{scale.size} scales and {zero.size} zero points: as many are wanted",
            )


def _scale_stored(view: TensorrtView) -> Found:
    for node in _rounding(view):
        if not view.file.is_stored(node, 1):
            yield "error", view.file.place(node), "its scale is computed: TensorRT wants a constant"


def _scale_positive(view: TensorrtView) -> Found:
    for node in _rounding(view):
        scale = scale_of(view.file, node)
        if scale is not None and (wrong := bad_scale(scale)):
            yield "error", view.file.place(node), wrong


def _scale_type(view: TensorrtView) -> Found:
    for node in _rounding(view):
        kind = view.file.type_of(node.input[1])
        half = kind in (TensorProto.FLOAT16, TensorProto.BFLOAT16)
        if half and (view.file.opset < 19 or view.before_10):
            yield (
                "error",
                view.file.place(node),
                f"a scale in {type_name(kind)}: float32 up to opset 18 and TensorRT 8",
            )


def _one_per_tensor(view: TensorrtView) -> Found:
    for node in _rounding(view):
        scale, source = scale_of(view.file, node), node.input[0]
        if scale is None or scale.size == 1 or view.file.is_stored(node, 0):
            continue
        maker = view.file.makers.get(source)
        is_weight = maker is not None and maker.op_type == QUANTIZE and view.file.is_stored(maker, 0)
        if not is_weight:
            yield (
                "error",
                view.file.place(node),
                f"{scale.size} scales for one activation: TensorRT takes one",
            )


def _axis(view: TensorrtView) -> Found:
    for layer in view.file.of(*LAYERS):
        dequantise, weight = weight_node(view.file, layer), weight_of(view.file, layer)
        if dequantise is None or weight is None:
            continue
        quantise = view.file.maker(dequantise, 0)
        for node in (dequantise, quantise):
            scale = None if node is None else scale_of(view.file, node)
            if node is None or scale is None or scale.size == 1:
                continue
            axis = int(attribute(node, "axis", 1)) % weight.ndim
            wanted = channel_axis(layer, weight.ndim)
            if axis != wanted:
                yield (
                    "error",
                    view.file.place(node),
                    f"scales along axis {axis}: for {layer.op_type} they lie along axis {wanted}",
                )
            elif scale.size != weight.shape[axis]:
                yield "error", view.file.place(node), f"{scale.size} scales for {weight.shape[axis]} channels"


def _int8_weights(view: TensorrtView) -> Found:
    for node in view.file.of(DEQUANTIZE):
        is_int8 = view.file.type_of(node.input[0]) in (TensorProto.INT8, TensorProto.UINT8)
        if view.before_10 and is_int8 and view.file.is_stored(node, 0):
            text = f"an int8 constant: TensorRT {view.jetpack.version} wants float, QuantizeLinear, DequantizeLinear"
            yield "error", view.file.place(node), text


def _lone(view: TensorrtView) -> Found:
    for node in view.file.of(QUANTIZE):
        readers = view.file.readers.get(node.output[0], [])
        if node.output[0] in view.file.outputs or any(one.op_type != DEQUANTIZE for one, _ in readers):
            yield (
                "error",
                view.file.place(node),
                "its codes are read by something else than a DequantizeLinear",
            )
    for node in view.file.of(DEQUANTIZE):
        maker = view.file.maker(node, 0)
        if (maker is None or maker.op_type != QUANTIZE) and not view.file.is_stored(node, 0):
            yield "error", view.file.place(node), "it dequantises what no QuantizeLinear made"


def _half_layers(view: TensorrtView) -> Found:
    for layer in layers_on_codes(view.file):
        if weight_node(view.file, layer) is None and view.file.is_stored(layer, 1):
            yield (
                "warning",
                label(layer),
                "its data are codes and its weight is not: it runs in float, and its pair is wasted",
            )
    for layer in view.file.of(*LAYERS):
        maker = view.file.maker(layer, 2)
        if (
            maker is not None
            and maker.op_type == DEQUANTIZE
            and view.file.type_of(maker.input[0]) != TensorProto.INT32
        ):
            yield "error", label(layer), "its bias comes out of a DequantizeLinear: store floats there"


CODE_RULES: tuple[Rule[TensorrtView], ...] = (
    Rule("quantised-op", "Q and DQ are the only quantised ops", _quantised_ops),
    Rule("foreign-op", "every op is one of ONNX", _domains),
    Rule("three-inputs", "Q and DQ have a zero point (TensorRT 8)", _three_inputs),
    Rule("code-type", "codes are int8", _code_type),
    Rule("wide-codes", "biases and float weights are floats, not int32 codes", _wide_codes),
    Rule("zero-point", "zero points are constant and 0", _zero_point),
    Rule("zero-point-size", "as many zero points as scales", _zero_point_size),
    Rule("scale-stored", "scales are constants", _scale_stored),
    Rule("scale-positive", "scales are positive", _scale_positive),
    Rule("scale-type", "scales are float32 (fp16 from opset 19 and TensorRT 10 on)", _scale_type),
    Rule("one-per-tensor", "an activation has one scale", _one_per_tensor),
    Rule("scale-axis", "a weight's scales lie along its output channels, one each", _axis),
    Rule("int8-weight", "weights are float in front of Q (TensorRT 8)", _int8_weights),
    Rule("pairs", "each Q is read by DQ nodes, each DQ reads a Q or a constant", _lone),
    Rule("half-quantised", "a layer's data and weight are both codes, its bias is not", _half_layers),
)
