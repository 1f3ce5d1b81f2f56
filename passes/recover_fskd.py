"""`recover-fskd`: corrective 1x1 convolutions, fitted block by block.

This is Few Sample Knowledge Distillation (Li et al., arXiv 1812.01839).
Behind the last convolution of every block, before its activation, a 1x1 convolution (Q, q) is inserted as a node of its own and
fitted by least squares: the student's output times Q to the teacher's output on the kept channels, front to back, the student's
inputs already corrected. `fold-pointwise` then merges Q into the convolution before it, exactly.

Deviations from the paper: a ridge towards the identity (the paper's least squares returns the smallest solution where samples
are few, not the nearest to doing nothing), an intercept q (biases exist once batch normalisation is folded), and held-out rows
that may veto a correction.

A program before and after::

    y = Conv(a, w, b)   ->   h = Conv(a, w, b)
                             y = Conv1x1(h, Q, q)   # then fold-pointwise
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np
import onnx_ir as ir

from edgec.graph.data import Dataset
from edgec.graph.edit import take_over
from edgec.graph.regions import regions
from edgec.graph.values import Range
from edgec.graph.views import ConvView, add_initializer, fresh_name
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
from edgec.passes.options import HELD_OUT, RIDGE, ROWS
from edgec.passes.recover_lsq import finish
from edgec.passes.refit.batches import Batches, held_or_all, wants_flips
from edgec.passes.refit.fit import FitOptions, fit_site
from edgec.passes.refit.layer_fits import LayerFits, touched_layers
from edgec.passes.refit.steps import Steps


@dataclass(frozen=True)
class RecoverFskd(Pass):
    """Insert and fit corrective 1x1 convolutions."""

    name: ClassVar[str] = "recover-fskd"
    summary: ClassVar[str] = "insert 1x1 convolutions behind the blocks and fit them to the teacher (FSKD)"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.DATA})
    never_after: ClassVar[frozenset[str]] = NUMBER_FORMATS
    recovers: ClassVar[bool] = True

    after: Literal["block", "conv"] = option(
        "block", "where: behind the last convolution of a block, or behind each"
    )
    sweeps: int = option(
        1, "passes over the network; every second one shows the pictures mirrored", Range(1, 1000)
    )
    ridge: float = option(1e-3, "ridge towards the identity, relative to the mean output energy", RIDGE)
    rows: float = option(40.0, "rows per unknown above which pixels are sampled", ROWS)
    hflip: Switch = option("no", "show every picture mirrored too in each sweep")
    held_out: float = option(0.1, "share of the samples that only score the fits", HELD_OUT)

    def run(self, model: ir.Model, context: Context) -> PassResult:
        names = [insert_after(model, conv) for conv in self._convs(model, context.original)]
        batches = Batches.of(
            context, model.graph, held_out=self.held_out, hflip=wants_flips(self.hflip, model)
        )
        options = FitOptions(self.ridge, self.rows, clipped=0, seed=context.seed)
        steps, reports = Steps(model), dict[str, LayerReport]()
        notes: list[Note] = []
        for sweep in range(self.sweeps):
            mirror = bool(sweep % 2) and wants_flips("auto", model)
            sites = LayerFits(model, context, names, replace(batches, mirror=mirror))
            label = f"{self.name} sweep {sweep + 1}"
            for site in context.progress.over(label, sites, len(sites)):
                report = fit_site(site, options)
                reports[report.node] = _followed(reports.get(report.node), report)
                steps.done(site)
            notes = [Note(why, node=name) for name, why in sites.skipped.items()]
        return finish(model, list(reports.values()), notes, steps)

    def unseen(self, context: Context) -> Dataset | None:
        return held_or_all(context, self.held_out)

    def _convs(self, model: ir.Model, teacher: ir.Model) -> list[ir.Node]:
        touched = set(touched_layers(model, teacher))
        inner = set() if self.after == "conv" else inner_convs(model)
        return [
            node
            for node in model.graph
            if node.name in touched and node.name not in inner and ConvView.of(node) is not None
        ]


def _followed(first: LayerReport | None, later: LayerReport) -> LayerReport:
    """One report of a layer that several sweeps fitted."""
    if first is None:
        return later
    kept = first.kept or later.kept
    return replace(
        later,
        error_before=first.error_before,
        kept=kept,
        note="" if kept else later.note,
        choices=(*first.choices, *later.choices),
    )


def inner_convs(model: ir.Model) -> set[str]:
    """Convolutions inside residual branches whose output does not reach the sum at once."""
    found: set[str] = set()
    for region in regions(model):
        if region.skip is not None:
            ends = {value.producer() for value in _node(model, region.nodes[-1]).inputs if value is not None}
            last = {node.name for node in ends if node is not None}
            found.update(name for name in region.branch if name not in last)
    return found


def _node(model: ir.Model, name: str) -> ir.Node:
    return next(node for node in model.graph if node.name == name)


def insert_after(model: ir.Model, conv: ir.Node) -> str:
    """A 1x1 convolution behind ``conv``, the identity for now, which takes over the name of its output; the node's name.

    It has the groups of ``conv``, so that it can be folded: diagonal behind a depthwise convolution.
    """
    view = ConvView(conv)
    graph, value = model.graph, conv.outputs[0]
    name, each = fresh_name(graph, f"{conv.name}_fskd"), view.out_channels // view.group
    ones = (1,) * len(view.kernel)
    identity = np.tile(np.eye(each, dtype=np.float32), (view.group, 1)).reshape(
        view.out_channels, each, *ones
    )
    weight = add_initializer(graph, f"{name}_weight", identity)
    bias = add_initializer(graph, f"{name}_bias", np.zeros(view.out_channels, np.float32))
    node = ir.node("Conv", [value, weight, bias], {"kernel_shape": ones, "group": view.group}, name=name)
    out = node.outputs[0]
    out.shape, out.type = value.shape, value.type
    take_over(graph, value, out, "uncorrected")
    graph.insert_after(conv, node)
    return name
