"""Q and DQ nodes of an ONNX file: their operands, and what stands around them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx

from edgec.compiler.check.onnx_view import DEQUANTIZE, QUANTIZE, Array, OnnxView, attribute
from edgec.graph.spec import LAYERS


@dataclass(frozen=True)
class Pair:
    """A Q and a DQ that reads its codes."""

    quantise: onnx.NodeProto
    dequantise: onnx.NodeProto


def pair_of(view: OnnxView, name: str) -> Pair | None:
    """The pair that makes a tensor; None where something else does."""
    dequantise = view.makers.get(name)
    if dequantise is None or dequantise.op_type != DEQUANTIZE:
        return None
    quantise = view.maker(dequantise, 0)
    return None if quantise is None or quantise.op_type != QUANTIZE else Pair(quantise, dequantise)


def scale_of(view: OnnxView, node: onnx.NodeProto) -> Array | None:
    """The constant scale of a Q or DQ."""
    return view.array(node, 1)


def same_scale(view: OnnxView, first: onnx.NodeProto, second: onnx.NodeProto) -> bool:
    """Whether two Q or DQ nodes have the same constant scale."""
    a, b = scale_of(view, first), scale_of(view, second)
    return a is not None and b is not None and np.array_equal(a, b)


def on_codes(view: OnnxView, node: onnx.NodeProto) -> bool:
    """Whether a layer's data come out of a DQ, behind a Pad or not."""
    if node.op_type not in LAYERS or not node.input:
        return False
    maker = view.maker(node, 0)
    if maker is not None and maker.op_type == "Pad":
        maker = view.maker(maker, 0)
    return maker is not None and maker.op_type == DEQUANTIZE


def weight_node(view: OnnxView, node: onnx.NodeProto) -> onnx.NodeProto | None:
    """The DQ in front of a layer's weight, where one is."""
    maker = view.maker(node, 1)
    return maker if maker is not None and maker.op_type == DEQUANTIZE else None


def weight_of(view: OnnxView, node: onnx.NodeProto) -> Array | None:
    """A layer's constant weight, as floats or codes, behind a pair or not."""
    dequantise = weight_node(view, node)
    if dequantise is None:
        return view.array(node, 1)
    quantise = view.maker(dequantise, 0)
    if quantise is not None and quantise.op_type == QUANTIZE:
        return view.array(quantise, 0)
    return view.array(dequantise, 0)


def layers_on_codes(view: OnnxView) -> Iterator[onnx.NodeProto]:
    """Layers whose data are codes."""
    return (node for node in view.of(*LAYERS) if on_codes(view, node))


def channel_axis(node: onnx.NodeProto, rank: int) -> int:
    """The axis of a layer's weight that its scales may lie along."""
    if node.op_type == "Conv":
        return 0
    if node.op_type == "Gemm":
        return 0 if attribute(node, "transB", 0) else 1
    return 1 if node.op_type == "ConvTranspose" else rank - 1
