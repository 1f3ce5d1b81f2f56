"""Gates on channels: a network whose layers read every unit of a channel group times a gate between 0 and 1.

The gates multiply the weights that read the units, so a gate at 0 is exactly what removal leaves, whatever lies between, and
gates at 1 change nothing. Units that only a product of two computed tensors reads are multiplied where they are made.

While the structure is learned a gate is drawn anew at every step (hard concrete, Louizos et al., arXiv 1712.01312): likely open
where the unit gains more than it costs. Its gradient is that of the loss between the unit's presence and its absence.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor

from edgec.graph.channels import ChannelGroup, Member
from edgec.passes.channel_pruning.products import makers_of
from edgec.passes.learned.executor import GraphModule

Array = np.ndarray[Any, np.dtype[Any]]

LOW, HIGH, TEMPERATURE = -0.1, 1.1, 2 / 3
"""The stretch of the hard concrete distribution, and its temperature (as in the paper)."""
SHIFT = -TEMPERATURE * math.log(-LOW / HIGH)
"""Added to the logit of a gate it gives that of being open at all."""


@dataclass(frozen=True)
class Door:
    """For each position along ``axis`` of the constant ``value``: the unit whose gate multiplies it, or the number of all."""

    value: str
    axis: int
    units: Array


class GatedModule(GraphModule):
    """``model`` with a gate on every unit of ``groups``; ``gains`` are logarithms, all units one behind the other."""

    def __init__(self, model: ir.Model, groups: Sequence[ChannelGroup], gains: Array) -> None:
        super().__init__(model)
        self.doors: tuple[Door, ...] = doors_of(model, groups)
        count = sum(group.size for group in groups)
        self.edgec_gains = torch.nn.Parameter(torch.from_numpy(np.asarray(gains, np.float32)))
        self.edgec_open: Tensor
        self.register_buffer("edgec_open", torch.ones(count))
        self._drawn: tuple[Tensor, Tensor, float] | None = None
        for number, door in enumerate(self.doors):
            self.register_buffer(f"edgec_units_{number}", torch.from_numpy(door.units), persistent=False)

    def draw(self, noise: Tensor, prices: Tensor, sharpness: float) -> None:
        """Gates of a step: ``noise`` is uniform on (0, 1), ``prices`` are logarithms, (units,) each."""
        self._drawn = (torch.log(noise) - torch.log1p(-noise), prices, sharpness)

    def fix(self, chosen: Tensor | None = None) -> None:
        """From here on gates are 0 or 1: as ``chosen``, else as they were fixed before."""
        self._drawn = None
        if chosen is not None:
            self.edgec_open.copy_(chosen)

    def gates(self) -> Tensor:
        """(units,)"""
        if self._drawn is None:
            return self.edgec_open
        noise, prices, sharpness = self._drawn
        soft = torch.sigmoid((noise + sharpness * (self.edgec_gains - prices)) / TEMPERATURE)
        return (soft * (HIGH - LOW) + LOW).clamp(0, 1)

    def run(self, feeds: Mapping[str, Tensor], wanted: Sequence[str]) -> dict[str, Tensor]:
        return super().run({**self._gated(), **feeds}, wanted)

    def _gated(self) -> dict[str, Tensor]:
        gates = self.gates()
        factors = torch.cat([gates, gates.new_ones(1)])  # the last one for positions that have no gate
        found: dict[str, Tensor] = {}
        for number, door in enumerate(self.doors):
            weight = found.get(door.value)
            if weight is None:
                weight = self.get_parameter(self.homes[door.value])
            shape = [1] * weight.ndim
            shape[door.axis] = -1
            found[door.value] = weight * factors[self.get_buffer(f"edgec_units_{number}")].reshape(shape)
        return found


def doors_of(model: ir.Model, groups: Sequence[ChannelGroup]) -> tuple[Door, ...]:
    """Where the gates of ``groups`` multiply; see `gateable` for which can have them."""
    sizes = {value.name or "": value.shape for value in model.graph.initializers.values()}
    none = sum(group.size for group in groups)
    found: dict[tuple[str, int], Array] = {}
    first = 0
    for group in groups:
        for member in _gated_members(group):
            length = int(sizes[member.value][member.axis])  # type: ignore[index,arg-type]
            units = found.setdefault((member.value, member.axis), np.full(length, none))
            for unit, places in enumerate(member.index):
                units[places] = first + unit
        first += group.size
    return tuple(Door(value, axis, units) for (value, axis), units in found.items())


def gateable(model: ir.Model, group: ChannelGroup) -> str:
    """Why ``group`` cannot have gates; empty where it can."""
    for member in _gated_members(group):
        value = model.graph.initializers.get(member.value)
        if value is None or value.dtype is None or not value.dtype.is_floating_point():
            return f"{member.value!r} is no weight of its own"
        if len(value.uses()) > 1:
            return f"its weight {member.value!r} is shared by several layers"
    return ""


def _gated_members(group: ChannelGroup) -> tuple[Member, ...]:
    return group.consumers or makers_of(group)
