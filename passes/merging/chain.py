"""Layers in a row with nothing between are one layer, where that takes fewer multiplications.

Cases, for a layer whose output nothing but the next layer reads:
1. a convolution behind any convolution, where the second one does not pad: the kernels are convolved (1x1 behind k x k stays
   k x k), strides multiply, the first one's pads stay;
2. a padding convolution behind a 1x1 without bias, stride or pads: zeros stay zeros;
3. both dense, or both depthwise without a multiplier;
4. a Gemm (or MatMul) behind a Gemm (or MatMul).
Not legal: a padding convolution behind a bias (its border would see the bias) or behind a wider window (its border would see
what lies outside of the image), and dilated windows. A low-rank pair stays: it costs less than the whole.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir as ir

from edgec.graph.edit import take_over
from edgec.graph.views import GemmView, shape_of, sole_consumer
from edgec.passes.merging.linear import Linear, linear, placed

Array = np.ndarray[Any, np.dtype[Any]]


def merge_chains(model: ir.Model) -> list[str]:
    """Merge in place; for each merged layer its name and parts."""
    found: list[str] = []
    for node in list(model.graph):
        value = node.inputs[0] if node.inputs else None
        before = None if value is None else value.producer()
        if value is None or before is None or sole_consumer(value) is not node:
            continue
        name = _convolutions(model.graph, before, node) or _products(before, node)
        if name:
            found.append(name)
    return found


def _convolutions(graph: ir.Graph, first: ir.Node, second: ir.Node) -> str | None:
    if first.op_type != "Conv" or second.op_type != "Conv":
        return None
    a, b = linear(first), linear(second)
    made = None if a is None or b is None else _composed(a, b)
    if made is None or a is None or b is None or made.macs >= a.macs + b.macs:
        return None
    parts = f"{first.name}, {second.name}"
    node = placed(graph, second, made, f"{second.name}_merged")
    take_over(graph, second.outputs[0], node.outputs[0])
    graph.remove([second, first], safe=True)
    return f"{node.name}: {parts}"


def _composed(a: Linear, b: Linear) -> Linear | None:
    """``b`` behind ``a`` as one convolution; None where that is not exact."""
    depthwise = a.diagonal and b.diagonal
    if not depthwise and (a.group, b.group) != (1, 1):
        return None
    if any(d != 1 and t > 1 for one in (a, b) for d, t in zip(one.dilations, one.taps, strict=True)):
        return None
    plain = math.prod(a.taps) == 1 and not a.bias.any() and not any(a.pads) and set(a.strides) == {1}
    if any(b.pads) and not plain:
        return None
    taps = tuple(p + (q - 1) * s for p, q, s in zip(a.taps, b.taps, a.strides, strict=True))
    kernel = np.zeros((len(b.kernel), a.kernel.shape[1], *taps))
    for tap in np.ndindex(*b.taps):
        mixed = b.kernel.reshape(*b.kernel.shape[:2], -1)[:, :, np.ravel_multi_index(tap, b.taps)]
        placed_ = tuple(slice(t * s, t * s + p) for t, s, p in zip(tap, a.strides, a.taps, strict=True))
        part = (
            mixed.reshape(-1, *[1] * (a.kernel.ndim - 1)) * a.kernel
            if depthwise
            else np.tensordot(mixed, a.kernel, 1)
        )
        kernel[(slice(None), slice(None), *placed_)] += part
    summed = b.kernel.reshape(*b.kernel.shape[:2], -1).sum(2)
    bias = b.bias + (summed[:, 0] * a.bias if depthwise else summed @ a.bias)
    strides = tuple(p * q for p, q in zip(a.strides, b.strides, strict=True))
    macs = math.prod(size or 1 for size in shape_of(b.y)) * math.prod(kernel.shape[1:])
    pads = b.pads if plain else a.pads
    ones = (1,) * len(taps)
    return replace(a, y=b.y, kernel=kernel, bias=bias, strides=strides, pads=pads, dilations=ones, macs=macs)


def _products(first: ir.Node, second: ir.Node) -> str | None:
    """Two fully connected layers: the second one takes both."""
    a, b = GemmView.of(first), GemmView.of(second)
    if a is None or b is None or a.weight.dtype != np.float32 or b.weight.dtype != np.float32:
        return None
    both = (a.out_channels * a.in_channels) + (b.out_channels * b.in_channels)
    shifts = a.bias is not None and b.node.op_type == "MatMul"
    if b.out_channels * a.in_channels >= both or shifts or a.x.shape is None or b.x.shape is None:
        return None
    left, right = (one.weight.astype(np.float64) for one in (a, b))
    bias = None if a.bias is None and b.bias is None else np.zeros(b.out_channels)
    for weight, part in ((right, a.bias), (np.eye(b.out_channels), b.bias)):
        bias = bias if part is None or bias is None else bias + weight @ part.astype(np.float64)
    b.set(weight=(right @ left).astype(np.float32), bias=None if bias is None else bias.astype(np.float32))
    second.replace_input_with(0, a.x)
    graph = first.graph
    if graph is not None:
        graph.remove(first, safe=True)
    return f"{second.name}: {first.name}, {second.name}"
