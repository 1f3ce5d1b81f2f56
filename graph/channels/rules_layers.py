"""Layers with weights: convolutions, matrix products, and normalisations with per-channel parameters."""

from __future__ import annotations

from typing import Literal

import numpy as np
import onnx_ir as ir

from edgec.graph.channels.atoms import Labels, UntraceableError, on_axis
from edgec.graph.channels.trace import Rule, Trace
from edgec.graph.views import attribute, is_constant


def grouping(node: ir.Node) -> Literal["dense", "by group", "by position"]:
    """How channels leave a (transposed) convolution.

    ``by group``: a whole group goes, with its inputs and outputs (depthwise is the case of one input per
    group); ``by position``: each group loses the channel at the same place, so that groups stay equal. The
    one that leaves more units is taken.
    """
    group, inside, outside = _group_sizes(node)
    if group == 1:
        return "dense"
    return "by group" if group >= max(inside, outside) else "by position"


def _group_sizes(node: ir.Node) -> tuple[int, int, int]:
    """Groups, and input and output channels of each."""
    group = int(attribute(node, "group", 1))
    shape = _static(node.inputs[1])
    if node.op_type == "ConvTranspose":
        return group, shape[0] // group, shape[1]
    return group, shape[1], shape[0] // group


def _static(value: ir.Value | None) -> tuple[int, ...]:
    if value is None or not is_constant(value) or value.shape is None:
        raise UntraceableError("its weight is computed")
    return tuple(size for size in value.shape if isinstance(size, int))


def _bias_known(node: ir.Node, operand: int) -> bool:
    """True when there is a constant bias; a computed one cannot be followed."""
    if len(node.inputs) <= operand or node.inputs[operand] is None:
        return False
    if not is_constant(node.inputs[operand]):
        raise UntraceableError("its bias is computed")
    return True


def read(trace: Trace, node: ir.Node, operand: int, axis: int, size: int) -> Labels:
    """What a layer that reads all channels of its input finds along ``axis``. What it makes are channels of its own, so
    an input that has them elsewhere only has to stay as it is."""
    labels = trace.labels(node.inputs[operand])
    try:
        return trace.along(labels, axis, size)
    except UntraceableError as error:
        trace.freeze(labels, node, f"needs them: {error}")
        return np.broadcast_to(trace.blank(1, f"{node.op_type} {node.name!r} reads them: {error}"), (size,))


def _convolution(trace: Trace, node: ir.Node) -> None:
    transposed = node.op_type == "ConvTranspose"
    group, inside, outside = _group_sizes(node)
    biased = _bias_known(node, 2)
    x, rank = node.inputs[0], len(trace.dims(node.inputs[0]))
    mode = grouping(node)
    if mode == "dense":
        into = read(trace, node, 0, 1, inside)
        out = trace.atoms.fresh(outside)
        trace.slot(node, 1, 1 if transposed else 0, out, "producer")
        trace.slot(node, 1, 0 if transposed else 1, into, "consumer")
    elif mode == "by group":
        into = trace.along(trace.labels(x), 1, group * inside)
        first = trace.atoms.unite_along(into.reshape(group, inside), 1)[:, 0]
        out = np.repeat(first, outside)
        trace.slot(node, 1, 0, into if transposed else out, "parameter")
    else:
        into = trace.along(trace.labels(x), 1, group * inside)
        first = trace.atoms.unite_along(into.reshape(group, inside), 0)[0]
        places = trace.atoms.fresh(outside)
        out = np.tile(places, group)
        trace.slot(node, 1, 1 if transposed else 0, places if transposed else out, "producer")
        trace.slot(node, 1, 0 if transposed else 1, into if transposed else first, "consumer")
    if biased:
        trace.slot(node, 2, 0, out, "parameter")
    trace.set(node.outputs[0], on_axis(out, rank, 1))


def _gemm(trace: Trace, node: ir.Node) -> None:
    if attribute(node, "transA", 0):
        raise UntraceableError("it transposes its input")
    shape = _static(node.inputs[1])
    out_axis = 0 if attribute(node, "transB", 0) else 1
    biased = _bias_known(node, 2)
    into = read(trace, node, 0, 1, shape[1 - out_axis])
    out = trace.atoms.fresh(shape[out_axis])
    trace.slot(node, 1, out_axis, out, "producer")
    trace.slot(node, 1, 1 - out_axis, into, "consumer")
    if biased:
        bias = _static(node.inputs[2])
        if bias and bias[-1] > 1:
            trace.slot(node, 2, len(bias) - 1, out, "parameter")
    trace.set(node.outputs[0], on_axis(out, 2, 1))


def _per_channel_parameters(trace: Trace, node: ir.Node) -> None:
    """BatchNormalization and InstanceNormalization: vectors along axis 1."""
    if attribute(node, "training_mode", 0) or len(node.outputs) > 1:
        raise UntraceableError("it is in training mode")
    labels = trace.labels(node.inputs[0])
    labels = trace.settle(labels, 1)
    channels: Labels = trace.along(labels, 1, trace.dims(node.inputs[0])[1])
    for operand in range(1, len(node.inputs)):
        _static(node.inputs[operand])
        trace.slot(node, operand, 0, channels, "parameter")
    trace.set(node.outputs[0], labels)


RULES: dict[str, Rule] = {
    "Conv": _convolution,
    "ConvTranspose": _convolution,
    "Gemm": _gemm,
    "BatchNormalization": _per_channel_parameters,
    "InstanceNormalization": _per_channel_parameters,
}
