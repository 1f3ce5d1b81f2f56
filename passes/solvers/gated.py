"""Gated blocks ``S(z) = C3( (C2 z) * D ) + b`` with fixed gates D: two least-squares problems in turn.

With rows ``x`` (input patches), gates ``d`` in [0, 1] (one per inner channel, fixed) and targets ``t``,

    F(V, W, b) = 1/2 |((x V) * d) W + b - t|^2  +  l/2 (|V|^2 + |W|^2)

is a ridge regression in (W, b) given V, solved exactly, and in V given W, a Kronecker-structured one with k n unknowns
that conjugate gradients solve without its matrix (arXiv 2410.06567 fits the same block with Adam). Every step lowers F.
Patches come whitened (`Whitening`): ``x' x`` is the number of rows times I, so that ``(W W') * (d' d)`` alone is a good
preconditioner, and the penalty is the energy of what a channel makes. A ridge in the whitening leaves directions that vary little
short, so that reading them costs more: the larger it is, the more the penalty is that of raw weights.

Where an activation follows, its clipped loss is minimised instead (`rectified`), which is convex too: each half step starts
from a target that coincides with the prediction wherever both are clipped.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from edgec.passes.solvers.rectified import Clipping
from edgec.passes.solvers.ridge import factor

Array = np.ndarray[Any, np.dtype[Any]]

Progress = Callable[[int, int], None]
"""Called with (done, total) before every sweep."""

HALVINGS = 4
INNER = 3
"""Conjugate-gradient steps of a half step; the next half step goes on from there."""
TILE = 8192
"""Rows whose products are summed in float32 before they are added in float64."""


@dataclass(frozen=True)
class Whitening:
    """A map of patches to rows with second moment I: ``x = p root``; ``columns = root V`` goes back."""

    root: Array

    @staticmethod
    def of(h: Array, rows: float, lam: float) -> Whitening:
        """From ``h = sum p p'`` over ``rows`` rows, ``lam`` times its mean diagonal added (the ridge on raw weights)."""
        lower = factor(h / max(rows, 1.0), lam).lower
        return Whitening(np.linalg.solve(lower, np.eye(len(h))).T)

    def apply(self, p: Array) -> Array:
        """(rows, n), float32."""
        return np.asarray(p @ self.root.astype(np.float32))

    def columns(self, v: Array) -> Array:
        """Unknowns of whitened rows -> of patches, float64."""
        return np.asarray(self.root @ v)

    def whiten(self, columns: Array) -> Array:
        """The inverse of `columns`."""
        return np.linalg.solve(self.root, columns)


@dataclass(frozen=True)
class GatedRows:
    """``x`` (rows, n) whitened patches, ``d`` (rows, k) gates, ``t`` (rows, out) targets, all float32.

    ``offset`` (rows, out): what the network adds behind the block, None for nothing; it matters only to ``clipping``, the
    activation behind the sum (None where none follows or its loss is not wanted).
    """

    x: Array
    d: Array
    t: Array
    offset: Array | None = None
    clipping: Clipping | None = None

    @property
    def scale(self) -> float:
        """Rows times the root mean square of a row of targets: no penalty above it leaves anything but zeros."""
        energy = float(np.square(self.t, dtype=np.float64).sum())
        return float(np.sqrt(energy * len(self.t)))

    def gated_by(self, v: Array) -> GatedRows:
        """The rows with the gates that a ReLU behind ``x v`` would be."""
        return replace(self, d=(self.x @ v.astype(np.float32) > 0).astype(np.float32))

    def wanted(self, made: Array) -> Array:
        """The targets; where both they and ``made`` are clipped, ``made``."""
        if self.clipping is None:
            return self.t
        return np.asarray(self.clipping.nearest(made, self.t, self.offset))

    def error(self, made: Array) -> tuple[float, float]:
        """(squared error, energy of the target), behind the activation."""
        return (self.clipping or Clipping(None, None)).error(made, self.t, self.offset)


@dataclass(frozen=True)
class Gated:
    """The unknowns: ``v`` (n, k) of whitened patches, ``w`` (k, out), ``b`` (out,), float64."""

    v: Array
    w: Array
    b: Array

    def features(self, rows: GatedRows) -> Array:
        """``(x V) * d``, (rows, k)."""
        return np.asarray((rows.x @ self.v.astype(np.float32)) * rows.d)

    def make(self, rows: GatedRows) -> Array:
        """What the block makes of the rows, (rows, out)."""
        return self.out(self.features(rows))

    def out(self, features: Array) -> Array:
        return np.asarray(features @ self.w.astype(np.float32) + self.b.astype(np.float32))

    def relative_error(self, rows: GatedRows) -> float:
        """Squared error over the energy of the targets, behind the activation."""
        error, energy = rows.error(self.make(rows))
        return error / energy if energy else 0.0

    def balanced(self) -> Gated:
        """The same function with ``|v_j| = |w_j|``, the least penalty."""
        sizes = np.linalg.norm(self.v, axis=0), np.linalg.norm(self.w, axis=1)
        live = (sizes[0] > 0) & (sizes[1] > 0)
        share = np.where(live, np.sqrt(sizes[1] / np.where(live, sizes[0], 1.0)), 1.0)
        return replace(self, v=self.v * share, w=self.w / share[:, None])


@dataclass(frozen=True)
class Alternated:
    """The blocks found and F before, between and after the sweeps."""

    block: Gated
    objective: tuple[float, ...]


def alternate(
    rows: GatedRows,
    start: Gated,
    penalty: float,
    sweeps: int,
    *,
    tolerance: float = 1e-5,
    progress: Progress | None = None,
) -> Alternated:
    """At most ``sweeps`` alternations from ``start``; ends when one lowers F by less than ``tolerance`` of it.

    ``penalty`` is l, absolute (see `GatedRows.scale`).
    """
    block = solve_outer(rows, start, penalty).balanced()
    history = [objective(rows, block, penalty)]
    for sweep in range(sweeps):
        if progress is not None:
            progress(sweep, sweeps)
        block = solve_outer(rows, solve_inner(rows, block, penalty), penalty).balanced()
        history.append(objective(rows, block, penalty))
        if history[-2] - history[-1] <= tolerance * history[-1]:
            break
    return Alternated(block, tuple(history))


def follow(
    rows: GatedRows, start: Gated, penalty: float, rounds: int, *, progress: Progress | None = None
) -> tuple[Gated, Array]:
    """Let the gates follow V, ``d = 1[x V > 0]``, which makes the block a plain ReLU block, and the gates in the end.

    Each round solves for V with the gates of the round before, as far along the way as F with the new gates falls: a
    Gauss-Newton method for the ReLU block, each step of which is one convex problem. ``rows.d`` is not looked at.
    """
    rows = rows.gated_by(start.v)
    block = solve_outer(rows, start, penalty).balanced()
    now = objective(rows, block, penalty)
    for number in range(rounds):
        if progress is not None:
            progress(number, rounds)
        aim = solve_inner(rows, block, penalty).v
        for halving in range(HALVINGS):
            v = block.v + (aim - block.v) / 2**halving
            moved = rows.gated_by(v)
            found = solve_outer(moved, replace(block, v=v), penalty).balanced()
            reached = objective(moved, found, penalty)
            if reached < now:
                break
        else:
            break
        rows, block, now = moved, found, reached
    return block, rows.d


def objective(rows: GatedRows, block: Gated, penalty: float) -> float:
    """F, the first term with the clipped loss where an activation follows."""
    made = block.make(rows)
    loss = float(np.square(rows.wanted(made) - made, dtype=np.float64).sum())
    return 0.5 * loss + 0.5 * penalty * float(np.square(block.v).sum() + np.square(block.w).sum())


def solve_outer(rows: GatedRows, block: Gated, penalty: float) -> Gated:
    """The best W and b for the block's V: a ridge regression, the constant free."""
    z = block.features(rows)
    wanted = rows.wanted(block.out(z))
    count = len(z)
    means = z.mean(axis=0, dtype=np.float64), wanted.mean(axis=0, dtype=np.float64)
    h = _product(z, z) - count * np.outer(means[0], means[0])
    s = _product(z, wanted) - count * np.outer(means[0], means[1])
    w = factor(h + penalty * np.eye(len(h)), 0.0).solve(s)
    return replace(block, w=w, b=means[1] - means[0] @ w)


def solve_inner(rows: GatedRows, block: Gated, penalty: float, steps: int = INNER) -> Gated:
    """``steps`` of preconditioned conjugate gradients towards the best V for the block's W and b."""
    made = block.make(rows)
    w = block.w.astype(np.float32)
    coupling = block.w @ block.w.T
    preconditioner = cho_factor(coupling * _product(rows.d, rows.d) + penalty * np.eye(len(coupling)))
    residual = _project(rows, (rows.wanted(made) - made) @ w.T) - penalty * block.v
    v = block.v.copy()
    direction = np.zeros_like(v)
    before = 0.0
    for _ in range(steps):
        scaled = cho_solve(preconditioner, residual.T).T
        now = float((residual * scaled).sum())
        if not now > 0:
            break
        direction = scaled + (now / before if before else 0.0) * direction
        tangent = (rows.x @ direction.astype(np.float32)) * rows.d @ w
        curved = _project(rows, tangent @ w.T) + penalty * direction
        length = now / float((direction * curved).sum())
        v += length * direction
        residual -= length * curved
        before = now
    return replace(block, v=v)


def _project(rows: GatedRows, flow: Array) -> Array:
    """``x' (flow * d)``, (n, k)."""
    return _product(rows.x, flow * rows.d)


def _product(a: Array, b: Array) -> Array:
    """``a' b``: float32 products of tiles, float64 sums."""
    found = np.zeros((a.shape[1], b.shape[1]))
    for start in range(0, len(a), TILE):
        found += a[start : start + TILE].T @ b[start : start + TILE]
    return found
