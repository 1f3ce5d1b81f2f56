"""The convex gated problem, without a limit on the width: ``sum over gates g of D_g X U_g`` for targets T.

    P(U) = 1/2 |sum_g D_g X U_g - T|^2 + l Omega(U),      U_g (n, out) per gate, D_g fixed 0/1

is convex (Mishkin, Sahiner, Pilanci, ICML 2022; arXiv 2410.06567). Omega is half the squared norm (ridge), the sum of the
gates' Frobenius norms (group lasso: whole gates go), or of their nuclear norms: the ranks fall, and as
``l |U_g|_* = min l/2 (|V|^2 + |W|^2)`` over ``V W = U_g``, this is the factored problem of `gated` with any width.

It is solved by FISTA with restart (Beck and Teboulle 2009; O'Donoghue and Candes 2015) on normal equations, whose size does not
depend on the rows. With R the residual, any multiple s R that the dual norm allows bounds the optimum from below, so the
duality gap certifies how near it is. T and the columns are centred first: the constant is free.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

from edgec.passes.solvers.ridge import factor

Array = np.ndarray[Any, np.dtype[Any]]
PenaltyName = Literal["ridge", "group-lasso", "nuclear"]

CHECK = 10
"""Iterations between two looks at the gap."""
POWER = 30
FLOAT32_GAP = 1e-5


@dataclass(frozen=True)
class GateGram:
    """Centred sums over ``rows`` rows: ``k`` (G n, G n), ``s`` (G n, out), ``energy`` of the targets; means (G n,) and (out,)."""

    k: Array
    s: Array
    energy: float
    rows: int
    gates: int
    means: Array
    target_means: Array

    @property
    def unknowns(self) -> int:
        """Per gate and output."""
        return len(self.k) // self.gates

    @property
    def scale(self) -> float:
        """Rows times the root mean square of a row of targets."""
        return float(np.sqrt(self.energy * self.rows))

    def split(self, u: Array) -> Array:
        """(G n, out) -> (G, n, out)."""
        return u.reshape(self.gates, self.unknowns, -1)

    def loss(self, u: Array, ku: Array) -> float:
        """``1/2 |residual|^2``, ``ku`` being ``k u``."""
        return max(0.5 * self.energy - float(np.sum(u * self.s)) + 0.5 * float(np.sum(u * ku)), 0.0)

    def constant(self, u: Array) -> Array:
        """The free constant that belongs to ``u``."""
        return np.asarray(self.target_means - self.means @ u)


def gate_gram(x: Array, gates: Array, t: Array) -> GateGram:
    """From rows ``x`` (rows, n), ``gates`` (rows, G) of 0 and 1, targets ``t`` (rows, out), float32 all."""
    count, n = x.shape
    number = gates.shape[1]
    k = np.zeros((number * n, number * n))
    s = np.zeros((number * n, t.shape[1]))
    means = np.zeros(number * n)
    open_ = gates > 0
    for g in range(number):
        here = slice(g * n, (g + 1) * n)
        mine = x[open_[:, g]]
        s[here] = mine.T @ t[open_[:, g]]
        means[here] = mine.sum(axis=0, dtype=np.float64) / count
        for h in range(g, number):
            both = mine if h == g else x[open_[:, g] & open_[:, h]]
            block = both.T @ both
            k[here, h * n : (h + 1) * n] = block
            k[h * n : (h + 1) * n, here] = block.T
    wanted = t.mean(axis=0, dtype=np.float64)
    k -= count * np.outer(means, means)
    s -= count * np.outer(means, wanted)
    energy = float(np.square(t - wanted, dtype=np.float64).sum())
    return GateGram(k, s, energy, count, number, means, wanted)


class Penalty(Protocol):
    """What Omega must offer; ``u`` and ``g`` are (G, n, out)."""

    def value(self, u: Array) -> float:
        """Omega(u)."""

    def prox(self, u: Array, step: float) -> Array:
        """``argmin_v 1/2 |v - u|^2 + step Omega(v)``."""

    def dual(self, g: Array) -> float:
        """The dual norm: the largest over gates."""


class GroupLasso:
    """Sum of the gates' Frobenius norms."""

    def value(self, u: Array) -> float:
        return float(np.linalg.norm(u, axis=(1, 2)).sum())

    def prox(self, u: Array, step: float) -> Array:
        norms = np.linalg.norm(u, axis=(1, 2), keepdims=True)
        return np.asarray(u * np.maximum(1 - step / np.maximum(norms, 1e-300), 0))

    def dual(self, g: Array) -> float:
        return float(np.max(np.linalg.norm(g, axis=(1, 2))))


class Nuclear:
    """Sum of the gates' nuclear norms. The small side's eigenvectors do for a thresholded SVD."""

    def value(self, u: Array) -> float:
        return float(sum(np.linalg.svd(one, compute_uv=False).sum() for one in u))

    def prox(self, u: Array, step: float) -> Array:
        return np.stack([_shrunk(one, step) for one in u])

    def dual(self, g: Array) -> float:
        return max(float(np.linalg.svd(one, compute_uv=False)[0]) for one in g)


def _shrunk(u: Array, step: float) -> Array:
    squares, right = np.linalg.eigh(u.T @ u)
    sizes = np.sqrt(np.maximum(squares, 1e-300))
    return np.asarray(u @ (right * np.maximum(1 - step / sizes, 0)) @ right.T)


@dataclass(frozen=True)
class Convex:
    """The solution ``u`` (G, n, out), its objective, and the relative gap: an upper bound on the distance to the optimum."""

    u: Array
    objective: float
    gap: float
    iterations: int
    converged: bool


def solve_convex(
    gram: GateGram,
    penalty: PenaltyName,
    strength: float,
    *,
    start: Array | None = None,
    tolerance: float = 1e-4,
    limit: int = 2000,
    progress: Callable[[int, int], None] | None = None,
) -> Convex:
    """Minimise P for l = ``strength`` until the relative gap is at most ``tolerance``, or ``limit`` iterations are over."""
    if penalty == "ridge":
        return _ridge(gram, strength, tolerance)
    omega: Penalty = GroupLasso() if penalty == "group-lasso" else Nuclear()
    # Gradients in float32 are good enough for gaps far above their rounding; the gap itself is always taken in float64.
    kind = np.float32 if tolerance >= FLOAT32_GAP else np.float64
    k = gram.k.astype(kind, copy=False)
    step = 1 / _largest_eigenvalue(k)
    u = np.zeros_like(gram.s) if start is None else start.reshape(gram.s.shape).astype(np.float64)
    at, momentum = u, 1.0
    gap = objective = np.inf
    for iteration in range(1, limit + 1):
        gradient = k @ at.astype(kind) - gram.s
        moved = omega.prox(gram.split(at - step * gradient), step * strength).reshape(u.shape)
        if float(np.sum((at - moved) * (moved - u))) > 0:
            momentum, at = 1.0, moved
        else:
            following = (1 + np.sqrt(1 + 4 * momentum**2)) / 2
            at = moved + (momentum - 1) / following * (moved - u)
            momentum = following
        u = moved
        if iteration % CHECK == 0 or iteration == limit:
            before, (objective, gap) = objective, _certificate(gram, omega, strength, u)
            if objective > before:
                # Momentum that overshot, or a step above what the largest eigenvalue allows.
                step, momentum, at = step / 2, 1.0, u
            if progress is not None:
                progress(iteration, limit)
            if gap <= tolerance:
                return Convex(gram.split(u), objective, gap, iteration, True)
    return Convex(gram.split(u), objective, gap, limit, False)


def _certificate(gram: GateGram, omega: Penalty, strength: float, u: Array) -> tuple[float, float]:
    """(P(u), relative gap): the residual, scaled into the dual's feasible set, gives the lower bound."""
    ku = gram.k @ u
    loss = gram.loss(u, ku)
    primal = loss + strength * omega.value(gram.split(u))
    largest = omega.dual(gram.split(gram.s - ku))
    room = strength / largest if largest > 0 else np.inf
    # <R, T>, and the best multiple of R in the dual  s <R, T> - s^2 / 2 |R|^2.
    along = gram.energy - float(np.sum(u * gram.s))
    best = along / (2 * loss) if loss > 0 else 0.0
    s = float(np.clip(best, -room, room))
    dual = s * along - s * s * loss
    return primal, (primal - dual) / max(primal, 1e-300)


def _ridge(gram: GateGram, strength: float, tolerance: float) -> Convex:
    """Direct. The gap is that of the residual as it is: 0 but for rounding."""
    u = factor(gram.k + strength * np.eye(len(gram.k)), 0.0).solve(gram.s)
    ku = gram.k @ u
    loss = gram.loss(u, ku)
    primal = loss + 0.5 * strength * float(np.sum(u * u))
    along = gram.energy - float(np.sum(u * gram.s))
    dual = along - loss - float(np.square(gram.s - ku).sum()) / (2 * strength)
    gap = abs(primal - dual) / max(primal, 1e-300)
    return Convex(gram.split(u), primal, gap, 1, gap <= tolerance)


def _largest_eigenvalue(k: Array) -> float:
    """By power iteration: the last ratio, with a margin for what it has not yet reached."""
    x = np.random.default_rng(0).standard_normal(len(k)).astype(k.dtype)
    size = 0.0
    for _ in range(POWER):
        y = k @ x
        size = float(np.linalg.norm(y)) / max(float(np.linalg.norm(x)), 1e-300)
        x = y / max(float(np.linalg.norm(y)), 1e-300)
    return max(1.02 * size, 1e-300)


@dataclass(frozen=True)
class Factored:
    """``width`` rank-one terms ``v_j w_j'`` with the gate of each: v (n, width), w (width, out), gate (width,)."""

    v: Array
    w: Array
    gate: Array


def factored(u: Array, width: int) -> Factored:
    """The largest ``width`` singular triples of all gates' U (G, n, out), balanced."""
    parts = [np.linalg.svd(one, full_matrices=False) for one in u]
    sizes = np.stack([size for _, size, _ in parts])
    order = np.argsort(-sizes, axis=None, kind="stable")[:width]
    gates, ranks = np.unravel_index(order, sizes.shape)
    root = np.sqrt(sizes[gates, ranks])
    v = np.stack([parts[g][0][:, r] for g, r in zip(gates, ranks, strict=True)], axis=1)
    w = np.stack([parts[g][2][r] for g, r in zip(gates, ranks, strict=True)])
    return Factored(v * root, w * root[:, None], gates)
