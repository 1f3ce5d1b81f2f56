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
    """The inverse and the products of the weights of one consumer while units go.

    Costs ask for the products of a unit's rows of W, ``G = W W'``, and for nothing else of W. A removal changes both matrices
    by products of as many columns as the unit has rows: those of the last removals are still apart (`_Pending`), the diagonal
    blocks, which every step needs, are kept up to date. An entry depends on those of its own row and column only, so that rows
    that nobody will ask for are left out when the columns are brought in.
    """

    def __init__(self, consumer: Consumer, lam: float) -> None:
        w = consumer.w if consumer.metric is None else consumer.w @ consumer.metric
        w = w.astype(np.float64, copy=False)
        energy = max(float(np.einsum("no,no->", w, consumer.h @ w)), 0.0)
        self.noise = consumer.scale * amplitude(len(w)) ** 2 * energy
        self.scale = consumer.scale
        room = PENDING_COLUMNS + consumer.units.shape[1]
        self.inverse = _Pending(factor(consumer.h, lam).inverse(), room)
        self.products = _Pending(w @ w.T, room, twice=True)
        self.units = consumer.units.copy()
        """Rows of each unit in both matrices."""
        self.blocks = _blocks(self.inverse.matrix, self.units)
        self.squares = _blocks(self.products.matrix, self.units)

    def costs(self, alive: Array) -> Array:
        """Error that the removal of each unit would add."""
        blocks, squares = self.blocks[alive], self.squares[alive]
        if self.units.shape[1] == 1:
            found = squares[:, 0, 0] / blocks[:, 0, 0]
        else:
            found = np.einsum("urs,urs->u", np.linalg.inv(blocks), squares)
        # A sum of squares, but for rounding.
        return np.asarray(self.scale * np.maximum(found, 0.0))

    def remove(self, unit: int, alive: Array) -> None:
        """Remove ``unit``; ``alive`` are those that stay."""
        rows, staying = self.units[unit], self.units[alive]
        column, product = self.inverse.columns(rows), self.products.columns(rows)
        # W becomes W - column S W[rows], where S is the inverse of the unit's block.
        scaled = np.linalg.solve(self.blocks[unit], column.T).T
        half = product - 0.5 * scaled @ product[rows]
        self.blocks[alive] -= _block_products(column, scaled, staying)
        self.squares[alive] -= _block_products(scaled, half, staying) + _block_products(half, scaled, staying)
        self.inverse.subtract(column, scaled)
        self.products.subtract(scaled, half)
        if self.inverse.pending >= PENDING_COLUMNS:
            kept = np.sort(staying.ravel())
            self.inverse.settle(kept)
            self.products.settle(kept)
            self.units[alive] = np.searchsorted(kept, staying)


class _Pending:
    """``matrix - left @ right.T``, where left and right, with ``room`` for so many columns, hold what was subtracted last.

    ``twice``: the transpose of the product is subtracted too.
    """

    def __init__(self, matrix: Array, room: int, *, twice: bool = False) -> None:
        self.matrix, self.twice = matrix, twice
        self.pending = 0
        self._left, self._right = np.empty((len(matrix), room)), np.empty((len(matrix), room))

    def columns(self, rows: Array) -> Array:
        """Some columns as they are now."""
        left, right = self._left[:, : self.pending], self._right[:, : self.pending]
        found = self.matrix[:, rows] - left @ right[rows].T
        if self.twice:
            found -= right @ left[rows].T
        return np.asarray(found)

    def subtract(self, left: Array, right: Array) -> None:
        """``left @ right.T``."""
        end = self.pending + left.shape[1]
        self._left[:, self.pending : end], self._right[:, self.pending : end] = left, right
        self.pending = end

    def settle(self, rows: Array) -> None:
        """Subtract what is pending, and keep ``rows`` and their columns only."""
        change = self._left[rows, : self.pending] @ self._right[rows, : self.pending].T
        self.matrix = self.matrix[np.ix_(rows, rows)]
        self.matrix -= change
        if self.twice:
            self.matrix -= change.T
        self.pending = 0
        self._left, self._right = self._left[: len(rows)], self._right[: len(rows)]


def _blocks(matrix: Array, units: Array) -> Array:
    """The diagonal block of each unit, (units, rows, rows)."""
    return np.asarray(matrix[units[:, :, None], units[:, None, :]])


def _block_products(left: Array, right: Array, units: Array) -> Array:
    """The diagonal blocks of ``left @ right.T``."""
    return np.asarray(left[units] @ right[units].transpose(0, 2, 1))
