"""Layers that TensorRT's int8 kernels do not serve: too narrow, of odd form, or a matrix times one vector.

The thresholds are those of nvidia-modelopt (``find_nodes_from_convs_to_exclude``, ``find_nodes_from_matmul_to_exclude``).
"""

from __future__ import annotations

import math

import onnx_ir as ir

from edgec.graph.spec import LAYERS
from edgec.graph.views import attribute, constant
from edgec.passes.quantize.branches import gated
from edgec.passes.quantize.dialects import Dialect

NARROW = 16
"""Channels that fill an instruction of a tensor core."""


def why_float(node: ir.Node, dialect: Dialect) -> str:
    """Why a layer is not worth codes, or has no kernel for them; empty where it has, and for what is no layer."""
    weight = constant(node.inputs[1]) if len(node.inputs) > 1 else None
    if node.op_type not in LAYERS:
        return ""
    if weight is None:
        return "it multiplies two computed tensors"
    if node.op_type in ("Gemm", "MatMul"):
        return _matrix(node, min(weight.shape))
    group = int(attribute(node, "group", 1))
    if node.op_type == "ConvTranspose":
        if group > 1:
            return "a grouped transposed convolution has no scale per channel there"
        ins, outs = weight.shape[:2]
    else:
        outs, ins = weight.shape[:2]
    if min(outs, ins) < NARROW and not _narrow_kernel(node, outs, ins, group, weight.shape[2:]):
        return f"{ins} channels in (per group) and {outs} out are too few for an int8 kernel to gain"
    if group > 1 and ins == 1 and not dialect.depthwise_gates and _is_gated(node.outputs[0]):
        return "TensorRT 8 has no int8 kernel for a depthwise convolution with a SiLU"
    return ""


def _narrow_kernel(node: ir.Node, outs: int, ins: int, group: int, kernel: tuple[int, ...]) -> bool:
    if group > 1:
        return outs % 8 == 0 and min(kernel, default=1) >= 3
    x = node.inputs[0]
    first = x is not None and x.is_graph_input()
    return (outs % 8 == 0 or ins % 8 == 0) and (first or max(outs, ins) >= NARROW) and len(set(kernel)) == 1


def _matrix(node: ir.Node, narrowest: int) -> str:
    x = node.inputs[0]
    if narrowest < NARROW:
        return f"a matrix {narrowest} wide is too narrow for an int8 kernel to gain"
    rows = None if x is None or x.shape is None else [d if isinstance(d, int) else 1 for d in x.shape[:-1]]
    return "it multiplies one vector per input" if rows is None or math.prod(rows) == 1 else ""


def _is_gated(value: ir.Value) -> bool:
    """A SiLU is behind ``value``, in one node or two."""
    readers = [use.node for use in value.uses()]
    return any(node.op_type == "Swish" or gated(node) is value for node in readers)
