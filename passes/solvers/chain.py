"""Fit several layers in a row to one target behind the last of them.

Fitting layer after layer asks of every inner layer to make what the teacher's makes, with fewer channels. Nothing needs
that: only what comes out at the end of the chain matters. So the inner layers move to where the last one, re-fitted,
comes nearest:

    min over W_1 .. W_k of  loss(W_k . act( ... act(W_1 . x)))  +  d_j |W_j - W_j0|^2,

with the convex, clipped loss of `rectified` at the end. Given the rest, the last layer is a ridge regression, which is solved
exactly in every iteration (variable projection, Golub and Pereyra 1973). The inner layers take Gauss-Newton steps: conjugate
directions, preconditioned on both sides, ``H_j^-1 G_j A_j^-1`` (H_j of the inputs, A_j of what the following layers make of the
outputs: the Kronecker factors of Martens and Grosse, arXiv 1503.05671), with the exact length for the linearised chain. A step
that does not lower the loss is halved, then given up.

Maps are (n, *spatial, channels) throughout.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from edgec.passes.solvers import maps
from edgec.passes.solvers.gram import Patches
from edgec.passes.solvers.rectified import Clipping, squared
from edgec.passes.solvers.ridge import CARRIED, Factor, factor, ridge

Array = np.ndarray[Any, np.dtype[Any]]

OUTPUT_DAMPING = 1e-2
"""Of the output-side factor, relative to its mean diagonal."""
HALVINGS = 3


@dataclass(frozen=True)
class Link:
    """One layer of a chain, ``columns`` (group, unknowns, out/group), and the activation behind it (None: none)."""

    patches: Patches
    columns: Array
    clipping: Clipping | None = None

    @property
    def outputs(self) -> int:
        return self.columns.shape[0] * self.columns.shape[2]


@dataclass(frozen=True)
class Target:
    """What the last link, without its activation, should make of ``x``: ``value`` (n, *spatial, out), and what the network adds
    to that before the activation (None: nothing)."""

    x: Array
    value: Array
    offset: Array | None = None

    @property
    def spatial(self) -> tuple[int, ...]:
        return self.x.shape[1:-1]


class Refined(NamedTuple):
    """``errors``: relative, before, between and at the end of the steps; ``condition``: the worst of all systems solved."""

    links: list[Link]
    errors: list[float]
    condition: float


def refine(links: Sequence[Link], target: Target, lam: float, iterations: int, threads: int = 1) -> Refined:
    """The links after ``iterations`` joint steps."""
    chain = _Chain(links, target, lam, threads)
    errors = [chain.error()]
    for _ in range(iterations):
        before = chain.links
        chain.solve_last()
        moved = chain.step()
        errors.append(chain.error())
        if errors[-1] > errors[-2]:
            chain.restore(before)
            errors[-1] = errors[-2]
            break
        if not moved:
            break
    chain.solve_last()
    return Refined(chain.links, [*errors, chain.error()], chain.condition)


def chain_errors(links: Sequence[Link], target: Target, threads: int = 1) -> tuple[Array, float]:
    """Squared errors of the chain by image (images,), and the energy of all targets; behind the last activation where there is
    one."""
    behind = links[-1].clipping or Clipping(None, None)
    made = forward(links, target.x, threads)

    def part_of(part: slice) -> tuple[Array, float]:
        mine, wanted = made[part], target.value[part]
        if target.offset is not None:
            mine, wanted = mine + target.offset[part], wanted + target.offset[part]
        wanted = behind.apply(wanted)
        left = np.square(behind.apply(mine) - wanted, dtype=np.float64)
        return left.reshape(len(left), -1).sum(axis=1), squared(wanted)

    errors, energies = zip(*maps.in_parts(part_of, made, threads), strict=True)
    return np.concatenate(errors), sum(energies)


def _relative(clipping: Clipping | None, made: Array, target: Target, threads: int) -> float:
    behind = clipping or Clipping(None, None)

    def part_of(part: slice) -> tuple[float, float]:
        offset = None if target.offset is None else target.offset[part]
        return behind.error(made[part], target.value[part], offset)

    errors, energies = zip(*maps.in_parts(part_of, made, threads), strict=True)
    return sum(errors) / sum(energies) if sum(energies) else 0.0


def forward(links: Sequence[Link], x: Array, threads: int = 1) -> Array:
    """The chain's output, the last activation left out."""
    for number, link in enumerate(links):
        x = maps.apply(link.patches, link.columns, x, threads)
        if number < len(links) - 1:
            x = _activated(link, x, threads)
    return x


def _activated(link: Link, y: Array, threads: int) -> Array:
    """``y`` behind the link's activation."""
    clipping = link.clipping
    if clipping is None:
        return y
    found = np.empty_like(y)

    def apply(part: slice) -> None:
        found[part] = clipping.apply(y[part])

    maps.fill_parts(apply, y, threads)
    return found


class _Chain:
    """The links with all maps of the present weights."""

    def __init__(self, links: Sequence[Link], target: Target, lam: float, threads: int = 1) -> None:
        self.links, self.target, self.lam, self.threads = list(links), target, lam, threads
        self.start = [link.columns for link in links]
        self.factors: list[tuple[Factor, ...]] = []
        self.condition = 1.0
        self.direction: list[Array] | None = None
        self.gradient: list[Array] = []
        self.preconditioned: list[Array] = []
        self.maps: list[Array] = []
        self.inputs: list[Array] = []
        self._run()
        # Inputs of the inner links hardly change their statistics: their factors are made once.
        for number in range(len(self.links) - 1):
            self.factors.append(tuple(factor(h, lam, carried=CARRIED) for h in self._normal(number)))

    def _run(self) -> None:
        """All inputs and pre-activations."""
        self.maps, self.inputs = [], [self.target.x]
        for number, link in enumerate(self.links):
            self.maps.append(maps.apply(link.patches, link.columns, self.inputs[number], self.threads))
            if number < len(self.links) - 1:
                self.inputs.append(_activated(link, self.maps[number], self.threads))

    def _normal(self, number: int) -> Array:
        return maps.normal(self.links[number].patches, self.inputs[number], self.threads)

    def _project(self, number: int, gradient: Array) -> Array:
        """``sum p g'`` over all pixels: (group, unknowns, out/group)."""
        return maps.project(self.links[number].patches, self.inputs[number], gradient, self.threads)

    def residual(self) -> Array:
        """Wanted minus made, where the last activation does not hide it."""
        clipping, made, target = self.links[-1].clipping, self.maps[-1], self.target
        found = np.empty_like(made)

        def fill(part: slice) -> None:
            wanted = target.value[part]
            if clipping is not None:
                offset = None if target.offset is None else target.offset[part]
                wanted = clipping.nearest(made[part], wanted, offset)
            np.subtract(wanted, made[part], out=found[part])

        maps.fill_parts(fill, made, self.threads)
        return found

    def error(self) -> float:
        return _relative(self.links[-1].clipping, self.maps[-1], self.target, self.threads)

    def solve_last(self) -> None:
        """One exact ridge solution for the last link (one majorise-minimise step where an activation follows)."""
        number = len(self.links) - 1
        h = self._normal(number)
        wanted = self.maps[-1] + self.residual()
        s = self._project(number, wanted)
        solved = ridge(h, s, self.start[-1], self.lam, carried=CARRIED)
        columns, self.condition = solved.columns, max(self.condition, solved.condition)
        self.links = [*self.links[:-1], replace(self.links[-1], columns=columns)]
        self.maps[-1] = maps.apply(self.links[-1].patches, columns, self.inputs[number], self.threads)

    def restore(self, links: list[Link]) -> None:
        """Back to earlier weights."""
        self.links = links
        self._run()

    def step(self) -> bool:
        """One step of the inner links; False where no length of it helps."""
        residual = self.residual()
        gradient, preconditioned = self._gradients(residual)
        direction = preconditioned
        if self.direction is not None:
            change = [new - old for new, old in zip(gradient, self.gradient, strict=True)]
            beta = max(_dot(change, preconditioned) / _dot(self.gradient, self.preconditioned), 0.0)
            direction = [p + beta * d for p, d in zip(preconditioned, self.direction, strict=True)]
        self.gradient, self.preconditioned, self.direction = gradient, preconditioned, direction
        tangent = self._tangent(direction)
        top, bottom = self._products(residual, tangent)
        for number, (link, along) in enumerate(zip(self.links, direction, strict=False)):
            ridge = self._damping(number)
            top += float((ridge * (self.start[number] - link.columns) * along).sum())
            bottom += float((ridge * np.square(along)).sum())
        if not bottom > 0:
            return False
        length = top / bottom
        return self._move(direction, length)

    def _products(self, residual: Array, tangent: Array) -> tuple[float, float]:
        """``<residual, tangent>`` and ``|tangent|^2``, the latter where the last activation does not hide it."""
        hides = self.links[-1].clipping is not None

        def part_of(part: slice) -> tuple[float, float]:
            r, t = residual[part].ravel(), tangent[part].ravel()
            return float(np.dot(r, t)), squared(t[r != 0] if hides else t)

        tops, bottoms = zip(*maps.in_parts(part_of, residual, self.threads), strict=True)
        return sum(tops), sum(bottoms)

    def _move(self, direction: list[Array], length: float) -> bool:
        before, links = self.error(), self.links
        for halving in range(HALVINGS):
            share = length / 2**halving
            moved = [
                replace(link, columns=link.columns + share * d)
                for link, d in zip(links, direction, strict=False)
            ]
            self.links = [*moved, links[-1]]
            self._run()
            if self.error() < before:
                return True
        self.restore(links)
        return False

    def _gradients(self, residual: Array) -> tuple[list[Array], list[Array]]:
        """Descent gradient of every inner link, plain and preconditioned, first link first."""
        found: list[Array] = []
        scaled: list[Array] = []
        flow, outward = residual, np.eye(self.links[-1].outputs)
        for number in range(len(self.links) - 2, -1, -1):
            spatial = self.maps[number].shape[1:-1]
            following = self.links[number + 1]
            flow = maps.pull_back(following.patches, following.columns, flow, spatial, self.threads)
            open_ = self._open(number)
            flow = flow * open_
            outward = _output_factor(self.links[number + 1], outward, open_)
            link = self.links[number]
            gradient = self._project(number, flow)
            gradient += self._damping(number) * (self.start[number] - link.columns)
            found.append(gradient)
            inner = np.stack([f.solve(g) for f, g in zip(self.factors[number], gradient, strict=True)])
            scaled.append(_solve_outputs(inner, outward, link.patches.group))
        return found[::-1], scaled[::-1]

    def _damping(self, number: int) -> Array:
        return np.array([f.damping + f.jitter for f in self.factors[number]])[:, None, None]

    def _open(self, number: int) -> Array:
        """Where the activation behind link ``number`` passes changes on."""
        clipping, y = self.links[number].clipping, self.maps[number]
        found = np.ones_like(y)

        def fill(part: slice) -> None:
            if clipping is not None:
                found[part] = clipping.passes(y[part])

        maps.fill_parts(fill, y, self.threads)
        return found

    def _tangent(self, direction: list[Array]) -> Array:
        """Change of the chain's output along ``direction``, linearised."""
        flow: Array | None = None
        for number, link in enumerate(self.links):
            change: Array = np.zeros((), np.float32)
            if flow is not None:
                linear = link.columns.copy()
                if link.patches.bias:
                    linear[:, -1] = 0
                change = maps.apply(link.patches, linear, flow, self.threads)
            if number < len(direction):
                change = change + maps.apply(
                    link.patches, direction[number], self.inputs[number], self.threads
                )
                change = change * self._open(number)
            flow = change
        return np.asarray(flow)


def _output_factor(link: Link, outward: Array, passes: Array) -> Array:
    """Curvature with respect to the input channels of ``link``, given that of its outputs and where its inputs are open."""
    patches = link.patches
    body = link.columns[:, :-1] if patches.bias else link.columns
    w = body.reshape(patches.group, len(patches.taps), patches.group_channels, -1)
    each, inner = w.shape[3], patches.group_channels
    # Blocks between the groups of the outputs, (group, each, group, each), become blocks between those of the inputs.
    blocks = outward.reshape(patches.group, each, patches.group, each)
    found = np.einsum("gtio,gohp,htjp->gihj", w, blocks, w, optimize=True)
    flat = passes.reshape(-1, patches.channels)
    return np.asarray(found.reshape(patches.group * inner, -1) * (flat.T @ flat) / len(flat))


def _solve_outputs(inner: Array, outward: Array, group: int) -> Array:
    """``inner A^-1`` (group, n, out/group): the blocks of A on the diagonal, damped."""
    each = inner.shape[2]
    damping = OUTPUT_DAMPING * max(float(np.trace(outward)) / len(outward), 1e-30)
    found = np.empty_like(inner)
    for g in range(group):
        block = outward[g * each : (g + 1) * each, g * each : (g + 1) * each] + damping * np.eye(each)
        found[g] = np.linalg.solve(block, inner[g].T).T
    return found


def _dot(a: Sequence[Array], b: Sequence[Array]) -> float:
    return float(sum(np.sum(x * y) for x, y in zip(a, b, strict=True)))
