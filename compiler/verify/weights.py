"""The weights of one layer in two networks, and the factors between them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from edgec.graph.spec import LAYERS
from edgec.graph.views import attribute, constant

Array = np.ndarray[Any, np.dtype[Any]]

NEAR = 0.3
"""Weights whose ratio is within this of the middle one (in logarithms) agree: int8 codes and corrections move them so far."""
FAR = 2.0
"""Weights and bias whose ratios differ by more (in logarithms): one of them hardly matters to the channel, or is wrong."""
AGREEING = 0.5
"""Share of the weights (by magnitude) that must agree; else they are other weights, and say nothing of factors."""


@dataclass(frozen=True)
class LayerPair:
    """Logarithms of ``b``'s weights over ``a``'s: ``ratio`` and ``energy`` are (groups, out per group, in per group)."""

    source: str
    """The value that the layer reads, and the one that it makes: names in ``a``."""
    result: str
    ratio: Array
    energy: Array
    bias: Array | None
    """(out,): logarithms of ``b``'s bias over ``a``'s, nan where it says nothing."""

    @property
    def inputs(self) -> int:
        """Channels that it reads."""
        return int(self.ratio.shape[0] * self.ratio.shape[2])

    @property
    def outputs(self) -> int:
        """Channels that it makes."""
        return int(self.ratio.shape[0] * self.ratio.shape[1])

    def made_from(self, before: Array) -> Array:
        """(out,) logarithms of the factors that the layer makes, where those of what it reads are ``before`` (in,).

        nan also where weights and bias are `FAR` apart: the weights of a channel that is always the same may be anything small.
        """
        made = _middle(self.ratio + before.reshape(len(self.ratio), 1, -1), self.energy, 2).ravel()
        return made if self.bias is None else np.where(np.abs(made - self.bias) > FAR, np.nan, made)

    def undone_for(self, behind: Array) -> Array:
        """(in,) logarithms of the factors that the layer undoes, where those of what it makes are ``behind`` (out,)."""
        return _middle(behind.reshape(len(self.ratio), -1, 1) - self.ratio, self.energy, 1).ravel()


def pairs_of(a: ir.Model, b: ir.Model) -> tuple[LayerPair, ...]:
    """The layers that both have by one name, or that make a value of one name, with weights of one shape; in order of ``a``."""
    by_name = {node.name: node for node in b.graph}
    by_value = {value.name: node for node in b.graph for value in node.outputs}
    found = []
    for node in a.graph:
        other = by_name.get(node.name) or by_value.get(node.outputs[0].name)
        if node.op_type in LAYERS and other is not None and other.op_type in LAYERS:
            pair = _pair(node, other)
            found += [] if pair is None else [pair]
    return tuple(found)


def _pair(one: ir.Node, other: ir.Node) -> LayerPair | None:
    left, right = _kernel(one), _kernel(other)
    if left is None or right is None or left.shape != right.shape:
        return None
    energy = (left * left).sum(axis=3)
    product = (left * right).sum(axis=3)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.log(np.where(product > 0, product, np.nan) / energy)
    source, result = one.inputs[0], one.outputs[0]
    assert source is not None  # `_kernel` says so
    return LayerPair(source.name or "", result.name or "", ratio, np.sqrt(energy), _bias(one, other))


def _kernel(node: ir.Node) -> Array | None:
    """Weights as (groups, out per group, in per group, kernel)."""
    weight = real(node.inputs[1])
    if weight is None or node.inputs[0] is None or weight.ndim < 2:
        return None
    weight = weight.astype(np.float64)
    group = attribute(node, "group", 1)
    if node.op_type == "Conv":
        return weight.reshape(group, weight.shape[0] // group, weight.shape[1], -1)
    if node.op_type == "ConvTranspose":
        split = weight.reshape(group, weight.shape[0] // group, weight.shape[1], -1)
        return split.transpose(0, 2, 1, 3)
    if weight.ndim != 2:
        return None
    turned = weight if node.op_type == "Gemm" and attribute(node, "transB", 0) else weight.T
    return turned[None, :, :, None]


def _bias(one: ir.Node, other: ir.Node) -> Array | None:
    left, right = ((real(node.inputs[2]) if len(node.inputs) > 2 else None) for node in (one, other))
    if left is None or right is None or left.shape != right.shape or left.ndim != 1:
        return None
    with np.errstate(divide="ignore", invalid="ignore"):
        quotient = right.astype(np.float64) / left
        return np.asarray(np.log(np.where((quotient > 0) & np.isfinite(quotient), quotient, np.nan)))


def real(value: ir.Value | None) -> Array | None:
    """A constant as real numbers, behind a DequantizeLinear or as it is; None for what is computed."""
    found = constant(value)
    if found is not None or value is None:
        return found
    node = value.producer()
    if node is None or node.op_type != "DequantizeLinear":
        return None
    codes, scale = constant(node.inputs[0]), constant(node.inputs[1])
    zero = constant(node.inputs[2]) if len(node.inputs) > 2 else None
    if codes is None or scale is None or scale.ndim > 1:
        return None
    axis = attribute(node, "axis", 1) % max(codes.ndim, 1)
    shape = [-1 if scale.size > 1 and index == axis else 1 for index in range(codes.ndim)]
    offset = 0.0 if zero is None else zero.astype(np.float64).reshape(shape)
    return np.asarray((codes.astype(np.float64) - offset) * scale.astype(np.float64).reshape(shape))


def _middle(values: Array, weights: Array, axis: int) -> Array:
    """Weighted median along ``axis``; nan where too few agree with it."""
    known = ~np.isnan(values)
    weight = np.broadcast_to(weights, values.shape)
    usable = np.where(known, weight, 0.0)
    order = np.argsort(np.where(known, values, np.inf), axis=axis)
    ranked = np.take_along_axis(values, order, axis)
    passed = np.cumsum(np.take_along_axis(usable, order, axis), axis=axis)
    first = np.expand_dims((passed >= usable.sum(axis=axis, keepdims=True) / 2).argmax(axis=axis), axis)
    middle = np.take_along_axis(ranked, first, axis)
    near = np.where(np.abs(values - middle) <= NEAR, usable, 0.0).sum(axis=axis)
    total = weight.sum(axis=axis)
    return np.asarray(np.where((total > 0) & (near >= AGREEING * total), middle.squeeze(axis), np.nan))
