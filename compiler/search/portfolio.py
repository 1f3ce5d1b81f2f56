"""`--portfolio`: several forms of the default compression under one budget, of which the one that loses least is kept.

Which form is best differs by network and depth of the cut, and what a form models of its own loss does not tell: errors of two
forms are modelled in different ways. So each is made, re-fitted as the run would re-fit it, and compared with the source on
calibration samples that it did not see, paired by sample.

==================================  =======================================================================================
channels and pieces                 `compress` as it is: pieces that pay in time, where the target's times are known
channels and pieces by cost alone   ``pays=cost``: pieces that cost less, also where they are not faster
channels alone                      ``pieces=none``
fewer blocks                        `remove-blocks` for a third of what is to be saved, in front of the best of these
in steps of 8, of 1                 the best so far with the other rounding than the target's: coarse steps keep layers whole
==================================  =======================================================================================

What wins is compiled afterwards with all samples, as if its passes had been named. Another form than the first must lose clearly
less, by one standard error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from edgec.compiler.pipeline.run import Step
from edgec.compiler.pipeline.workspace import Workspace
from edgec.compiler.plan.plan import Plan
from edgec.compiler.search.trials import Trials, float_passes
from edgec.graph.cost import cost
from edgec.graph.errors import PassError
from edgec.passes.base import LatencyModel, Pass
from edgec.passes.channel_pruning.costs import source_cost
from edgec.passes.compress import Compress
from edgec.passes.pipeline_string import print_pass
from edgec.passes.remove_blocks import RemoveBlocks

BLOCKS_FIRST = 1 / 3
"""Share of the saving that whole blocks are to make."""
COARSE = 8


@dataclass(frozen=True)
class Form:
    """A way to compress: what stands in the place of the plan's `compress`."""

    title: str
    passes: tuple[Pass, ...]


@dataclass(frozen=True)
class FormPoint:
    """What one came to, as `runtime.report.schema.FormPoint` has it."""

    title: str
    passes: str
    macs: int | None = None
    params: int | None = None
    latency_ms: float | None = None
    loss: float | None = None
    error: float | None = None
    met: bool = True
    why: str = ""


@dataclass(frozen=True)
class Portfolio:
    """What was compared, and what was chosen."""

    chosen: str
    measure: str
    points: tuple[FormPoint, ...]


def choose_form(plan: Plan, prices: LatencyModel | None, space: Workspace) -> tuple[Plan, Portfolio | None]:
    """The plan in the form that loses least; as it is where its recipe does not ask for that."""
    if not plan.recipe.portfolio:
        return plan, None
    usual = next(one for one in plan.passes if isinstance(one, Compress))  # the plan has made sure
    data = plan.fitting_data()
    if data is None or len(data) < 2:
        remark = "portfolio: nothing was compared: there are no samples to compare on"
        return plan.in_form(plan.passes, remark), None
    search = _Search(plan, usual, prices, Trials.of(plan, prices, data, space))
    return search.run()


@dataclass
class _Search:
    """Forms that were tried so far, by title; the first is the usual one."""

    plan: Plan
    usual: Compress
    prices: LatencyModel | None
    trials: Trials[str]
    forms: dict[str, Form] = field(default_factory=dict)
    points: dict[str, FormPoint] = field(default_factory=dict)

    def run(self) -> tuple[Plan, Portfolio]:
        """Raises what the usual form raises."""
        for form in self._ways():
            self._try(form)
        if self.unit in ("macs", "latency"):
            self._try(self._with_fewer_blocks(self.forms[self._least()]))
        self._try(self._rounded(self.forms[self._least()]))
        usual = next(iter(self.forms))
        for title in self.trials.losses:
            self.points[title] = replace(self.points[title], error=self.trials.error(title, usual))
        met = [title for title in self.trials.losses if self.points[title].met]
        among = met or [usual]
        chosen = self.trials.best(usual if usual in among else self._least(), among)
        found = Portfolio(chosen, self.trials.reference.measure, tuple(self.points.values()))
        taken = _put(self.plan.passes, self.usual, self.forms[chosen].passes)
        return self.plan.in_form(taken, _said(found)), found

    @property
    def unit(self) -> str:
        return self.usual.budget().unit

    def _ways(self) -> tuple[Form, ...]:
        found = [Form("channels and pieces", (self.usual,))]
        if self.prices is not None and self.unit != "latency":
            found.append(Form("channels and pieces by cost alone", (replace(self.usual, pays="cost"),)))
        return (*found, Form("channels alone", (replace(self.usual, pieces="none"),)))

    def _with_fewer_blocks(self, best: Form) -> Form:
        budget = self.usual.budget()
        source = source_cost(budget, self.trials.context)
        saved = 1 - min(1.0, budget.limit(source) / source)
        limit = f"{100 * (1 - BLOCKS_FIRST * saved):.2f}%"
        blocks = RemoveBlocks(macs=limit) if self.unit == "macs" else RemoveBlocks(latency=limit)
        return Form(f"fewer blocks, then {best.title}", (blocks, *best.passes))

    def _rounded(self, best: Form) -> Form:
        step = 1 if self.usual.step(self.trials.context) > 1 else COARSE
        passes = [replace(one, multiple=step) if isinstance(one, Compress) else one for one in best.passes]
        return Form(f"{best.title}, in steps of {step}", tuple(passes))

    def _least(self) -> str:
        """The least loss so far, of those that meet the budget where any does."""
        tried = self.trials.losses
        return min(
            (title for title in tried if self.points[title].met), key=self._loss, default=next(iter(tried))
        )

    def _loss(self, title: str) -> float:
        return self.trials.mean(title)

    def _try(self, form: Form) -> None:
        """Raises what the usual form raises; another one that cannot be made says why."""
        text = " ".join(map(print_pass, form.passes))
        self.forms[form.title] = form
        self.trials.space.settings.progress.say(f"portfolio: trying {form.title}")
        passes = _put(float_passes(self.plan), self.usual, form.passes)
        try:
            steps = self.trials.run(form.title, passes, {"name": "portfolio", "form": form.title})
        except PassError as error:
            if form.passes == (self.usual,):
                raise
            self.points[form.title] = FormPoint(form.title, text, met=False, why=str(error))
            return
        now = cost(steps[-1].model)
        time = None if self.prices is None else self.prices.table.model_ms(now)
        loss = self.trials.mean(form.title)
        self.points[form.title] = FormPoint(
            form.title, text, now.macs, now.params, time, loss, met=_met(steps)
        )


def _met(steps: Sequence[Step]) -> bool:
    """Whether the budget was met: the searching pass says so, and says nothing where there was nothing left to do."""
    return all(one.data["budget"]["met"] for one in steps if "budget" in one.data)


def _put(passes: Sequence[Pass], usual: Pass, instead: Sequence[Pass]) -> tuple[Pass, ...]:
    return tuple(new for one in passes for new in (instead if one is usual else (one,)))


def _said(found: Portfolio) -> str:
    tried = [f"{one.loss:.3g} {one.title}" for one in found.points if one.loss is not None]
    return f"portfolio: chose {found.chosen}; compared by {found.measure}: {'; '.join(tried)}"
