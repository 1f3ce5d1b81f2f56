"""A layer becomes a chain: the last piece keeps its name, output and bias, so that later fits see the same layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir as ir

from edgec.graph.provenance import stand_for
from edgec.graph.views import ConvView, add_initializer, fresh_name, own_constant, set_attribute
from edgec.passes.decomposition.pieces import Geometry, Piece
from edgec.passes.refit.layers import Layer

Array = np.ndarray[Any, np.dtype[Any]]


def split(
    model: ir.Model,
    layer: Layer,
    geometry: Geometry,
    pieces: Sequence[Piece],
    factors: Sequence[Array],
    bias: Array,
) -> tuple[ir.Node, ...]:
    """Put ``pieces`` with ``factors``, one (taps, inputs, outputs) each, in the layer's place; the nodes in front of it.

    No piece but the last has a bias: padding with zeros between them is then what it was in front of the whole.
    """
    made: list[ir.Node] = []
    spatial = geometry.spatial
    for number, (piece, factor) in enumerate(zip(pieces[:-1], factors[:-1], strict=True)):
        here = geometry.along(piece.axes)
        source = made[-1].outputs[0] if made else layer.view.x
        spatial = replace(here, spatial=spatial).out
        made.append(_front(model.graph, layer, number, piece, here, factor, source, spatial))
        stand_for(made[-1], layer.node)
    _last(model.graph, layer, geometry.along(pieces[-1].axes), factors[-1], bias)
    layer.node.replace_input_with(0, made[-1].outputs[0])
    model.graph.insert_before(layer.node, made)
    return tuple(made)


def _front(
    graph: ir.Graph,
    layer: Layer,
    number: int,
    piece: Piece,
    here: Geometry,
    factor: Array,
    source: ir.Value,
    spatial: tuple[int, ...],
) -> ir.Node:
    name = fresh_name(graph, f"{layer.name}_piece{number + 1}")
    weight = add_initializer(graph, f"{name}_weight", _weight(factor, here.kernel))
    if here.kernel:
        attributes: dict[str, Any] = {
            "kernel_shape": here.kernel,
            "strides": here.strides,
            "pads": here.pads,
            "dilations": here.dilations,
            "group": piece.group,
        }
        node = ir.node("Conv", [source, weight], attributes, name=name)
    else:
        node = ir.node("Gemm", [source, weight], {"transB": 1}, name=name)
    made, y = node.outputs[0], layer.view.y
    made.name, made.type = fresh_name(graph, f"{y.name}_piece{number + 1}"), y.type
    if y.shape is not None:
        made.shape = ir.Shape([y.shape[0], piece.outputs, *spatial])
    return node


def _last(graph: ir.Graph, layer: Layer, here: Geometry, factor: Array, bias: Array) -> None:
    view, bias = layer.view, np.ascontiguousarray(bias, np.float32)
    if not isinstance(view, ConvView):
        view.set(weight=_weight(factor, ()), bias=bias)
        return
    for key, value in (
        ("kernel_shape", here.kernel),
        ("strides", here.strides),
        ("pads", here.pads),
        ("dilations", here.dilations),
    ):
        set_attribute(view.node, key, value)
    own_constant(graph, view.node, 1, _weight(factor, here.kernel), "_weight")
    own_constant(graph, view.node, 2, bias, "_bias")


def _weight(factor: Array, kernel: tuple[int, ...]) -> Array:
    """(taps, inputs per group, outputs) -> (outputs, inputs, *kernel), float32."""
    shaped = factor.transpose(2, 1, 0).reshape(factor.shape[2], factor.shape[1], *kernel)
    return np.ascontiguousarray(shaped, np.float32)
