"""Nodes that are a convolution, whatever they are called."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from edgec.graph.views import ConvView, add_initializer, attribute, constant, fresh_name, shape_of

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Linear:
    """``y = kernel * x + bias``: ``kernel`` is (out, in/group, *taps) and ``bias`` (out,), both float64.

    ``pads`` are begin then end and mean zeros, ``macs`` what the node costs for one sample. ``diagonal``: each channel for
    itself, so that any grouping holds it.
    """

    x: ir.Value
    y: ir.Value
    kernel: Array
    bias: Array
    group: int
    strides: tuple[int, ...]
    pads: tuple[int, ...]
    dilations: tuple[int, ...]
    macs: int

    @property
    def taps(self) -> tuple[int, ...]:
        return tuple(self.kernel.shape[2:])

    @property
    def diagonal(self) -> bool:
        return self.kernel.shape[1] == 1 and self.group == len(self.kernel)

    def grouped(self, group: int) -> Array | None:
        """The kernel in ``group`` groups; None where that cannot be."""
        if group == self.group:
            return self.kernel
        if not self.diagonal or len(self.kernel) % group:
            return None
        each = len(self.kernel) // group
        wide = np.zeros((len(self.kernel), each, *self.taps))
        channels = np.arange(len(self.kernel))
        wide[channels, channels % each] = self.kernel[:, 0]
        return wide


def linear(node: ir.Node | None) -> Linear | None:
    """The node as a convolution: Conv, BatchNormalization, AveragePool that counts its zeros; None for everything else."""
    if node is None or node.domain not in ("", "ai.onnx") or node.inputs[0] is None:
        return None
    if node.inputs[0].shape is None or node.outputs[0].shape is None:
        return None
    x, y = shape_of(node.inputs[0]), shape_of(node.outputs[0])
    if len(x) < 3 or len(y) != len(x) or x[1] is None:
        return None
    if node.op_type == "Conv":
        return _conv(node, math.prod(size or 1 for size in y))
    if node.op_type == "BatchNormalization":
        return _batch_norm(node, len(x) - 2)
    if node.op_type == "AveragePool":
        return _pool(node, x[1], len(x) - 2)
    return None


def identity(value: ir.Value, channels: int, rank: int) -> Linear:
    """``value`` as a convolution of itself; ``rank`` spatial axes."""
    return _diagonal(value, value, np.ones(channels), np.zeros(channels), rank)


def _conv(node: ir.Node, outputs: int) -> Linear | None:
    view = ConvView.of(node)
    if (
        view is None
        or view.weight.dtype != np.float32
        or min(view.pads, default=0) < 0
        or "auto_pad" in node.attributes
    ):
        return None
    kernel = view.weight.astype(np.float64)
    bias = np.zeros(len(kernel)) if view.bias is None else view.bias.astype(np.float64)
    macs = outputs * math.prod(kernel.shape[1:])
    return Linear(view.x, view.y, kernel, bias, view.group, view.strides, view.pads, view.dilations, macs)


def _batch_norm(node: ir.Node, rank: int) -> Linear | None:
    values = [constant(value) for value in node.inputs[1:5]]
    if (
        attribute(node, "training_mode", 0)
        or len(node.outputs) > 1
        or any(v is None or v.dtype != np.float32 for v in values)
    ):
        return None
    scale, shift, mean, variance = (v.astype(np.float64) for v in values if v is not None)
    factor = scale / np.sqrt(variance + float(attribute(node, "epsilon", 1e-5)))
    x = node.inputs[0]
    return None if x is None else _diagonal(x, node.outputs[0], factor, shift - mean * factor, rank)


def _pool(node: ir.Node, channels: int, rank: int) -> Linear | None:
    """Average pooling where every window divides by its size: none of its pads is left out of the count."""
    x, taps = node.inputs[0], tuple(attribute(node, "kernel_shape", ()))
    pads = tuple(attribute(node, "pads", (0,) * 2 * rank))
    counted = not any(pads) or bool(attribute(node, "count_include_pad", 0))
    if (
        x is None
        or not counted
        or attribute(node, "ceil_mode", 0)
        or attribute(node, "auto_pad", "NOTSET") != "NOTSET"
    ):
        return None
    kernel = np.full((channels, 1, *taps), 1.0 / math.prod(taps))
    strides, dilations = (tuple(attribute(node, name, (1,) * rank)) for name in ("strides", "dilations"))
    return Linear(x, node.outputs[0], kernel, np.zeros(channels), channels, strides, pads, dilations, 0)


def _diagonal(x: ir.Value, y: ir.Value, factor: Array, shift: Array, rank: int) -> Linear:
    ones = (1,) * rank
    kernel = factor.reshape(-1, 1, *ones)
    return Linear(x, y, kernel, shift, len(factor), ones, (0,) * 2 * rank, ones, 0)


def placed(graph: ir.Graph, before: ir.Node, made: Linear, name: str) -> ir.Node:
    """A Conv that computes ``made``, in front of ``before``; what it makes has the type and shape of ``made.y``."""
    name = fresh_name(graph, name)
    inputs = [
        made.x,
        add_initializer(graph, f"{name}_weight", made.kernel.astype(np.float32)),
        add_initializer(graph, f"{name}_bias", made.bias.astype(np.float32)),
    ]
    options: dict[str, int | Sequence[int]] = {
        "kernel_shape": made.taps,
        "strides": made.strides,
        "pads": made.pads,
        "dilations": made.dilations,
        "group": made.group,
    }
    node = ir.node("Conv", inputs, options, name=name)
    value = node.outputs[0]
    value.name, value.type, value.shape = fresh_name(graph, f"{name}_output"), made.y.type, made.y.shape
    graph.insert_before(before, node)
    return node
