"""`compress`: prune channels and cut layers into pieces under one budget.

1. One walk over the calibration data collects the normal matrix of every layer, for `prune-channels` and for all forms of the
   `decompose-...` passes alike (design sections 3.4 and 3.6).
2. The error of every width and of every form and rank is scaled by what it does to the network's output, measured on samples
   that no statistics saw: that makes fewer channels here and a lower rank there comparable.
3. One allocation takes the least total damage within the budget. What pieces save is counted at the widths that their layer
   ends with.
4. The channels go, the layers that read them get the re-fitted weights, and the layers that are to be cut are factored as they
   are then.

It is what ``--budget`` takes by itself. Let `recover-lsq` follow. With ``pieces=none`` it is
`prune-channels`; ``pieces=all`` loses the least for a number of multiplications, but not for a time.

A program before and after::

    h = Conv3x3(x, w[64,32])   ->   p = Conv3x1(x, w1[20,32])
    a = Relu(h)                     h = Conv1x3(p, w2[48,20])
    y = Conv1x1(a, v[10,64])        a = Relu(h)
                                    y = Conv1x1(a, v'[10,48])
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import onnx_ir as ir

from edgec.graph.channels import ChannelGroup, groups
from edgec.graph.errors import UsageError, did_you_mean
from edgec.passes.base import Context, LayerReport, Note, PassResult, option
from edgec.passes.budget import Budget
from edgec.passes.channel_pruning.costs import cost_of, source_cost
from edgec.passes.channel_pruning.criteria import obs_curves
from edgec.passes.channel_pruning.figures import figures
from edgec.passes.channel_pruning.products import product_curves
from edgec.passes.channel_pruning.removal import Removals, removals_of, removed, rows_gone, take_out
from edgec.passes.channel_pruning.statistics import consumers_of
from edgec.passes.channel_pruning.trials import of_group
from edgec.passes.decomposition.cuts import CHANNEL, DEPTHWISE, SEPARABLE, SPATIAL, SVD, TUCKER, Form
from edgec.passes.decomposition.joint import Choices, Joint, narrowed
from edgec.passes.decomposition.ranks import Way
from edgec.passes.decomposition.run import Decomposition, cut, refusal
from edgec.passes.pricing import Price, price_of
from edgec.passes.refit.layers import layers_of
from edgec.passes.sensitivity.measure import measure, scaled_errors
from edgec.passes.sensitivity.validation_split import validation_split
from edgec.passes.solvers.allocate import Allocation, allocate, allowed_widths

UNTIMED = (
    "no latencies are known for this target, so pieces were chosen by their cost alone: they may be slower than the whole layer. "
    "compress{pieces=none} leaves layers whole"
)
TYPICAL = (
    "this machine was never calibrated: pieces are faster than the whole layer by the latencies of another one ({}). "
    "`edgec targets calibrate` measures it"
)
PIECES = {
    "svd": (SVD,),
    "channel": (CHANNEL,),
    "spatial": SPATIAL,
    "tucker": (TUCKER,),
    "separable": (SEPARABLE,),
    "depthwise": (DEPTHWISE,),
}
GROUPS = {
    "auto": ("svd", "channel", "spatial", "tucker", "separable"),
    "all": ("svd", "channel", "spatial", "tucker", "depthwise"),
    "none": (),
}
"""Engines are slow at several depthwise kernels per channel, however few multiplications those take."""


@dataclass(frozen=True)
class Compress(Decomposition):
    """Fewer channels or smaller pieces, whichever costs less accuracy."""

    name: ClassVar[str] = "compress"
    summary: ClassVar[str] = (
        "prune channels and cut layers into pieces, whichever hurts less, down to a budget"
    )
    pieces: str = option(
        "auto", f"forms of pieces: {', '.join(PIECES)}, joined by +; all; none; auto: all but depthwise"
    )

    def check(self) -> None:
        """Raise UsageError for a form that does not exist, and for several budgets."""
        super().check()
        self.allowed()

    def allowed(self) -> tuple[Form, ...]:
        if self.pieces in GROUPS:
            return tuple(form for name in GROUPS[self.pieces] for form in PIECES[name])
        found: list[Form] = []
        for name in self.pieces.split("+"):
            if name not in PIECES:
                hint = did_you_mean(name, (*PIECES, *GROUPS))
                raise UsageError(f"unknown form of pieces {name!r}", where=self.name, hint=hint)
            found += PIECES[name]
        return tuple(found)

    def run(self, model: ir.Model, context: Context) -> PassResult:
        """Raises UsageError for none or several budgets, and PassError without data."""
        budget, found = self.budget(), groups(model)
        table = cost_of(budget, model, found, context.target, self.bytes_per_weight, context.prices)
        source = source_cost(budget, context)
        limit = budget.limit(source)
        if table.total({}) <= limit:
            return PassResult(model, modified=False, notes=(Note("the budget is met already"),))
        price = price_of(budget, context.target, context.prices, self.bytes_per_weight)
        choices = self._choices(model, [g for g in found if g.prunable], context, price)
        joint = choices.joint(table, model, price)
        if not joint.errors:
            return PassResult(model, modified=False, notes=(*self._nothing(model), *_fixed(found)))
        chosen = self._allocate(choices, joint, limit, context)
        removals = removals_of(choices.curves, chosen.widths)
        reports = self._apply(model, found, choices, removals, joint.cut_at(chosen.widths))
        notes = _notes(budget, chosen, source, removals, reports, found)
        if reports and budget.unit != "latency" and self.pays == "time":
            notes += _timing(context)
        return PassResult(
            model,
            modified=bool(removals or reports),
            notes=tuple(notes),
            layers=tuple(reports),
            data={
                **figures(budget, chosen, source, limit, choices.groups),
                "cuts": {report.node: report.note for report in reports},
            },
        )

    def _nothing(self, model: ir.Model) -> list[Note]:
        """Why no layer can be cut either."""
        notes = [
            Note("no channel can be removed and no layer cut into pieces that cost less", level="warning")
        ]
        reasons = {name: refusal(layer, self.allowed()) for name, layer in layers_of(model).items()}
        return notes + [Note(f"stays in one: {why}", node=name) for name, why in reasons.items() if why]

    def _allocate(self, choices: Choices, joint: Joint, limit: float, context: Context) -> Allocation:
        multiple = self.step(context)

        def widths(name: str, full: int) -> Sequence[int]:
            return range(1, full + 1) if name in joint.ways else allowed_widths(full, multiple)

        return allocate(joint.errors, joint.cost, limit, widths)

    def _choices(
        self, model: ir.Model, prunable: Sequence[ChannelGroup], context: Context, price: Price
    ) -> Choices:
        layers = layers_of(model)
        readers = {layer.name for layer in consumers_of(model, prunable)[0]}
        eligible = {name for name, layer in layers.items() if refusal(layer, self.allowed()) is None}
        wanted = [layer for name, layer in layers.items() if name in readers | eligible]
        fits, validation = validation_split(context) if self.sensitivity else (context, context)
        statistics = {one.layer.name: one for one in self.statistics(model, wanted, fits)}
        known = {
            **obs_curves(prunable, statistics, self.ridge, context.threads),
            **product_curves(model, prunable, fits),
        }
        prunable = [g for g in prunable if g.name in known]
        cuttable = [one for name, one in statistics.items() if name in eligible]
        candidates = self.factored(cuttable, context, price)
        errors = {name: curve.errors for name, curve in known.items()}
        if self.sensitivity:
            subjects = [of_group(model, g, known[g.name], statistics) for g in prunable]
            subjects += [subject for one in candidates for subject in one.subjects()]
            measured = measure(model, subjects, validation, self.name)
            errors = {name: scaled_errors(errors[name], measured.get(name, ())) for name in errors}
            candidates = [one.judged(measured) for one in candidates]
        return Choices(tuple(prunable), known, errors, statistics, tuple(candidates))

    def _apply(
        self,
        model: ir.Model,
        found: Sequence[ChannelGroup],
        choices: Choices,
        removals: Removals,
        ways: Mapping[str, Way],
    ) -> list[LayerReport]:
        gone = {name: rows_gone(one, choices.groups, removals) for name, one in choices.statistics.items()}
        take_out(model, found, choices.statistics, removals)
        layers, reports = layers_of(model), []
        for one in choices.candidates:
            if one.name in ways:
                left = narrowed(one, layers[one.name], gone[one.name], whitened=self.whitened)
                way = ways[one.name]
                now = replace(way, cut=way.cut.on(left.statistics.layer, left.response))
                reports.append(cut(model, left, now))
        return reports


def _notes(
    budget: Budget,
    chosen: Allocation,
    source: float,
    removals: Removals,
    reports: Sequence[LayerReport],
    found: Sequence[ChannelGroup],
) -> list[Note]:
    share, gone = chosen.cost / source, sum(len(units) for units in removals.values())
    done = f"{removed(gone, len(removals))}, {len(reports)} layer{'' if len(reports) == 1 else 's'} in pieces"
    notes = [Note(f"{done}: {budget.unit} at {share:.1%} of the source")]
    if not chosen.reached:
        text = f"{budget.text} is out of reach: the least that this network can cost is {share:.1%} of the source"
        notes.insert(0, Note(text, level="warning"))
    return notes + _fixed(found)


def _timing(context: Context) -> list[Note]:
    """What is to be said about the pieces' time."""
    if context.prices is None:
        return [Note(UNTIMED)]
    table = context.prices.table
    return [Note(TYPICAL.format(table.target))] if context.prices.typical else []


def _fixed(found: Sequence[ChannelGroup]) -> list[Note]:
    return [Note(f"not prunable: {g.reason}", node=g.name) for g in found if not g.prunable and g.has_weights]
