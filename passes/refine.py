"""`refine`: learn what the closed form lost, from the teacher, on all unlabelled samples.

Label-free distillation (Hinton et al., arXiv 1503.02531): the student sees views of the samples (turned, shifted, brighter,
mixed; mirrored where the data say so) and moves by gradients towards what the teacher says to the same views: classes by the
divergence of their probabilities, everything else by squares, part by part, and the last maps of its blocks by squares too.
Adam, with a rate that is a share of each weight's own size, along a cosine. Every weight may move; no structure changes.

It is judged on samples that it did not learn from, in views that no network was trained on, at the temperature that suits each
network best (`learned.judge`): the best state of the run is kept only where it is nearer to the teacher beyond doubt, and
taken back else. With ``above`` it runs only where enough was lost.

``time`` bounds the work: the number of steps is decided once, from how long the first ones take, and reported; ``steps`` names
it, and then the same seed gives the same network on the same kind of machine, whatever the number of threads. A run that
was cut off goes on with --resume to the same end.

A program before and after::

    y = Conv(a, w, b)   ->   y = Conv(a, w', b')   # of all layers, moved together
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import onnx_ir as ir

from edgec.graph.data import require
from edgec.graph.errors import PassError, UsageError
from edgec.graph.values import COUNT, COUNT_OR_NONE, TIME, Range, seconds, share
from edgec.passes.base import (
    NUMBER_FORMATS,
    Choice,
    Context,
    Need,
    Note,
    Pass,
    PassResult,
    Switch,
    option,
)
from edgec.passes.options import HELD_OUT
from edgec.passes.quantize.quantiser import refuse_quantised
from edgec.passes.refit.layer_fits import channels_last, split, wants_flips

if TYPE_CHECKING:
    from edgec.passes.learned.judge import Score
    from edgec.passes.learned.training import Learned, Training

EQUAL = 1e-6
"""A loss of no more is that of the same network: sums of float32 round by as much."""
LEAST_SAMPLES = 16
"""Fewer cannot be parted into those that teach and those that judge."""


def _time(text: str) -> str:
    """``5m``, as it is kept. Raises NotAdmitted."""
    seconds(text, TIME)
    return text.strip()


def _part(text: str) -> str:
    """``5%``, as it is kept. Raises NotAdmitted."""
    share(text)
    return text.strip()


@dataclass(frozen=True)
class Refine(Pass):
    """Distil the compressed network from the teacher, without labels."""

    name: ClassVar[str] = "refine"
    summary: ClassVar[str] = "learn what compression lost from the teacher, on unlabelled data (needs torch)"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.DATA, Need.TORCH})
    never_after: ClassVar[frozenset[str]] = NUMBER_FORMATS

    time: str = option("5m", "how long it may take (90s, 5m, 1h); steps= goes before it", reads=_time)
    steps: int = option(0, "steps of the optimiser (0: as many as fit into the time)", COUNT_OR_NONE)
    above: str = option("0%", "run only where more of the answers than this changed", reads=_part)
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
    arithmetic: Literal["auto", "fp32", "bf16"] = option("auto", "bf16: faster where the processor has it")
    device: Literal["auto", "cpu", "cuda"] = option("auto", "auto: a GPU where torch sees one")

    def check(self) -> None:
        if not self.held_out:
            raise UsageError("refine: held-out=0 leaves nothing to judge by")

    def requires(self, model: ir.Model) -> None:
        """Raise PassError for a quantised model (weights are learned in float), UsageError without torch, UnsupportedError for an
        op that torch does not compute here."""
        from edgec.passes.learned.extra import require_torch

        refuse_quantised(model, self.name)
        require_torch(self.name)
        from edgec.passes.learned.executor import GraphModule

        GraphModule(model)

    def run(self, model: ir.Model, context: Context) -> PassResult:
        """Raises UnsupportedError, with the node's name, for an op that the executor has not; DataError without data."""
        from edgec.passes.learned.executor import write_back
        from edgec.passes.learned.training import described, one_thread

        with one_thread():
            training = self._training(model, context)
            start = training.judge.score(training.network)
            lost, above = lost_share(start), share(self.above)
            if start.loss <= EQUAL or (above and lost <= above):
                words = (
                    "nothing to learn"
                    if start.loss <= EQUAL
                    else f"{lost:.1%} of the answers changed, no more than {self.above}"
                )
                return PassResult(model, False, (Note(f"{words}: left as it is"),), data={"lost": lost})
            learned = training.run(start, context.checkpoint, context.progress)
            verdict = learned.best.against(learned.start)
            told = f"{described(learned.start)} -> {described(learned.best)}, on {training.judge.count} held-out samples"
            figures = self._figures(learned, training) | {"choice": asdict(Choice.of("refine", verdict))}
            if not verdict.kept:
                note = Note(f"it did not come nearer to the teacher ({told}){verdict.doubt}", "reverted")
                return PassResult(model, False, (note,), data=figures)
            training.student.load_state_dict(dict(learned.state))
            write_back(training.student, model)
        how = f"{learned.steps} steps (steps={learned.steps} gives the same again), the state after {learned.at}"
        return PassResult(model, True, (Note(told), Note(how)), data=figures)

    def _training(self, model: ir.Model, context: Context) -> Training:
        import torch

        from edgec.passes.learned.executor import GraphModule
        from edgec.passes.learned.goals import goals_of
        from edgec.passes.learned.hardware import device_of, gains_by_bf16, placed, tensors
        from edgec.passes.learned.judge import Judge
        from edgec.passes.learned.training import Settings, Training
        from edgec.passes.learned.views import Kinds, Views

        data = require(context.data, self.name)
        if len(data) < LEAST_SAMPLES:
            why = f"{len(data)} samples; some must judge what the others teach"
            raise PassError(f"needs at least {LEAST_SAMPLES} samples", why=why)
        fit, held = split(data, self.held_out, context.seed)
        fit = fit.take(self.samples, context.seed) if self.samples else fit
        kinds = Kinds(
            wants_flips(self.hflip, model),
            wants_flips(self.augment, model),
            self.mixup,
            channels_last(model.graph),
        )
        device = device_of(self.device)
        student, teacher = (placed(GraphModule(one), device) for one in (model, context.teacher))
        goals = goals_of(model, context.teacher, context.task, maps=self.maps, weight=self.weight)
        views = Views(fit, self.batch, kinds, context.seed)
        judging = Views(held, min(self.batch, len(held)), kinds, context.seed)

        def taught(feeds: dict[str, Any]) -> dict[str, torch.Tensor]:
            with torch.no_grad():
                return teacher.samples(tensors(feeds, device), goals.values)

        goals = goals.scaled(goals.taught(taught(judging.read(range(min(self.batch, len(held)))))))
        judge = Judge(held, judging, taught, goals.outputs, context.seed)
        bf16 = self.arithmetic == "bf16" or (self.arithmetic == "auto" and gains_by_bf16(device))
        settings = Settings(
            self.steps, seconds(self.time, TIME), self.rate, self.views, context.threads, device, bf16
        )
        return Training(student, teacher, goals, views, judge, settings)

    def _figures(self, learned: Learned, training: Training) -> dict[str, Any]:
        def of(score: Score) -> dict[str, Any]:
            return {
                "loss": score.loss,
                "agreement": score.agrees if score.scales else None,
                "scales": score.scales,
            }

        return {
            "settled": {"steps": learned.steps},
            "steps": learned.steps,
            "state_after": learned.at,
            "samples": len(training.views.data),
            "judges": training.judge.count,
            "before": of(learned.start),
            "after": of(learned.best),
            "history": [list(one) for one in learned.history],
            "device": str(training.settings.device),
            "bf16": training.settings.bf16,
        }


def lost_share(score: Score) -> float:
    """How much of the teacher's answers changed: the share of classes, else the root of the relative squared error, at most 1."""
    if score.scales:
        return 1 - score.agrees
    return min(1.0, math.sqrt(float(score.losses.mean(1).max())))
