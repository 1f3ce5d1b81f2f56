"""`recover-lsq`: re-fit every layer that pruning touched, front to back, to what the teacher computes there.

Each layer is a ridge regression towards its own weights (design section 3.1, 3.3): its inputs come from the student as
corrected so far, its targets from the clean teacher, and the last convolution of a residual branch makes up for the
error of the skip. Errors behind a Relu or Clip count as they are behind it (`solvers.rectified`). Then the layer and the
one in front of it, where nothing but an activation lies between, move together to where the error behind the second is
least (`solvers.chain`): an inner layer need not make what the teacher's makes. A fit that does not lower the error on
held-out samples is taken back.

A program before and after::

    y = Conv(a, w, b)   ->   y = Conv(a, w', b')   # nearest to the teacher's y on the data
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import onnx_ir as ir

from edgec.graph.data import Dataset
from edgec.graph.values import Range
from edgec.passes.base import (
    NUMBER_FORMATS,
    Context,
    LayerReport,
    Need,
    Note,
    Pass,
    PassResult,
    Switch,
    option,
)
from edgec.passes.options import HELD_OUT, RIDGE, ROUNDS, ROWS
from edgec.passes.refit.batches import Batches, held_or_all, wants_flips
from edgec.passes.refit.fit import FitOptions, enough_samples, fit_site
from edgec.passes.refit.layer_fits import LayerFits, touched_layers
from edgec.passes.refit.layers import layers_of
from edgec.passes.refit.steps import Steps


@dataclass(frozen=True)
class RecoverLsq(Pass):
    """Full least-squares re-fit, sequential and error-compensating."""

    name: ClassVar[str] = "recover-lsq"
    summary: ClassVar[str] = "re-fit the weights of every touched layer to the teacher, in closed form"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.DATA})
    never_after: ClassVar[frozenset[str]] = NUMBER_FORMATS
    recovers: ClassVar[bool] = True

    ridge: float = option(1e-3, "ridge towards the weights before, relative to the mean input energy", RIDGE)
    rows: float = option(40.0, "rows per unknown above which pixels are sampled", ROWS)
    clipped: int = option(
        4, "iterations that count errors behind Relu and Clip; 0: plain least squares", ROUNDS
    )
    joint: int = option(
        4, "steps that fit a layer together with those in front of it; 0: layer by layer only", ROUNDS
    )
    depth: int = option(1, "how many layers in front (depthwise ones do not count)", Range(0, 64))
    hflip: Switch = option("auto", "mirror the pictures too")
    mixup: bool = option(True, "mix the mirrored pictures with one another")
    held_out: float = option(0.1, "share of the samples that only score the fits", HELD_OUT)
    depthwise: bool = option(True, "re-fit depthwise kernels too")

    def run(self, model: ir.Model, context: Context) -> PassResult:
        layers = layers_of(model)
        names = [
            name
            for name in touched_layers(model, context.original)
            if self.depthwise or not layers[name].is_depthwise
        ]
        batches = Batches.of(
            context,
            model.graph,
            held_out=self.held_out,
            hflip=wants_flips(self.hflip, model),
            mixup=self.mixup,
        )
        options = FitOptions(self.ridge, self.rows, self.clipped, self.joint, context.seed, context.threads)
        depth = self.depth if self.joint else 0
        sites = LayerFits(
            model, context, names, batches, depth, lambda layers: enough_samples(layers, options)
        )
        steps, reports = Steps(model), list[LayerReport]()
        for site in context.progress.over(self.name, sites, len(sites)):
            reports.append(fit_site(site, options))
            steps.done(site)
        notes = [Note(why, node=name) for name, why in sites.skipped.items()]
        return finish(model, reports, notes, steps)

    def unseen(self, context: Context) -> Dataset | None:
        return held_or_all(context, self.held_out)


def finish(model: ir.Model, reports: list[LayerReport], notes: list[Note], steps: Steps) -> PassResult:
    """The result of a recovery pass, with a note for every fit that was taken back."""
    for report in reports:
        level: Literal["info", "reverted"] = "info" if report.kept else "reverted"
        notes += [Note(report.note, level=level, node=report.node)] if report.note else []
    kept = sum(report.kept for report in reports)
    notes.insert(0, Note(f"{kept} of {len(reports)} layers re-fitted"))
    return PassResult(model, modified=kept > 0, notes=tuple(notes), layers=tuple(reports), partial=steps)
