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

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeVar

import numpy as np

from edgec.passes.solvers import maps
from edgec.passes.solvers.bounded import BoundedTarget, behind
from edgec.passes.solvers.gram import Patches
from edgec.passes.solvers.parallel import in_order
from edgec.passes.solvers.rectified import Clipping, squared
from edgec.passes.solvers.ridge import CARRIED, factor, ridge

Array = np.ndarray[Any, np.dtype[Any]]
Result = TypeVar("Result")

OUTPUT_DAMPING = 1e-2
"""Of the output-side factor, relative to its mean diagonal."""
HALVINGS = 3
LITTLE = 0.01
"""A step that lowers the error by less than this share of it is the last: the next gain half as much, and cost the same."""
PART_BYTES = 4 << 20
"""The largest map of the images that are taken together."""
PARTS = 8
"""Images are taken in so many parts at least: something to do for every core. Sums depend on it, so it depends on no core."""
OPEN_ROWS = 8192
"""Pixels that say how often channels are open together."""
FEWEST_TANGENTS = 16
MOST_SKIPPED = 4
"""Of so many parts one says how long a step is, where that leaves `FEWEST_TANGENTS` images."""


@dataclass(frozen=True)
class Link:
    """One layer of a chain, ``columns`` (group, unknowns, out/group), and the activation behind it (None: none)."""

    patches: Patches
    columns: Array
    clipping: Clipping | None = None

    @property
    def outputs(self) -> int:
        return int(self.columns.shape[0] * self.columns.shape[2])


@dataclass(frozen=True)
class Target:
    """What the last link, without its activation, should make of ``x``: ``value`` (n, *spatial, out), and what the network adds
    to that before the activation (None: nothing)."""

    x: Array
    value: Array
    offset: Array | None = None

    @property
    def spatial(self) -> tuple[int, ...]:
        return tuple(self.x.shape[1:-1])


class Refined(NamedTuple):
    """``errors``: relative, before, between and at the end of the steps; ``condition``: the worst of all systems solved."""

    links: list[Link]
    errors: list[float]
    condition: float


def refine(
    links: Sequence[Link],
    target: Target,
    lam: float,
    iterations: int,
    threads: int = 1,
    hopeless: Callable[[Sequence[Link], float, int], bool] = lambda links, condition, steps: False,
    perfect: Callable[[float], bool] = lambda condition: False,
) -> Refined:
    """The links after ``iterations`` joint steps, after the first that gains little (`LITTLE`), or after the first that is
    ``hopeless``: a judge of links, solved at the worst condition so far after so many steps, that knows other samples. None is
    taken where no links solved at that condition can be told from the present ones, ``perfect`` as they are."""
    chain = _Chain(links, target, lam, threads)
    errors = [chain.error]
    for steps in range(1, iterations + 1):
        before = chain.links
        chain.solve_last()
        if perfect(chain.condition):
            return Refined(before, errors, chain.condition)
        moved = chain.step()
        errors.append(chain.error)
        if errors[-1] > errors[-2]:
            chain.restore(before)
            errors[-1] = errors[-2]
            break
        if not moved or errors[-1] > (1 - LITTLE) * errors[-2]:
            break
        if hopeless(chain.links, chain.condition, steps):
            return Refined(chain.links, errors, chain.condition)
    before = chain.links
    chain.solve_last()
    chain.finish()
    if chain.error > errors[-1]:
        return Refined(before, [*errors, errors[-1]], chain.condition)
    return Refined(chain.links, [*errors, chain.error], chain.condition)


def chain_errors(links: Sequence[Link], target: Target, threads: int = 1) -> tuple[Array, float]:
    """Squared errors of the chain by image (images,), and the energy of all targets; behind the last activation where there is
    one."""
    clipping = links[-1].clipping

    def part_of(part: slice) -> tuple[Array, float]:
        offset = None if target.offset is None else target.offset[part]
        wanted = behind(clipping, target.value[part], offset)
        made = behind(clipping, forward(links, target.x[part]), offset)
        return np.array([squared(left) for left in made - wanted]), squared(wanted)

    errors, energies = zip(*in_order(part_of, _parts(links, target.x), threads), strict=True)
    return np.concatenate(errors), sum(energies)


def forward(links: Sequence[Link], x: Array) -> Array:
    """The chain's output, the last activation left out."""
    for number, link in enumerate(links):
        x = maps.Kernel.of(link.patches, link.columns).apply(x)
        if number < len(links) - 1:
            x = _activated(link, x)
    return x


def _activated(link: Link, y: Array) -> Array:
    """``y`` behind the link's activation, in its place."""
    return y if link.clipping is None else link.clipping.apply(y, out=y)


class _Chain:
    """The links with all maps of the present weights: ``inputs`` of every link, and what the last one has ``made``."""

    def __init__(self, links: Sequence[Link], target: Target, lam: float, threads: int = 1) -> None:
        self.links, self.lam, self.threads = list(links), lam, threads
        self.start = [link.columns for link in links]
        self.parts = list(_parts(links, target.x))
        self.condition = 1.0
        self.direction: list[Array] | None = None
        self.gradient: list[Array] = []
        self.preconditioned: list[Array] = []
        self.together: list[Array] = []
        self.inputs, self.made = _rooms(links, target.x)
        clipping = links[-1].clipping
        self.target = BoundedTarget.of(target.value, target.offset, clipping, self.parts, threads)
        self.error = self._run()
        # Inputs of the inner links hardly change their statistics: their factors are made once.
        self.factors = [
            tuple(factor(h, lam, carried=CARRIED) for h in maps.normal(link.patches, x, threads))
            for link, x in zip(links[:-1], self.inputs, strict=False)
        ]

    def _over(self, work: Callable[[slice], Result], every: int = 1) -> Iterator[Result]:
        """``work`` of some images at a time, in order."""
        return in_order(work, self.parts[::every], self.threads)

    def _kernels(self) -> list[maps.Kernel]:
        return [maps.Kernel.of(link.patches, link.columns) for link in self.links]

    def _run(self) -> float:
        """Make all inputs and outputs; the relative error."""
        kernels = self._kernels()

        def part_of(part: slice) -> float:
            x = self.inputs[0][part]
            for link, kernel, room in zip(self.links, kernels, self.inputs[1:], strict=False):
                x = _activated(link, kernel.apply(x, room[part]))
            kernels[-1].apply(x, self.made[part])
            return self.target.error(self.made[part], part)

        return self.target.relative(sum(self._over(part_of)))

    def solve_last(self) -> None:
        """One exact ridge solution for the last link (one majorise-minimise step where an activation follows).

        What it makes then is not made here: `descent` and `finish` do that.
        """
        link, x = self.links[-1], self.inputs[-1]

        def part_of(part: slice) -> tuple[Array, Array]:
            return maps.normal(link.patches, x[part]), maps.project(
                link.patches, x[part], self.target.nearest(self.made[part], part)
            )

        h, s = _sums(self._over(part_of))
        solved = ridge(h, s, self.start[-1], self.lam, carried=CARRIED)
        self.condition = max(self.condition, solved.condition)
        self.links = [*self.links[:-1], replace(link, columns=solved.columns)]

    def finish(self) -> None:
        """The error of the last link's present weights."""
        kernel = self._kernels()[-1]

        def part_of(part: slice) -> float:
            kernel.apply(self.inputs[-1][part], self.made[part])
            return self.target.error(self.made[part], part)

        self.error = self.target.relative(sum(self._over(part_of)))

    def restore(self, links: list[Link]) -> None:
        """Back to earlier weights."""
        self.links = links
        self.error = self._run()

    def step(self) -> bool:
        """One step of the inner links; False where no length of it helps."""
        gradient = self.descent()
        preconditioned = self._preconditioned(gradient)
        direction = preconditioned
        if self.direction is not None:
            change = [new - old for new, old in zip(gradient, self.gradient, strict=True)]
            beta = max(_dot(change, preconditioned) / _dot(self.gradient, self.preconditioned), 0.0)
            direction = [p + beta * d for p, d in zip(preconditioned, self.direction, strict=True)]
        self.gradient, self.preconditioned, self.direction = gradient, preconditioned, direction
        bottom = self._curvature(direction)
        for number, along in enumerate(direction):
            bottom += float((self._damping(number) * np.square(along)).sum())
        return bottom > 0 and self._move(direction, _dot(gradient, direction) / bottom)

    def descent(self) -> list[Array]:
        """Descent gradient of every inner link, first link first; on the way what the last one makes of its present weights, its
        error, and how often channels are open together."""
        kernels = self._kernels()

        def part_of(part: slice) -> tuple[list[Array], list[Array], float]:
            kernels[-1].apply(self.inputs[-1][part], self.made[part])
            flow = self.target.nearest(self.made[part], part)
            flow -= self.made[part]
            gradients: list[Array] = []
            together: list[Array] = []
            for number in range(len(kernels) - 2, -1, -1):
                link, x = self.links[number], self.inputs[number + 1][part]
                flow = kernels[number + 1].pull_back(flow, x.shape[1:-1])
                if link.clipping is not None:
                    link.clipping.mask(flow, x)
                gradients.append(maps.project(link.patches, self.inputs[number][part], flow))
                together.append(self._open_together(link, x) * (len(flow) / len(self.made)))
            return gradients, together, self.target.error(self.made[part], part)

        found = list(self._over(part_of))
        self.error = self.target.relative(sum(error for *_, error in found))
        self.together = list(_sums(iter([one for _, one, _ in found])))[::-1]
        gradients = list(_sums(iter([one for one, *_ in found])))[::-1]
        return [
            gradient + self._damping(number) * (self.start[number] - self.links[number].columns)
            for number, gradient in enumerate(gradients)
        ]

    def _open_together(self, link: Link, x: Array) -> Array:
        """The share of pixels in which two channels pass changes on together, from some of them."""
        pixels = self.made.shape[0] * math.prod(x.shape[1:-1])
        flat = x.reshape(-1, x.shape[-1])[:: max(1, pixels // OPEN_ROWS)]
        passes = np.ones_like(flat) if link.clipping is None else link.clipping.passes(flat)
        return np.asarray(passes.T @ passes, np.float64) / len(flat)

    def _preconditioned(self, gradient: list[Array]) -> list[Array]:
        found: list[Array] = []
        outward = np.eye(self.links[-1].outputs)
        for number in range(len(self.links) - 2, -1, -1):
            outward = _output_factor(self.links[number + 1], outward, self.together[number])
            solved = [f.solve(g) for f, g in zip(self.factors[number], gradient[number], strict=True)]
            found.append(_solve_outputs(np.stack(solved), outward, self.links[number].patches.group))
        return found[::-1]

    def _curvature(self, direction: list[Array]) -> float:
        """Squared change of the chain's output along ``direction``, where the last activation does not hide it.

        It only scales the step, so that some of the images tell it.
        """
        every = min(MOST_SKIPPED, max(1, len(self.inputs[0]) // FEWEST_TANGENTS), len(self.parts))
        turned = [maps.Kernel.of(link.patches, d) for link, d in zip(self.links, direction, strict=False)]
        linear = [maps.Kernel.of(link.patches, link.columns, linear=True) for link in self.links]

        def part_of(part: slice) -> float:
            change = self._tangent(part, turned, linear)
            if self.links[-1].clipping is not None:
                change *= self.target.nearest(self.made[part], part) != self.made[part]
            return squared(change)

        images = sum(part.stop - part.start for part in self.parts[::every])
        return float(sum(self._over(part_of, every)) * len(self.inputs[0]) / images)

    def _tangent(self, part: slice, turned: Sequence[maps.Kernel], linear: Sequence[maps.Kernel]) -> Array:
        """Change of the chain's output, linearised, as the inner links turn to ``turned``."""
        change = turned[0].apply(self.inputs[0][part])
        for number, (link, x) in enumerate(zip(self.links, self.inputs[1:], strict=False), 1):
            if link.clipping is not None:
                link.clipping.mask(change, x[part])
            change = linear[number].apply(change)
            if number < len(turned):
                change += turned[number].apply(x[part])
        return change

    def _move(self, direction: list[Array], length: float) -> bool:
        before, links = self.error, self.links
        for halving in range(HALVINGS):
            share = length / 2**halving
            moved = [
                replace(link, columns=link.columns + share * d)
                for link, d in zip(links, direction, strict=False)
            ]
            self.links = [*moved, links[-1]]
            self.error = self._run()
            if self.error < before:
                return True
        self.restore(links)
        return False

    def _damping(self, number: int) -> Array:
        return np.array([f.damping + f.jitter for f in self.factors[number]])[:, None, None]


def _rooms(links: Sequence[Link], x: Array) -> tuple[list[Array], Array]:
    """Where the inputs of all links and the output of the last one go, made once."""
    inputs = [x]
    for link in links:
        kernel = maps.Kernel.of(link.patches, link.columns)
        inputs.append(np.empty(kernel.out_shape(inputs[-1]), np.float32))
    return inputs[:-1], inputs[-1]


def _parts(links: Sequence[Link], x: Array) -> Iterator[slice]:
    """Some images at a time, whose maps stay in cache from one link to the next."""
    largest, spatial = x[:1].size, x.shape[1:-1]
    for link in links:
        spatial = link.patches.out_shape(spatial)
        largest = max(largest, math.prod(spatial) * link.outputs)
    step = max(1, min(PART_BYTES // (4 * largest), math.ceil(len(x) / PARTS)))
    for start in range(0, len(x), step):
        yield slice(start, min(start + step, len(x)))


def _sums(found: Iterator[Sequence[Array]]) -> Sequence[Array]:
    """Place by place."""
    totals = [np.asarray(one) for one in next(found)]
    for more in found:
        for total, one in zip(totals, more, strict=True):
            total += one
    return totals


def _output_factor(link: Link, outward: Array, together: Array) -> Array:
    """Curvature with respect to the input channels of ``link``, given that of its outputs and how often its inputs are open
    together."""
    patches = link.patches
    body = link.columns[:, :-1] if patches.bias else link.columns
    w = body.reshape(patches.group, len(patches.taps), patches.group_channels, -1)
    each, inner = w.shape[3], patches.group_channels
    # Blocks between the groups of the outputs, (group, each, group, each), become blocks between those of the inputs.
    blocks = outward.reshape(patches.group, each, patches.group, each)
    found = np.einsum("gtio,gohp,htjp->gihj", w, blocks, w, optimize=True)
    return np.asarray(found.reshape(patches.group * inner, -1) * together)


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
