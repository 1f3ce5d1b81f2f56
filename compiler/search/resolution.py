"""`--resolution auto`: the size of the input that meets the budget with the least loss.

1. Every smaller size that the network can take, and that costs no less than the budget but for the first, is looked at with its
   weights as they are. That is a few forward passes.
2. The budget's passes run once at the source's size. Their own curve (modelled error against cost) says what they would lose for
   less: so each size has an expected loss, that of its pixels and that of the rest of the budget.
3. The passes run at the sizes that expect least, at most `TRIALS`, and at the first that meets the budget with its weights as
   they are. Losses are compared on calibration samples that these runs did not see, paired by sample. What is not better by a
   standard error is a tie: keeping the size wins it, then weights as they are, to which no pass was fitted.

What wins is compiled afterwards with all samples, as if it had been named.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import onnx_ir as ir

from edgec.compiler.pipeline.run import Step
from edgec.compiler.pipeline.workspace import Workspace
from edgec.compiler.plan.plan import Plan
from edgec.compiler.search.candidates import Candidate, Refusal, candidates, expected_loss
from edgec.compiler.search.trials import Trials, float_passes
from edgec.graph.data import Dataset
from edgec.graph.resolution.axes import SizeError
from edgec.graph.resolution.resize import size_of
from edgec.passes.base import LatencyModel, Pass
from edgec.passes.budget import Budget, budgets_in, parse_budget
from edgec.passes.options import AUTO, KEEP
from edgec.passes.pricing import milliseconds, network_price, source_price
from edgec.passes.resize_input import ResizeInput, shown

Size = tuple[int, int]
TRIALS = 2
"""Sizes, besides the source's own, at which the budget's passes run."""
NO_SAVING = ("size", "params")


@dataclass(frozen=True)
class Point:
    """One size, as `runtime.report.schema.SizePoint` has it; losses are means over the samples."""

    size: Size
    share: float
    alone: float | None = None
    expected: float | None = None
    loss: float | None = None
    error: float | None = None
    why: str = ""


@dataclass(frozen=True)
class Compared:
    """What was compared, and what was chosen."""

    chosen: Size
    measure: str = ""
    points: tuple[Point, ...] = ()


def choose_size(plan: Plan, prices: LatencyModel | None, space: Workspace) -> tuple[Plan, Compared | None]:
    """The plan at the size that meets its budget with the least loss; as it is where its recipe does not ask for that."""
    if plan.recipe.resolution != AUTO:
        return plan, None
    budget = _budget(plan.passes)
    if budget is None:
        return plan.at_size(KEEP, "resolution: no pass has a budget, so the input keeps its size"), None
    if budget.unit in NO_SAVING:
        what = f"resolution: another size saves nothing of {budget.text}, so none was tried"
        return plan.at_size(KEEP, what), None
    data = plan.fitting_data()
    if data is None or len(data) < 2:
        return plan.at_size(
            KEEP, "resolution: there are no samples to compare sizes on, so the input keeps its size"
        ), None
    try:
        search = _Search.of(plan, budget, prices, data, space)
        compared = search.run()
    except SizeError as error:
        return plan.at_size(KEEP, f"resolution: the input keeps its size: {error}"), None
    source = size_of(plan.model)
    if compared.chosen == source:
        return plan.at_size(KEEP, _said(compared, source)), compared
    return plan.at_size(shown(compared.chosen), _said(compared, source)), compared


def _budget(passes: Sequence[Pass]) -> Budget | None:
    for one in passes:
        for unit, text in budgets_in(one).items():
            if text:
                return parse_budget(f"{unit}={text}")
    return None


def _said(compared: Compared, source: Size) -> str:
    tried = [f"{shown(one.size)} px {one.loss:.3f}" for one in compared.points if one.loss is not None]
    what = "kept" if compared.chosen == source else f"{shown(source)} → {shown(compared.chosen)} px"
    if not tried:
        return f"resolution: {what}: no smaller size was worth a trial"
    return f"resolution: {what}: {', '.join(tried)} ({compared.measure})"


@dataclass
class _Search:
    """One search."""

    plan: Plan
    budget: Budget
    prices: LatencyModel | None
    trials: Trials[Size]
    points: dict[Size, Point] = field(default_factory=dict)
    untouched: Size | None = None
    """The size that meets the budget without any pass."""

    @staticmethod
    def of(
        plan: Plan, budget: Budget, prices: LatencyModel | None, data: Dataset, space: Workspace
    ) -> _Search:
        return _Search(plan, budget, prices, Trials.of(plan, prices, data, space))

    def run(self) -> Compared:
        """Raises SizeError where no other size is possible."""
        source = size_of(self.plan.model)
        whole, limit = self._cost(self.plan.model), self._limit()
        found, refusals = candidates(self.plan.model, self._cost, limit)
        self.trials.reference = self.trials.reference.over([one.size for one in found])
        self._note(refusals, whole)
        for one in found:
            self.points[one.size] = Point(one.size, one.cost / whole, self._alone(one))
            self.untouched = one.size if one.cost <= limit else None
        self.points[source] = Point(source, 1.0, 0.0)
        if found and limit < whole:
            curve, keep = self._try(source)
            base = self._source_cost() / whole
            curve = [(share * base, error) for share, error in curve]
            for one in found:
                rest = expected_loss(curve, limit / whole, limit / one.cost, keep)
                point = self.points[one.size]
                self.points[one.size] = replace(point, expected=max(point.alone or 0.0, 0.0) + rest)
            for size in self._worth_trying(found, keep):
                least = min(map(self.trials.mean, self.trials.losses))
                if size == self.untouched or (self.points[size].expected or 0.0) < least:
                    self._try(size)
        chosen = self._best(source)
        ordered = sorted(self.points.values(), key=lambda one: -one.size[0] * one.size[1])
        return Compared(chosen, self.trials.reference.measure, tuple(ordered))

    def _worth_trying(self, found: Sequence[Candidate], keep: float) -> list[Size]:
        """Those that expect less than keeping the size loses: the best few, and the untouched one, which costs no passes."""
        hopeful = [self.points[one.size] for one in found]
        ranked = sorted(hopeful, key=lambda one: one.expected or 0.0)
        better = [one.size for one in ranked if (one.expected or 0.0) < keep]
        return [*better[:TRIALS], *(one for one in better[TRIALS:] if one == self.untouched)]

    def _best(self, source: Size) -> Size:
        """The least loss; another size than the source's must be clearly better, and any than the untouched one."""
        tried = tuple(self.trials.losses)
        if source not in tried:
            return source
        for size in tried:
            self.points[size] = replace(self.points[size], error=self.trials.error(size, source))
        return self.trials.simplest(source, self.untouched, tried)

    def _alone(self, one: Candidate) -> float:
        return float(self.trials.reference.losses(one.model).mean())

    def _try(self, size: Size) -> tuple[list[tuple[float, float]], float]:
        """Run the passes in front of the number formats at ``size``: their curve, and the loss."""
        passes = list(float_passes(self.plan))
        if size != size_of(self.plan.model):
            passes.insert(0, ResizeInput(size=shown(size)))
        self.trials.space.settings.progress.say(f"resolution: trying {shown(size)} px")
        steps = self.trials.run(size, passes, {"name": "resolution", "size": list(size)})
        loss = self.trials.mean(size)
        self.points[size] = replace(self.points[size], loss=loss)
        return _curve(steps), loss

    def _note(self, refusals: Sequence[Refusal], whole: float) -> None:
        for one in refusals:
            area = one.size[0] * one.size[1] / np.prod(size_of(self.plan.model))
            self.points[one.size] = Point(one.size, float(area), why=one.why)

    def _cost(self, model: ir.Model) -> float:
        latency = self.budget.unit == "latency"
        return network_price(milliseconds(self.plan.target, self.prices) if latency else None)(model)

    def _source_cost(self) -> float:
        return source_price(self.budget, self.prices, self.plan.model, self._cost)

    def _limit(self) -> float:
        return self.budget.limit(self._source_cost())


def _curve(steps: Sequence[Step]) -> list[tuple[float, float]]:
    """(cost as a share of the source's, modelled error) of the first pass that searched."""
    return next(([(c, e) for c, e in one.data["tradeoff"]] for one in steps if "tradeoff" in one.data), [])
