"""The network that comes in, its k x k convolutions in the form that small networks are built of, solved for in closed form.

1. ``depthwise``: one depthwise kernel per channel, and a 1x1 (MobileNet, arXiv 1704.04861).
2. ``bottleneck``: a 1x1 into a quarter of the channels, k x k among these, and a 1x1 back (ResNet, arXiv 1512.03385).

The weights are those of `decompose-depthwise` and `decompose-tucker`: least squares to what the layer makes of the data. A layer
stays where it has no such form, where its pieces would cost as many multiply-adds as it does, and where nothing but the input
is in front of it: a picture's three channels are too few to be filtered one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import onnx_ir as ir

from edgec.passes.base import Context, LayerReport, Note
from edgec.passes.channel_pruning.statistics import gather
from edgec.passes.decomposition.cuts import SEPARABLE, TUCKER, Cut, Form, Rank
from edgec.passes.decomposition.pieces import Geometry, Piece, costs
from edgec.passes.decomposition.ranks import Candidate, Way
from edgec.passes.decomposition.run import cut, refusal
from edgec.passes.refit.batches import Batches, wants_flips
from edgec.passes.refit.fit import FitOptions
from edgec.passes.refit.layers import Layer, layers_of
from edgec.passes.solvers.factorise import Response

RIDGE = 1e-3
ROWS = 20.0
"""Of the fits, as in the passes that cut."""
NARROWER = 4
"""Times, in the middle of a bottleneck."""

Name = Literal["none", "depthwise", "bottleneck"]


@dataclass(frozen=True)
class Template:
    """A form, and the rank that a layer has in it; widths are multiples of what the target likes."""

    form: Form
    rank: Callable[[Layer, int], Rank]


def _bottleneck(layer: Layer, multiple: int) -> Rank:
    return tuple(
        max(multiple, channels // NARROWER // multiple * multiple)
        for channels in (layer.patches.channels, layer.view.out_channels)
    )


TEMPLATES: Mapping[str, Template] = {
    "depthwise": Template(SEPARABLE, lambda layer, multiple: (1,)),
    "bottleneck": Template(TUCKER, _bottleneck),
}


def shape_by(
    template: Template, model: ir.Model, context: Context, hflip: str, label: str
) -> tuple[list[LayerReport], list[Note]]:
    """Put every layer of ``model`` that has the form in it, in place; what became of these, and why the others stay."""
    layers, behind = layers_of(model), _behind_layers(model)
    reasons = {name: _why_not(layer, template.form, behind) for name, layer in layers.items()}
    notes = [Note(f"stays: {why}", node=name) for name, why in reasons.items() if why]
    eligible = [layer for name, layer in layers.items() if not reasons[name]]
    if not eligible:
        return [], notes
    batches = Batches.of(context, model.graph, held_out=0.0, hflip=wants_flips(hflip, model), mixup=True)
    options = FitOptions(ridge=RIDGE, rows_per_unknown=ROWS, seed=context.seed)
    statistics = gather(model, eligible, batches, options, context, label)
    multiple = context.target.channel_multiple if context.target is not None else 1
    reports = []
    for one in statistics.values():
        response = Response.of(one.h, one.columns, whitened=True)
        geometry = Geometry.of(one.layer)
        assert geometry is not None  # `refusal` has looked
        shape, rank = template.form.shape(one.layer, response), template.rank(one.layer, multiple)
        saved = _saved(one.layer, geometry, shape.pieces(rank))
        if saved <= 0:
            notes.append(Note("stays: its pieces would cost as much", node=one.layer.name))
            continue
        way = Way(Cut(template.form, shape, rank, shape.error(rank)), saved, 0.0)
        reports.append(cut(model, Candidate(one, response, geometry, (way,)), way))
    return reports, notes


def _why_not(layer: Layer, form: Form, behind: set[ir.Value]) -> str | None:
    return refusal(layer, [form]) or (None if layer.view.x in behind else "it reads the network's input")


def _behind_layers(model: ir.Model) -> set[ir.Value]:
    """Values that some layer is in front of."""
    found: set[ir.Value] = set()
    for node in model.graph:
        if Layer.of(node) is not None or found.intersection(one for one in node.inputs if one is not None):
            found.update(node.outputs)
    return found


def _saved(layer: Layer, geometry: Geometry, pieces: Sequence[Piece]) -> float:
    """Multiply-adds."""
    axes = tuple(range(len(geometry.kernel)))
    whole = (Piece(axes, layer.patches.channels, layer.view.out_channels),)
    one, all_ = (sum(piece.macs for piece in costs(layer.name, geometry, some)) for some in (whole, pieces))
    return float(one - all_)
