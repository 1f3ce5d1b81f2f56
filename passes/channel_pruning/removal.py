"""From widths to channels that go, and the weights of the layers that lose them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from edgec.graph.channels import ChannelGroup, remove
from edgec.graph.sharing import SharedWeights
from edgec.passes.channel_pruning.statistics import ConsumerStatistics
from edgec.passes.refit.channel_map import record_removal
from edgec.passes.solvers.obs import Curve

Array = np.ndarray[Any, np.dtype[Any]]
Removals = Mapping[str, Sequence[int]]
"""Units that go, ascending, by group name; groups that lose none are not listed."""


def removals_of(curves: Mapping[str, Curve], widths: Mapping[str, int]) -> Removals:
    """The first units in the order of each group's curve, down to its width."""
    found = {name: sorted(curve.order[: len(curve.order) - widths[name]]) for name, curve in curves.items()}
    return {name: units for name, units in found.items() if units}


def take_out(
    model: ir.Model,
    found: Sequence[ChannelGroup],
    statistics: Mapping[str, ConsumerStatistics],
    removals: Removals,
) -> None:
    """Remove the channels from ``model``, in place. The layers of ``statistics`` get re-fitted weights first; what shared a
    weight shares it again."""
    shared = SharedWeights.of(model.graph)
    _compensate(statistics, found, removals)
    shared.restore(model.graph)  # before removal looks for what goes together
    record_removal(model, tuple(found), removals)
    remove(model, removals)
    shared.restore(model.graph)


def _compensate(
    statistics: Mapping[str, ConsumerStatistics], groups: Sequence[ChannelGroup], removals: Removals
) -> None:
    """Write the re-fitted weights into every layer that loses inputs."""
    for one in statistics.values():
        rows = rows_gone(one, groups, removals)
        if len(rows):
            one.set_columns(one.compensated(rows))


def rows_gone(one: ConsumerStatistics, groups: Sequence[ChannelGroup], removals: Removals) -> Array:
    """Unknowns of the layer that go with its inputs."""
    rows = [
        found[np.array(removals[group.name])].ravel()
        for group in groups
        if group.name in removals and (found := one.units(group)) is not None
    ]
    return np.concatenate(rows) if rows else np.empty(0, np.int64)


def removed(channels: int, groups: int) -> str:
    """How much went, in words: ``9 channels of 1 group removed``."""
    if not channels:
        return "no channels removed"
    return f"{channels} channel{'' if channels == 1 else 's'} of {groups} group{'' if groups == 1 else 's'} removed"
