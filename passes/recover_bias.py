"""`recover-bias`: shift every bias so that each channel's mean is the teacher's again.

The cheapest recovery there is: one number per channel, so that a handful of samples is enough (mean correction, as FLAP, arXiv
2312.11983, and bias correction, arXiv 1906.04721, use it). Sequential like `recover-lsq`, and a baseline for it.

A program before and after::

    y = Conv(a, w, b)   ->   y = Conv(a, w, b + mean(teacher's y - y))
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir

from edgec.graph.data import Dataset
from edgec.passes.base import (
    NUMBER_FORMATS,
    Choice,
    Context,
    LayerReport,
    Need,
    Note,
    Pass,
    PassResult,
    Switch,
    option,
)
from edgec.passes.options import HELD_OUT
from edgec.passes.recover_lsq import finish
from edgec.passes.refit.batches import Batches, held_or_all, wants_flips
from edgec.passes.refit.fit import FitOptions, reverted, row_fraction, tiles_of
from edgec.passes.refit.layer_fits import LayerFit, LayerFits, touched_layers
from edgec.passes.refit.layers import layers_of
from edgec.passes.refit.steps import Steps
from edgec.passes.solvers.guard import judge, per_image

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class RecoverBias(Pass):
    """Mean correction, sequential."""

    name: ClassVar[str] = "recover-bias"
    summary: ClassVar[str] = "shift the biases so that every channel's mean is the teacher's again"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.DATA})
    never_after: ClassVar[frozenset[str]] = NUMBER_FORMATS
    recovers: ClassVar[bool] = True

    hflip: Switch = option("auto", "mirror the pictures too")
    held_out: float = option(0.1, "share of the samples that only score the corrections", HELD_OUT)

    def run(self, model: ir.Model, context: Context) -> PassResult:
        layers = layers_of(model)
        names = [name for name in touched_layers(model, context.original) if layers[name].patches.bias]
        hflip = wants_flips(self.hflip, model)
        batches = Batches.of(context, model.graph, held_out=self.held_out, hflip=hflip)
        sites = LayerFits(model, context, names, batches)
        options = FitOptions(seed=context.seed)
        steps, reports = Steps(model), list[LayerReport]()
        for site in context.progress.over(self.name, sites, len(sites)):
            reports.append(correct_mean(site, options))
            steps.done(site)
        return finish(model, reports, [Note(why, node=name) for name, why in sites.skipped.items()], steps)

    def unseen(self, context: Context) -> Dataset | None:
        return held_or_all(context, self.held_out)


def correct_mean(site: LayerFit, options: FitOptions) -> LayerReport:
    """Correct the bias of ``site.layer`` in place, if held-out rows agree."""
    layer, patches = site.layer, site.layer.patches
    columns = layer.columns()
    fraction = row_fraction(patches, site.rows, options)
    w = columns.astype(np.float32)
    total, rows, energy = np.zeros((patches.group, layer.outputs_per_group)), 0, 0.0
    gaps: list[tuple[Array, Array]] = []
    first = 0
    for number, sample in enumerate(site.samples):
        rng = np.random.default_rng((options.seed, site.number, number))
        judges = sample.held or not site.held
        for (p, t, _), images in tiles_of(sample, patches, fraction, rng):
            gap = t - p @ w
            if not sample.held:
                total += gap.sum(axis=1, dtype=np.float64)
                rows += t.shape[1]
            if judges:
                gaps.append((gap, images + first))
                energy += float(np.square(t, dtype=np.float64).sum())
        first += sample.images if judges else 0
    shift = total / max(rows, 1)
    count = site.held or site.images
    before, after = (
        sum((per_image(gap - moved, images, count) for gap, images in gaps), np.zeros(count))
        for moved in (np.zeros_like(shift)[:, None], shift[:, None])
    )
    verdict = judge(before, after, energy, unknowns=patches.unknowns)
    if verdict.kept:
        columns[:, -1] += shift
        layer.set_columns(columns)
    errors = [float(one.sum()) / energy if energy else 0.0 for one in (before, after)]
    return LayerReport(
        layer.name,
        rows,
        1,
        1.0,
        errors[0],
        errors[int(verdict.kept)],
        verdict.kept,
        "" if verdict.kept else reverted(verdict),
        (Choice.of("shift", verdict),),
    )
