"""Move all blocks of a run of gated (or ReLU) blocks together to where the last one comes nearest to its target.

Fitting block after block asks of each to make what the teacher makes in the middle, which nothing needs. Here

    min over all V_i, W_i, b_i of  loss(y_m),     y_i = ((x_i V_i) * d_i) W_i + b_i + skip_i,    z_(i+1) = act(y_i),

where x_i are whitened patches of z_i, is lowered by conjugate directions with the exact length for the linearised run, as
`chain` does for plain layers: preconditioned by ``(W W') * (d' d)`` on the inner and by ``f' f`` on the outer side, for the later
blocks' Jacobian is near the identity of their skips. The last W and b are solved exactly in every step. Gates and ReLU masks
follow the maps; a step that does not lower the objective is halved, then given up.

Maps are (n, *spatial, channels) throughout.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edgec.passes.solvers import maps
from edgec.passes.solvers.gated import Whitening
from edgec.passes.solvers.gram import Patches
from edgec.passes.solvers.rectified import Clipping
from edgec.passes.solvers.ridge import factor

Array = np.ndarray[Any, np.dtype[Any]]

HALVINGS = 4


@dataclass(frozen=True)
class Stage:
    """One block: ``v`` (n, k) of whitened patches, ``w`` (k, out), ``b`` (out,); ``gate`` (n, k) columns of raw patches, None for
    a ReLU block. ``identity``: the block's input is added to its output. ``clipping`` is the activation behind the sum.
    """

    patches: Patches
    root: Whitening
    v: Array
    w: Array
    b: Array
    gate: Array | None = None
    identity: bool = True
    clipping: Clipping | None = None


@dataclass(frozen=True)
class JointGoal:
    """Input of the first stage, what the last sum should be, and what the first stage's skip adds where it is no identity."""

    z: Array
    target: Array
    skip: Array | None = None


@dataclass(frozen=True)
class _State:
    """What a stage computes: patches (rows, n), gates and gated features (rows, k), the sum y (n, *spatial, out)."""

    p: Array
    d: Array
    f: Array
    y: Array


Steps = list[tuple[Array, Array, Array]]
"""Changes of v, w and b per stage."""


def refine_jointly(
    stages: Sequence[Stage], goal: JointGoal, lam: float, iterations: int
) -> tuple[list[Stage], tuple[float, ...]]:
    """The stages after at most ``iterations`` joint steps, and the objective before and after each."""
    run = _Run(stages, goal, lam)
    history = [run.objective()]
    for _ in range(iterations):
        run.solve_last()
        if not run.step():
            break
        history.append(run.objective())
    run.solve_last()
    return run.stages, (*history, run.objective())


class _Run:
    """The stages with all maps of the present weights."""

    def __init__(self, stages: Sequence[Stage], goal: JointGoal, lam: float) -> None:
        self.stages, self.goal = list(stages), goal
        rest = goal.target - goal.skip if goal.skip is not None else goal.target
        rows = rest.size // rest.shape[-1]
        self.penalty = lam * float(np.sqrt(np.square(rest, dtype=np.float64).sum() * rows))
        self.states: list[_State] = []
        self.direction: Steps | None = None
        self.gradient: Steps = []
        self.scaled: Steps = []
        self._forward()

    def objective(self) -> float:
        weights = sum(float(np.square(s.v).sum() + np.square(s.w).sum()) for s in self.stages)
        return 0.5 * float(np.square(self._residual(), dtype=np.float64).sum()) + 0.5 * self.penalty * weights

    def solve_last(self) -> None:
        """The exact ridge solution for the last w and b."""
        state, stage = self.states[-1], self.stages[-1]
        wanted = self._residual().reshape(-1, len(stage.b))
        wanted = wanted + state.f @ stage.w.astype(np.float32) + stage.b.astype(np.float32)
        means = state.f.mean(axis=0, dtype=np.float64), wanted.mean(axis=0, dtype=np.float64)
        h = _product(state.f, state.f) - len(wanted) * np.outer(means[0], means[0])
        s = _product(state.f, wanted) - len(wanted) * np.outer(means[0], means[1])
        w = factor(h + self.penalty * np.eye(len(h)), 0.0).solve(s)
        change = w - stage.w, means[1] - means[0] @ w - stage.b
        y = state.y + (state.f @ change[0].astype(np.float32) + change[1].astype(np.float32)).reshape(
            state.y.shape
        )
        self.stages[-1] = replace(stage, w=w, b=stage.b + change[1])
        self.states[-1] = replace(state, y=y)

    def step(self) -> bool:
        """One joint step; False where no length of it helps."""
        residual = self._residual()
        gradient, scaled = self._gradients(residual)
        direction = scaled
        if self.direction is not None:
            change = [
                tuple(n - o for n, o in zip(new, old, strict=True))
                for new, old in zip(gradient, self.gradient, strict=True)
            ]
            beta = max(_dot(change, scaled) / _dot(self.gradient, self.scaled), 0.0)
            direction = [
                (p[0] + beta * q[0], p[1] + beta * q[1], p[2] + beta * q[2])
                for p, q in zip(scaled, self.direction, strict=True)
            ]
        self.gradient, self.scaled, self.direction = gradient, scaled, direction
        tangent = self._tangent(direction)
        if self.stages[-1].clipping is not None:
            tangent = np.where(residual == 0, 0, tangent)
        bottom = float(np.square(tangent, dtype=np.float64).sum())
        bottom += self.penalty * sum(float(np.square(v).sum() + np.square(w).sum()) for v, w, _ in direction)
        top = _dot(gradient, direction)
        return bottom > 0 and self._move(direction, top / bottom)

    def _move(self, direction: Steps, length: float) -> bool:
        before, stages, states = self.objective(), self.stages, self.states
        for halving in range(HALVINGS):
            share = length / 2**halving
            self.stages = [
                replace(s, v=s.v + share * v, w=s.w + share * w, b=s.b + share * b)
                for s, (v, w, b) in zip(stages, direction, strict=True)
            ]
            self._forward()
            if self.objective() < before:
                return True
        self.stages, self.states = stages, states
        return False

    def _forward(self) -> None:
        self.states = []
        z = self.goal.z
        for number, stage in enumerate(self.stages):
            p = _rows(stage.patches, z)
            a = p @ stage.root.columns(stage.v).astype(np.float32)
            d = (a > 0).astype(np.float32) if stage.gate is None else _soft(p, stage.gate)
            f = a * d
            y = f @ stage.w.astype(np.float32) + stage.b.astype(np.float32)
            y = y.reshape(len(z), *stage.patches.out_shape(z.shape[1:-1]), -1)
            if number == 0 and self.goal.skip is not None:
                y = y + self.goal.skip
            elif stage.identity:
                y = y + z
            self.states.append(_State(p, d, f, y))
            z = y if stage.clipping is None else np.asarray(stage.clipping.apply(y))

    def _residual(self) -> Array:
        """Wanted minus made, where the last activation does not hide it."""
        clipping, made = self.stages[-1].clipping, self.states[-1].y
        wanted = self.goal.target if clipping is None else clipping.nearest(made, self.goal.target, None)
        return np.asarray(wanted - made)

    def _gradients(self, flow: Array) -> tuple[Steps, Steps]:
        """Descent gradient, plain and preconditioned."""
        plain: Steps = []
        scaled: Steps = []
        for number in range(len(self.stages) - 1, -1, -1):
            stage, state = self.stages[number], self.states[number]
            e = flow.reshape(-1, len(stage.b))
            da = (e @ stage.w.T.astype(np.float32)) * state.d
            v = stage.root.root.T @ _product(state.p, da) - self.penalty * stage.v
            w = _product(state.f, e) - self.penalty * stage.w
            b = e.sum(axis=0, dtype=np.float64)
            inner: Array = stage.w @ stage.w.T * _product(state.d, state.d)
            outer = _product(state.f, state.f)
            inner[np.diag_indices(len(inner))] += self.penalty
            outer[np.diag_indices(len(outer))] += self.penalty
            plain.append((v, w, b))
            scaled.append((np.linalg.solve(inner, v.T).T, np.linalg.solve(outer, w), b / len(e)))
            if number:
                flow = self._back(number, da, flow)
        return plain[::-1], scaled[::-1]

    def _back(self, number: int, da: Array, flow: Array) -> Array:
        """From the inner channels of a stage (and its sum) to the sum of the stage before."""
        stage, before = self.stages[number], self.states[number - 1].y
        patches = stage.patches
        inner = da.reshape(len(before), *patches.out_shape(before.shape[1:-1]), -1)
        found = maps.pull_back(patches, stage.root.columns(stage.v)[None], inner, before.shape[1:-1])
        if stage.identity:
            found = found + flow
        return np.asarray(found * _open(self.stages[number - 1].clipping, before))

    def _tangent(self, direction: Steps) -> Array:
        """Change of the last sum along ``direction``, linearised."""
        moved: Array | None = None
        for stage, state, (v, w, b) in zip(self.stages, self.states, direction, strict=True):
            a: Array = state.p @ stage.root.columns(v).astype(np.float32)
            if moved is not None:
                linear = stage.root.columns(stage.v)
                linear[-1] = 0
                a = a + maps.apply(stage.patches, linear[None], moved).reshape(a.shape)
            change = (
                (a * state.d) @ stage.w.astype(np.float32)
                + state.f @ w.astype(np.float32)
                + b.astype(np.float32)
            )
            change = change.reshape(state.y.shape)
            if moved is not None and stage.identity:
                change = change + moved
            moved = change * _open(stage.clipping, state.y) if stage is not self.stages[-1] else change
        return np.asarray(moved)


def _rows(patches: Patches, z: Array) -> Array:
    """All patches of ``z`` (n, *spatial, channels): (rows, n)."""
    count = len(z) * int(np.prod(patches.out_shape(z.shape[1:-1])))
    found = np.empty((count, patches.unknowns), np.float32)
    for part, p in patches.tiles(np.moveaxis(z, -1, 1), np.arange(count)):
        found[part] = p[0]
    return found


def _soft(p: Array, gate: Array) -> Array:
    return np.asarray(np.clip(p @ gate.astype(np.float32), 0, 1))


def _open(clipping: Clipping | None, y: Array) -> Array:
    """Where the activation passes changes on."""
    return np.ones(y.shape, np.float32) if clipping is None else clipping.passes(y)


def _product(a: Array, b: Array) -> Array:
    found = np.zeros((a.shape[1], b.shape[1]))
    for start in range(0, len(a), 8192):
        found += a[start : start + 8192].T @ b[start : start + 8192]
    return found


def _dot(a: Sequence[Any], b: Sequence[Any]) -> float:
    return float(
        sum(np.sum(x * y) for one, other in zip(a, b, strict=True) for x, y in zip(one, other, strict=True))
    )
