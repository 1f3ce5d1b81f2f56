"""Several ways to compress one network, each run on part of the samples and judged on the others."""

from __future__ import annotations

import time
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

import numpy as np

from edgec.compiler.pipeline.run import Step, run_pipeline
from edgec.compiler.pipeline.steps import context_of
from edgec.compiler.pipeline.workspace import Workspace
from edgec.compiler.plan.plan import Plan
from edgec.compiler.search.loss import Reference
from edgec.graph.data import Dataset
from edgec.passes.base import Context, LatencyModel, Pass
from edgec.passes.defaults import REFINE, in_float

Array = np.ndarray[Any, np.dtype[Any]]
Key = TypeVar("Key", bound=Hashable)
APART, MOST_APART = 0.4, 256
"""Share of the samples that judge, and so many at most."""
CLEARLY = 1.0
"""Standard errors, paired by sample, by which another way must lose less than the one that would be taken without a search."""


def float_passes(plan: Plan) -> tuple[Pass, ...]:
    """The plan's passes in front of the number formats, but for learning: it makes up for any form, and takes long."""
    return tuple(one for one in in_float(plan.passes) if one.name != REFINE)


@dataclass
class Trials(Generic[Key]):
    """What was tried so far; ``losses`` by way, (samples,) each."""

    context: Context
    reference: Reference
    space: Workspace
    losses: dict[Key, Array] = field(default_factory=dict)

    @staticmethod
    def of(plan: Plan, prices: LatencyModel | None, data: Dataset, space: Workspace) -> Trials[Key]:
        """Set samples of ``data`` apart to judge; passes see the others."""
        share = min(APART, MOST_APART / len(data))
        fit, select = data.split(share, plan.recipe.seed)
        context = replace(context_of(plan, prices, space), data=fit)
        return Trials(context, Reference.of(plan.model, plan.task, select, plan.recipe.threads), space)

    def run(self, key: Key, passes: Sequence[Pass], said: Mapping[str, Any]) -> tuple[Step, ...]:
        """Run ``passes`` on the source and judge what comes out; ``said`` goes into the run's log."""
        started = time.perf_counter()
        settings = self.space.settings
        steps = run_pipeline(
            passes, self.reference.source, self.context, cache=self.space.cache, resume=settings.resume
        )
        self.losses[key] = self.reference.losses(steps[-1].model)
        figures = {"loss": self.mean(key), "seconds": time.perf_counter() - started}
        self.space.folder.log({"time": time.time(), **said, **figures})
        return steps

    def mean(self, key: Key) -> float:
        """The loss of one way."""
        return float(self.losses[key].mean())

    def error(self, key: Key, usual: Key) -> float:
        """Standard error of the difference between two ways, paired by sample."""
        gain = self.losses[usual] - self.losses[key]
        return float(gain.std(ddof=1) / np.sqrt(len(gain))) if len(gain) > 1 else 0.0

    def best(self, usual: Key, among: Sequence[Key]) -> Key:
        """The least loss of ``among``; another way than ``usual`` must be clearly better than it."""
        best = usual
        for key in among:
            gain = self.mean(usual) - self.mean(key)
            if gain > CLEARLY * self.error(key, usual) and self.mean(key) < self.mean(best):
                best = key
        return best

    def simplest(self, usual: Key, untouched: Key | None, among: Sequence[Key]) -> Key:
        """`best`; but where it is not clearly better than ``untouched``, a way to which no pass was fitted, that one."""
        best = self.best(usual, among)
        if untouched is None or untouched not in among or self.best(usual, (untouched,)) == usual:
            return best
        return self.best(untouched, (best,))
