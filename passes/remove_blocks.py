"""`remove-blocks`: whole residual blocks go where the layers beside them can absorb the loss.

Few nodes cost more on small machines than their multiplications say, so a shallower network is often faster
than a narrower one of equal MACs (Wang and Wu, "Practical Network Acceleration with Tiny Sets", CVPR 2023,
arXiv 2202.07861: drop the blocks that recover best per latency saved). Where they train the rest on a few
images, here every candidate is recovered in closed form before it is judged:

1. take the block out of a copy; the convolution in front of it (or on its skip) is re-fitted by least
squares, towards its old weight, to make what the block made, on calibration rows; it keeps the old weight
where rows that the fit did not see say so; 2. run the copy on some images; its damage is the relative squared
error at the network's outputs; 3. remove the block with the least damage added per cost saved (milliseconds
where the target has estimates, else MACs), and go on. Damages only grow as blocks go, so a candidate is
judged again only while its last score is among the best.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from edgec.graph.cost import cost
from edgec.graph.data import Dataset, require
from edgec.graph.errors import PassError, UsageError
from edgec.graph.execute import Executor
from edgec.graph.views import ConvView
from edgec.passes.base import Context, LayerReport, Need, Note, Pass, PassResult, option
from edgec.passes.block_surgery import Removable, survey, take_out
from edgec.passes.budget import Budget, parse_budget
from edgec.passes.solvers.gram import Array, Gram, Patches, targets_at
from edgec.passes.solvers.ridge import ridge

HELD_OUT = 0.1
ROWS_PER_UNKNOWN = 40
LOOK_AHEAD = 3
"""Candidates that are judged afresh in each step: those with the best last scores."""
BATCH = 25


@dataclass(frozen=True)
class Fit:
    """What to put into an absorber, and how well it makes what the block made (errors on held-out rows)."""

    columns: Array
    report: LayerReport


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

    macs: str = option("", "stop when these MACs are left (60% of the source, or 40M)")
    latency: str = option("", "stop at this estimated latency on the target (60% of the source, or 25ms)")
    blocks: int = option(0, "stop after so many blocks (0: no limit)")
    max_damage: float = option(
        0.0, "stop before the relative squared output error exceeds this (0: no limit)"
    )
    lam: float = option(1e-3, "strength of the pull towards the old weight in the re-fit")
    judge: int = option(64, "images on which damage is measured")

    def __post_init__(self) -> None:
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
        self.price, self.has_latency = _price(self.context)
        if self.options.latency and not self.has_latency:
            raise UsageError(
                "latency= needs a target with estimates", where=self.options.name, hint="Add --target."
            )
        self.judged = self.data.take(self.options.judge, self.context.seed)
        self.wanted = self._outputs(self.reference)
        self.start = cost(self.student).macs
        self.limits = [(b, b.limit(self._amount(b, self.context.teacher))) for b in self.options.budgets]
        self.damage = 0.0
        found, stuck = survey(self.student)
        self.first = len(found)
        self.candidates = {one.block.output: Candidate(one) for one in found}
        self.names = {one.block.output: one.block.name for one in found}
        self.notes.extend(
            Note(f"{one.block.name} stays: {one.why}", node=one.block.nodes[-1]) for one in stuck
        )

    def run(self) -> None:
        if not self.candidates:
            raise PassError(
                "no block can go", where=self.options.name, why="the network has no residual block to remove"
            )
        step = 0
        while self.candidates and not self._done(step):
            best = self._best(step)
            limit = self.options.max_damage
            if best is None or (limit and best.damage > limit):
                self.notes.append(Note(f"stopped after {step} blocks: the next would cost more than it may"))
                break
            self._remove(best)
            step += 1
            self.context.progress.step(self.options.name, step, self.options.blocks or self.first)
        share = cost(self.student).macs / self.start
        self.notes.insert(
            0, Note(f"{step} of {self.first} removable blocks removed, {share:.1%} of the MACs left")
        )
        for budget, limit in self.limits:
            if (left := self._amount(budget, self.student)) > limit:
                self.notes.append(
                    Note(f"{budget.text} is out of reach: {left:.4g} are left", level="warning")
                )

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
        fits = fit_absorbers(self.student, self.reference, [one.what for one in candidates], self.data, self)
        now = self.price(self.student)
        for number, (one, fitted) in enumerate(zip(candidates, fits, strict=True)):
            trial = self.student.clone()
            apply(trial, one.what, fitted)
            one.fit, one.step = fitted, step
            one.saved = now - self.price(trial)
            one.damage = _relative_error(self.wanted, self._outputs(trial))
            self.context.progress.step(f"{self.options.name}: judging", number + 1, len(candidates))

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
            old = judged.get(what.block.output)
            self.candidates[what.block.output] = old or Candidate(what)
            self.candidates[what.block.output].what = what

    def _outputs(self, model: ir.Model) -> dict[str, Array]:
        executor = Executor(model, threads=self.context.threads)
        parts = [executor.run(feeds) for feeds in self.judged.batches(BATCH)]
        return {name: np.concatenate([part[name] for part in parts]) for name in executor.outputs}


def apply(model: ir.Model, what: Removable, fitted: Fit) -> None:
    """Take the block out and put the fitted weight into its absorber, in place."""
    take_out(model, what)
    view = ConvView.of(next(node for node in model.graph if node.name == what.absorber))
    if view is not None:
        weight, bias = _patches(view).weight(fitted.columns)
        view.set(weight=weight, bias=bias)


def fit_absorbers(
    student: ir.Model, reference: ir.Model, blocks: Sequence[Removable], data: Dataset, search: _Search
) -> list[Fit]:
    """Re-fit every absorber, each for itself, in one pass over the data."""
    nodes = {node.name: node for node in student.graph}
    views = [view for one in blocks if (view := ConvView.of(nodes[one.absorber])) is not None]
    patches = [_patches(view) for view in views]
    grams = [
        tuple(Gram.zeros(1, p.unknowns, v.out_channels) for _ in range(2))
        for p, v in zip(patches, views, strict=True)
    ]
    seen = list(
        dict.fromkeys(name for one in blocks for name in (one.features, one.rest) if name is not None)
    )
    mine = Executor(student, outputs=seen, threads=search.context.threads)
    theirs = Executor(reference, outputs=[one.block.output for one in blocks], threads=search.context.threads)
    rng = np.random.default_rng(search.context.seed)
    for part, which in zip(data.split(HELD_OUT, search.context.seed), (0, 1), strict=True):
        for feeds in part.batches(BATCH):
            found, wanted = mine.run(feeds), theirs.run(feeds)
            for one, geometry, gram in zip(blocks, patches, grams, strict=True):
                target = wanted[one.block.output] - (found[one.rest] if one.rest is not None else 0)
                _add(gram[which], geometry, found[one.features], target, len(data), rng)
    return [
        _solve(one, view, geometry, gram, search.options.lam)
        for one, view, geometry, gram in zip(blocks, views, patches, grams, strict=True)
    ]


def _add(
    gram: Gram, geometry: Patches, x: Array, target: Array, images: int, rng: np.random.Generator
) -> None:
    pixels = target[0, 0].size
    rows = geometry.sample(x, ROWS_PER_UNKNOWN * geometry.unknowns / (pixels * images), rng)
    aimed = targets_at(target, rows, 1)
    for part, p in geometry.tiles(x, rows):
        gram.add(p, aimed[:, part])


def _solve(one: Removable, view: ConvView, geometry: Patches, grams: tuple[Gram, ...], lam: float) -> Fit:
    fit, held = grams
    old = geometry.columns(view.weight, view.bias)
    solution = ridge(fit.h, fit.s, old, lam)
    judge = held if held.rows else fit
    before, after = judge.relative_error(old), judge.relative_error(solution.columns)
    kept = after < before
    report = LayerReport(
        one.absorber,
        int(fit.rows),
        geometry.unknowns,
        solution.condition,
        before,
        after,
        kept,
        f"makes {one.block.output!r} in the place of a block",
    )
    return Fit(solution.columns if kept else old, report)


def _patches(view: ConvView) -> Patches:
    return Patches(view.in_channels, view.kernel, view.strides, view.pads, view.dilations)


def _relative_error(wanted: dict[str, Array], found: dict[str, Array]) -> float:
    """Squared error over energy, the mean over outputs."""
    ratios = [
        float(np.square(found[name] - value, dtype=np.float64).sum())
        / max(float(np.square(value, dtype=np.float64).sum()), 1e-30)
        for name, value in wanted.items()
    ]
    return float(np.mean(ratios))


def _price(context: Context) -> tuple[Callable[[ir.Model], float], bool]:
    """Milliseconds on the target where it has estimates (True), else MACs (False)."""
    if context.target is not None:
        from edgec.targets.estimator import has_estimates, latency_table

        if has_estimates(context.target):
            table = latency_table(context.target)
            return lambda model: table.model_ms(cost(model)), True
    return lambda model: float(cost(model).macs), False
