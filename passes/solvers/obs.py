"""Group Optimal Brain Surgeon: in which order units go, and what each removal costs after the survivors are re-fitted.

With the normal matrix H of a consumer and its weight W, removing the rows ``r`` of one unit and re-fitting the rest
optimally adds exactly ``tr(W_r' ([H^-1]_rr)^-1 W_r)`` to the squared error (Hassibi and Stork 1993, for groups). The
least is removed, W and H^-1 are updated by a Schur complement, and so on: one inverse per consumer gives the whole
curve. Errors of several consumers add.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgec.passes.solvers.guard import amplitude, first_least
from edgec.passes.solvers.ridge import factor

Array = np.ndarray[Any, np.dtype[Any]]

PENDING_COLUMNS = 192
"""Eliminated columns that are collected before the inverse is updated in one matrix product."""


@dataclass(frozen=True)
class Consumer:
    """One layer that reads the units: ``h`` (n, n), ``w`` (n, out), and the rows of each unit (units, rows).

    ``scale`` multiplies its squared error (1 / energy of its output, say). ``metric`` (out, out), a Cholesky factor, optionally
    weighs its outputs: the error is then that of ``W metric``.
    """

    h: Array
    w: Array
    units: Array
    scale: float = 1.0
    metric: Array | None = None


@dataclass(frozen=True)
class Curve:
    """``order``: units, the first to go first. ``errors[k]``: error after k of them have gone, k = 0 .. units - 1."""

    order: tuple[int, ...]
    errors: Array

    def kept(self, width: int) -> Array:
        """The units that stay at ``width``, in their old order."""
        size = len(self.order)
        return np.sort(np.array(self.order[size - width :], np.int64))


def eliminate(consumers: Sequence[Consumer], lam: float) -> Curve:
    """Greedy elimination of units down to the last one. ``lam`` is the ridge's relative damping.

    Removals that cost no more than rounding does count as free, the first unit first.
    O(n^3) for the inverse of each consumer plus O(n^2 columns) for the elimination. Raises ValueError without consumers.
    """
    if not consumers:
        raise ValueError("nothing reads the units")
    states = [_Elimination(consumer, lam) for consumer in consumers]
    size = len(consumers[0].units)
    alive = np.arange(size)
    noise = sum(state.noise for state in states)
    order: list[int] = []
    errors = np.zeros(size)
    while len(alive) > 1:
        costs = np.sum([state.costs(alive) for state in states], axis=0)
        best = first_least(costs, noise)
        cost = float(costs[best])
        errors[len(order) + 1] = errors[len(order)] + (cost if cost > noise else 0.0)
        order.append(int(alive[best]))
        alive = np.delete(alive, best)
        for state in states:
            state.remove(order[-1], alive)
    return Curve((*order, int(alive[0])), errors)


class _Elimination:
    """The inverse and the weights of one consumer while units go.

    The inverse is kept as ``inverse - left @ right`` with the last updates still apart; diagonal blocks and weights, which every
    step needs, are kept up to date.
    """

    def __init__(self, consumer: Consumer, lam: float) -> None:
        self.inverse = factor(consumer.h, lam).inverse()
        self.w = consumer.w if consumer.metric is None else consumer.w @ consumer.metric
        self.w = self.w.astype(np.float64, copy=True)
        energy = max(float(np.einsum("no,no->", self.w, consumer.h @ self.w)), 0.0)
        self.noise = consumer.scale * amplitude(len(self.w)) ** 2 * energy
        self.units, self.scale = consumer.units, consumer.scale
        self.blocks = self.inverse[self.units[:, :, None], self.units[:, None, :]]
        self.left: list[Array] = []
        self.right: list[Array] = []

    def costs(self, alive: Array) -> Array:
        """Error that the removal of each unit would add."""
        if self.units.shape[1] == 1:
            squares = np.einsum("no,no->n", self.w, self.w)[self.units[alive, 0]]
            return np.asarray(self.scale * squares / self.blocks[alive, 0, 0])
        w = self.w[self.units[alive]]
        # Of the outputs only their sums of products count: a matrix per unit, where a solution had a column per output.
        inverses = np.linalg.inv(self.blocks[alive])
        return np.asarray(self.scale * np.einsum("urs,urs->u", inverses, w @ w.transpose(0, 2, 1)))

    def remove(self, unit: int, alive: Array) -> None:
        """Remove ``unit``; ``alive`` are those that stay."""
        rows = self.units[unit]
        column = self.inverse[:, rows]
        for left, right in zip(self.left, self.right, strict=True):
            column = column - left @ right[:, rows]
        scaled = np.linalg.solve(self.blocks[unit], column.T)
        self.w -= column @ np.linalg.solve(self.blocks[unit], self.w[rows])
        staying = self.units[alive]
        self.blocks[alive] -= column[staying] @ scaled[:, staying].transpose(1, 0, 2)
        self.left.append(column)
        self.right.append(scaled)
        if sum(part.shape[1] for part in self.left) >= PENDING_COLUMNS:
            self.inverse -= np.concatenate(self.left, axis=1) @ np.concatenate(self.right, axis=0)
            self.left, self.right = [], []
