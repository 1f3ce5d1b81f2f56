"""Fit one layer where the walk stands, score the fit on rows that it did not see, and keep it only if it helps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgec.passes.base import LayerReport
from edgec.passes.recovery.joint import Maps, fit_chain
from edgec.passes.recovery.pooled import add_pixels, mixed
from edgec.passes.recovery.sites import Sample, Site
from edgec.passes.solvers.gram import Gram, Patches, targets_at
from edgec.passes.solvers.rectified import Clipping, Tile, fit_clipped
from edgec.passes.solvers.ridge import ridge

Array = np.ndarray[Any, np.dtype[Any]]

MIN_ROWS = 16384
"""Below this, rows are not worth saving."""
KEPT_BYTES = 400 << 20
"""Rows and targets that the clipped fit reads several times stay within this."""


@dataclass(frozen=True)
class FitOptions:
    """``lam``: relative ridge towards the weights before the fit. ``rows_per_unknown``: rows are subsampled above this.
    ``clipped``: iterations of the fit behind the activation, 0 for plain least squares. ``joint``: steps that fit a layer
    together with those in front of it. ``threads`` change no result."""

    lam: float = 1e-3
    rows_per_unknown: float = 40.0
    clipped: int = 4
    joint: int = 0
    seed: int = 0
    threads: int = 1


@dataclass
class _Rows:
    """What one reading of the samples leaves."""

    fit: Gram
    held: Gram
    fit_tiles: list[Tile] = field(default_factory=list)
    held_tiles: list[Tile] = field(default_factory=list)
    maps: Maps | None = None
    pixels: float = 0.0
    """Rows in front of a global pool, besides those of ``fit``."""


def fit_site(site: Site, options: FitOptions) -> LayerReport:
    """Fit ``site.layer`` in place. Errors in the report are relative, on held-out rows, behind the activation where one is."""
    layer = site.layer
    before = layer.columns()
    clipping = site.goal.clipping if options.clipped else None
    rows = _read(site, options, clipping)
    solved = ridge(rows.fit.h, rows.fit.s, before, options.lam)
    columns = solved.columns
    if clipping is not None:
        columns = fit_clipped(
            rows.fit_tiles, solved.factors, columns, before, clipping, options.clipped, options.threads
        )
    errors = [_score(rows, clipping, candidate) for candidate in (before, columns)]
    helps = errors[1] < errors[0] or (errors[0] == errors[1] == 0.0)
    if helps and clipping is None and rows.held.rows:
        # Kept or not was decided without these rows; now they may help too.
        rows.fit.merge(rows.held)
        columns = ridge(rows.fit.h, rows.fit.s, before, options.lam).columns
    if helps:
        layer.set_columns(columns)
    now = errors[1] if helps else errors[0]
    joint = (
        None if rows.maps is None else fit_chain(site, rows.maps, options.lam, options.joint, options.threads)
    )
    return LayerReport(
        node=layer.name,
        rows=round(rows.fit.rows + rows.pixels),
        unknowns=layer.patches.unknowns,
        condition=solved.condition,
        error_before=errors[0],
        # The joint fit is scored on whole maps of fewer images: its gain counts, not its level.
        error_after=now if joint is None else now * joint[1] / joint[0],
        kept=helps or joint is not None,
        note=_note(rows, layer.patches, solved.jitter, helps or joint is not None, site if joint else None),
    )


def _note(rows: _Rows, patches: Patches, jitter: float, helps: bool, joint: Site | None) -> str:
    parts = []
    if joint is not None:
        parts.append(f"fitted together with {', '.join(inner.layer.name for inner in joint.chain)}")
    if rows.fit.rows + rows.pixels < patches.unknowns:
        parts.append("fewer rows than unknowns: the ridge decides the rest")
    if jitter:
        parts.append(f"jitter {jitter:.1e} added to a singular system")
    if not helps:
        parts.append("no better on held-out rows: reverted")
    return "; ".join(parts)


def row_fraction(patches: Patches, total: int, options: FitOptions, *, kept: int = 0) -> float:
    """Share of the rows to use; with ``kept`` further numbers per row, all of them are to fit into `KEPT_BYTES`."""
    wanted = max(MIN_ROWS, options.rows_per_unknown * patches.unknowns)
    if kept:
        wanted = min(wanted, KEPT_BYTES / (4 * (patches.unknowns * patches.group + kept)))
    return min(1.0, wanted / max(total, 1))


def _read(site: Site, options: FitOptions, clipping: Clipping | None) -> _Rows:
    layer, patches = site.layer, site.layer.patches
    shape = patches.group, patches.unknowns, layer.outputs_per_group
    rows = _Rows(Gram.zeros(*shape), Gram.zeros(*shape))
    if site.chain and options.joint:
        rows.maps = Maps.of(site, site.images)
    pixels = Gram.zeros(*shape)
    # A target and perhaps an offset per output.
    kept = 0 if clipping is None else (2 if site.goal.others else 1) * layer.view.out_channels
    fraction = row_fraction(patches, site.rows, options, kept=kept)
    for number, sample in enumerate(site.samples):
        if rows.maps is not None:
            rows.maps.add(sample)
        rng = np.random.default_rng((options.seed, site.number, number))
        gram, tiles = (rows.held, rows.held_tiles) if sample.held else (rows.fit, rows.fit_tiles)
        for p, t, offset in tiles_of(sample, patches, fraction, rng):
            gram.add(p, t)
            if clipping is not None:
                tiles.append((p, t, offset))
        if sample.pixels is not None and clipping is None:
            add_pixels(pixels, layer, *sample.pixels)
    rows.fit, rows.pixels = mixed(rows.fit, pixels), pixels.rows
    return rows


def tiles_of(sample: Sample, patches: Patches, fraction: float, rng: np.random.Generator) -> Iterator[Tile]:
    """Rows of one batch: patches, targets, and what is added."""
    picked = patches.sample(sample.x, fraction, rng)
    target = targets_at(sample.target, picked, patches.group)
    offset = None if sample.offset is None else targets_at(sample.offset, picked, patches.group)
    for part, p in patches.tiles(sample.x, picked):
        yield p, target[:, part], None if offset is None else offset[:, part]


def _score(rows: _Rows, clipping: Clipping | None, columns: Array) -> float:
    """Relative error on held-out rows; on the fitted ones where none are held out."""
    gram, tiles = (rows.held, rows.held_tiles) if rows.held.rows else (rows.fit, rows.fit_tiles)
    if clipping is None:
        return gram.relative_error(columns)
    error = energy = 0.0
    w = columns.astype(np.float32)
    for p, t, offset in tiles:
        e, n = clipping.error(p @ w, t, offset)
        error, energy = error + e, energy + n
    return error / energy if energy else 0.0
