"""Pieces beside channels in one additive cost table: a layer's ways are the units of one more group.

A group "NODE in pieces" of n + 1 units is whole at full width; with each unit less, the next cheaper of n ways. The cost of its
layer then depends on that group and on those in front and behind, and never exceeds that of the whole layer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx_ir as ir

from edgec.graph.channels import Axis, ChannelGroup, cost_model
from edgec.passes.channel_pruning.costs import AdditiveCost, Term, Widths
from edgec.passes.channel_pruning.statistics import ConsumerStatistics
from edgec.passes.decomposition.pieces import Geometry, Piece, costs, resized
from edgec.passes.decomposition.ranks import Candidate, Way
from edgec.passes.pricing import Price
from edgec.passes.refit.layers import Layer
from edgec.passes.solvers.factorise import Response
from edgec.passes.solvers.obs import Curve

Array = np.ndarray[Any, np.dtype[Any]]

STEPS = 16
"""Ways to cut one layer that the allocation looks at."""


@dataclass(frozen=True)
class Choices:
    """All that can be narrowed, with its ``curves`` and their ``errors`` in units of damage, and all that can be cut."""

    groups: tuple[ChannelGroup, ...]
    curves: Mapping[str, Curve]
    errors: Mapping[str, Array]
    statistics: Mapping[str, ConsumerStatistics]
    candidates: tuple[Candidate, ...]

    def joint(self, table: AdditiveCost, model: ir.Model, price: Price) -> Joint:
        """``table`` with the groups of pieces."""
        layers = {layer.node: layer for layer in cost_model(model).layers}
        own = {term.node: term for term in table.terms}
        terms = {term.node: term for term in table.terms}
        ways = {}
        for one in self.candidates:
            front = front_of(one)
            if not front or one.name not in own:
                continue
            layer = layers[one.name]
            cost = _PiecesCost(one, front, own[one.name], layer.inputs, layer.outputs, price)
            terms[one.name] = Term(one.name, (*own[one.name].groups, one.label), cost)
            ways[one.label] = (one, front)
        full = {**table.full, **{label: len(front) + 1 for label, (_, front) in ways.items()}}
        errors = {
            label: np.array([0.0, *(way.damage for way in front)]) for label, (_, front) in ways.items()
        }
        return Joint(
            AdditiveCost(tuple(terms.values()), full, table.constant), {**self.errors, **errors}, ways
        )


@dataclass(frozen=True)
class Joint:
    """The cost table and the error curves of groups and pieces together."""

    cost: AdditiveCost
    errors: Mapping[str, Array]
    ways: Mapping[str, tuple[Candidate, Sequence[Way]]]

    def cut_at(self, widths: Widths) -> dict[str, Way]:
        """Node name -> the way it is cut, for layers whose pieces cost less at ``widths`` than they do."""
        found, widths = {}, {**self.cost.full, **widths}
        terms = {term.node: term.price for term in self.cost.terms}
        for label, (one, front) in self.ways.items():
            lost = len(front) + 1 - widths[label]
            price = terms[one.name]
            if lost and price(widths) < price({**widths, label: len(front) + 1}):
                found[one.name] = front[lost - 1]
        return found


def front_of(one: Candidate) -> tuple[Way, ...]:
    """The ways that none of the cheaper ones beats, by rising saving; at most `STEPS` of them."""
    found = one.front()
    if len(found) <= STEPS:
        return tuple(found)
    return tuple(found[round(i)] for i in np.linspace(0, len(found) - 1, STEPS))


def narrowed(one: Candidate, layer: Layer, gone: Array, *, whitened: bool) -> Candidate:
    """``one`` after channels went: ``layer`` is what is left of it, ``gone`` are the unknowns that it lost."""
    before = one.statistics
    stay = np.setdiff1d(np.arange(len(before.h)), gone)
    columns = layer.columns()
    statistics = ConsumerStatistics(
        layer,
        before.h[np.ix_(stay, stay)],
        columns.reshape(-1, columns.shape[2]),
        before.energy,
        before.rows,
        before.ridge,
    )
    response = Response.of(statistics.h, statistics.columns, whitened=whitened)
    geometry = Geometry.of(layer)
    assert geometry is not None  # it had one before
    return replace(one, statistics=statistics, response=response, geometry=geometry)


@dataclass(frozen=True)
class _PiecesCost:
    """What a layer costs at given widths, whole or in pieces."""

    candidate: Candidate
    ways: tuple[Way, ...]
    whole: Term
    inputs: Axis | None
    outputs: Axis | None
    price: Price

    def __call__(self, widths: Widths) -> float:
        lost = len(self.ways) + 1 - widths[self.candidate.label]
        whole = self.whole.price(widths)
        if not lost:
            return whole
        layer = self.candidate.statistics.layer
        channels = layer.patches.channels if self.inputs is None else self.inputs.length(widths)
        outputs = layer.view.out_channels if self.outputs is None else self.outputs.length(widths)
        pieces = resized(self._pieces(lost), channels, outputs)
        return min(whole, self.price(costs(self.candidate.name, self.candidate.geometry, pieces)))

    def _pieces(self, lost: int) -> tuple[Piece, ...]:
        return self.ways[lost - 1].cut.pieces
