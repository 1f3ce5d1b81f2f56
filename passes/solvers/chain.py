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
from typing import Any

import numpy as np

from edgec.passes.solvers.gram import Patches
from edgec.passes.solvers.rectified import Clipping
from edgec.passes.solvers.ridge import Factor, factor

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


def refine(
    links: Sequence[Link], target: Target, lam: float, iterations: int
) -> tuple[list[Link], list[float]]:
    """The links after ``iterations`` joint steps, and the relative errors (`chain_error`) before, between, and at the end."""
    chain = _Chain(links, target, lam)
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
    return chain.links, [*errors, chain.error()]


def chain_error(links: Sequence[Link], target: Target) -> float:
    """Relative squared error of the chain, behind the last activation where there is one."""
    return _relative(links[-1].clipping, forward(links, target.x), target)


def _relative(clipping: Clipping | None, made: Array, target: Target) -> float:
    error, energy = (clipping or Clipping(None, None)).error(made, target.value, target.offset)
    return error / energy if energy else 0.0


def forward(links: Sequence[Link], x: Array) -> Array:
    """The chain's output, the last activation left out."""
    for number, link in enumerate(links):
        x = _apply(link, x)
        if link.clipping is not None and number < len(links) - 1:
            x = link.clipping.apply(x)
    return x


def _apply(link: Link, x: Array, columns: Array | None = None) -> Array:
    """The layer without its activation."""
    w = (link.columns if columns is None else columns).astype(np.float32)
    spatial = link.patches.out_shape(x.shape[1:-1])
    rows = np.arange(len(x) * int(np.prod(spatial, dtype=np.int64)))
    out = np.empty((len(rows), w.shape[0], w.shape[2]), np.float32)
    for part, p in link.patches.tiles(np.moveaxis(x, -1, 1), rows):
        out[part] = (p @ w).transpose(1, 0, 2)
    return out.reshape(len(x), *spatial, link.outputs)


def _pull_back(link: Link, gradient: Array, spatial: tuple[int, ...]) -> Array:
    """The transposed layer: gradient at its output -> gradient at its input of size ``spatial``."""
    patches = link.patches
    body = link.columns[:, :-1] if patches.bias else link.columns
    w = body.reshape(patches.group, len(patches.taps), patches.group_channels, -1).astype(np.float32)
    grouped = gradient.reshape(-1, patches.group, w.shape[3]).transpose(1, 0, 2)
    pieces = (
        (grouped @ w[:, tap].transpose(0, 2, 1))
        .transpose(1, 0, 2)
        .reshape(len(gradient.reshape(-1, link.outputs)), -1)
        for tap in range(len(patches.taps))
    )
    return patches.scatter(pieces, len(gradient), spatial)


class _Chain:
    """The links with all maps of the present weights."""

    def __init__(self, links: Sequence[Link], target: Target, lam: float) -> None:
        self.links, self.target, self.lam = list(links), target, lam
        self.start = [link.columns for link in links]
        self.factors: list[tuple[Factor, ...]] = []
        self.direction: list[Array] | None = None
        self.gradient: list[Array] = []
        self.preconditioned: list[Array] = []
        self.maps: list[Array] = []
        self._run()
        # Inputs of the inner links hardly change their statistics: their factors are made once.
        for number in range(len(self.links) - 1):
            self.factors.append(tuple(factor(h, lam) for h in self._gram(number)))

    def _run(self) -> None:
        """All pre-activations."""
        self.maps = []
        x = self.target.x
        for link in self.links:
            y = _apply(link, x)
            self.maps.append(y)
            x = y if link.clipping is None else link.clipping.apply(y)

    def _input(self, number: int) -> Array:
        if number == 0:
            return self.target.x
        clipping = self.links[number - 1].clipping
        y = self.maps[number - 1]
        return y if clipping is None else np.asarray(clipping.apply(y))

    def _gram(self, number: int) -> Array:
        patches, x = self.links[number].patches, self._input(number)
        h = np.zeros((patches.group, patches.unknowns, patches.unknowns))
        for _, p in self._tiles(number, x):
            for g in range(patches.group):
                h[g] += p[g].T @ p[g]
        return h

    def _tiles(self, number: int, x: Array) -> Any:
        patches = self.links[number].patches
        rows = np.arange(len(x) * int(np.prod(patches.out_shape(x.shape[1:-1]), dtype=np.int64)))
        return patches.tiles(np.moveaxis(x, -1, 1), rows)

    def _project(self, number: int, gradient: Array) -> Array:
        """``sum p g'`` over all pixels: (group, unknowns, out/group)."""
        link, x = self.links[number], self._input(number)
        flat = gradient.reshape(-1, link.patches.group, link.columns.shape[2]).transpose(1, 0, 2)
        found = np.zeros(link.columns.shape)
        for part, p in self._tiles(number, x):
            found += np.swapaxes(p, 1, 2) @ flat[:, part]
        return found

    def residual(self) -> Array:
        """Wanted minus made, where the last activation does not hide it."""
        clipping, made = self.links[-1].clipping, self.maps[-1]
        wanted = self.target.value
        if clipping is not None:
            wanted = clipping.nearest(made, wanted, self.target.offset)
        return np.asarray(wanted - made)

    def error(self) -> float:
        return _relative(self.links[-1].clipping, self.maps[-1], self.target)

    def solve_last(self) -> None:
        """One exact ridge solution for the last link (one majorise-minimise step where an activation follows)."""
        number = len(self.links) - 1
        h = self._gram(number)
        wanted = self.maps[-1] + self.residual()
        s = self._project(number, wanted)
        columns = np.stack(
            [factor(hi, self.lam).ridge(si, wi) for hi, si, wi in zip(h, s, self.start[-1], strict=True)]
        )
        self.links = [*self.links[:-1], replace(self.links[-1], columns=columns)]
        self.maps[-1] = _apply(self.links[-1], self._input(number))

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
        if self.links[-1].clipping is not None:
            tangent = np.where(residual == 0, 0, tangent)
        top = float(np.multiply(residual, tangent, dtype=np.float64).sum())
        bottom = float(np.square(tangent, dtype=np.float64).sum())
        for number, (link, along) in enumerate(zip(self.links, direction, strict=False)):
            ridge = self._damping(number)
            top += float((ridge * (self.start[number] - link.columns) * along).sum())
            bottom += float((ridge * np.square(along)).sum())
        if not bottom > 0:
            return False
        length = top / bottom
        return self._move(direction, length)

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
            flow = _pull_back(self.links[number + 1], flow, spatial)
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
        passes = np.ones(y.shape, np.float32)
        if clipping is not None and clipping.low is not None:
            passes *= y > clipping.low
        if clipping is not None and clipping.high is not None:
            passes *= y < clipping.high
        return passes

    def _tangent(self, direction: list[Array]) -> Array:
        """Change of the chain's output along ``direction``, linearised."""
        flow: Array | None = None
        for number, link in enumerate(self.links):
            change: Array = np.zeros((), np.float32)
            if flow is not None:
                linear = link.columns.copy()
                if link.patches.bias:
                    linear[:, -1] = 0
                change = _apply(link, flow, linear)
            if number < len(direction):
                change = change + _apply(link, self._input(number), direction[number])
                change = change * self._open(number)
            flow = change
        return np.asarray(flow)


def _output_factor(link: Link, outward: Array, passes: Array) -> Array:
    """Curvature with respect to the input channels of ``link``, given that of its outputs and where its inputs are open."""
    patches = link.patches
    body = link.columns[:, :-1] if patches.bias else link.columns
    w = body.reshape(patches.group, len(patches.taps), patches.group_channels, -1)
    each = w.shape[3]
    found = np.zeros((patches.channels, patches.channels))
    for tap in range(len(patches.taps)):
        dense = np.zeros((patches.channels, link.outputs))
        for g in range(patches.group):
            rows = slice(g * patches.group_channels, (g + 1) * patches.group_channels)
            dense[rows, g * each : (g + 1) * each] = w[g, tap]
        found += dense @ outward @ dense.T
    flat = passes.reshape(-1, patches.channels)
    return np.asarray(found * (flat.T @ flat) / len(flat))


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
