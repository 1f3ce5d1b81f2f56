"""Factors of a convolution's kernel: separable, Tucker-2, and depthwise with pointwise, in the metric of the data or without one.

All have the form ``W ~ Phi B``: a structured basis Phi of the patch's unknowns, and a last layer B. Phi comes from singular
vectors of an unfolding of W, whitened by the part of the data's covariance C that the unfolding can see:

- separable (Jaderberg et al., arXiv 1405.3866): W as (tap of one axis, channel) x (tap of the other, output);
- Tucker-2 (Kim et al., arXiv 1511.06530): W as channel x (tap, output), then the directions of the outputs;
- decoupled (Guo et al., arXiv 1808.05517): per channel, W as tap x output.

Given Phi, B is the exact least-squares solution under the whole of C, and the mean of what is lost goes into the bias, exactly.

Unknowns are ordered (tap, channel), as in `solvers.gram`; every factor is (taps, inputs, outputs).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from scipy.linalg import eigh

from edgec.passes.solvers.factorise import Response, solve, within
from edgec.passes.solvers.signs import upright

Array = np.ndarray[Any, np.dtype[Any]]

SWEEPS = 3
"""Alternations of the decoupled fit between depthwise and pointwise."""
MOST_UNKNOWNS = 2000
"""Depthwise weights that one alternation solves for at once."""


@dataclass(frozen=True)
class Separable:
    """k x k as k x 1 and 1 x k, for all ranks. ``along`` is the axis of the first kernel."""

    response: Response
    kernel: tuple[int, int]
    along: int

    @cached_property
    def _left(self) -> Array:
        """(taps of the first, channels, ranks)."""
        metric = self._axes(self.response.metric, both=True)
        own = np.einsum("uvixvj->uixj", metric) / self._other
        whiten, unwhiten = _roots(own.reshape(self._first * self._channels, -1))
        unfolded = self._axes(self.response.body).transpose(0, 2, 1, 3)
        unfolded = unfolded.reshape(self._first * self._channels, -1)
        left, _, _ = np.linalg.svd(whiten @ unfolded, full_matrices=False)
        row = self._axes(self.response.mean[:, None]).mean(axis=1).reshape(-1)
        return upright(unwhiten @ left, row).reshape(self._first, self._channels, -1)

    @property
    def _first(self) -> int:
        return self.kernel[self.along]

    @property
    def _other(self) -> int:
        return self.kernel[1 - self.along]

    @property
    def _channels(self) -> int:
        return len(self.response.body) // (self.kernel[0] * self.kernel[1])

    @property
    def full(self) -> int:
        """The rank at which nothing is lost."""
        return int(min(self._first * self._channels, self._other * self.response.body.shape[1]))

    def at(self, rank: int) -> tuple[tuple[Array, Array], Array]:
        """The factors (k, in, rank) and (k, rank, out), and the body (n, out) that they make."""
        within(rank, self.full)
        left = self._left[:, :, :rank]
        same = np.eye(self._other)
        spread = "uir,vw->uviwr" if self.along == 0 else "uir,vw->vuiwr"
        basis = np.einsum(spread, left, same).reshape(len(self.response.body), -1)
        right = self.response.fit(basis)
        return (left, right.reshape(self._other, rank, -1)), basis @ right

    def _axes(self, array: Array, *, both: bool = False) -> Array:
        """Rows (and columns) of unknowns as (tap of the first, tap of the other, channel)."""
        shape = (*self.kernel, self._channels)
        order = (0, 1, 2) if self.along == 0 else (1, 0, 2)
        if both:
            return array.reshape(*shape, *shape).transpose(*order, *(3 + axis for axis in order))
        return array.reshape(*shape, -1).transpose(*order, 3)


@dataclass(frozen=True)
class Tucker:
    """k x k as 1 x 1, k x k, 1 x 1, for all pairs of ranks."""

    response: Response
    taps: int

    @property
    def channels(self) -> int:
        return len(self.response.body) // self.taps

    @cached_property
    def _inputs(self) -> Array:
        """(channels, ranks)."""
        c = self.channels
        own = np.einsum("titj->ij", self.response.metric.reshape(self.taps, c, self.taps, c)) / self.taps
        whiten, unwhiten = _roots(own)
        unfolded = self.response.body.reshape(self.taps, c, -1).transpose(1, 0, 2).reshape(c, -1)
        left, _, _ = np.linalg.svd(whiten @ unfolded, full_matrices=False)
        return upright(unwhiten @ left, self.response.mean.reshape(self.taps, c).mean(axis=0))

    def inner(self, rank: int) -> TuckerOutputs:
        """All ranks of the output for an input rank of ``rank``. Raises ValueError outside 1 ... channels."""
        within(rank, self.channels)
        inputs = self._inputs[:, :rank]
        basis = np.kron(np.eye(self.taps), inputs)
        core = self.response.fit(basis)
        energy = core.T @ (basis.T @ self.response.metric @ basis) @ core
        _, vectors = eigh(energy)
        outputs = upright(vectors[:, ::-1][:, : min(core.shape)], self.response.mean @ basis @ core)
        return TuckerOutputs(self.taps, inputs, basis, core, outputs)


@dataclass(frozen=True)
class TuckerOutputs:
    """The part of `Tucker` behind one input rank."""

    taps: int
    inputs: Array
    basis: Array
    core: Array
    outputs: Array

    @property
    def full(self) -> int:
        return int(self.outputs.shape[1])

    def at(self, rank: int) -> tuple[tuple[Array, Array, Array], Array]:
        """The factors (1, in, r1), (k * k, r1, rank) and (1, rank, out), and the body (n, out) that they make."""
        within(rank, self.full)
        outputs = self.outputs[:, :rank]
        core = self.core @ outputs
        factors = (self.inputs[None], core.reshape(self.taps, -1, rank), outputs.T[None])
        return factors, self.basis @ core @ outputs.T


@dataclass(frozen=True)
class Decoupled:
    """k x k as ``pairs`` depthwise kernels per channel and a pointwise layer that sums them, for all numbers of pairs."""

    response: Response
    taps: int
    sweeps: int = SWEEPS

    @property
    def channels(self) -> int:
        return len(self.response.body) // self.taps

    @property
    def full(self) -> int:
        return int(min(self.taps, self.response.body.shape[1]))

    @cached_property
    def _kernels(self) -> Array:
        """(taps, channels, pairs)."""
        c = self.channels
        metric = self.response.metric.reshape(self.taps, c, self.taps, c)
        body = self.response.body.reshape(self.taps, c, -1)
        mean = self.response.mean.reshape(self.taps, c)
        found = np.empty((self.taps, c, self.full))
        for channel in range(c):
            whiten, unwhiten = _roots(metric[:, channel, :, channel])
            left, _, _ = np.linalg.svd(whiten @ body[:, channel], full_matrices=False)
            found[:, channel] = upright((unwhiten @ left)[:, : self.full], mean[:, channel])
        return found

    def at(self, pairs: int) -> tuple[tuple[Array, Array], Array]:
        """The factors (k * k, 1, in * pairs) and (1, in * pairs, out), and the body (n, out) that they make."""
        within(pairs, self.full)
        kernels = self._kernels[:, :, :pairs]
        mix = self.response.fit(self._basis(kernels))
        for _ in range(self.sweeps if kernels.size <= MOST_UNKNOWNS else 0):
            kernels = self._kernels_for(kernels.shape, mix)
            mix = self.response.fit(self._basis(kernels))
        depthwise = kernels.reshape(self.taps, 1, -1)
        return (depthwise, mix[None]), self._basis(kernels) @ mix

    def _basis(self, kernels: Array) -> Array:
        """(n, channels * pairs): which unknowns each depthwise output sums."""
        spread = np.einsum("tis,ij->tijs", kernels, np.eye(self.channels))
        return np.asarray(spread.reshape(len(self.response.body), -1))

    def _kernels_for(self, shape: tuple[int, ...], mix: Array) -> Array:
        """The best depthwise kernels for a pointwise layer ``mix`` (channels * pairs, out)."""
        taps, c, pairs = shape
        metric = self.response.metric.reshape(taps, c, taps, c)
        products = (mix @ mix.T).reshape(c, pairs, c, pairs)
        normal = np.einsum("tiuj,isjr->tisujr", metric, products).reshape(taps * c * pairs, -1)
        wanted = self.response.directions.reshape(taps, c, -1)
        right = np.einsum("tio,iso->tis", wanted, mix.reshape(c, pairs, -1))
        return solve(normal, right.reshape(-1, 1)).reshape(shape)


def _roots(metric: Array) -> tuple[Array, Array]:
    """The symmetric root of a metric, and the inverse of that root; directions without energy get none."""
    values, vectors = eigh(metric)
    floor = max(float(values[-1]), 1e-30) * 1e-10
    roots = np.sqrt(np.maximum(values, floor))
    return (vectors * roots) @ vectors.T, (vectors / roots) @ vectors.T
