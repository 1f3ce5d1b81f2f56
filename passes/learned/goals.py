"""What the student is to have in common with the teacher: its outputs, part by part, and some maps on the way.

Classes are compared by the divergence of their probabilities, everything else by squares, as a share of how much the teacher's
values vary. Each part of a joined output counts by itself (`graph.parts`): boxes do not outweigh scores. Softmax and Sigmoid
at the end are left out, as where passes are judged (`passes.whole`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor

from edgec.graph.parts import parts_of
from edgec.graph.views import attribute, is_constant, shape_of
from edgec.passes.refit.channel_map import ChannelMap, channel_maps
from edgec.passes.sensitivity.measure import output_names

Values = Mapping[str, Tensor]

CLASSES = ("classification", "segmentation")
"""Tasks whose outputs are one choice among channels."""
LEAST_ENERGY = 1e-12


@dataclass(frozen=True)
class Goal:
    """One part of a value. ``classes``: the axis along which probabilities lie; None: squares. ``energy`` scales those."""

    name: str
    value: str
    mask: Tensor | None = None
    classes: int | None = None
    kept: ChannelMap | None = None
    """Those of the teacher's channels that the student still has."""
    energy: float = 1.0

    def taught(self, teacher: Values) -> Tensor:
        """What the teacher says: of the part alone, (samples, values) or with its classes last."""
        return self._part(
            teacher[self.value] if self.kept is None else self._cut(teacher[self.value], self.kept)
        )

    def said(self, student: Values) -> Tensor:
        """What the student says, in the same form."""
        return self._part(student[self.value])

    def losses(self, said: Tensor, taught: Tensor) -> Tensor:
        """(samples,): the divergence in nats, or the squared error as a share of ``energy``."""
        said, taught = said.float(), taught.float()
        if self.classes is None:
            return (said - taught).square().flatten(1).mean(1) / self.energy
        log_p, log_q = torch.log_softmax(taught, -1), torch.log_softmax(said, -1)
        return (log_p.exp() * (log_p - log_q)).sum(-1).flatten(1).mean(1)

    def _part(self, value: Tensor) -> Tensor:
        if self.classes is not None:
            moved = value.movedim(self.classes, -1)
            return moved.reshape(len(moved), -1, moved.shape[-1])
        rows = value.reshape(len(value), -1)
        return rows if self.mask is None else rows[:, self.mask.to(rows.device)]

    @staticmethod
    def _cut(value: Tensor, kept: ChannelMap) -> Tensor:
        return value.index_select(kept.axis, torch.tensor(kept.positions, device=value.device))


@dataclass(frozen=True)
class Goals:
    """``outputs`` are what counts; ``maps`` help on the way, by ``weight`` all together."""

    outputs: tuple[Goal, ...]
    maps: tuple[Goal, ...]
    weight: float

    @property
    def all(self) -> tuple[Goal, ...]:
        return (*self.outputs, *self.maps)

    @property
    def values(self) -> tuple[str, ...]:
        """Names of the values that they read."""
        return tuple(dict.fromkeys(goal.value for goal in self.all))

    def taught(self, teacher: Values) -> list[Tensor]:
        """The teacher's side of every goal."""
        return [goal.taught(teacher) for goal in self.all]

    def loss(self, student: Values, taught: Sequence[Tensor]) -> Tensor:
        """Summed over the samples."""
        found = [
            goal.losses(goal.said(student), his).sum() for goal, his in zip(self.all, taught, strict=True)
        ]
        count = len(self.outputs)
        total = torch.stack(found[:count]).sum()
        return total + self.weight * torch.stack(found[count:]).mean() if self.maps else total

    def scaled(self, taught: Sequence[Tensor]) -> Goals:
        """With the energies of what the teacher says to some samples."""
        found = [replace(goal, energy=_energy(his)) for goal, his in zip(self.all, taught, strict=True)]
        return replace(
            self, outputs=tuple(found[: len(self.outputs)]), maps=tuple(found[len(self.outputs) :])
        )


def _energy(taught: Tensor) -> float:
    """How much it varies from sample to sample; where it does not, how large it is."""
    real = taught.double()
    varies = float((real - real.mean(0, keepdim=True)).square().mean())
    return max(varies, LEAST_ENERGY * float(real.square().mean()), 1e-30)


def goals_of(student: ir.Model, teacher: ir.Model, task: str, *, maps: int, weight: float) -> Goals:
    """``maps``: how many, from the last one back. ``task`` is what the network does, empty where nobody knows."""
    outputs = tuple(output_goals(student, task))
    inner = shared_maps(student, teacher)[-maps:] if maps and weight else []
    return Goals(outputs, tuple(inner), weight)


def output_goals(model: ir.Model, task: str) -> list[Goal]:
    """Every part of the outputs, in front of a Softmax or Sigmoid at the end."""
    names, parts = output_names(model.graph), parts_of(model)
    axes = [_softmax_axis(output) for output in model.graph.outputs]
    if task in CLASSES and not any(axes):  # without a Softmax the first output that may be one choice is it
        guesses = [_channels(output, task) for output in model.graph.outputs]
        first = next((place for place, axis in enumerate(guesses) if axis is not None), None)
        axes = [axis if place == first else None for place, axis in enumerate(guesses)]
    found = []
    for part in parts:
        mask = None if part.mask is None else torch.from_numpy(np.flatnonzero(part.mask))
        classes = axes[part.output] if mask is None else None
        found.append(Goal(part.name, names[part.output], mask, classes))
    return found


def _softmax_axis(output: ir.Value) -> int | None:
    """Where a Softmax at the end says that classes exclude one another; never the batch."""
    node = output.producer()
    if node is None or node.op_type not in ("Softmax", "LogSoftmax"):
        return None
    return int(attribute(node, "axis", -1) % len(shape_of(output))) or None


def _channels(output: ir.Value, task: str) -> int | None:
    """The channels, where the task is one choice among them: for each sample, or for each pixel."""
    shape = shape_of(output)
    if len(shape) < 2 or (shape[1] or 0) < 2:
        return None
    pixels = math.prod(size or 0 for size in shape[2:])
    return 1 if (pixels == 1) == (task == "classification") else None


def shared_maps(student: ir.Model, teacher: ir.Model) -> list[Goal]:
    """Ends of blocks that both have, with the channels that the student kept: the last of each size, in order.

    A block ends where two computed branches are added; where a network has none, in front of its pools, and at its last map.
    """
    kept = channel_maps(student)
    known = {value.name: value for node in teacher.graph for value in node.outputs if value.shape is not None}
    found: dict[tuple[int, ...], Goal] = {}
    for value in block_ends(student.graph):
        his, name = known.get(value.name), value.name or ""
        if his is None:
            continue
        one = kept.get(name)
        wanted = list(shape_of(his))
        if one is not None:
            wanted[one.axis] = len(one.positions)
        if tuple(wanted) == shape_of(value):
            pixels = tuple(size or 0 for size in wanted[2:])
            found.pop(pixels, None)
            found[pixels] = Goal(name, name, kept=one)
    return list(found.values())


def block_ends(graph: ir.Graph) -> list[ir.Value]:
    """Maps where two computed branches are added, those in front of pools, and the last one, in order."""
    found = []
    last: ir.Value | None = None
    for node in graph:
        value = node.outputs[0]
        if (
            value.shape is None
            or len(value.shape) != 4
            or math.prod(d for d in value.shape[2:] if isinstance(d, int)) < 2
        ):
            continue
        adds = node.op_type == "Add" and not any(is_constant(one) for one in node.inputs)
        pools = [use.node for use in value.uses() if use.node.op_type in ("MaxPool", "AveragePool")]
        if adds or pools:
            found.append(value)
        last = value
    return found if last is None or last in found else [*found, last]
