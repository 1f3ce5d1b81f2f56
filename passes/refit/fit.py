"""Fit one layer where the walk stands, score the fit on rows that it did not see, and keep it only if it helps."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import numpy as np

from edgec.graph.memory import give_back
from edgec.passes.base import Choice, LayerReport
from edgec.passes.refit.joint import Maps, fit_chain, maps_wanted
from edgec.passes.refit.layer_fits import LayerFit, Sample
from edgec.passes.refit.layers import Layer
from edgec.passes.refit.pooled import add_pixels, mixed
from edgec.passes.solvers.gram import Gram, Patches, targets_at
from edgec.passes.solvers.guard import Verdict
from edgec.passes.solvers.rectified import Tile, fit_clipped
from edgec.passes.solvers.ridge import CARRIED, Solution, ridge
from edgec.passes.solvers.scores import Scores

Array = np.ndarray[Any, np.dtype[Any]]

MIN_ROWS = 16384
"""Below this, rows are not worth saving."""
MIN_NUMBERS = 32 << 20
"""Nor are they where the patches of all groups hold fewer numbers: each row of a depthwise layer is one of every channel."""
SPREAD = 16
"""Of so many pixels of an image a fit draws one at most, where there are images enough."""
FEWEST_SAMPLES = 512
"""Of the inputs, mirrored ones included, so many at least take part in every fit: with half as many MobileNetV1 at 80% was 2%
further from its source (by the divergence, means of three seeds), with a quarter of the spread too 9%."""
KEPT_BYTES = 400 << 20
"""Rows and targets that are read several times stay within this."""


@dataclass(frozen=True)
class FitOptions:
    """``ridge``: relative ridge towards the weights before the fit. ``rows_per_unknown``: rows are subsampled above this.
    ``clipped``: iterations of the fit behind the activation, 0 for plain least squares. ``joint``: steps that fit a layer
    together with those in front of it. ``threads`` change no result."""

    ridge: float = 1e-3
    rows_per_unknown: float = 40.0
    clipped: int = 4
    joint: int = 0
    seed: int = 0
    threads: int = 1


@dataclass
class _Rows:
    """What one reading of the fitted samples leaves. ``tiles`` are kept where they are read again."""

    gram: Gram
    tiles: list[tuple[Tile, Array]] = field(default_factory=list)
    maps: Maps | None = None
    pixels: float = 0.0
    """Rows in front of a global pool, besides those of ``gram``."""


def fit_site(site: LayerFit, options: FitOptions) -> LayerReport:
    """Fit ``site.layer`` in place. Errors in the report are relative, on held-out rows, behind the activation where one is."""
    layer = site.layer
    before = layer.columns()
    reader = _Reader(site, options)
    # Samples that judge come last: when the first of them is read the fit is made, and none need be kept.
    fit, held = reader.halves()
    rows = reader.read(fit)
    solved = ridge(rows.gram.h, rows.gram.s, before, options.ridge, carried=CARRIED)
    columns = solved.columns
    if reader.clipping is not None:
        # No name for the list: it would hold the rows for as long as the chain holds its maps.
        columns = fit_clipped(
            [tile for tile, _ in rows.tiles],
            solved.factors,
            columns,
            before,
            reader.clipping,
            options.clipped,
            options.threads,
        )
    scores = Scores((before, columns), site.held or site.images, reader.clipping)
    judged = reader.score(held, scores, rows)
    verdict = scores.verdict(solved.condition)
    if verdict.kept and judged.rows:
        # Kept or not was decided without these rows; now they may help too.
        rows.gram.merge(judged)
        columns = ridge(rows.gram.h, rows.gram.s, before, options.ridge, carried=CARRIED).columns
    if verdict.kept:
        layer.set_columns(columns)
    choices = [Choice.of("re-fit", verdict)]
    now = scores.relative(1 if verdict.kept else 0)
    together = False
    if rows.maps is not None:
        # Nothing reads the rows again, and the maps need their room.
        freed = sum(one.nbytes for tile, _ in rows.tiles for one in tile if one is not None)
        rows.tiles.clear()
        give_back(freed)
        joint = fit_chain(site, rows.maps, options.ridge, options.joint, options.threads)
        choices.append(Choice.of("together", joint.verdict))
        together = joint.verdict.kept
        # The joint fit is scored on whole maps of fewer images: its gain counts, not its level.
        now *= joint.ratio
    return LayerReport(
        node=layer.name,
        rows=round(rows.gram.rows + rows.pixels),
        unknowns=layer.patches.unknowns,
        condition=solved.condition,
        error_before=scores.relative(0),
        error_after=now,
        kept=verdict.kept or together,
        note=_note(rows, site, solved, verdict, together),
        choices=tuple(choices),
    )


def _note(rows: _Rows, site: LayerFit, solved: Solution, verdict: Verdict, together: bool) -> str:
    parts = []
    if together:
        parts.append(f"fitted together with {', '.join(inner.layer.name for inner in site.chain)}")
    if rows.gram.rows + rows.pixels < site.layer.patches.unknowns:
        parts.append("fewer rows than unknowns: the ridge decides the rest")
    if solved.jitter:
        parts.append(f"ridge raised by {solved.jitter:.1e}: the rows hold no more digits")
    if not (verdict.kept or together):
        parts.append(reverted(verdict))
    return "; ".join(parts)


def reverted(verdict: Verdict) -> str:
    """Why a fit was taken back."""
    if verdict.images == 1 and verdict.gain > verdict.noise:
        return "not clear enough from a single held-out sample"
    return "no better on held-out rows"


def row_fraction(patches: Patches, total: int, options: FitOptions, *, kept: int = 0) -> float:
    """Share of the rows to use; with ``kept`` further numbers per row, all of them are to fit into `KEPT_BYTES`."""
    wanted = rows_wanted(patches, options)
    if kept:
        wanted = min(wanted, KEPT_BYTES / (4 * (patches.unknowns * patches.group + kept)))
    return min(1.0, wanted / max(total, 1))


def rows_wanted(patches: Patches, options: FitOptions) -> float:
    """Rows that a fit uses where there are as many."""
    numbers = patches.unknowns * patches.group
    return max(min(MIN_ROWS, MIN_NUMBERS / numbers), options.rows_per_unknown * patches.unknowns)


def enough_samples(layers: Sequence[Layer], options: FitOptions) -> float:
    """Samples that a fit of the last of ``layers``, alone and together with those in front, draws from where there are more.

    Pixels of one image are alike, so that no more than one of `SPREAD` is used.
    """
    alone = SPREAD * rows_wanted(layers[-1].patches, options) / layers[-1].rows
    together = maps_wanted(layers) if len(layers) > 1 and options.joint else 0
    return max(FEWEST_SAMPLES, alone, together)


class _Reader:
    """Reads the samples of a site, once, front to back: those that are fitted, then those that judge."""

    def __init__(self, site: LayerFit, options: FitOptions) -> None:
        self.site, self.options = site, options
        self.clipping = site.goal.clipping if options.clipped else None
        self.keeps = self.clipping is not None or not site.held
        # A target and perhaps an offset per output.
        kept = (2 if site.goal.others else 1) * site.layer.view.out_channels if self.keeps else 0
        self.fraction = row_fraction(site.layer.patches, site.rows, options, kept=kept)
        self.number = 0
        self.maps = Maps.of(site, site.images) if site.chain and options.joint else None

    def halves(self) -> tuple[Iterator[Sample], Iterator[Sample]]:
        """Samples to fit on and samples that judge; the second only when the first are read to their end."""
        groups = groupby(self.site.samples, key=lambda sample: sample.held)
        fit = next(((s for s in group) for _, group in groups), iter(()))
        return fit, (sample for _, group in groups for sample in group)

    def read(self, samples: Iterator[Sample]) -> _Rows:
        """Statistics of the samples that are fitted."""
        layer = self.site.layer
        rows = _Rows(self._gram(), maps=self.maps)
        pixels, first = self._gram(), 0
        for sample in samples:
            for tile, images in self._tiles(sample):
                rows.gram.add(tile[0], tile[1])
                if self.keeps:
                    rows.tiles.append((tile, images + first))
            if sample.pixels is not None and self.clipping is None:
                add_pixels(pixels, layer, *sample.pixels)
            first += sample.images
        rows.gram, rows.pixels = mixed(rows.gram, pixels), pixels.rows
        return rows

    def score(self, samples: Iterator[Sample], scores: Scores, rows: _Rows) -> Gram:
        """Score on ``samples``, or on the fitted rows where there are none; the statistics of ``samples``."""
        gram, first = self._gram(), 0
        for sample in samples:
            for tile, images in self._tiles(sample):
                scores.add(tile, images + first)
                if self.clipping is None:
                    gram.add(tile[0], tile[1])
            first += sample.images
        if not first:
            for tile, images in rows.tiles:
                scores.add(tile, images)
        return gram

    def _tiles(self, sample: Sample) -> Iterator[tuple[Tile, Array]]:
        if self.maps is not None:
            self.maps.add(sample)
        rng = np.random.default_rng((self.options.seed, self.site.number, self.number))
        self.number += 1
        return tiles_of(sample, self.site.layer.patches, self.fraction, rng)

    def _gram(self) -> Gram:
        layer = self.site.layer
        return Gram.zeros(layer.patches.group, layer.patches.unknowns, layer.outputs_per_group)


def tiles_of(
    sample: Sample, patches: Patches, fraction: float, rng: np.random.Generator
) -> Iterator[tuple[Tile, Array]]:
    """Rows of one batch: patches, targets, and what is added; and which sample of the batch every row is of."""
    picked = patches.sample(sample.x, fraction, rng)
    target = targets_at(sample.target, picked, patches.group)
    offset = None if sample.offset is None else targets_at(sample.offset, picked, patches.group)
    each = len(sample.x) // max(sample.images, 1) * math.prod(patches.out_shape(sample.x.shape[2:]))
    images = picked // max(each, 1)
    for part, p in patches.tiles(sample.x, picked):
        yield (p, target[:, part], None if offset is None else offset[:, part]), images[part]
