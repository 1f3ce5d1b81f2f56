"""`edgec compile`, from a recipe to a run folder: read, plan, price, run, emit, evaluate, measure, report.

Each step is a function from frozen facts to frozen facts, in a room of its own.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from edgec.compiler.assemble import RunFacts, report
from edgec.compiler.check.check import checked
from edgec.compiler.emit.artifacts import emit_all
from edgec.compiler.evaluate.evaluate import evaluate, evaluate_source
from edgec.compiler.face.metric import Metric
from edgec.compiler.latency.timings import measure
from edgec.compiler.pipeline.steps import run_passes
from edgec.compiler.pipeline.workspace import Settings, workspace
from edgec.compiler.plan.plan import make_plan
from edgec.compiler.read.recipe import Recipe
from edgec.compiler.read.source import read
from edgec.compiler.search.price import price

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
        source = read(brought, settings.loading)
        plan = make_plan(source, settings.loading)
        for line in plan.remarks:
            settings.progress.say(line)
        doubts = evaluate_source(plan, metric)
        space.begin()
        priced = price(plan, space)
        plan = priced.plan
        steps = run_passes(plan, priced.prices, space)
        emission = emit_all(plan, steps, space.folder)
        evaluation = evaluate(plan, emission, metric, settings.progress)
        timings = measure(plan, emission, space)
        findings = checked(emission, plan.target)
        facts = RunFacts(
            plan, steps, emission, evaluation, timings, doubts, priced.compared, priced.forms, findings
        )
        return report(facts, space, start)
