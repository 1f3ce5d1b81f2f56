"""The loop: batches of views, gradients of the student towards the teacher, Adam with a cosine schedule.

Same seed, same result, whatever the number of threads: a batch is cut in `SHARDS`, each computed by one thread for itself, and
their gradients are added in order. What a step does follows from its number, so a run that was killed goes on from its
checkpoint to the same end. Where a time is given, the number of steps is decided once, by timing the first ones, and kept.
"""

from __future__ import annotations

import io
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from edgec.graph.errors import PassError
from edgec.passes.base import Checkpoint, Progress
from edgec.passes.learned.executor import GraphModule
from edgec.passes.learned.goals import Goals, Values
from edgec.passes.learned.hardware import tensors
from edgec.passes.learned.judge import Judge, Score
from edgec.passes.learned.teacher import Teacher
from edgec.passes.learned.views import Feeds, Views
from edgec.passes.solvers.parallel import in_order

SHARDS = 4
"""Parts of a batch on a CPU."""
TIMED = 6
"""Steps that say how long one takes, behind one that warms up."""
LOOKS = 10
"""How often the judge is asked."""
WORSE = 1.5
"""Times the best loss from which steps are too long for the place: they go back there, and shorter ones on."""
SHORTER = 0.25
"""What is left of their length then."""
FAR = 3.0
"""Times the loss of the first step, on average over the last `RECENT` ones, behind which no judge has to be asked."""
RECENT = 4
WARM_UP = 0.05
"""Share of the steps in which the rate grows to its full size."""
CACHE = 600e6
"""Bytes of what the teacher said to views, which is kept where more steps than views are made."""
SAVED_EVERY = 20.0
"""Seconds between checkpoints."""
LEAST_RMS = 1e-3
"""Of a weight, for its rate."""


@dataclass(frozen=True)
class Settings:
    """``steps`` 0: as many as fit into ``seconds``. ``rate`` is relative to the root mean square of each weight."""

    steps: int
    seconds: float
    rate: float
    most_views: int
    threads: int
    device: torch.device
    bf16: bool
    label: str
    """Who learns, for the user."""


@dataclass(frozen=True)
class Learned:
    """The best state that the judge saw; ``start`` is the score before, ``best`` that of the state."""

    state: Mapping[str, Tensor]
    start: Score
    best: Score
    steps: int
    at: int
    """The step behind which the state was taken."""
    history: tuple[tuple[int, float, float], ...]
    """(step, loss, agreement) of every look."""


@dataclass
class _State:
    """Where the loop is; all of it goes into a checkpoint."""

    step: int = 0
    steps: int = 0
    best: dict[str, Tensor] = field(default_factory=dict)
    at: int = 0
    share: float = 1.0
    """Of the rate that was asked for."""
    first: float = 0.0
    """The loss of the first step, before anything moved."""
    recent: list[float] = field(default_factory=list)
    """Losses of the last steps from the best state on."""
    history: list[tuple[int, float, float]] = field(default_factory=list)


class Training:
    """``student`` learns from ``teacher`` to reach ``goals`` on ``views``."""

    def __init__(
        self,
        student: GraphModule,
        teacher: Teacher,
        goals: Goals,
        views: Views,
        judge: Judge,
        settings: Settings,
        sizes: Mapping[str, float] | None = None,
    ) -> None:
        """``sizes``: of parameters by name, of what their steps are a share; their root mean square where none is given."""
        self.sizes = dict(sizes or {})
        self.student, self.teacher, self.goals = student, teacher, goals
        self.views, self.judge, self.settings = views, judge, settings
        self.weights = [one for one in student.parameters() if one.requires_grad]
        groups = [
            {"params": [one], "scale": self.sizes.get(name) or self._scale(one)}
            for name, one in student.named_parameters()
            if one.requires_grad
        ]
        self.adam = torch.optim.Adam(groups, lr=settings.rate)
        self.shards = 1 if settings.device.type == "cuda" else min(SHARDS, views.size)
        self.state = _State(steps=settings.steps)
        self._said: dict[int, list[list[Tensor]]] = {}
        self._room = CACHE

    def _scale(self, weight: torch.nn.Parameter) -> float:
        """What a weight's rate is relative to."""
        return max(float(weight.detach().square().mean().sqrt()), LEAST_RMS)

    def run(self, start: Score, checkpoint: Checkpoint | None, progress: Progress) -> Learned:
        """Learn to the end, or from the checkpoint on; ``start`` is the student's score.

        Raises PassError where the loss is no number any more.
        """
        self.best = start
        if self._resume(checkpoint):
            self.best = self._score_of(self.state.best)
        else:
            self.state.best = self._copied()
            self.state.steps = self.state.steps or self._steps_in(self.settings.seconds, progress)
            self._save(checkpoint)
        state, saved = self.state, time.perf_counter()
        gone_on = f", {state.step} of them done before" if state.step else ""
        label = self.settings.label
        progress.say(f"{label}: {state.steps} steps{gone_on}")
        with progress.counting(label, state.steps) as count:
            count(state.step, state.steps)
            while state.step < state.steps:
                loss = self._step(state.step)
                state.step += 1
                if self._thrown_far(loss):
                    progress.say(
                        f"{label}: step {state.step}: {loss / state.first:.0f} times the loss before; {self._go_back()}"
                    )
                if state.step % max(1, state.steps // LOOKS) == 0 or state.step == state.steps:
                    progress.say(f"{label}: step {state.step}: {self._look(start)}")
                count(state.step, state.steps)
                if time.perf_counter() - saved > SAVED_EVERY:
                    self._save(checkpoint)
                    saved = time.perf_counter()
        return Learned(state.best, start, self.best, state.steps, state.at, tuple(state.history))

    def score(self, module: GraphModule) -> Score:
        """Of any network with the student's outputs."""
        wanted = [goal.value for goal in self.goals.outputs]
        return self.judge.score(lambda feeds: self._run(module, feeds, wanted))

    def of(self, student: GraphModule) -> Training:
        """The same loop for another student."""
        return Training(student, self.teacher, self.goals, self.views, self.judge, self.settings, self.sizes)

    def _look(self, start: Score) -> str:
        """Ask the judge, and keep what it likes best; what is to be told.

        A network that is near its teacher is thrown far from it by steps that bring another one nearer, and may not be back
        before the end. So where the loss grew beyond `WORSE`, it goes on from the best state, by shorter steps.
        """
        score = self._judged()
        told = f"{described(score)} (before: {described(start)})"
        if score.loss < self.best.loss:
            self._take(score)
        elif score.loss > WORSE * self.best.loss and self.state.step < self.state.steps:
            told += f"; {self._go_back()}"
        return told

    def _go_back(self) -> str:
        """To the best state, and on by shorter steps; what is to be told."""
        self.student.load_state_dict(self.state.best)
        self.adam.state.clear()
        self.state.share *= SHORTER
        self.state.recent.clear()
        return f"back to step {self.state.at}, rate {self.settings.rate * self.state.share:.2g}"

    def _thrown_far(self, loss: float) -> bool:
        """Whether the last steps led so far away that most of those up to the next look would be lost on the way.

        Near its teacher a network's loss is that of a few samples: one batch may have three times another's. So what looks like
        it is compared with the best state on the same views.
        """
        state = self.state
        state.first = state.first or loss
        state.recent = [*state.recent, loss][-RECENT:]
        if len(state.recent) < RECENT or sum(state.recent) <= FAR * RECENT * state.first:
            return False
        before = self._best_on(self._batch_of(state.step - 1))
        state.first = max(state.first, before)
        return loss > FAR * before

    def _best_on(self, number: int) -> float:
        """The loss of the best state on a batch."""
        now = self._copied()
        self.student.load_state_dict(self.state.best)
        with torch.no_grad():
            parts = _cut(self.views.batch(number), self.shards)
            found = [self._loss(part, self._taught(part)) for part in parts]
        self.student.load_state_dict(now)
        return float(sum(found))

    def _judged(self) -> Score:
        score, state = self.judge.score(self.network), self.state
        state.history.append((state.step, score.loss, score.agrees))
        return score

    def _take(self, score: Score) -> None:
        """The student as it is now is the best so far."""
        self.best, self.state.at, self.state.best = score, self.state.step, self._copied()

    def _copied(self) -> dict[str, Tensor]:
        return {name: tensor.detach().clone() for name, tensor in self.student.state_dict().items()}

    def network(self, feeds: Feeds) -> Values:
        """The student as it is now."""
        return self._run(self.student, feeds, [goal.value for goal in self.goals.outputs])

    def _run(self, module: GraphModule, feeds: Feeds, wanted: Sequence[str]) -> Values:
        """In float32 whatever the steps take: it is what users run, and rounding to eight bits would be seen as a loss."""
        with torch.no_grad():
            return module.samples(tensors(feeds, self.settings.device), list(dict.fromkeys(wanted)))

    def _arithmetic(self) -> torch.autocast:
        kind = self.settings.device.type
        return torch.autocast(kind, dtype=torch.bfloat16, enabled=self.settings.bf16)

    def _step(self, step: int) -> float:
        """One step; the loss before it."""
        number = self._batch_of(step)
        feeds = self.views.batch(number)
        kept = self._said.get(number)
        parts = _cut(feeds, self.shards)

        def gradients(index: int) -> tuple[Tensor, list[Tensor | None], list[Tensor]]:
            taught = kept[index] if kept is not None else self._taught(parts[index])
            loss = self._loss(parts[index], taught)
            return loss.detach(), list(torch.autograd.grad(loss, self.weights, allow_unused=True)), taught

        found = list(in_order(gradients, range(len(parts)), self.settings.threads))
        if not all(bool(torch.isfinite(loss)) for loss, _, _ in found):
            hint = f"Lower rate=, or leave {self.settings.label} out."
            raise PassError("the loss is no number any more", why=f"at step {step + 1}", hint=hint)
        for weight, *grads in zip(self.weights, *(one[1] for one in found), strict=True):
            known = [grad for grad in grads if grad is not None]
            weight.grad = sum(known[1:], known[0]) if known else None
        if kept is None:
            self._keep(number, [taught for _, _, taught in found])
        rate = self.settings.rate * self.state.share * schedule(step, self.state.steps)
        for group in self.adam.param_groups:
            group["lr"] = rate * group["scale"]
        self.adam.step()
        return float(sum(loss for loss, _, _ in found))

    def _loss(self, feeds: Feeds, taught: Sequence[Tensor]) -> Tensor:
        """Of some samples, as a share of a batch's mean."""
        with self._arithmetic():
            said = self.student.samples(tensors(feeds, self.settings.device), self.goals.values)
        return self.goals.loss(said, [his.to(self.settings.device) for his in taught]) / self.views.size

    def _taught(self, feeds: Feeds) -> list[Tensor]:
        values = self.teacher.samples(feeds, self.goals.values)
        return [his.half() if his.numel() > 1 << 14 else his for his in self.goals.taught(values)]

    def _keep(self, number: int, taught: list[list[Tensor]]) -> None:
        """The teacher's answers, where there is room and the batch will come again."""
        size = sum(one.numel() * one.element_size() for part in taught for one in part)
        if size <= self._room and self.state.steps > self._distinct:
            self._said[number], self._room = taught, self._room - size

    @property
    def _distinct(self) -> int:
        """Batches that differ."""
        return max(self.settings.most_views // self.views.size, 1)

    def _batch_of(self, step: int) -> int:
        """All batches once; then the same ones in another order."""
        turn, place = divmod(step, self._distinct)
        if not turn:
            return place
        generator = torch.Generator().manual_seed(self.views.seed + turn)
        return int(torch.randperm(self._distinct, generator=generator)[place])

    def _steps_in(self, seconds: float, progress: Progress) -> int:
        """How many steps fit, by timing some, `LOOKS` at least; the student is then as it was."""
        before = self._copied()
        began = time.perf_counter()
        self.judge.score(self.network)
        looks = (LOOKS + 1) * (time.perf_counter() - began)
        self.state.steps = 1 << 30  # full rate: what is learned here is thrown away
        self._step(0)
        began = time.perf_counter()
        for number in range(1, 1 + TIMED):
            self._step(number)
        each = (time.perf_counter() - began) / TIMED
        self.student.load_state_dict(before)
        self.adam.state.clear()
        fitting = int((seconds - looks) / each)
        if fitting < LOOKS:
            needed = looks + LOOKS * each
            progress.say(
                f"{self.settings.label}: {seconds:g} s is too short for {LOOKS} steps, about {needed:.0f} s"
            )
        return max(LOOKS, fitting)

    def _score_of(self, state: Mapping[str, Tensor]) -> Score:
        now = self._copied()
        self.student.load_state_dict(state)
        score = self.judge.score(self.network)
        self.student.load_state_dict(now)
        return score

    def _save(self, checkpoint: Checkpoint | None) -> None:
        if checkpoint is None:
            return
        stream = io.BytesIO()
        student, adam = self.student.state_dict(), self.adam.state_dict()
        torch.save({"state": vars(self.state), "student": student, "adam": adam}, stream)
        checkpoint.write(stream.getvalue())

    def _resume(self, checkpoint: Checkpoint | None) -> bool:
        found = None if checkpoint is None else checkpoint.read()
        if found is None:
            return False
        held: dict[str, Any] = torch.load(
            io.BytesIO(found), weights_only=True, map_location=self.settings.device
        )
        self.student.load_state_dict(held["student"])
        self.adam.load_state_dict(held["adam"])
        vars(self.state).update(held["state"])
        return True


def schedule(step: int, steps: int) -> float:
    """Share of the full rate: up in a straight line, down along a cosine."""
    warm = max(1, round(WARM_UP * steps))
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


def described(score: Score) -> str:
    """A score for a person."""
    agrees = f", agrees {score.agrees:.1%}" if score.scales else ""
    return f"loss {score.loss:.4f}{agrees}"


@contextmanager
def one_thread() -> Iterator[None]:
    """torch itself computes on one thread, and as it was afterwards: work is shared out here, in parts that do not depend on
    how many there are."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _cut(feeds: Feeds, parts: int) -> list[Feeds]:
    count = len(next(iter(feeds.values())))
    ends = [round(count * place / parts) for place in range(parts + 1)]
    return [{name: array[a:b] for name, array in feeds.items()} for a, b in pairwise(ends)]
