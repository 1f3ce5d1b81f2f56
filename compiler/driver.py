"""`edgec compile`, from a recipe to a run folder: read, plan, price, run, emit, check, evaluate, measure, report.

Each step is a function from frozen facts to frozen facts, in a room of its own.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from edgec.compiler.assemble import RunFacts, publish
from edgec.compiler.check.check import checked
from edgec.compiler.emit.artifacts import emit_all
from edgec.compiler.evaluate.evaluate import evaluate, judge_teacher
from edgec.compiler.evaluate.plausibility import doubts_of
from edgec.compiler.face.metric import Metric
from edgec.compiler.latency.prices import first_prices, settle
from edgec.compiler.latency.timings import time_run
from edgec.compiler.pipeline.steps import run_passes
from edgec.compiler.pipeline.workspace import Settings, workspace
from edgec.compiler.plan.plan import make_plan
from edgec.compiler.plan.recipe import Recipe
from edgec.compiler.search.portfolio import choose_form
from edgec.compiler.search.resolution import choose_size

if TYPE_CHECKING:
    from edgec.runtime.report.schema import Report


def compile_recipe(recipe: Recipe, settings: Settings, metric: Metric | None = None) -> Report:
    """Run ``recipe`` into ``settings.out``, judged by ``metric`` too: a function of the caller's, else the one that it names.

    Gates that fail are in the report; everything else raises EdgecError.
    """
    start = time.perf_counter()
    metric = Metric.named(recipe.metric) if metric is None else metric
    with workspace(settings) as space:
        brought = space.admit(recipe)
        plan = make_plan(brought.recipe, settings.loading, brought.pending)
        for line in plan.remarks:
            settings.progress.say(line)
        judge_teacher(plan, brought.targets, metric)
        doubts = doubts_of(plan)
        space.begin()
        priced = first_prices(plan, space)
        plan, compared = choose_size(plan, priced.prices, space)
        plan, forms = choose_form(plan, priced.prices, space)
        plan, prices = settle(plan, priced, space)
        steps = run_passes(plan, prices, space)
        emission = emit_all(plan, steps, space.folder)
        findings = checked(emission, plan.target)
        evaluation = evaluate(plan, emission, metric, settings.progress)
        timings = time_run(plan, emission, space)
        facts = RunFacts(plan, steps, emission, evaluation, timings, doubts, compared, forms, findings)
        return publish(facts, space, start)
