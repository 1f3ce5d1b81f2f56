"""The same network with every group of channels narrowed to one share, the channels that go chosen by the closed form."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from edgec.graph.channels import ChannelGroup, groups
from edgec.passes.base import Context
from edgec.passes.channel_pruning.criteria import obs_curves
from edgec.passes.channel_pruning.products import product_curves
from edgec.passes.channel_pruning.removal import removals_of, take_out
from edgec.passes.channel_pruning.statistics import consumers_of, gather
from edgec.passes.refit.batches import Batches, wants_flips
from edgec.passes.refit.fit import FitOptions
from edgec.passes.solvers.allocate import allowed_widths

RIDGE = 1e-3
ROWS = 20.0
"""Of the fits, as in `prune-channels`."""


def narrow(
    model: ir.Model, share: float, context: Context, hflip: str, label: str
) -> Mapping[str, tuple[int, int]]:
    """Narrow ``model``, in place, and re-fit the layers that read what went; (channels before, now) by group.

    Widths are the nearest that the target likes. Groups whose channels must all stay keep them.
    """
    found = groups(model)
    prunable = [group for group in found if group.prunable]
    layers, _ = consumers_of(model, prunable)
    batches = Batches.of(context, model.graph, held_out=0.0, hflip=wants_flips(hflip, model), mixup=True)
    options = FitOptions(ridge=RIDGE, rows_per_unknown=ROWS, seed=context.seed)
    statistics = gather(model, layers, batches, options, context, label)
    curves = {
        **obs_curves(prunable, statistics, RIDGE, context.threads),
        **product_curves(model, prunable, context),
    }
    multiple = context.target.channel_multiple if context.target is not None else 1
    widths = {name: nearest(len(curve.order), share, multiple) for name, curve in curves.items()}
    take_out(model, found, statistics, removals_of(curves, widths))
    return {name: (len(curve.order), widths[name]) for name, curve in curves.items()}


def nearest(full: int, share: float, multiple: int) -> int:
    """The allowed width that is nearest to ``share`` of ``full``; of two, the narrower one."""
    return min(allowed_widths(full, multiple), key=lambda width: (abs(width - share * full), width))


def fixed(model: ir.Model) -> list[ChannelGroup]:
    """Groups with weights whose channels must all stay."""
    return [group for group in groups(model) if not group.prunable and group.has_weights]
