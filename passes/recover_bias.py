"""`recover-bias`: shift every bias so that each channel's mean is the teacher's again.

The cheapest recovery there is: one number per channel, so that a handful of samples is enough (mean correction, as FLAP, arXiv
2312.11983, and bias correction, arXiv 1906.04721, use it). Sequential like `recover-lsq`, and a baseline for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir

from edgec.passes.base import Context, LayerReport, Need, Note, Pass, PassResult, Switch, option
from edgec.passes.options import HELD_OUT
from edgec.passes.recover_lsq import finish
from edgec.passes.recovery.fit import FitOptions, row_fraction, tiles_of
from edgec.passes.recovery.layers import layers_of
from edgec.passes.recovery.sites import Batches, Site, Sites, touched_layers, wants_flips

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class RecoverBias(Pass):
    """Mean correction, sequential."""

    name: ClassVar[str] = "recover-bias"
    summary: ClassVar[str] = "shift the biases so that every channel's mean is the teacher's again"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.DATA})

    flips: Switch = option("auto", "mirror the pictures too")
    held_out: float = option(0.1, "share of the samples that only score the corrections", HELD_OUT)

    def run(self, model: ir.Model, context: Context) -> PassResult:
        layers = layers_of(model)
        names = [name for name in touched_layers(model, context.teacher) if layers[name].patches.bias]
        flips = wants_flips(self.flips, model)
        batches = Batches.of(context, model.graph, held_out=self.held_out, flips=flips)
        sites = Sites(model, context, names, batches)
        options = FitOptions(seed=context.seed)
        reports = [
            correct_mean(site, options) for site in context.progress.over(self.name, sites, len(sites))
        ]
        return finish(model, reports, [Note(why, node=name) for name, why in sites.skipped.items()])


@dataclass
class _Sums:
    """Of target minus output: the sum per channel, the sum of squares; and the energy of the target."""

    total: Array
    squares: float = 0.0
    energy: float = 0.0
    rows: int = 0

    def error(self, shift: Array) -> float:
        """Relative squared error once ``shift`` is added to the bias."""
        left = (
            self.squares - 2 * float((self.total * shift).sum()) + self.rows * float(np.square(shift).sum())
        )
        return max(left, 0.0) / self.energy if self.energy else 0.0


def correct_mean(site: Site, options: FitOptions) -> LayerReport:
    """Correct the bias of ``site.layer`` in place, if held-out rows agree."""
    layer, patches = site.layer, site.layer.patches
    columns = layer.columns()
    shape = patches.group, layer.outputs_per_group
    sums, held = _Sums(np.zeros(shape)), _Sums(np.zeros(shape))
    fraction = row_fraction(patches, site.rows, options)
    w = columns.astype(np.float32)
    for number, sample in enumerate(site.samples):
        rng = np.random.default_rng((options.seed, site.number, number))
        into = held if sample.held else sums
        for p, t, _ in tiles_of(sample, patches, fraction, rng):
            gap = t - p @ w
            into.total += gap.sum(axis=1, dtype=np.float64)
            into.squares += float(np.square(gap, dtype=np.float64).sum())
            into.energy += float(np.square(t, dtype=np.float64).sum())
            into.rows += t.shape[1]
    shift = sums.total / max(sums.rows, 1)
    judge = held if held.rows else sums
    before, after = judge.error(np.zeros(shape)), judge.error(shift)
    helps = after < before or before == 0.0
    if helps:
        columns[:, -1] += shift
        layer.set_columns(columns)
    note = "" if helps else "no better on held-out rows: reverted"
    return LayerReport(layer.name, sums.rows, 1, 1.0, before, after, helps, note)
