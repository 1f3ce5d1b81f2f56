"""Fit one gated block to rows: gates, the two solvers, the soft edge, and the plain ReLU block."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from edgec.graph.errors import PassError
from edgec.passes.base import Progress
from edgec.passes.blocks.gated.gates import from_patches, from_teacher, gaussian, sharpness
from edgec.passes.blocks.gated.rows import Rows
from edgec.passes.solvers.gated import Gated, GatedRows, Whitening, alternate, follow
from edgec.passes.solvers.gated_convex import Convex, PenaltyName, factored, gate_gram, solve_convex
from edgec.passes.solvers.rectified import Clipping
from edgec.passes.solvers.signs import signs

Array = np.ndarray[Any, np.dtype[Any]]
GateSource = Literal["teacher", "patches", "gaussian"]

RAW_RIDGE = 10.0
"""Added to the second moments of patches before they are whitened, relative to their mean diagonal: so far above 0 that filters
pay for reading what varies little. Measured: fully whitened rows overfit a few hundred images."""
CONVEX_RIDGE = 1e-4
"""The same for the convex problem, whose solver needs the rows whitened."""
CONVEX_UNKNOWNS = 12_000
"""Of the convex problem per output: its normal matrix stays near 1 GB."""
AFTER_SOFTENING = 4
"""Sweeps that fit the block again to its soft gates."""


@dataclass(frozen=True)
class BlockOptions:
    """As the options of the pass, for one block; ``width`` and ``gate_count`` are numbers of channels and of distinct gates."""

    width: int
    gates: GateSource
    gate_count: int
    solver: Literal["alternating", "convex"]
    penalty: PenaltyName
    ridge: float
    sweeps: int
    follow: int
    edge: float
    relu: bool
    tolerance: float
    limit: int
    seed: int


@dataclass(frozen=True)
class Figures:
    """Relative errors at the sum, behind its activation: on the rows fitted, and on rows held out.

    ``hard`` has gates of 0 and 1, ``soft`` the edge that is emitted, ``refitted`` is what the block has in the end.
    ``condition`` is that of the whitening; ``gap`` belongs to the convex problem.
    """

    rows: int
    unknowns: int
    condition: float
    skip_only: float
    hard: float
    soft: float
    refitted: float
    fitted_rows: float
    gap: float | None = None
    iterations: int = 0


@dataclass(frozen=True)
class Fitted:
    """Columns of raw patches, ``gate`` (n, k) with its sharpness (None for ReLU) and ``value`` (n, k); ``w`` (k, out), ``b``."""

    gate: Array | None
    value: Array
    w: Array
    b: Array
    root: Whitening
    figures: Figures


@dataclass(frozen=True)
class Unconverged:
    """The convex solver stopped at its limit."""

    gap: float
    iterations: int


def fit_block(
    fit: Rows,
    held: Rows,
    filters: Sequence[Array],
    clipping: Clipping | None,
    options: BlockOptions,
    progress: Progress,
    label: str,
) -> Fitted | Unconverged:
    """Fit on ``fit``, score on ``held``. ``filters`` are the teacher's own, as columns of the same patches."""
    work = _Work(fit, held, clipping, options, progress, label)
    if options.solver == "convex":
        start = work.convex(filters)
        if isinstance(start, Unconverged):
            return start
        gate, block = start
    else:
        gate, block = work.sampled(filters)
    return work.relu(block) if options.relu else work.gated(gate, block)


class _Work:
    """Rows, gates and penalty of one block."""

    def __init__(
        self,
        fit: Rows,
        held: Rows,
        clipping: Clipping | None,
        options: BlockOptions,
        progress: Progress,
        label: str,
    ) -> None:
        self.fit, self.options, self.progress, self.label = fit, options, progress, label
        self.rng = np.random.default_rng(options.seed)
        h = np.zeros((fit.p.shape[1],) * 2)
        for begin in range(0, len(fit.p), 4096):
            tile = fit.p[begin : begin + 4096]
            h += tile.T @ tile
        self.moments = h
        self.root = Whitening.of(h, len(fit.p), RAW_RIDGE)
        self.held = held
        none = np.ones((0, 0), np.float32)
        self.rows = GatedRows(self.root.apply(fit.p), none, fit.wanted, fit.skip, clipping)
        self.held_rows = GatedRows(self.root.apply(held.p), none, held.wanted, held.skip, clipping)
        self.penalty = options.ridge * self.rows.scale
        self.certificate: Convex | None = None

    def sampled(self, filters: Sequence[Array]) -> tuple[Array, Gated]:
        """Gates, and a block to start from: a ReLU block whose filters are the gates."""
        columns = self._columns(filters, self.options.width)
        outputs = self.fit.target.shape[1]
        start = Gated(self.root.whiten(columns), np.zeros((columns.shape[1], outputs)), np.zeros(outputs))
        if self.options.follow:
            with self._counting("gates follow") as count:
                start, _ = follow(self.rows, start, self.penalty, self.options.follow, progress=count)
        return self.root.columns(start.v), start

    def convex(self, filters: Sequence[Array]) -> tuple[Array, Gated] | Unconverged:
        """Gates, and the factored solution of the convex problem; or why there is none."""
        options = self.options
        most = CONVEX_UNKNOWNS // self.fit.p.shape[1]
        if options.gate_count > most:
            hint = f"Use gate-count={most}, or solver=alternating." if most else "Use solver=alternating."
            raise PassError("the convex problem is too large", why=f"at most {most} gates fit", hint=hint)
        columns = self._columns(filters, options.gate_count)
        open_ = (self.fit.p @ columns.astype(np.float32) > 0).astype(np.float32)
        white = Whitening.of(self.moments, len(self.fit.p), CONVEX_RIDGE)
        gram = gate_gram(white.apply(self.fit.p), open_, self.rows.t)
        with self._counting("convex problem") as count:
            found = solve_convex(
                gram,
                options.penalty,
                options.ridge * gram.scale,
                tolerance=options.tolerance,
                limit=options.limit,
                progress=count,
            )
        if not found.converged:
            return Unconverged(found.gap, found.iterations)
        self.certificate = found
        parts = factored(found.u, options.width)
        constant = gram.constant(found.u.reshape(gram.s.shape))
        v = white.columns(parts.v)
        turned = signs(
            v, (self.fit.p.T @ open_)[:, parts.gate]
        )  # positive where its gate is open, as a ReLU's would be
        block = Gated(self.root.whiten(v * turned), parts.w * turned[:, None], constant)
        return columns[:, parts.gate], block

    def gated(self, gate: Array, block: Gated) -> Fitted:
        """Alternate with fixed gates, soften them, fit again."""
        options = self.options
        raw = self.fit.p @ gate.astype(np.float32), self.held.p @ gate.astype(np.float32)
        rows, held = (
            replace(one, d=(found > 0).astype(np.float32))
            for one, found in zip((self.rows, self.held_rows), raw, strict=True)
        )
        with self._counting("alternating") as count:
            block = alternate(rows, block, self.penalty, options.sweeps, progress=count).block
        hard = block.relative_error(held)
        s = sharpness(raw[0], options.edge)
        rows, held = (
            replace(one, d=np.clip(found * s.astype(np.float32), 0, 1))
            for one, found in zip((rows, held), raw, strict=True)
        )
        soft = block.relative_error(held)
        with self._counting("soft gates") as count:
            block = alternate(rows, block, self.penalty, AFTER_SOFTENING, progress=count).block
        return self._fitted(gate * s, block, rows, held, hard, soft)

    def relu(self, block: Gated) -> Fitted:
        """Tie the gates to the filters, and re-fit: a plain ReLU block. Sampled gates have followed already."""
        options = self.options
        rounds = options.sweeps if self.certificate is not None or not options.follow else 0
        with self._counting("tied to ReLU") as count:
            block, d = follow(self.rows, block, self.penalty, rounds, progress=count)
        rows, held = replace(self.rows, d=d), self.held_rows.gated_by(block.v)
        error = block.relative_error(held)
        return self._fitted(None, block, rows, held, error, error)

    def _columns(self, filters: Sequence[Array], count: int) -> Array:
        if self.options.gates == "gaussian":
            return gaussian(self.root, self.fit.p, count, self.rng)
        if self.options.gates == "patches":
            return from_patches(self.fit.p, count, self.rng)
        return from_teacher(filters, self.fit.p, count, self.rng)

    def _fitted(
        self, gate: Array | None, block: Gated, rows: GatedRows, held: GatedRows, hard: float, soft: float
    ) -> Fitted:
        nothing = Gated(0 * block.v, 0 * block.w, 0 * block.b)
        n, width = block.v.shape
        figures = Figures(
            rows=len(rows.x),
            unknowns=n * width + width * len(block.b) + len(block.b),
            condition=float(np.linalg.cond(self.root.root) ** 2),
            skip_only=nothing.relative_error(held),
            hard=hard,
            soft=soft,
            refitted=block.relative_error(held),
            fitted_rows=block.relative_error(rows),
            gap=None if self.certificate is None else self.certificate.gap,
            iterations=0 if self.certificate is None else self.certificate.iterations,
        )
        return Fitted(gate, self.root.columns(block.v), block.w, block.b, self.root, figures)

    def _counting(self, what: str) -> AbstractContextManager[Callable[[int, int], None]]:
        return self.progress.counting(f"{self.label}: {what}")
