"""How near the network is to its source after each pass, measured: where along the pipeline the accuracy went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgec.compiler.evaluate.quality import judge
from edgec.compiler.pipeline.run import Step
from edgec.compiler.plan.plan import Plan
from edgec.passes.defaults import PRECISION_PASSES

SAMPLES = 64
"""Inputs that every intermediate network is judged on: it costs every run so many inferences for each pass."""


def quality_along(plan: Plan, steps: Sequence[Step]) -> Mapping[int, dict[str, Any]]:
    """Quality objects by number of the step, for those that changed the network; nothing where no data can judge.

    Half precision is left out: onnxruntime computes it in float32.
    """
    data = plan.judging_data()
    changed = {
        index: step.model
        for index, step in enumerate(steps)
        if step.modified and PRECISION_PASSES.get(step.one.name) != "fp16"
    }
    if data is None or not len(data) or data.is_random or not changed:
        return {}
    few = data.take(SAMPLES)
    models = {str(index): model for index, model in changed.items()}
    found = judge(plan.model, models, few, threads=plan.recipe.threads, task=plan.task)
    return {index: found[str(index)].figures() for index in changed}
