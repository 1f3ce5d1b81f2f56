"""A linear layer of a quantised graph beside its float original (`refit.layers`), in the shape that the solvers take.

Weights are matrices (g, o, d): groups, outputs per group, inputs per group times kernel positions, in the
order of `solvers.gram.Patches`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx_ir as ir

from edgec.graph.sharing import shares_weight
from edgec.graph.transposed import TransposedView
from edgec.graph.views import attribute, constant, set_constant
from edgec.passes.quantize.weights import guard_bias, quantise_bias
from edgec.passes.refit.layers import Layer
from edgec.passes.solvers.gram import Patches

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Dequantised:
    """The operands of one DequantizeLinear node."""

    codes: ir.Value
    scale: ir.Value
    zero: ir.Value | None

    @staticmethod
    def of(value: ir.Value | None) -> Dequantised | None:
        """The node that makes ``value``, if it is a DequantizeLinear."""
        node = None if value is None else value.producer()
        if node is None or node.op_type != "DequantizeLinear":
            return None
        codes, scale = node.inputs[0], node.inputs[1]
        if codes is None or scale is None:
            return None
        return Dequantised(codes, scale, node.inputs[2] if len(node.inputs) > 2 else None)

    def params(self) -> tuple[Array, Array]:
        """(scale, zero point) as arrays."""
        return np.asarray(constant(self.scale)), np.asarray(0 if self.zero is None else constant(self.zero))


@dataclass(frozen=True)
class QuantisedLayer:
    """``node`` in the quantised graph, ``origin`` in the float one."""

    node: ir.Node
    origin: Layer
    x: Dequantised
    w: Dequantised
    b: Dequantised | ir.Value | None
    """The bias: codes, or floats where the dialect keeps them so; None where there is none to write into."""

    @property
    def patches(self) -> Patches:
        """The geometry of ``origin``, with a constant beside the inputs: a bias may be set that was none."""
        return replace(self.origin.patches, bias=True)

    @property
    def weight(self) -> Array:
        """Float weight (g, o, d), float64."""
        return self._matrix(self.origin.view.weight)

    @property
    def bias(self) -> Array:
        """Float bias (g, o), float64."""
        stored = self.origin.view.bias
        return np.zeros(self.outputs) if stored is None else stored.astype(np.float64).reshape(self.outputs)

    @property
    def outputs(self) -> tuple[int, int]:
        """Groups, and outputs of each."""
        return self.origin.patches.group, self.origin.outputs_per_group

    @property
    def name(self) -> str:
        return self.origin.name

    @property
    def codes_name(self) -> str:
        """The tensor of input codes in the quantised graph."""
        return self.x.codes.name or ""

    @property
    def target_name(self) -> str:
        """What the layer computes in the float graph."""
        return self.origin.y.name or ""

    @property
    def per_channel(self) -> bool:
        """One scale per output channel."""
        return self.w.params()[0].ndim > 0

    def inputs(self, codes: Array) -> Array:
        """Input codes as float32, channels on axis 1."""
        scale, zero = self.x.params()
        x = (codes.astype(np.float32) - np.float32(zero)) * np.float32(scale)
        return self.origin.first(x)

    def targets(self, y: Array) -> Array:
        """What the float layer computes, channels on axis 1."""
        return self.origin.first(y)

    def quantised(self) -> tuple[Array, Array, Array]:
        """(codes (g, o, d) int8, scales (g, o), bias (g, o)), float64, as the graph has them."""
        codes = _outputs_first(self.node, np.asarray(constant(self.w.codes)))
        scales, _ = self.w.params()
        rows = np.broadcast_to(scales.astype(np.float64).reshape(-1), (math.prod(self.outputs),))
        return self._matrix(codes).astype(np.int8), rows.reshape(self.outputs), self._stored_bias()

    def _matrix(self, weight: Array) -> Array:
        """(out, in/group, *kernel) as (g, o, d), float64."""
        body: Array = self.patches.columns(weight, None)[:, :-1].transpose(0, 2, 1)
        return body

    def _stored_bias(self) -> Array:
        if self.b is None:
            return np.zeros(self.outputs)
        if isinstance(self.b, ir.Value):
            plain: Array = np.asarray(constant(self.b), np.float64).reshape(self.outputs)
            return plain
        codes = np.asarray(constant(self.b.codes), np.float64)
        real: Array = (codes * self.b.params()[0].astype(np.float64)).reshape(self.outputs)
        return real

    def store(self, codes: Array | None, scales: Array | None, bias: Array) -> None:
        """Write codes (g, o, d) and scales (g, o) where given, and the bias (g, o) at the resulting scale."""
        if codes is not None:
            body = codes.transpose(0, 2, 1).astype(np.float64)
            weight, _ = replace(self.patches, bias=False).weight(body)
            shape = np.asarray(constant(self.w.codes)).shape
            set_constant(self.w.codes, _as_stored(self.node, weight, shape).astype(np.int8))
        scale = np.asarray(constant(self.w.scale))
        if scales is not None and self.per_channel:
            scale = scales.reshape(-1).astype(np.float32)
        input_scale = float(self.x.params()[0])
        if isinstance(self.b, Dequantised):
            scale = guard_bias(scale, bias.reshape(-1), input_scale)
        set_constant(self.w.scale, scale)
        if isinstance(self.b, ir.Value):
            set_constant(self.b, bias.reshape(-1).astype(np.float32))
        elif self.b is not None:
            bias_codes, product = quantise_bias(bias.reshape(-1), input_scale, scale)
            set_constant(self.b.codes, bias_codes)
            set_constant(self.b.scale, product)


def layers(quantised: ir.Model, original: ir.Model) -> Iterator[QuantisedLayer]:
    """The quantised linear layers that ``original`` has too (same name and weight shape), in graph order.

    A weight that several layers read is no layer's own to fit: its codes are the nearest ones.
    """
    origins = {node.name: node for node in original.graph}
    for node in quantised.graph:
        origin = origins.get(node.name)
        if origin is not None and origin.op_type == node.op_type and not shares_weight(origin):
            found = _layer(node, Layer.of(origin))
            if found is not None:
                yield found


def _layer(node: ir.Node, origin: Layer | None) -> QuantisedLayer | None:
    if origin is None or isinstance(origin.view, TransposedView):
        return None  # whose scales lie along another axis, and are those of all its groups
    x, w = Dequantised.of(node.inputs[0]), Dequantised.of(node.inputs[1])
    b = _bias(node)
    if x is None or w is None or constant(x.codes) is not None:
        return None
    stored = constant(w.codes)
    if stored is None or stored.dtype != np.int8:
        return None
    if origin.view.weight.shape != _outputs_first(node, stored).shape:
        return None
    return QuantisedLayer(node, origin, x, w, b)


def _bias(node: ir.Node) -> Dequantised | ir.Value | None:
    value = node.inputs[2] if len(node.inputs) > 2 else None
    stored = constant(value)
    own = value is not None and stored is not None and len(value.uses()) == 1
    return value if own and stored is not None and stored.dtype == np.float32 else Dequantised.of(value)


def _outputs_first(node: ir.Node, weight: Array) -> Array:
    return weight.T if _transposed(node) else weight


def _as_stored(node: ir.Node, weight: Array, shape: tuple[int, ...]) -> Array:
    return weight.T if _transposed(node) else weight.reshape(shape)


def _transposed(node: ir.Node) -> bool:
    """The weight is stored inputs first."""
    return node.op_type == "MatMul" or (node.op_type == "Gemm" and not attribute(node, "transB", 0))
