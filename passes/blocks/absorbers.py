"""Re-fit of absorbers: the convolutions that make up for removed blocks.

What the reference makes at the output of every block is computed once and kept, at sampled pixels only. A fit
then costs one run of the student up to the absorbers, and its normal equations.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgec.graph.data import Dataset
from edgec.graph.execute import Executor
from edgec.graph.views import ConvView
from edgec.passes.base import Choice, LayerReport
from edgec.passes.blocks.removal import Removable, take_out
from edgec.passes.solvers.gram import Array, Gram, Patches, targets_at
from edgec.passes.solvers.guard import held_count
from edgec.passes.solvers.rectified import Tile
from edgec.passes.solvers.ridge import CARRIED, ridge
from edgec.passes.solvers.scores import Scores

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
        ridge: float,
    ) -> None:
        held = held_count(len(data), HELD_OUT)
        self.parts = data.split(held / max(len(data), 1), seed)
        self.threads, self.ridge = threads, ridge
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
        works = [_Work(one, ConvView(nodes[one.absorber]), self.ridge) for one in blocks]
        read = list(
            dict.fromkeys(name for one in blocks for name in (one.features, one.rest) if name is not None)
        )
        executor = Executor(student, outputs=read, threads=self.threads)
        fitted, held = self.parts
        for batch, feeds in enumerate(fitted.batches(BATCH)):
            found = executor.run(feeds)
            for work in works:
                work.fit(found, self._rows[work.one.block.output][batch])
        judges = held if len(held) else fitted
        for work in works:
            work.solve(len(judges))
        start = -(-len(fitted) // BATCH) if len(held) else 0
        for number, feeds in enumerate(judges.batches(BATCH)):
            found = executor.run(feeds)
            for work in works:
                work.judge(found, self._rows[work.one.block.output][start + number], number * BATCH)
        return [work.result() for work in works]


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


class _Work:
    """One absorber: statistics of the samples that are fitted, a solution, and its errors on those that judge."""

    def __init__(self, one: Removable, view: ConvView, strength: float) -> None:
        self.one, self.ridge = one, strength
        self.geometry = _patches(view.node)
        self.gram = Gram.zeros(1, self.geometry.unknowns, view.out_channels)
        self.old = self.geometry.columns(view.weight, view.bias)

    def fit(self, found: Mapping[str, Array], rows: Rows) -> None:
        """A batch to fit on."""
        for tile, _ in self._tiles(found, rows):
            self.gram.add(tile[0], tile[1])

    def solve(self, judges: int) -> None:
        """All has been read that is fitted; ``judges`` images will judge."""
        self.solution = ridge(self.gram.h, self.gram.s, self.old, self.ridge, carried=CARRIED)
        self.scores = Scores((self.old, self.solution.columns), judges)

    def judge(self, found: Mapping[str, Array], rows: Rows, first: int) -> None:
        """A batch that judges, the first of its images being number ``first``."""
        for tile, images in self._tiles(found, rows):
            self.scores.add(tile, images + first)

    def result(self) -> Fit:
        verdict = self.scores.verdict(self.solution.condition)
        report = LayerReport(
            self.one.absorber,
            int(self.gram.rows),
            self.geometry.unknowns,
            self.solution.condition,
            self.scores.relative(0),
            self.scores.relative(int(verdict.kept)),
            verdict.kept,
            f"makes {self.one.block.output!r} in the place of a block",
            (Choice.of("absorber", verdict),),
        )
        return Fit(self.solution.columns if verdict.kept else self.old, report)

    def _tiles(self, found: Mapping[str, Array], rows: Rows) -> Iterator[tuple[Tile, Array]]:
        x, target = found[self.one.features], rows.values
        if self.one.rest is not None:
            target = target - targets_at(found[self.one.rest], rows.places, 1)
        images = rows.places // math.prod(self.geometry.out_shape(x.shape[2:]))
        for part, p in self.geometry.tiles(x, rows.places):
            yield (p, target[:, part], None), images[part]
