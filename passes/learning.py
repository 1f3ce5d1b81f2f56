"""What passes that learn from the source share: their options, their data, and what they report.

The work itself is in `passes.learned`, which needs torch; this page does not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import onnx_ir as ir

from edgec.graph.data import Dataset, require
from edgec.graph.errors import PassError, UsageError
from edgec.graph.values import COUNT, COUNT_OR_NONE, TIME, Range, seconds, share
from edgec.passes.base import Choice, Context, Need, Note, Pass, PassResult, Switch, option
from edgec.passes.options import HELD_OUT
from edgec.passes.refit.batches import channels_last, split, wants_flips
from edgec.passes.solvers.guard import Verdict

if TYPE_CHECKING:
    import torch

    from edgec.passes.learned.executor import GraphModule
    from edgec.passes.learned.goals import Goals, Values
    from edgec.passes.learned.judge import Score
    from edgec.passes.learned.teacher import Teacher
    from edgec.passes.learned.training import Learned, Training
    from edgec.passes.learned.views import Feeds

EQUAL = 1e-6
"""A loss of no more is that of the same network: sums of float32 round by as much."""
LEAST_SAMPLES = 16
"""Fewer cannot be parted into those that teach and those that judge."""


def duration(text: str) -> str:
    """``5m``, as it is kept. Raises NotAdmitted."""
    seconds(text, TIME)
    return text.strip()


def part(text: str) -> str:
    """``5%``, as it is kept. Raises NotAdmitted."""
    share(text)
    return text.strip()


ABOVE = "run only where more of the answers than this changed"


@dataclass(frozen=True)
class Learning(Pass):
    """A pass that moves weights by gradients towards what the source says."""

    needs: ClassVar[frozenset[Need]] = frozenset({Need.DATA, Need.TORCH})

    time: str = option("5m", "how long it may take (90s, 5m, 1h); steps= goes before it", reads=duration)
    steps: int = option(0, "steps of the optimiser (0: as many as fit into the time)", COUNT_OR_NONE)
    samples: int = option(0, "samples to learn from (0: all)", COUNT_OR_NONE)
    batch: int = option(64, "samples of a step", COUNT)
    rate: float = option(
        0.006, "largest step of a weight, as a share of its root mean square", Range(0, 1, above=True)
    )
    maps: int = option(
        1, "how many maps at the ends of blocks are matched too, from the last one back", Range(0, 64)
    )
    weight: float = option(1.0, "what those maps count beside the outputs", Range(0, 1e6))
    views: int = option(50_000, "views that the teacher looks at; more steps use them again", COUNT)
    hflip: Switch = option("auto", "mirror the pictures too")
    augment: Switch = option(
        "auto", "turn, shift, scale and light the pictures; auto: where they have three channels"
    )
    mixup: bool = option(True, "mix half of the samples with another one")
    held_out: float = option(0.1, "share of the samples that only judge", HELD_OUT)
    arithmetic: Literal["fp32", "bf16"] = option("fp32", "of the steps; what judges them is fp32 always")
    device: Literal["auto", "cpu", "cuda"] = option("auto", "auto: a GPU where torch sees one")

    def check(self) -> None:
        if not self.held_out:
            raise UsageError(f"{self.name}: held-out=0 leaves nothing to judge by")

    def parted(self, context: Context) -> tuple[Dataset, Dataset]:
        """Samples to learn from, and samples that judge. Raises PassError for too few, DataError without data."""
        data = require(context.data, self.name)
        if len(data) < LEAST_SAMPLES:
            why = f"{len(data)} samples; some must judge what the others teach"
            raise PassError(f"needs at least {LEAST_SAMPLES} samples", why=why)
        fit, held = split(data, self.held_out, context.seed)
        return fit.take(self.samples, context.seed) if self.samples else fit, held

    def on_device(self) -> torch.device:
        """Where it computes. Raises UsageError for one that is named and is not there."""
        from edgec.passes.learned.hardware import device_of

        return device_of(self.device, self.name)

    def training(
        self,
        context: Context,
        student: GraphModule,
        teacher: Teacher,
        goals: Goals,
        model: ir.Model,
        sizes: Mapping[str, float] | None = None,
    ) -> Training:
        """The loop in which ``student``, of the graph ``model``, learns from ``teacher``; both lie on the device. ``sizes`` as
        for `Training`."""
        from edgec.passes.learned.judge import Judge
        from edgec.passes.learned.training import Settings, Training
        from edgec.passes.learned.views import Kinds, Views

        fit, held = self.parted(context)
        kinds = Kinds(
            wants_flips(self.hflip, model),
            wants_flips(self.augment, model),
            self.mixup,
            channels_last(model.graph),
        )
        device = self.on_device()
        views = Views(fit, self.batch, kinds, context.seed)
        judging = Views(held, min(self.batch, len(held)), kinds, context.seed)

        def taught(feeds: Feeds) -> Values:
            return teacher.samples(feeds, goals.values)

        goals = goals.scaled(goals.taught(taught(judging.read(range(min(self.batch, len(held)))))))
        judge = Judge(held, judging, taught, goals.outputs, context.seed)
        settings = Settings(
            self.steps,
            seconds(self.time, TIME),
            self.rate,
            self.views,
            context.threads,
            device,
            self.arithmetic == "bf16",
            self.name,
        )
        return Training(student, teacher, goals, views, judge, settings, sizes)

    def figures(self, learned: Learned, training: Training, verdict: Verdict) -> dict[str, Any]:
        """What happened, for the report."""
        return {
            "settled": {"steps": learned.steps},
            "steps": learned.steps,
            "state_after": learned.at,
            "samples": len(training.views.data),
            "judges": training.judge.count,
            "before": score_figures(learned.start),
            "after": score_figures(learned.best),
            "history": [list(one) for one in learned.history],
            "device": str(training.settings.device),
            "bf16": training.settings.bf16,
            "choice": asdict(Choice.of(self.name, verdict)),
        }


def lost_share(score: Score) -> float:
    """How much of the teacher's answers changed: the share of classes, else the root of the relative squared error, at most 1."""
    if score.scales:
        return 1 - score.agrees
    return min(1.0, math.sqrt(float(np.max(score.losses.mean(1)))))


def nothing_to_learn(model: ir.Model, start: Score, above: str) -> PassResult | None:
    """What a pass says that leaves the network as it is, since no more than ``above`` was lost; None where it learns."""
    lost, limit = lost_share(start), share(above)
    if start.loss > EQUAL and not (limit and lost <= limit):
        return None
    words = (
        "nothing to learn"
        if start.loss <= EQUAL
        else f"{lost:.1%} of the answers changed, no more than {above}"
    )
    return PassResult(model, False, (Note(f"{words}: left as it is"),), data={"lost": lost})


def score_figures(score: Score) -> dict[str, Any]:
    """A score, for the report."""
    return {
        "loss": score.loss,
        "agreement": score.agrees if score.scales else None,
        "scales": score.scales,
    }


def how_often(learned: Learned) -> str:
    """How a run is repeated, for the user."""
    return f"{learned.steps} steps (steps={learned.steps} gives the same again), the state after {learned.at}"


def not_nearer(learned: Learned, told: str, doubt: str) -> str:
    """What is said where learning is taken back: after how many steps, so that one sees when the time was too short for it."""
    steps = f"{learned.steps} step{'' if learned.steps == 1 else 's'}"
    return f"{steps} brought it no nearer to the teacher ({told}){doubt}"
