"""More rows for a layer behind a global average pool.

Such a layer sees one row per image: a classifier of 768 inputs has more unknowns than a few hundred images have rows, and its
least-squares fit says nothing about other images. But the pool and the layer commute, so what the layer makes of the pool is the
mean of what it makes of every pixel in front of it. Pixels are rows too, with targets of their own; mixed in with a small weight
they give the normal matrix the directions that the few pooled rows lack.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from edgec.graph.views import attribute, constant, shape_of, sole_consumer
from edgec.passes.refit.layers import Layer
from edgec.passes.solvers.gram import Gram, Patches, targets_at

Array = np.ndarray[Any, np.dtype[Any]]

WEIGHT = 0.2
"""Share of the pixels in the mixed statistics. Anything from 0.05 to 0.2 served MobileNet alike; without, its fit is useless."""
_VIEWS = ("Flatten", "Reshape", "Squeeze", "Identity")


@dataclass(frozen=True)
class Pool:
    """A global average pool in front of a layer: ``map`` (n, channels, h, w) is what goes into ``node``."""

    node: ir.Node
    map: str

    @staticmethod
    def before(layer: Layer) -> Pool | None:
        """The pool whose mean ``layer`` reads, with nothing but a change of shape between; None where there is none."""
        patches = layer.patches
        if layer.channels_last or len(patches.taps) != 1 or patches.group != 1 or patches.is_spread:
            return None
        value: ir.Value | None = layer.view.x
        while value is not None and (node := value.producer()) is not None and sole_consumer(value):
            source = node.inputs[0]
            if source is None or source.shape is None:
                return None
            if node.op_type in _VIEWS and shape_of(source)[1:2] == (layer.patches.channels,):
                value = source
                continue
            if _pools_all(node, shape_of(source)) and shape_of(source)[1] == layer.patches.channels:
                return Pool(node, source.name or "")
            return None
        return None

    def position(self, nodes: dict[ir.Node, int]) -> int:
        """Where a walk must stop for the map to be live."""
        return nodes[self.node]


def _pools_all(node: ir.Node, shape: tuple[int | None, ...]) -> bool:
    if len(shape) != 4:
        return False
    if node.op_type == "GlobalAveragePool":
        return True
    if node.op_type == "ReduceMean":
        axes = constant(node.inputs[1]) if len(node.inputs) > 1 else None
        return axes is not None and sorted(int(a) % 4 for a in axes.ravel()) == [2, 3]
    if node.op_type == "AveragePool":
        whole = tuple(attribute(node, "kernel_shape", ())) == shape[2:]
        return whole and not any(attribute(node, "pads", ()))
    return False


def applied(layer: Layer, array: Array) -> Array:
    """What ``layer`` makes of every pixel of ``array`` (n, channels, h, w): (n, out, h, w)."""
    weight = layer.view.weight.reshape(layer.view.out_channels, -1)
    made: Array = np.einsum("oc,nchw->nohw", weight, array, optimize=True)
    bias = layer.view.bias
    return made if bias is None else np.asarray(made + bias[None, :, None, None])


def mixed(pooled: Gram, pixels: Gram) -> Gram:
    """Statistics of the pooled rows with those of the pixels at `WEIGHT`, at the scale and the number of the pooled ones."""
    if not pixels.rows or not pooled.rows:
        return pooled
    factor = WEIGHT * pooled.rows / pixels.rows
    return Gram(
        (1 - WEIGHT) * pooled.h + factor * pixels.h,
        (1 - WEIGHT) * pooled.s + factor * pixels.s,
        (1 - WEIGHT) * pooled.energy + factor * pixels.energy,
        pooled.rows,
    )


def add_pixels(gram: Gram, layer: Layer, x: Array, target: Array | None = None) -> None:
    """Every pixel of ``x`` (n, channels, h, w) as a row of ``layer``, with ``target`` (n, out, h, w) or none."""
    geometry = Patches(x.shape[1], (1, 1), (1, 1), (0, 0, 0, 0), (1, 1), bias=layer.patches.bias)
    rows = np.arange(len(x) * x.shape[2] * x.shape[3])
    wanted = np.empty((1, len(rows), 0), np.float32) if target is None else targets_at(target, rows, 1)
    for part, p in geometry.tiles(x, rows):
        gram.add(p, wanted[:, part])
