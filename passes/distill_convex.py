"""`distill-convex`: put gated blocks in the place of a region, fitted to the teacher's activations behind it.

A gated block is ``C3_1x1( C2(z) * 1[C1(z) > 0] )`` plus the skip where the region had one (Varshney and Pilanci, "Convex
Distillation", arXiv 2410.06567). No labels, no training, nothing fine-tuned afterwards. Per block, front to back:

1. its inputs come from the student so far, its target is the teacher's value behind the part that it replaces, less the skip;
2. gates: ``alternating`` starts from one gate per channel and lets the gates follow C2 for some rounds (each a convex problem)
   before they stay fixed while C2 and C3 are solved in turn; ``convex`` solves for all matrices that a few fixed gates allow,
   with the duality gap as certificate, cuts the solution to the width, and goes on in turn;
3. the gate is emitted as ``Clip(s C1(z), 0, 1)``, and C2 and C3 are fitted once more to that soft edge;
4. with ``lower=relu`` C1 is tied to C2: a plain ReLU block, with about half the multiplications of a gated one of its width;
5. in the end all blocks move together (``refine``) towards the region's output, as long as held-out samples gain.

When: a deep run of blocks at one resolution costs too much and few images are at hand. With ``width`` at twice the channels,
``lower=relu`` costs what the gated block costs and is the better of the two in all that was measured (docs/distill-convex.md).
``graft``: where the closed form's gap stays (it is not kept, or the convex problem was not solved), gradients go on with the new
blocks alone, everything around them as it is and the network's outputs compared (`refine`; NetGraft, arXiv 2012.04915).
Kept only where it is nearer to the teacher, on samples that no fit saw, than the network with nothing
but the skips in the region's place, and within ``max-error``; taken back, with its gap, where the convex solver stops too early.

A program before and after::

    y = Block(Block(x))   ->   g = Clip(s C1(x), 0, 1)
                               y = x + C3(C2(x) * g)
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar, Literal

import onnx_ir as ir

from edgec.graph.cost import cost
from edgec.graph.data import require
from edgec.graph.errors import UsageError
from edgec.graph.values import COUNT, COUNT_OR_NONE, PART, SEED, Range
from edgec.graph.views import shape_of
from edgec.passes.base import (
    NUMBER_FORMATS,
    Choice,
    Context,
    LayerReport,
    Need,
    Note,
    Pass,
    PassResult,
    Switch,
    option,
)
from edgec.passes.blocks.gated.block import BlockOptions, Figures, Unconverged
from edgec.passes.blocks.gated.parts import Part, parts_of
from edgec.passes.blocks.gated.replace import Replacement
from edgec.passes.learned.extra import require_torch
from edgec.passes.learning import duration
from edgec.passes.options import HELD_OUT, ROUNDS
from edgec.passes.quantize.quantiser import refuse_quantised
from edgec.passes.refine import Refine
from edgec.passes.refit.batches import split, wants_flips


@dataclass(frozen=True)
class DistillConvex(Pass):
    """Replace a region by gated blocks, in closed forms."""

    name: ClassVar[str] = "distill-convex"
    summary: ClassVar[str] = (
        "replace residual blocks by fewer gated (or ReLU) blocks, fitted to the teacher's activations"
    )
    needs: ClassVar[frozenset[Need]] = frozenset({Need.DATA})
    never_after: ClassVar[frozenset[str]] = NUMBER_FORMATS

    region: str = option("", "what to replace: a residual block, block3..block5, or two values or nodes a..b")
    blocks: int = option(
        1, "how many blocks in its place; the region is cut at residual sums", Range(1, 1000)
    )
    width: int = option(0, "inner channels of each block (0: as many as come out)", Range(0, 65536))
    gates: Literal["teacher", "patches", "gaussian"] = option(
        "teacher", "where gates start: teacher's filters, data patches, or gaussian"
    )
    solver: Literal["alternating", "convex"] = option(
        "alternating", "alternating closed forms, or the convex problem first"
    )
    lower: Literal["none", "relu"] = option("none", "relu: tie the gates to the filters, a plain ReLU block")
    follow: int = option(
        6, "alternating: rounds in which the gates follow the filters; 0: as sampled", ROUNDS
    )
    sweeps: int = option(6, "alternations of the two closed forms with fixed gates", ROUNDS)
    refine: int = option(
        8, "steps that move all blocks together, while the held-out error falls; 0: none", ROUNDS
    )
    ridge: float = option(
        3e-4, "penalty, as a share of the rows times the targets' root mean square", Range(0, 1e6, above=True)
    )
    penalty: Literal["nuclear", "group-lasso", "ridge"] = option(
        "nuclear", "of the convex problem: nuclear, group-lasso or ridge"
    )
    gate_count: int = option(8, "distinct gates of the convex problem", Range(1, 65536))
    tolerance: float = option(
        1e-4, "relative duality gap at which the convex problem is solved", Range(0, 1, above=True)
    )
    limit: int = option(
        1000, "iterations of the convex problem, after which the pass takes itself back", COUNT
    )
    edge: float = option(0.02, "share of open pixels on the gate's soft edge", PART)
    samples: int = option(0, "samples to use (0: all)", COUNT_OR_NONE)
    rows: int = option(32768, "pixels per fit; above this they are sampled", COUNT)
    hflip: Switch = option("auto", "mirror the pictures too")
    held_out: float = option(0.1, "share of the samples that only score the fits", HELD_OUT)
    max_error: float = option(0.0, "largest relative squared error behind the region (0: no limit)", Range(0))
    graft: Literal["no", "auto", "yes"] = option(
        "no",
        "learn the new blocks by gradients inside the source (needs torch); auto: where the closed form is not kept",
    )
    time: str = option("2m", "how long that may take; steps= goes before it", reads=duration)
    steps: int = option(0, "steps of the graft (0: as many as fit into the time)", COUNT_OR_NONE)
    seed: int = option(0, "of the gates and the sampling, added to the run's", SEED)

    def check(self) -> None:
        if not self.region:
            hint = "Give region=block3 or region=block3..block5: residual blocks in order, or their modules' names."
            raise UsageError("distill-convex does not know what to replace", hint=hint)

    def complete(self) -> None:
        """Raise UsageError, before any work, for a graft without torch."""
        if self.graft != "no":
            require_torch(f"{self.name}{{graft={self.graft}}}")

    def requires(self, model: ir.Model) -> None:
        """Raise PassError for a quantised model: the blocks are fitted, and written, in float; UsageError for a graft without
        torch, UnsupportedError for one into a network with an op that torch does not compute here."""
        refuse_quantised(model, self.name)
        if self.graft != "no":
            self._learning().requires(model)

    def run(self, model: ir.Model, context: Context) -> PassResult:
        """Raises UsageError for a region that cannot be replaced, DataError without data."""
        seed, data = context.seed + self.seed, require(context.data, self.name)
        data = data.take(self.samples, seed) if self.samples else data
        context = replace(context, data=data, seed=seed)
        work = self._replacement(model, context, self.solver)
        stopped = work.run()
        if stopped is None:
            result = self._judged(model, work)
        else:
            result = PassResult(model, False, (self._unsolved(stopped),), data={"gap": stopped.gap})
        if self.graft == "no" or (self.graft == "auto" and result.modified):
            return result
        if stopped is not None:
            work = self._replacement(model, context, "alternating")
            work.run()
        return self._grafted(model, work, context, result)

    def _replacement(
        self, model: ir.Model, context: Context, solver: Literal["alternating", "convex"]
    ) -> Replacement:
        parts = parts_of(model, self.region, self.blocks)
        fit, held = split(require(context.data, self.name), self.held_out, context.seed)
        return Replacement(
            student=model.clone(),
            teacher=_teacher(model, context.teacher, parts),
            parts=parts,
            context=context,
            fit=fit,
            held=held,
            rows=self.rows,
            options=replace(self._block_options(context.seed), solver=solver),
            refine=self.refine,
            hflip=wants_flips(self.hflip, model),
        )

    def _learning(self) -> Refine:
        """What grafts; it parts the samples as the fits do."""
        return Refine(time=self.time, steps=self.steps, hflip=self.hflip, held_out=self.held_out)

    def _grafted(
        self, model: ir.Model, work: Replacement, context: Context, closed: PassResult
    ) -> PassResult:
        """The new blocks, learned further; what ``closed`` says where that comes no nearer."""
        old = {node.name for node in model.graph}
        made = frozenset(node.name or "" for node in work.student.graph if node.name not in old)
        learned = self._learning().learn(work.student, context, made)
        notes = tuple(replace(note, node=self.region) for note in learned.notes)
        if not learned.modified:
            return replace(closed, notes=(*closed.notes, *notes))
        work.student = learned.model
        found = self._judged(model, work)
        data = {**found.data, "graft": learned.data, "settled": learned.data["settled"]}
        if "gap" in closed.data:
            text = "the convex problem was not solved: alternating closed forms and gradients in its place"
            notes = (Note(text, level="warning", node=self.region), *notes)
        return replace(found, notes=(*found.notes, *notes), data=data)

    def _block_options(self, seed: int) -> BlockOptions:
        return BlockOptions(
            width=self.width,
            gates=self.gates,
            gate_count=self.gate_count,
            solver=self.solver,
            penalty=self.penalty,
            ridge=self.ridge,
            sweeps=self.sweeps,
            follow=self.follow,
            edge=self.edge,
            relu=self.lower == "relu",
            tolerance=self.tolerance,
            limit=self.limit,
            seed=seed,
        )

    def _unsolved(self, stopped: Unconverged) -> Note:
        text = (
            f"the convex problem was not solved: relative gap {stopped.gap:.1e} after {stopped.iterations} iterations, "
            f"{self.tolerance:g} was asked for; raise limit= or ridge=, or lower gate-count="
        )
        return Note(text, level="reverted", node=self.region)

    def _judged(self, model: ir.Model, work: Replacement) -> PassResult:
        found, bare = work.errors()
        error, removal, verdict = found.relative, bare.relative, found.against(bare)
        before, after = cost(model).macs, cost(work.student).macs
        why = ""
        if not verdict.kept:
            why = f"it is no better than taking {self.region} out ({removal:.3f})"
        elif self.max_error and error > self.max_error:
            why = f"max-error is {self.max_error:g}"
        head = f"relative error {error:.3f} behind {self.region} on held-out samples ({removal:.3f} with nothing but skips)"
        notes = [Note(f"{head}; {after / before:.1%} of the MACs left", node=self.region)]
        if why:
            notes.append(Note(f"{head}: {why}", level="reverted", node=self.region))
        elif after >= before:
            notes.append(
                Note("the new blocks cost more than what they replace", level="warning", node=self.region)
            )
        if work.refined is not None:
            notes.append(Note("all blocks together: error {:.4f}, then {:.4f}".format(*work.refined)))
        if work.apart:
            text = "blocks were not moved together: the skip of this one is no identity"
            notes.append(Note(text, node=work.apart))
        for part, one in zip(work.parts, work.figures, strict=True):
            notes += _notes(part, one, self.lower == "relu")
        layers = tuple(_layer(*pair, kept=not why) for pair in zip(work.parts, work.figures, strict=True))
        figures: dict[str, Any] = {
            "error": error,
            "removal_error": removal,
            "choices": [asdict(Choice.of(self.region, verdict))],
            "parts": [{"name": p.name, **asdict(f)} for p, f in zip(work.parts, work.figures, strict=True)],
        }
        return PassResult(model if why else work.student, not why, tuple(notes), layers, figures)


def _teacher(model: ir.Model, teacher: ir.Model, parts: tuple[Part, ...]) -> ir.Model:
    """The source model where it has the values to match in the same shapes, else a copy of the model as it came."""
    known = {v.name: shape_of(v)[1:] for n in teacher.graph for v in n.outputs if v.shape is not None}
    mine = {v.name: shape_of(v)[1:] for n in model.graph for v in n.outputs if v.shape is not None}
    return teacher if all(known.get(p.output) == mine[p.output] for p in parts) else model.clone()


def _notes(part: Part, figures: Figures, relu: bool) -> list[Note]:
    found = []
    if not relu:
        text = (
            f"soft edge: error {figures.hard:.4f} with gates of 0 and 1, {figures.soft:.4f} as emitted, "
            f"{figures.refitted:.4f} after the re-fit to it"
        )
        found.append(Note(text, node=part.name))
    if figures.gap is not None:
        text = f"convex problem solved in {figures.iterations} iterations, relative duality gap {figures.gap:.1e}"
        found.append(Note(text, node=part.name))
    if figures.rows < 9 * part.geometry.channels + 1:
        text = f"fewer rows ({figures.rows}) than unknowns of one filter: the penalty decides the rest"
        found.append(Note(text, level="warning", node=part.name))
    return found


def _layer(part: Part, figures: Figures, *, kept: bool) -> LayerReport:
    return LayerReport(
        node=part.name,
        rows=figures.rows,
        unknowns=figures.unknowns,
        condition=figures.condition,
        error_before=figures.skip_only,
        error_after=figures.refitted,
        kept=kept,
        note=f"in the place of {len(part.nodes)} nodes",
    )
