"""`remove-blocks`: whole residual blocks go where the layers beside them can absorb the loss.

Few nodes cost more on small machines than their multiplications say, so a shallower network is often faster
than a narrower one of equal MACs (Wang and Wu, "Practical Network Acceleration with Tiny Sets", CVPR 2023,
arXiv 2202.07861: drop the blocks that recover best per latency saved). Where they train the rest on a few
images, here every candidate is recovered in closed form before it is judged:

1. take the block out of a copy; the convolution in front of it (or on its skip) is re-fitted by least squares,
   towards its old weight, to make what the block made, on calibration rows; it keeps the old weight where rows
   that the fit did not see say so;
2. run the copy on some images; its damage is the relative squared error at the network's outputs;
3. remove the block with the least damage added per cost saved (milliseconds where the target has estimates, else
   MACs), and go on. Damages mostly grow as blocks go, so a candidate is judged again only while its last score is
   among the best.

The error that is left spreads through all layers behind: let `recover-lsq` follow.

A program before and after::

    h = Conv(x, w)               ->   h = Conv(x, w')   # re-fitted to make y
    y = Relu(Add(h, Block(h)))        y = Relu(h)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from edgec.graph.compare import difference_of
from edgec.graph.cost import cost
from edgec.graph.data import Dataset, require
from edgec.graph.errors import PassError, UsageError
from edgec.graph.execute import Executor
from edgec.graph.values import COUNT, COUNT_OR_NONE, Range
from edgec.passes.base import NUMBER_FORMATS, Context, LayerReport, Need, Note, Pass, PassResult, option
from edgec.passes.blocks.absorbers import BATCH, Absorbers, Fit, apply
from edgec.passes.blocks.removal import Removable, survey
from edgec.passes.budget import Budget, budget_option, parse_budget
from edgec.passes.options import RIDGE
from edgec.passes.pricing import known_milliseconds, network_price, source_price
from edgec.passes.solvers.gram import Array

LOOK_AHEAD = 3
"""Candidates that are judged afresh in each step: those with the best last scores."""


@dataclass
class Candidate:
    """A block with its last judgement."""

    what: Removable
    fit: Fit | None = None
    damage: float = 0.0
    saved: float = 0.0
    step: int = -1

    def score(self, damage_now: float) -> float:
        """Damage added per cost saved; candidates never judged come first."""
        if self.step < 0:
            return -np.inf
        return (self.damage - damage_now) / self.saved if self.saved > 0 else np.inf


@dataclass(frozen=True)
class RemoveBlocks(Pass):
    """Remove residual blocks, the least missed first, and let their neighbours make up for them."""

    name: ClassVar[str] = "remove-blocks"
    summary: ClassVar[str] = (
        "remove residual blocks that their neighbours can absorb (PRACTISE, in closed form)"
    )
    needs: ClassVar[frozenset[Need]] = frozenset({Need.DATA})
    never_after: ClassVar[frozenset[str]] = NUMBER_FORMATS

    macs: str = budget_option("macs", "stop when these MACs are left (60% of the source, or 40M)")
    latency: str = budget_option(
        "latency", "stop at this estimated latency on the target (60% of the source, or 25ms)"
    )
    blocks: int = option(0, "stop after so many blocks (0: no limit)", COUNT_OR_NONE)
    max_damage: float = option(
        0.0, "stop before the relative squared output error exceeds this (0: no limit)", Range(0)
    )
    ridge: float = option(1e-3, "strength of the pull towards the old weight in the re-fit", RIDGE)
    samples: int = option(256, "images that the re-fits see (0: all)", COUNT_OR_NONE)
    judge: int = option(64, "images on which damage is measured", COUNT)

    def check(self) -> None:
        if not self.budgets and self.blocks <= 0 and self.max_damage <= 0:
            hint = "Give macs=60%, latency=25ms, blocks=3 or max-damage=0.05."
            raise UsageError("remove-blocks does not know when to stop", hint=hint)

    @property
    def budgets(self) -> tuple[Budget, ...]:
        """What was asked for, read. Raises UsageError."""
        asked = (("macs", self.macs), ("latency", self.latency))
        return tuple(parse_budget(f"{unit}={text}") for unit, text in asked if text)

    def run(self, model: ir.Model, context: Context) -> PassResult:
        """Raises PassError where no block can go, and DataError without data."""
        data = require(context.data, self.name)
        search = _Search(self, model, context, data)
        search.run()
        return search.result()


@dataclass
class _Search:
    """The greedy removal: a student that loses blocks, and candidates with their last judgements."""

    options: RemoveBlocks
    student: ir.Model
    context: Context
    data: Dataset
    notes: list[Note] = field(default_factory=list)
    layers: list[LayerReport] = field(default_factory=list)
    curve: list[dict[str, float | str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.reference = self.student.clone()
        table = known_milliseconds(self.context.target, self.context.prices)
        self.price = network_price(table)
        if self.options.latency and table is None:
            raise UsageError(
                "latency= needs a target with estimates", where=self.options.name, hint="Add --target."
            )
        self.judged = self.data.take(self.options.judge, self.context.seed)
        self.wanted = self._outputs(self.reference)
        self.start = cost(self.student).macs
        prices, source = self.context.prices, self.context.source
        self.limits = [
            (one, one.limit(source_price(one, prices, source, partial(self._amount, one))))
            for one in self.options.budgets
        ]
        self.damage = 0.0
        found, stuck = survey(self.student)
        if not found:
            raise PassError(
                "no block can go", where=self.options.name, why="the network has no residual block to remove"
            )
        self.first = len(found)
        self.absorbers = Absorbers(
            self.reference,
            found,
            self.data.take(self.options.samples or len(self.data), self.context.seed),
            seed=self.context.seed,
            threads=self.context.threads,
            ridge=self.options.ridge,
        )
        self.candidates = {one.block.output: Candidate(one) for one in found}
        self.names = {one.block.output: one.block.name for one in found}
        self.notes.extend(
            Note(f"{one.block.name} stays: {one.why}", node=one.block.nodes[-1]) for one in stuck
        )

    def run(self) -> None:
        most = self.options.blocks or self.first
        with self.context.progress.counting(self.options.name, most) as count:
            step = self._remove_one_by_one(lambda done: count(done, most))
        share = cost(self.student).macs / self.start
        self.notes.insert(
            0, Note(f"{step} of {self.first} removable blocks removed, {share:.1%} of the MACs left")
        )
        for budget, limit in self.limits:
            if (left := self._amount(budget, self.student)) > limit:
                self.notes.append(
                    Note(f"{budget.text} is out of reach: {left:.4g} are left", level="warning")
                )

    def _remove_one_by_one(self, count: Callable[[int], None]) -> int:
        """How many blocks went, which ``count`` is told meanwhile."""
        step = 0
        while self.candidates and not self._done(step):
            best = self._best(step)
            limit = self.options.max_damage
            if best is None or (limit and best.damage > limit):
                self.notes.append(Note(f"stopped after {step} blocks: the next would cost more than it may"))
                break
            self._remove(best)
            step += 1
            count(step)
        return step

    def result(self) -> PassResult:
        modified = bool(self.curve)
        return PassResult(
            self.student, modified, tuple(self.notes), tuple(self.layers), {"removed": self.curve}
        )

    def _done(self, step: int) -> bool:
        if self.options.blocks and step >= self.options.blocks:
            return True
        return bool(self.limits) and all(self._amount(b, self.student) <= limit for b, limit in self.limits)

    def _amount(self, budget: Budget, model: ir.Model) -> float:
        return self.price(model) if budget.unit == "latency" else float(cost(model).macs)

    def _best(self, step: int) -> Candidate | None:
        """The candidate with the best score, judged on the student as it is now."""
        while True:
            order = sorted(self.candidates.values(), key=lambda one: one.score(self.damage))
            head = [one for one in order if one.step < 0] or order[:LOOK_AHEAD]
            stale = [one for one in head if one.step != step]
            if not stale:
                return order[0] if order and order[0].saved > 0 else None
            self._judge(stale, step)

    def _judge(self, candidates: Sequence[Candidate], step: int) -> None:
        fits = self.absorbers.fit(self.student, [one.what for one in candidates])
        now = self.price(self.student)
        label, pairs = f"{self.options.name}: judging", zip(candidates, fits, strict=True)
        for one, fitted in self.context.progress.over(label, pairs, len(candidates)):
            trial = self.student.clone()
            apply(trial, one.what, fitted)
            one.fit, one.step = fitted, step
            one.saved = now - self.price(trial)
            one.damage = _relative_error(self.wanted, self._outputs(trial))

    def _remove(self, best: Candidate) -> None:
        if best.fit is None:
            return
        apply(self.student, best.what, best.fit)
        self.damage = best.damage
        self.layers.append(best.fit.report)
        self.curve.append(
            {
                "block": self.names.get(best.what.block.output, best.what.block.name),
                "output": best.what.block.output,
                "damage": best.damage,
                "saved": best.saved,
                "macs": float(cost(self.student).macs),
            }
        )
        judged = self.candidates
        self.candidates = {}
        for what in survey(self.student)[0]:
            if what.block.output not in self.names:
                continue  # freed by the removal of a neighbour: its rows were not kept
            old = judged.get(what.block.output)
            self.candidates[what.block.output] = old or Candidate(what)
            self.candidates[what.block.output].what = what

    def _outputs(self, model: ir.Model) -> dict[str, Array]:
        executor = Executor(model, threads=self.context.threads)
        parts = [executor.run(feeds) for feeds in self.judged.batches(BATCH)]
        return {
            name: np.concatenate([np.atleast_1d(part[name]) for part in parts]) for name in executor.outputs
        }


def _relative_error(wanted: dict[str, Array], found: dict[str, Array]) -> float:
    """Squared error over energy, the mean over outputs."""
    ratios = [
        float(np.square(difference_of(found[name], value, name)).sum())
        / max(float(np.square(value, dtype=np.float64).sum()), 1e-30)
        for name, value in wanted.items()
    ]
    return float(np.mean(ratios))
