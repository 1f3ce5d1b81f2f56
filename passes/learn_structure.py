"""`learn-structure`: which channels stay is learned by gradients, with the weights, under budgets in all and for each block.

After Ahmed et al., "Compact CNN Structure Learning by Knowledge Distillation" (arXiv 2104.09191): the loss is the distance to
the teacher's outputs, without labels, and the budgets hold block by block. What they alternate is done at once here:

1. The closed form of `prune-channels` says what every channel is worth, so learning begins at its widths.
2. Every unit of a channel group gets a gate in front of the layers that read it (`learned.gates`): it is likely open where the
   unit gains more than it costs at prices that keep the budgets. These fall from what the network costs to what it may cost,
   while weights and gains learn from what the teacher says.
3. The gates are fixed, what is closed is removed for real, and every layer is re-fitted to the teacher, as by `recover-lsq`.

``weights=learned`` keeps the weights that learned with the gates, and lets them go on for the last 40% of the steps.
``weights=source`` takes the widths alone, and makes the network from the model as it came in, by the closed form. Either is
compared with the closed form at the same budgets, re-fitted too, on samples that nobody learned from; what is nearer to the
teacher is kept, and the report says which. Let `refine` follow.

A program before and after::

    h = Conv(x, w[64,3,3,3])   ->   h = Conv(x, w'[37,3,3,3])
    a = Relu(h)                     a = Relu(h)
    y = Conv(a, v[32,64,3,3])       y = Conv(a, v'[32,37,3,3])   # 37: learned
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import onnx_ir as ir

from edgec.graph.channels import ChannelGroup, groups, remove
from edgec.graph.errors import UsageError
from edgec.graph.values import COUNT, Range
from edgec.passes.base import NUMBER_FORMATS, Context, Note, PassResult, option
from edgec.passes.budget import Budget, budget_option, sole_budget
from edgec.passes.channel_pruning.removal import Removals, removals_of, removed, take_out
from edgec.passes.learned.extra import require_torch
from edgec.passes.learning import Learning
from edgec.passes.options import MULTIPLE
from edgec.passes.prune_channels import Judged, PruneChannels
from edgec.passes.quantize.quantiser import refuse_quantised
from edgec.passes.recover_lsq import RecoverLsq
from edgec.passes.refit.channel_map import record_removal
from edgec.passes.refit.layers import layers_of
from edgec.passes.solvers.allocate import allowed_widths
from edgec.passes.structure.allocation import plan
from edgec.passes.structure.blocks import BlockBudget, nodes_of, parse_block_budget, read_block_budget
from edgec.passes.structure.gains import gains_of
from edgec.passes.structure.limits import Limit, limits_of
from edgec.passes.whole import guarded

if TYPE_CHECKING:
    from edgec.passes.learned.judge import Score
    from edgec.passes.learned.structure_training import StructureTraining
    from edgec.passes.learned.training import Learned

UNITS = ("macs", "params", "latency")


@dataclass(frozen=True)
class LearnStructure(Learning):
    """Learn which channels stay, under budgets in all and for each block."""

    name: ClassVar[str] = "learn-structure"
    summary: ClassVar[str] = "learn which channels stay, under budgets in all and per block (needs torch)"
    never_after: ClassVar[frozenset[str]] = NUMBER_FORMATS

    macs: str = budget_option("macs", "budget of multiplications: 50%, 20M")
    params: str = budget_option("params", "budget of parameters: 40%, 1.2M")
    latency: str = budget_option("latency", "budget of the target's estimated latency: 25ms, 60%")
    blocks: tuple[str, ...] = option(
        (),
        help="budgets of single blocks: layer3:macs=40%,layer2:params=60%. A block is all nodes and weights whose name begins so",
        reads=read_block_budget,
    )
    weights: Literal["learned", "source"] = option(
        "learned", "learned: what learned with the gates; source: the model's, at the learned widths"
    )
    statistics: int = option(500, "samples that the closed form looks at", COUNT)
    maps: int = option(
        0, "how many maps at the ends of blocks are matched too, from the last one back", Range(0, 64)
    )
    gate_rate: float = option(
        0.03,
        "largest step of a unit's gain, as a share of it (0: the closed form's order stays)",
        Range(0, 1),
    )
    multiple: int = option(0, "round widths to this; 0: the target's, else 1", MULTIPLE)

    def check(self) -> None:
        """Raise UsageError for several budgets, and for a block that is named twice."""
        super().check()
        if any(self._budgets.values()):
            sole_budget(self.name, self._budgets)
        named = [(one.block, one.budget.unit) for one in self.block_budgets]
        for one in named:
            if named.count(one) > 1:
                raise UsageError(f"{self.name}: the block {one[0]!r} has two budgets of {one[1]}")

    def complete(self) -> None:
        """Raise UsageError for no budget at all."""
        if not self.blocks:
            sole_budget(self.name, self._budgets)

    @property
    def _budgets(self) -> dict[str, str]:
        return {unit: getattr(self, unit) for unit in UNITS}

    @property
    def budget(self) -> Budget | None:
        """That of the whole network; None where only blocks have one."""
        return sole_budget(self.name, self._budgets) if any(self._budgets.values()) else None

    @property
    def block_budgets(self) -> tuple[BlockBudget, ...]:
        return tuple(map(parse_block_budget, self.blocks))

    def requires(self, model: ir.Model) -> None:
        """Raise PassError for a quantised model, UsageError without torch, UnsupportedError for an op that torch does not
        compute here, UsageError for an unknown block."""
        refuse_quantised(model, self.name)
        require_torch(self.name)
        from edgec.passes.learned.executor import GraphModule

        GraphModule(model)
        for one in self.block_budgets:
            nodes_of(model, one.block)

    def run(self, model: ir.Model, context: Context) -> PassResult:
        """Raises UsageError for no budget and for an unknown block, DataError without data, PassError for too few samples."""
        self.complete()
        limits = limits_of(model, self.budget, self.block_budgets, context)
        if all(one.met({}) for one in limits):
            return PassResult(model, modified=False, notes=(Note("the budgets are met already"),))
        return _Run(self, model, context, limits).result()

    def choices(self, context: Context) -> Callable[[str, int], Sequence[int]]:
        """The widths that a group may have."""
        multiple = self.multiple or (context.target.channel_multiple if context.target is not None else 1)
        return lambda _, full: allowed_widths(full, multiple)


class _Run:
    """One run: the closed form, what is learned from there, and which of the two stays."""

    def __init__(
        self, options: LearnStructure, model: ir.Model, context: Context, limits: tuple[Limit, ...]
    ) -> None:
        self.options, self.model, self.context, self.limits = options, model, context, limits
        self.found = groups(model)
        self.notes = [
            Note(f"not prunable: {one.reason}", node=one.name)
            for one in self.found
            if not one.prunable and one.has_weights
        ]
        self.groups = self._prunable()
        self.judged = self._judged()
        self.groups = [one for one in self.groups if one.name in self.judged.curves]
        self.choices = options.choices(context)

    def _prunable(self) -> list[ChannelGroup]:
        from edgec.passes.learned.gates import gateable

        kept = []
        for group in (one for one in self.found if one.prunable):
            why = gateable(self.model, group)
            if why:
                self.notes.append(Note(f"stays as wide as it is: {why}", node=group.name))
            else:
                kept.append(group)
        return kept

    def _judged(self) -> Judged:
        fit = self.options.parted(self.context)[0]
        self.few = fit.take(min(self.options.statistics, len(fit)), self.context.seed)
        closed = PruneChannels(hflip=self.options.hflip)
        return closed.judged(self.model, self.groups, replace(self.context, data=self.few))

    def result(self) -> PassResult:
        from edgec.passes.learned.training import one_thread

        if not self.groups:
            note = Note("no channel can be removed", level="warning")
            return PassResult(self.model, modified=False, notes=(note, *self.notes))
        with one_thread():
            training = self._training()
            learned = training.run(
                training.judge.score(training.network), self.context.checkpoint, self.context.progress
            )
            ours = self._refitted(self._learned(training, learned))
            closed = self._refitted(self._closed(self.closed_plan.widths))
            scores = [self._score(training, one.model) for one in (ours, closed)]
        kept = scores[0].loss <= scores[1].loss
        return replace(
            ours if kept else closed,
            modified=True,
            partial=None,
            notes=(*self._told(scores, kept), *self.notes),
            data=self._figures(scores, kept, learned),
        )

    def _refitted(self, model: ir.Model) -> PassResult:
        """Every layer re-fitted to the teacher, as `recover-lsq` does it."""
        refit = RecoverLsq(hflip=self.options.hflip)
        context = replace(self.context, data=self.few, checkpoint=None)
        return guarded(refit, model, refit.run(model.clone(), context), context)

    def _training(self) -> StructureTraining:
        from edgec.passes.learned.gates import GatedModule
        from edgec.passes.learned.goals import goals_of
        from edgec.passes.learned.hardware import placed
        from edgec.passes.learned.structure_training import Structure, StructureTraining
        from edgec.passes.learned.teacher import Teacher

        self.closed_plan = plan(self.judged.errors, self.limits, self.choices)
        curves = self.judged.curves
        gains = [np.log(gains_of(curves[one.name], self.judged.errors[one.name])) for one in self.groups]
        structure = Structure(
            tuple(self.groups),
            self.limits,
            lambda found: (
                plan({name: one.errors for name, one in found.items()}, self.limits, self.choices).widths
            ),
            self.options.gate_rate,
            self.options.weights == "learned",
        )
        options, context = self.options, self.context
        device = options.on_device()
        student = placed(GatedModule(self.model, self.groups, np.concatenate(gains)), device)
        teacher = Teacher(context.teacher, device)
        goals = goals_of(self.model, context.teacher, context.task, maps=options.maps, weight=options.weight)
        return StructureTraining(
            options.training(context, student, teacher, goals, self.model), student, structure
        )

    def _learned(self, training: StructureTraining, learned: Learned) -> ir.Model:
        """The network of the gates that stayed open, by its own weights or by the closed form at its widths."""
        from edgec.passes.learned.executor import write_back

        if self.options.weights == "source":
            training.decide()
        else:
            training.student.load_state_dict(dict(learned.state))
        removals = self._removals(training.student.edgec_open.cpu().numpy() > 0.5)
        self.widths = {one.name: one.size - len(removals.get(one.name, ())) for one in self.groups}
        if self.options.weights == "source":
            return self._closed(self.widths)
        model = self.model.clone()
        write_back(training.student, model)
        record_removal(model, self.found, removals)
        remove(model, removals)
        return model

    def _removals(self, stays: np.ndarray[Any, np.dtype[Any]]) -> Removals:
        found, first = {}, 0
        for group in self.groups:
            gone = np.flatnonzero(~stays[first : first + group.size])
            first += group.size
            if len(gone):
                found[group.name] = gone.tolist()
        return found

    def _closed(self, widths: Mapping[str, int]) -> ir.Model:
        """The closed form at ``widths``."""
        model = self.model.clone()
        layers = layers_of(model)
        statistics = {name: replace(one, layer=layers[name]) for name, one in self.judged.statistics.items()}
        take_out(model, groups(model), statistics, removals_of(self.judged.curves, widths))
        return model

    def _score(self, training: StructureTraining, model: ir.Model) -> Score:
        from edgec.passes.learned.executor import GraphModule
        from edgec.passes.learned.hardware import placed

        return training.score(placed(GraphModule(model), training.settings.device))

    def _told(self, scores: Sequence[Score], kept: bool) -> list[Note]:
        from edgec.passes.learned.training import described

        widths = self.widths if kept else self.closed_plan.widths
        gone = sum(one.size - widths[one.name] for one in self.groups)
        spent = ", ".join(
            f"{one.block + ': ' if one.block else ''}{one.budget.unit} at {one.cost.total(widths) / one.source:.1%} of the source"
            for one in self.limits
        )
        ours, closed = map(described, scores)
        if kept:
            said = Note(
                f"nearer to the teacher than the closed form at the same budgets ({closed} -> {ours})"
                f"{scores[0].against(scores[1]).doubt}"
            )
        else:
            text = "the closed form stays: at the same budgets what was learned is no nearer to the teacher"
            said = Note(f"{text} ({closed}; learned: {ours})", "reverted")
        notes = [Note(f"{removed(gone, len(self.groups))}: {spent}"), said]
        missed = [one for one in self.limits if not one.met(widths)]
        for one in missed:
            text = f"{one.text} is out of reach: {one.cost.total(widths) / one.source:.1%} of the source is the least"
            notes.insert(0, Note(text, level="warning"))
        return notes

    def _figures(self, scores: Sequence[Score], kept: bool, learned: Learned) -> dict[str, Any]:
        widths = self.widths if kept else self.closed_plan.widths
        budgets = [
            {
                "block": one.block,
                "unit": one.budget.unit,
                "asked": one.most / one.source,
                "reached": one.cost.total(widths) / one.source,
                "met": one.met(widths),
            }
            for one in self.limits
        ]
        return {
            "settled": {"steps": learned.steps},
            "steps": learned.steps,
            "kept": "learned" if kept else "closed form",
            "budgets": budgets,
            "widths": {one.name: [one.size, widths[one.name]] for one in self.groups},
            "learned_widths": dict(self.widths),
            "closed_form_widths": dict(self.closed_plan.widths),
            "loss": {"learned": scores[0].loss, "closed form": scores[1].loss},
            "agreement": {"learned": scores[0].agrees, "closed form": scores[1].agrees},
            "history": [list(one) for one in learned.history],
        }
