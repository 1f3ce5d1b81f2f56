"""Layers that are linear in their weight, as the solvers see them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from edgec.graph.batch import as_inside
from edgec.graph.cost import elements
from edgec.graph.transposed import TransposedView
from edgec.graph.views import ConvView, GemmView, shape_of
from edgec.passes.solvers.gram import Patches

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Layer:
    """A Conv, ConvTranspose, Gemm or MatMul with constant weights and a known input rank.

    ``patches`` says how input pixels become rows; ``channels_last`` marks a MatMul on (n, ..., channels).
    """

    view: ConvView | TransposedView | GemmView
    patches: Patches
    channels_last: bool = False

    @staticmethod
    def of(node: ir.Node | None) -> Layer | None:
        """The layer, or None where the node is none or cannot be fitted."""
        conv = ConvView.of(node)
        if conv is not None:
            rank = len(conv.kernel)
            if conv.weight.dtype != np.float32 or len(conv.pads) != 2 * rank or min(conv.pads, default=0) < 0:
                return None
            geometry = Patches(
                conv.in_channels, conv.kernel, conv.strides, conv.pads, conv.dilations, conv.group
            )
            return Layer(conv, geometry)
        transposed = TransposedView.of(node)
        if transposed is not None:
            return _of_transposed(transposed)
        gemm = GemmView.of(node)
        if gemm is None or gemm.weight.dtype != np.float32 or gemm.x.shape is None:
            return None
        spatial = len(shape_of(gemm.x)) - 2
        if spatial < 0 or (spatial and gemm.node.op_type == "Gemm"):
            return None
        ones, zeros = (1,) * spatial, (0,) * 2 * spatial
        bias = gemm.node.op_type == "Gemm"
        return Layer(gemm, Patches(gemm.in_channels, ones, ones, zeros, ones, bias=bias), spatial > 0)

    @property
    def node(self) -> ir.Node:
        return self.view.node

    @property
    def name(self) -> str:
        return self.node.name or ""

    @property
    def x(self) -> str:
        return self.view.x.name or ""

    @property
    def y(self) -> ir.Value:
        return self.view.y

    @property
    def is_depthwise(self) -> bool:
        return self.patches.group > 1 and self.patches.group_channels == 1

    @property
    def outputs_per_group(self) -> int:
        return self.view.out_channels // self.patches.group

    def columns(self) -> Array:
        """The weight and bias now: (group, unknowns, out/group), float64."""
        weight = self.view.weight
        return self.patches.columns(weight.reshape(*weight.shape[:2], *self.patches.kernel), self.view.bias)

    def set_columns(self, columns: Array) -> None:
        """Write weight and bias back."""
        weight, bias = self.patches.weight(columns)
        self.view.set(weight=weight.reshape(self.view.weight.shape), bias=bias)

    def first(self, array: Array) -> Array:
        """``array`` (an input or output of the layer) with its channels on axis 1."""
        array = as_inside(array, len(shape_of(self.view.x)))
        return np.moveaxis(array, -1, 1) if self.channels_last else array

    @property
    def rows(self) -> int:
        """Rows of one sample: output pixels, or tokens."""
        return max(elements(self.y) // max(self.view.out_channels, 1), 1)


def _of_transposed(view: TransposedView) -> Layer | None:
    if view.weight.dtype != np.float32 or min(view.pads, default=0) < 0:
        return None
    ones = (1,) * len(view.kernel)
    geometry = Patches(
        view.in_channels, view.kernel, ones, view.pads, view.dilations, view.group, spread=view.spread
    )
    return Layer(view, geometry)


def layers_of(model: ir.Model) -> Mapping[str, Layer]:
    """All layers by node name, in graph order."""
    found = {node.name or "": Layer.of(node) for node in model.graph}
    return {name: layer for name, layer in found.items() if layer is not None}
