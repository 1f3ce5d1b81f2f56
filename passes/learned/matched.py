"""Inner maps of two networks that have not the same channels and sizes: 1x1 adapters on the student, pooling on the teacher.

An adapter (FitNets, arXiv 1412.6550) makes the teacher's channels of the student's; it starts from the least squares fit and
learns with the student. It is part of the loss and no part of the network: `write_back` leaves it out. Where the teacher's map
is larger it is averaged down to the student's size, where it is smaller it is interpolated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
import torch
import torch.nn.functional as F
from torch import Tensor

from edgec.graph.views import shape_of
from edgec.passes.learned.executor import GraphModule
from edgec.passes.learned.goals import Goal, block_ends
from edgec.passes.learned.hardware import tensors
from edgec.passes.learned.teacher import Teacher
from edgec.passes.learned.views import Feeds, Views
from edgec.passes.solvers.gram import Gram
from edgec.passes.solvers.ridge import ridge

ADAPTERS = "edgec_adapters"
RIDGE = 1e-3
"""Of the least squares fit, as a share of the mean energy of what it reads."""
FITTED_BATCHES = 4
"""Batches of views that the fit sees."""


@dataclass(frozen=True)
class Match:
    """The student's map ``mine`` is to become the teacher's ``his``, at the student's ``size``."""

    mine: str
    his: str
    size: tuple[int, int]
    channels: tuple[int, int]
    """Of the student, of the teacher."""

    @property
    def goal(self) -> Goal:
        return Goal(self.his, self.his)


def matches(student: ir.Model, teacher: ir.Model, count: int) -> tuple[Match, ...]:
    """The ``count`` last stages of both, from the back; a stage ends with the last map of each size."""
    pairs = list(zip(reversed(_stages(student)), reversed(_stages(teacher)), strict=False))[:count]
    return tuple(_match(mine, his) for mine, his in reversed(pairs))


def _stages(model: ir.Model) -> list[ir.Value]:
    found: dict[tuple[int | None, ...], ir.Value] = {}
    for value in block_ends(model.graph):
        found.pop(pixels := shape_of(value)[2:], None)
        found[pixels] = value
    return [value for value in found.values() if None not in shape_of(value)[1:]]


def _match(mine: ir.Value, his: ir.Value) -> Match:
    (_, a, height, width), (_, b, *_) = shape_of(mine), shape_of(his)
    return Match(mine.name or "", his.name or "", (height or 1, width or 1), (a or 1, b or 1))


class PooledTeacher(Teacher):
    """The teacher, whose matched maps come at the student's sizes."""

    def __init__(self, model: ir.Model, device: torch.device, matched: Sequence[Match]) -> None:
        super().__init__(model, device)
        self.matched = {one.his: one for one in matched}

    def samples(self, feeds: Feeds, wanted: Sequence[str]) -> dict[str, Tensor]:
        found = super().samples(feeds, wanted)
        return {
            name: _sized(value, self.matched[name].size) if name in self.matched else value
            for name, value in found.items()
        }


class AdaptedStudent(GraphModule):
    """The student, whose matched maps come as the teacher's: under the teacher's names, in its channels."""

    def __init__(self, model: ir.Model, matched: Sequence[Match]) -> None:
        super().__init__(model)
        self.matched = {one.his: one for one in matched}
        self.order = {one.his: place for place, one in enumerate(matched)}
        adapters = torch.nn.ModuleList(torch.nn.Conv2d(*one.channels, 1) for one in matched)
        if matched:
            self.add_module(ADAPTERS, adapters)

    def adapter(self, name: str) -> torch.nn.Conv2d:
        """Of the teacher's map ``name``."""
        found: torch.nn.Conv2d = self.get_submodule(f"{ADAPTERS}.{self.order[name]}")  # type: ignore[assignment]
        return found

    def samples(self, feeds: Mapping[str, Tensor], wanted: Sequence[str]) -> dict[str, Tensor]:
        inner = {name: self.matched[name].mine if name in self.matched else name for name in wanted}
        found = super().samples(feeds, list(dict.fromkeys(inner.values())))
        return {name: self._adapted(name, found[mine]) for name, mine in inner.items()}

    def _adapted(self, name: str, value: Tensor) -> Tensor:
        return self.adapter(name)(value) if name in self.matched else value

    def fit(self, teacher: PooledTeacher, views: Views, device: torch.device) -> None:
        """Least squares: every adapter to what ``teacher`` makes of some views."""
        if not self.matched:
            return
        sums = {
            name: Gram.zeros(1, one.channels[0] + 1, one.channels[1]) for name, one in self.matched.items()
        }
        with torch.no_grad():
            for number in range(min(FITTED_BATCHES, views.per_round)):
                feeds = views.batch(number)
                mine = super().samples(tensors(feeds, device), [one.mine for one in self.matched.values()])
                his = teacher.samples(feeds, list(self.matched))
                for name, one in self.matched.items():
                    sums[name].add(_with_constant(_rows(mine[one.mine])), _rows(his[name]))
            for name, found in sums.items():
                solved = ridge(found.h, found.s, np.zeros_like(found.s), RIDGE).columns[0]
                columns = torch.from_numpy(solved.astype(np.float32)).to(device)
                adapter = self.adapter(name)
                adapter.weight.copy_(columns[:-1].T[:, :, None, None])
                adapter.bias.copy_(columns[-1])  # type: ignore[union-attr]


def _sized(value: Tensor, size: tuple[int, int]) -> Tensor:
    there = (value.shape[2], value.shape[3])
    if there == size:
        return value
    if there[0] >= size[0] and there[1] >= size[1]:
        return F.adaptive_avg_pool2d(value, size)
    return F.interpolate(value, size, mode="bilinear", align_corners=False)


def _rows(value: Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """(1, pixels, channels)."""
    return np.asarray(value.movedim(1, -1).reshape(1, -1, value.shape[1]).double().cpu().numpy())


def _with_constant(
    rows: np.ndarray[tuple[int, ...], np.dtype[np.float64]],
) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    return np.concatenate([rows, np.ones((*rows.shape[:2], 1))], axis=2)
