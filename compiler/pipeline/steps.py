"""Run the plan's passes in the workspace: all of them, or those that narrow to a latency."""

from __future__ import annotations

import time

import onnx_ir as ir

from edgec.compiler.pipeline.run import Step, run_pipeline
from edgec.compiler.pipeline.workspace import Workspace
from edgec.compiler.plan.plan import Plan
from edgec.compiler.tasks.detection import Detection
from edgec.compiler.tasks.segmentation import Segmentation
from edgec.passes.base import Context, LatencyModel
from edgec.passes.budget import has_latency


def run_passes(plan: Plan, prices: LatencyModel | None, space: Workspace) -> tuple[Step, ...]:
    """One step for each pass; each is logged, and kept for ``--resume``."""

    def after(step: Step) -> None:
        space.folder.log({"time": time.time(), "cached": step.cached, **step.figures()})
        if space.settings.after_pass is not None:
            space.settings.after_pass(step)

    # With a timing, this run itself left what `narrow` computed.
    resume = space.settings.resume or plan.recipe.timing is not None
    context = context_of(plan, prices, space)
    return run_pipeline(plan.passes, plan.model, context, cache=space.cache, resume=resume, after=after)


def narrow(plan: Plan, prices: LatencyModel, space: Workspace) -> ir.Model:
    """The float model after the last pass with a latency budget, by ``prices``."""
    last = max(index for index, one in enumerate(plan.passes) if has_latency(one))
    context = context_of(plan, prices, space)
    first = plan.passes[: last + 1]
    return run_pipeline(first, plan.model, context, cache=space.cache, resume=space.settings.resume)[-1].model


def context_of(plan: Plan, prices: LatencyModel | None, space: Workspace) -> Context:
    """What the plan's passes may look at."""
    return Context(
        teacher=plan.model,
        scratch=space.scratch,
        data=plan.fitting_data(),
        target=plan.target,
        seed=plan.recipe.seed,
        threads=plan.recipe.threads,
        progress=space.settings.progress,
        prices=prices,
        task="" if plan.task is None else plan.task.name,
        answers=plan.task if isinstance(plan.task, Detection | Segmentation) else None,
        networks=plan.networks,
    )
