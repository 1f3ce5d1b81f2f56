"""What a chain of smaller layers in the place of one costs: its shapes, node by node, at any width in front and behind."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from edgec.graph.cost import NodeCost, macs_of
from edgec.graph.views import ConvView, shape_of
from edgec.passes.refit.layers import Layer


@dataclass(frozen=True)
class Piece:
    """One layer of a chain. Along ``axes`` it keeps the original's kernel, stride, pads and dilation; along others it is 1."""

    axes: tuple[int, ...]
    inputs: int
    outputs: int
    group: int = 1


@dataclass(frozen=True)
class Geometry:
    """Where the pieces run: the original's input size, kernel, strides, pads and dilations. A fully connected layer has none of
    these, but ``rows`` for each sample: the steps of a sequence, tokens."""

    spatial: tuple[int, ...]
    kernel: tuple[int, ...] = ()
    strides: tuple[int, ...] = ()
    pads: tuple[int, ...] = ()
    dilations: tuple[int, ...] = ()
    rows: int = 1

    @staticmethod
    def of(layer: Layer) -> Geometry | None:
        """None where the input's size is not known."""
        view = layer.view
        if not isinstance(view, ConvView):
            return Geometry((), rows=max(1, macs_of(view.node) // view.weight.size))
        sizes = shape_of(view.x)[2:]
        spatial = tuple(size for size in sizes if size is not None)
        if len(spatial) < len(sizes):
            return None
        return Geometry(spatial, view.kernel, view.strides, view.pads, view.dilations)

    def along(self, axes: Sequence[int]) -> Geometry:
        """The original's geometry along ``axes``, and 1 x 1 along the others."""
        rank = len(self.kernel)

        def kept(values: Sequence[int], otherwise: int) -> tuple[int, ...]:
            return tuple(v if i % rank in axes else otherwise for i, v in enumerate(values))

        return replace(
            self,
            kernel=kept(self.kernel, 1),
            strides=kept(self.strides, 1),
            pads=kept(self.pads, 0),
            dilations=kept(self.dilations, 1),
        )

    @property
    def out(self) -> tuple[int, ...]:
        """The output's size."""
        rank = len(self.kernel)
        return tuple(
            (size + self.pads[i] + self.pads[i + rank] - self.dilations[i] * (self.kernel[i] - 1) - 1)
            // self.strides[i]
            + 1
            for i, size in enumerate(self.spatial)
        )


def resized(pieces: Sequence[Piece], channels: int, outputs: int) -> tuple[Piece, ...]:
    """``pieces`` between ``channels`` inputs and ``outputs`` outputs; the widths between them stay."""
    found = list(pieces)
    if found[0].group > 1:
        pairs = found[0].outputs // found[0].group
        found[0] = replace(found[0], group=channels, outputs=channels * pairs)
        found[1] = replace(found[1], inputs=channels * pairs)
    else:
        found[0] = replace(found[0], inputs=channels)
    found[-1] = replace(found[-1], outputs=outputs)
    return tuple(found)


def costs(name: str, geometry: Geometry, pieces: Sequence[Piece]) -> tuple[NodeCost, ...]:
    """One cost per piece, for one sample; the last has a bias."""
    found, spatial = [], geometry.spatial
    for number, piece in enumerate(pieces):
        here = replace(geometry.along(piece.axes), spatial=spatial)
        weights = math.prod(here.kernel) * piece.inputs // piece.group * piece.outputs
        bias = piece.outputs if number == len(pieces) - 1 else 0
        places = here.rows * math.prod(here.out)
        read, made = piece.inputs * here.rows * math.prod(spatial), piece.outputs * places
        found.append(
            NodeCost(
                name=name,
                op="Conv" if here.kernel else "Gemm",
                kind=_kind(piece, here),
                macs=weights * places,
                params=weights + bias,
                weight_bytes=4 * (weights + bias),
                in_elements=read,
                out_elements=made,
                activation_bytes=4 * (read + made),
                kernel=here.kernel,
                stride=here.strides,
            )
        )
        spatial = here.out
    return tuple(found)


def _kind(piece: Piece, here: Geometry) -> str:
    if not here.kernel:
        return "linear"
    if piece.group > 1:
        return "depthwise"
    return "pointwise" if all(k == 1 for k in here.kernel) else "dense"
