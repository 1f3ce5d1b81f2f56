"""`prune-channels`: narrow a network to a budget, removing the channels that its next layers can best do without.

1. One walk over the calibration data collects the normal matrix of every layer that reads prunable channels.
2. Group OBS turns them into error curves: error against channels kept, after an optimal re-fit (design section 3.4).
3. The curves are scaled by what their errors do to the output (`pruning.damage`), and the least total damage within the budget
   is found (design section 3.5).
4. The channels go; the layers that read them get the re-fitted weights of their curves.

``criterion=l1|activation|random`` and ``allocation=uniform`` are baselines, and change no other weight.

A program before and after::

    h = Conv(x, w[64,3,3,3])   ->   h = Conv(x, w[40,3,3,3])
    a = Relu(h)                     a = Relu(h)
    y = Conv(a, v[32,64,3,3])       y = Conv(a, v'[32,40,3,3])   # re-fitted
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import onnx_ir as ir

from edgec.graph.channels import ChannelGroup, groups
from edgec.graph.values import SHARE
from edgec.passes.base import NUMBER_FORMATS, Context, Need, Note, PassResult, Switch, option
from edgec.passes.budget import Budget, budget_option
from edgec.passes.budgeted import Budgeted
from edgec.passes.channel_pruning.costs import AdditiveCost, cost_of, source_cost
from edgec.passes.channel_pruning.criteria import (
    activation_scores,
    l1_scores,
    obs_curves,
    random_scores,
    score_curve,
)
from edgec.passes.channel_pruning.figures import figures
from edgec.passes.channel_pruning.products import product_curves
from edgec.passes.channel_pruning.removal import removals_of, removed, take_out
from edgec.passes.channel_pruning.statistics import ConsumerStatistics, consumers_of, gather
from edgec.passes.channel_pruning.trials import of_group
from edgec.passes.options import BYTES, MULTIPLE, RIDGE, ROWS
from edgec.passes.refit.batches import Batches, wants_flips
from edgec.passes.refit.fit import FitOptions
from edgec.passes.sensitivity.measure import measure, scaled_errors
from edgec.passes.sensitivity.validation_split import validation_split
from edgec.passes.solvers.allocate import Allocation, allocate, allowed_widths
from edgec.passes.solvers.obs import Curve

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Judged:
    """By group: the order of its units, and the error of every width, scaled to what it does to the output; by layer, what it
    sees, and why it cannot be re-fitted."""

    curves: Mapping[str, Curve]
    errors: Mapping[str, Array]
    statistics: Mapping[str, ConsumerStatistics]
    refused: Mapping[str, str]


@dataclass(frozen=True)
class PruneChannels(Budgeted):
    """Remove channels until the model meets a budget."""

    name: ClassVar[str] = "prune-channels"
    summary: ClassVar[str] = "remove the channels that the next layers can best do without, down to a budget"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.DATA})
    never_after: ClassVar[frozenset[str]] = NUMBER_FORMATS

    macs: str = budget_option("macs", "budget of multiplications: 50%, 20M")
    params: str = budget_option("params", "budget of parameters: 40%, 1.2M")
    size: str = budget_option("size", "budget of weight bytes: 4MB, 50%")
    latency: str = budget_option("latency", "budget of the target's estimated latency: 25ms, 60%")
    criterion: Literal["obs", "l1", "activation", "random"] = option("obs", "which channels go first")
    allocation: Literal["global", "uniform"] = option("global", "widths by error, or every group alike")
    scope: Literal["all", "inner"] = option("all", "all groups, or only those that one layer makes")
    sensitivity: bool = option(True, "scale errors by what they do to the output, measured")
    multiple: int = option(0, "round widths to this; 0: the target's, else 1", MULTIPLE)
    minimum: float = option(0.0, "least share of a group's channels that stays", SHARE)
    ridge: float = option(1e-3, "ridge of the fits, relative to the mean input energy", RIDGE)
    rows: float = option(20.0, "rows per unknown above which pixels are sampled", ROWS)
    hflip: Switch = option("auto", "mirror the pictures too")
    mixup: bool = option(True, "mix the mirrored pictures with one another")
    bytes_per_weight: float = option(4.0, "bytes of one weight in the shipped file, for size budgets", BYTES)

    def run(self, model: ir.Model, context: Context) -> PassResult:
        budget = self.budget()
        found = groups(model)
        prunable = [g for g in found if g.prunable and (self.scope == "all" or len(g.producers) == 1)]
        cost = cost_of(budget, model, found, context.target, self.bytes_per_weight, context.prices)
        source = source_cost(budget, context)
        limit = budget.limit(source)
        stuck = [g for g in found if not g.prunable and g.has_weights]
        notes = [Note(f"not prunable: {g.reason}", node=g.name) for g in stuck]
        if cost.total({}) <= limit:
            return PassResult(model, modified=False, notes=(Note("the budget is met already"),))
        if not prunable:
            notes.insert(0, Note("no channel can be removed", level="warning"))
            return PassResult(model, modified=False, notes=tuple(notes))
        judged = self.judged(model, prunable, context)
        prunable = [g for g in prunable if g.name in judged.curves]
        chosen = self._allocate(judged.errors, cost, limit, context)
        removals = removals_of(judged.curves, chosen.widths)
        take_out(model, found, judged.statistics if self.criterion == "obs" else {}, removals)
        notes += [Note(why, node=name) for name, why in judged.refused.items()]
        notes[:0] = self._summary(budget, chosen, limit, source, removals, self._multiple(context))
        return PassResult(
            model,
            modified=bool(removals),
            notes=tuple(notes),
            data=figures(budget, chosen, source, limit, prunable),
        )

    def judged(self, model: ir.Model, prunable: Sequence[ChannelGroup], context: Context) -> Judged:
        """What every width of ``prunable`` does; groups whose loss nothing could make up for have no curve."""
        context, validation = validation_split(context) if self._measures else (context, context)
        statistics, refused = self._statistics(model, prunable, context)
        curves = self._curves(model, prunable, statistics, context)
        errors = {name: curve.errors for name, curve in curves.items()}
        if self._measures:
            subjects = [of_group(model, g, curves[g.name], statistics) for g in prunable if g.name in curves]
            measured = measure(model, subjects, validation, self.name)
            errors = {name: scaled_errors(errors[name], measured.get(name, ())) for name in errors}
        return Judged(curves, errors, statistics, refused)

    @property
    def _measures(self) -> bool:
        return self.criterion == "obs" and self.sensitivity and self.allocation == "global"

    def _statistics(
        self, model: ir.Model, prunable: Sequence[ChannelGroup], context: Context
    ) -> tuple[dict[str, ConsumerStatistics], dict[str, str]]:
        if self.criterion in ("l1", "random"):
            return {}, {}
        layers, refused = consumers_of(model, prunable)
        hflip = wants_flips(self.hflip, model)
        batches = Batches.of(context, model.graph, held_out=0.0, hflip=hflip, mixup=self.mixup)
        options = FitOptions(ridge=self.ridge, rows_per_unknown=self.rows, seed=context.seed)
        return gather(model, layers, batches, options, context, self.name), refused

    def _curves(
        self,
        model: ir.Model,
        prunable: Sequence[ChannelGroup],
        statistics: Mapping[str, ConsumerStatistics],
        context: Context,
    ) -> dict[str, Curve]:
        if self.criterion == "obs":
            known = obs_curves(prunable, statistics, self.ridge, context.threads)
            return {**known, **product_curves(model, prunable, context)}
        if self.criterion == "random":
            return {
                name: score_curve(scores) for name, scores in random_scores(prunable, context.seed).items()
            }
        if self.criterion == "l1":
            return {g.name: score_curve(l1_scores(g, model)) for g in prunable}
        scored = {g.name: score_curve(activation_scores(g, statistics)) for g in prunable if g.consumers}
        return {**scored, **product_curves(model, prunable, context)}

    def _allocate(
        self, errors: Mapping[str, Array], cost: AdditiveCost, limit: float, context: Context
    ) -> Allocation:
        multiple = self._multiple(context)
        if self.allocation == "uniform":
            return _uniform(errors, cost, limit, multiple)
        return allocate(
            errors,
            cost,
            limit,
            lambda _, full: allowed_widths(full, multiple, max(1, round(self.minimum * full))),
        )

    def _multiple(self, context: Context) -> int:
        return self.multiple or (context.target.channel_multiple if context.target is not None else 1)

    def _summary(
        self,
        budget: Budget,
        chosen: Allocation,
        limit: float,
        source: float,
        removals: Mapping[str, Sequence[int]],
        multiple: int,
    ) -> list[Note]:
        gone = sum(len(units) for units in removals.values())
        notes = [
            Note(f"{removed(gone, len(removals))}: {budget.unit} at {chosen.cost / source:.1%} of the source")
        ]
        if not chosen.reached:
            text = (
                f"{budget.text} is out of reach: the narrowest widths cost {chosen.cost / source:.1%} of the source, "
                f"{limit / source:.1%} was asked; every prunable group is at its least width{_steps(multiple)}"
            )
            notes.insert(0, Note(text, level="warning"))
        return notes


def _steps(multiple: int) -> str:
    return f" (in steps of {multiple} channels; multiple=1 goes further)" if multiple > 1 else ""


def _uniform(errors: Mapping[str, Array], cost: AdditiveCost, limit: float, multiple: int) -> Allocation:
    """The largest common share of all groups that meets the limit."""
    choices = {name: np.array(allowed_widths(len(curve), multiple)) for name, curve in errors.items()}

    def at(share: float) -> dict[str, int]:
        return {
            name: int(widths[np.argmin(np.abs(widths - share * widths[-1]))])
            for name, widths in choices.items()
        }

    shares = np.linspace(1.0, 0.0, 513)
    points = [(cost.total(at(float(share))), at(float(share))) for share in shares]
    total, widths = next(((c, w) for c, w in points if c <= limit), points[-1])
    error = sum(float(errors[name][len(errors[name]) - width]) for name, width in widths.items())
    return Allocation(widths, total, error, total <= limit, ())
