"""Re-fit of absorbers: the convolutions that make up for removed blocks.

What the reference makes at the output of every block is computed once and kept, at sampled pixels only. A fit
then costs one run of the student up to the absorbers, and its normal equations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgec.graph.data import Dataset
from edgec.graph.execute import Executor
from edgec.graph.views import ConvView
from edgec.passes.base import LayerReport
from edgec.passes.block_surgery import Removable, take_out
from edgec.passes.solvers.gram import Array, Gram, Patches, targets_at
from edgec.passes.solvers.ridge import ridge

HELD_OUT = 0.1
ROWS_PER_UNKNOWN = 40
BATCH = 25


@dataclass(frozen=True)
class Fit:
    """What to put into an absorber, and how well it makes what the block made (errors on held-out rows)."""

    columns: Array
    report: LayerReport


@dataclass(frozen=True)
class Rows:
    """Sampled pixels of one batch at a block's output, and the reference's values there: (1, rows, channels)."""

    places: Array
    values: Array


class Absorbers:
    """Fits absorbers of any student that keeps the reference's names."""

    def __init__(
        self,
        reference: ir.Model,
        blocks: Sequence[Removable],
        data: Dataset,
        *,
        seed: int,
        threads: int,
        lam: float,
    ) -> None:
        self.parts = data.split(HELD_OUT, seed)
        self.threads, self.lam = threads, lam
        self._rows: dict[str, list[Rows]] = {one.block.output: [] for one in blocks}
        nodes = {node.name: node for node in reference.graph}
        rng = np.random.default_rng(seed)
        executor = Executor(reference, outputs=list(self._rows), threads=threads)
        for part in self.parts:
            for feeds in part.batches(BATCH):
                made = executor.run(feeds)
                for one in blocks:
                    value = made[one.block.output]
                    wanted = ROWS_PER_UNKNOWN * _patches(nodes[one.absorber]).unknowns
                    places = _sample(value, wanted / (value[0, 0].size * len(data)), rng)
                    self._rows[one.block.output].append(Rows(places, targets_at(value, places, 1)))

    def fit(self, student: ir.Model, blocks: Sequence[Removable]) -> list[Fit]:
        """Re-fit the absorber of every block, each for itself, to the student as it is."""
        nodes = {node.name: node for node in student.graph}
        views = [ConvView(nodes[one.absorber]) for one in blocks]
        geometries = [_patches(view.node) for view in views]
        grams = [
            (Gram.zeros(1, p.unknowns, v.out_channels), Gram.zeros(1, p.unknowns, v.out_channels))
            for p, v in zip(geometries, views, strict=True)
        ]
        read = list(
            dict.fromkeys(name for one in blocks for name in (one.features, one.rest) if name is not None)
        )
        executor = Executor(student, outputs=read, threads=self.threads)
        batch = 0
        for which, part in enumerate(self.parts):
            for feeds in part.batches(BATCH):
                found = executor.run(feeds)
                for one, geometry, gram in zip(blocks, geometries, grams, strict=True):
                    rest = found[one.rest] if one.rest is not None else None
                    _add(
                        gram[which], geometry, found[one.features], self._rows[one.block.output][batch], rest
                    )
                batch += 1
        return [
            _solve(one, view, geometry, gram, self.lam)
            for one, view, geometry, gram in zip(blocks, views, geometries, grams, strict=True)
        ]


def apply(model: ir.Model, what: Removable, fitted: Fit) -> None:
    """Take the block out and put the fitted weight into its absorber, in place."""
    take_out(model, what)
    node = next(node for node in model.graph if node.name == what.absorber)
    weight, bias = _patches(node).weight(fitted.columns)
    ConvView(node).set(weight=weight, bias=bias)


def _patches(node: ir.Node) -> Patches:
    view = ConvView(node)
    return Patches(view.in_channels, view.kernel, view.strides, view.pads, view.dilations)


def _sample(value: Array, fraction: float, rng: np.random.Generator) -> Array:
    """Numbers of (image, pixel) of ``value`` to use, sorted."""
    total = len(value) * value[0, 0].size
    if fraction >= 1:
        return np.arange(total)
    return np.sort(rng.choice(total, max(1, round(total * fraction)), replace=False))


def _add(gram: Gram, geometry: Patches, x: Array, rows: Rows, rest: Array | None) -> None:
    target = rows.values if rest is None else rows.values - targets_at(rest, rows.places, 1)
    for part, p in geometry.tiles(x, rows.places):
        gram.add(p, target[:, part])


def _solve(one: Removable, view: ConvView, geometry: Patches, grams: tuple[Gram, Gram], lam: float) -> Fit:
    fit, held = grams
    old = geometry.columns(view.weight, view.bias)
    solution = ridge(fit.h, fit.s, old, lam)
    judge = held if held.rows else fit
    before, after = judge.relative_error(old), judge.relative_error(solution.columns)
    kept = after < before
    report = LayerReport(
        one.absorber,
        int(fit.rows),
        geometry.unknowns,
        solution.condition,
        before,
        after,
        kept,
        f"makes {one.block.output!r} in the place of a block",
    )
    return Fit(solution.columns if kept else old, report)
