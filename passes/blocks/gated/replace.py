"""Replace the parts of a region one after the other: data through the student so far, a fit, a new block."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx_ir as ir

from edgec.graph.data import Dataset
from edgec.graph.errors import PassError
from edgec.graph.execute import Executor
from edgec.graph.views import ConvView, constant, own_constant, shape_of, sole_consumer
from edgec.passes.base import Context
from edgec.passes.blocks.gated.block import BlockOptions, Figures, Fitted, Unconverged, fit_block
from edgec.passes.blocks.gated.parts import Part
from edgec.passes.blocks.gated.rows import Collector, Rows
from edgec.passes.blocks.gated.surgery import BlockWeights, Kernel, Placed, put_in, skip_value
from edgec.passes.incremental.executor import batch_size
from edgec.passes.incremental.store import ActivationStore
from edgec.passes.refit.batches import channels_last, mirrored
from edgec.passes.refit.fit_target import clipping_of
from edgec.passes.refit.layers import layers_of
from edgec.passes.solvers.gated_joint import JointGoal, Stage, refine_jointly
from edgec.passes.solvers.gram import Gram, Patches, targets_at
from edgec.passes.solvers.guard import Verdict, judge
from edgec.passes.solvers.rectified import Clipping, squared
from edgec.passes.solvers.ridge import CARRIED, ridge

Array = np.ndarray[Any, np.dtype[Any]]

MEMORY = 600 << 20
"""Bytes of activations held; what exceeds them goes to disk."""
ROW_BYTES = 400 << 20
"""Bytes of patches, raw and whitened together."""
PROJECTION_RIDGE = 1e-3
CHUNK = 4
"""Joint steps between two looks at the held-out samples."""


@dataclass(frozen=True)
class RegionErrors:
    """Squared errors behind a region by sample, the ``energy`` of what is wanted there, and the products of one prediction."""

    samples: Array
    energy: float
    unknowns: int

    @property
    def relative(self) -> float:
        return float(self.samples.sum()) / self.energy if self.energy else 0.0

    def against(self, before: RegionErrors) -> Verdict:
        """Whether these are better."""
        return judge(before.samples, self.samples, self.energy, unknowns=self.unknowns)


@dataclass
class Replacement:
    """``student`` is changed in place. ``fit`` and ``held`` are the two parts of the data; ``rows`` limits those of one fit.
    With ``hflip`` every batch that is fitted comes mirrored too."""

    student: ir.Model
    teacher: ir.Model
    parts: Sequence[Part]
    context: Context
    fit: Dataset
    held: Dataset
    rows: int
    options: BlockOptions
    refine: int = 0
    hflip: bool = False
    figures: list[Figures] = field(default_factory=list)
    placed: list[Placed] = field(default_factory=list)
    fitted: list[Fitted] = field(default_factory=list)
    refined: tuple[float, float] | None = None
    """Errors on the held-out samples before and after the joint steps."""
    apart: str = ""
    """The first part, after the first of all, that the joint steps cannot go through; then there were none."""

    def run(self) -> Unconverged | None:
        """Replace all parts; stops where the convex solver does not converge. Raises PassError where nothing varies."""
        self.size: int = batch_size(self.student.graph)
        self.last: frozenset[str] = channels_last(self.student.graph)
        self.filters = {name: layer.columns()[0] for name, layer in layers_of(self.student).items()
                        if any(name in part.firsts for part in self.parts)}  # fmt: skip
        self.store: ActivationStore = ActivationStore(self.context.scratch, MEMORY)
        try:
            self._begin()
            parts = self.context.progress.over("distill-convex: blocks", self.parts, len(self.parts))
            for number, part in enumerate(parts):
                found = self._one(number, part)
                if isinstance(found, Unconverged):
                    return found
                if number + 1 < len(self.parts):
                    self._advance(part.input, self.parts[number + 1].input)
            if self.refine:
                self._refine()
        finally:
            self.store.clear()
        return None

    def errors(self) -> tuple[RegionErrors, RegionErrors]:
        """Errors at the end of the region on the held-out samples: of the student, and with nothing but the skips."""
        bare = self.student.clone()
        for node in bare.graph:
            if node.name in {one.out for one in self.placed}:
                for index in (1, 2):
                    own_constant(bare.graph, node, index, np.zeros_like(constant(node.inputs[index])))
        return self._errors(self.student), self._errors(bare)

    @property
    def first_held(self) -> int:
        """Number of the first batch that is held out."""
        return -(-len(self.fit) // self.size) * (1 + self.hflip)

    @property
    def batches(self) -> int:
        return self.first_held + -(-len(self.held) // self.size)

    def _feeds(self) -> Iterator[dict[str, Array]]:
        for feeds in self.fit.batches(self.size):
            yield feeds
            if self.hflip:
                yield mirrored(feeds, self.last)
        yield from self.held.batches(self.size)

    def _begin(self) -> None:
        """The input of the first part, and the teacher's values behind all of them."""
        threads = self.context.threads
        student = Executor(self.student, outputs=[self.parts[0].input], threads=threads)
        teacher = Executor(self.teacher, outputs=[part.output for part in self.parts], threads=threads)
        self.spatial: tuple[int, ...] = _spatial(
            next(v for v in _values(self.student) if v.name == self.parts[0].input)
        )
        batches = self.context.progress.over("distill-convex: activations", self._feeds(), self.batches)
        for number, feeds in enumerate(batches):
            self.store.put("z", number, student.run(feeds)[self.parts[0].input])
            for name, value in teacher.run(feeds).items():
                self.store.put(f"t:{name}", number, value)

    def _advance(self, old: str, new: str) -> None:
        executor = Executor(self.student, inputs=[old], outputs=[new], threads=self.context.threads)
        for number in range(self.batches):
            self.store.put("z", number, executor.run({old: self.store.get("z", number)})[new])

    def _one(self, number: int, part: Part) -> Unconverged | None:
        patches = _patches(part)
        projection = self._projection(part) if part.projected else None
        fit, held = self._collect(part, patches, projection, number)
        if not np.square(fit.target - fit.target.mean(axis=0)).sum() > 0:
            raise PassError(
                "there is nothing to match",
                where=f"region {part.name!r}",
                why="its output does not depend on the data",
            )
        found = fit_block(
            fit,
            held if len(held.p) else fit,
            [self.filters[name] for name in part.firsts],
            self._clipping(part),
            self._options(part, number),
            self.context.progress,
            f"distill-convex: block {number + 1} of {len(self.parts)}",
        )
        if isinstance(found, Unconverged):
            return found
        self.figures.append(found.figures)
        self.fitted.append(found)
        self.placed.append(put_in(self.student, part, _weights(found, patches, projection)))
        return None

    def _refine(self) -> None:
        """Move all blocks together, as long as the error on the held-out samples falls."""
        pairs = zip(self.parts, self.parts[1:], strict=False)
        self.apart = next((pair[1].name for pair in pairs if not runs_on(self.student, *pair)), "")
        if self.apart:
            return
        goal = self._goal()
        stages = [
            Stage(
                _patches(part),
                found.root,
                found.root.whiten(found.value),
                found.w,
                found.b,
                found.gate,
                part.skip == (),
                self._clipping(part),
            )
            for part, found in zip(self.parts, self.fitted, strict=True)
        ]
        before = best = self._errors(self.student)
        chunks = range(0, self.refine, CHUNK)
        for done in self.context.progress.over("distill-convex: all blocks together", chunks, len(chunks)):
            stages, _ = refine_jointly(stages, goal, self.options.ridge, min(CHUNK, self.refine - done))
            trial = self._with(stages)
            found = self._errors(trial)
            if not found.against(best).kept:
                break
            best, self.student = found, trial
        self.refined = before.relative, best.relative

    def _with(self, stages: Sequence[Stage]) -> ir.Model:
        """A copy of the student with the weights of ``stages``."""
        trial = self.student.clone()
        nodes = {node.name: node for node in trial.graph}
        for stage, names in zip(stages, self.placed, strict=True):
            value = _kernel(stage.root.columns(stage.v), stage.patches)
            out = _pointwise(stage.w, stage.b)
            ConvView(nodes[names.value]).set(weight=value.weight, bias=value.bias)
            ConvView(nodes[names.out]).set(weight=out.weight, bias=out.bias)
        return trial

    def _goal(self) -> JointGoal:
        """Whole maps of as many images as the rows and the memory allow."""
        first, last = self.parts[0], self.parts[-1]
        pixels = math.prod(_patches(first).out_shape(self.spatial))
        unknowns = sum(_patches(part).unknowns for part in self.parts)
        count = max(1, min(self.rows, ROW_BYTES // (4 * unknowns)) // pixels)
        data = self.fit.take(max(1, count // (1 + self.hflip)), self.options.seed)
        beside = self.placed[0].skip
        named = [first.input] if beside is None else [first.input, beside]
        student = Executor(self.student, outputs=named, threads=self.context.threads)
        teacher = Executor(self.teacher, outputs=[last.output], threads=self.context.threads)
        found = []
        for feeds in data.batches(self.size):
            turned = [mirrored(feeds, self.last)] if self.hflip else []
            found += [(student.run(one), teacher.run(one)[last.output]) for one in (feeds, *turned)]
        columns = {name: _last(np.concatenate([one[name] for one, _ in found])) for name in named}
        target = _last(np.concatenate([wanted for _, wanted in found]))
        return JointGoal(columns[first.input], target, None if beside is None else columns[beside])

    def _options(self, part: Part, number: int) -> BlockOptions:
        width = self.options.width or part.geometry.outputs
        return replace(self.options, width=width, seed=self.options.seed + number)

    def _clipping(self, part: Part) -> Clipping | None:
        """The activation behind the part, as in the student."""
        values = [v for node in self.student.graph for v in node.outputs if v.name == part.output]
        return clipping_of(sole_consumer(values[0])) if values else None

    def _collect(
        self, part: Part, patches: Patches, projection: Array | None, number: int
    ) -> tuple[Rows, Rows]:
        skip = skip_value(self.student, part)
        executor = None
        if part.skip and skip is not None:
            executor = Executor(
                self.student, inputs=[part.input], outputs=[skip.name or ""], threads=self.context.threads
            )
        limit = min(self.rows, ROW_BYTES // (8 * patches.unknowns))
        found = []
        fits, scores = range(self.first_held), range(self.first_held, self.batches)
        for which, (samples, batches) in enumerate(
            ((len(self.fit) * (1 + self.hflip), fits), (len(self.held), scores))
        ):
            pixels = int(np.prod(patches.out_shape(self.store.get("z", 0).shape[2:])))
            fraction = min(1.0, limit / max(samples * pixels, 1))
            collector = Collector(patches, fraction, self.options.seed * 1000 + 2 * number + which)
            label = f"distill-convex: rows {'to judge' if which else 'to fit'}"
            for batch in self.context.progress.over(label, batches, len(batches)):
                z = self.store.get("z", batch)
                beside: Array | None = None
                if projection is not None:
                    beside = _projected(z, projection, part.geometry.stride)
                elif executor is not None and skip is not None:
                    beside = executor.run({part.input: z})[skip.name or ""]
                elif part.skip is not None:
                    beside = z
                collector.add(z, self.store.get(f"t:{part.output}", batch), beside)
            found.append(
                collector.rows() if len(batches) else Rows.none(patches.unknowns, part.geometry.outputs)
            )
        return found[0], found[1]

    def _projection(self, part: Part) -> Array:
        """Columns (channels + 1, out) of the strided 1x1 convolution that comes nearest to the teacher on its own."""
        geometry = part.geometry
        patches = Patches(geometry.channels, (1, 1), (geometry.stride,) * 2, (0,) * 4, (1, 1))
        gram = Gram.zeros(1, patches.unknowns, geometry.outputs)
        for batch in range(self.first_held):
            z, target = self.store.get("z", batch), self.store.get(f"t:{part.output}", batch)
            rows = np.arange(len(z) * int(np.prod(patches.out_shape(z.shape[2:]))))
            wanted = targets_at(target, rows, 1)
            for piece, p in patches.tiles(z, rows):
                gram.add(p, wanted[:, piece])
        return np.asarray(
            ridge(gram.h, gram.s, np.zeros_like(gram.s), PROJECTION_RIDGE, carried=CARRIED).columns[0]
        )

    def _errors(self, model: ir.Model) -> RegionErrors:
        last = self.parts[-1]
        clipping = self._clipping(last) or Clipping(None, None)
        mine = Executor(model, outputs=[last.output], threads=self.context.threads)
        theirs = Executor(self.teacher, outputs=[last.output], threads=self.context.threads)
        errors, energy = [], 0.0
        data = self.held if len(self.held) else self.fit
        for feeds in data.batches(self.size):
            wanted = clipping.apply(theirs.run(feeds)[last.output])
            left = clipping.apply(mine.run(feeds)[last.output]) - wanted
            errors.append(np.square(left, dtype=np.float64).reshape(len(left), -1).sum(axis=1))
            energy += squared(wanted)
        unknowns = sum(_patches(part).unknowns for part in self.parts)
        return RegionErrors(np.concatenate(errors), energy, unknowns)


def _patches(part: Part) -> Patches:
    geometry = part.geometry
    return Patches(geometry.channels, (3, 3), (geometry.stride,) * 2, (1,) * 4, (1, 1))


def runs_on(student: ir.Model, one: Part, following: Part) -> bool:
    """True where the second part reads the first one's sum, or its activation, and its own skip can be followed back."""
    made = next(v for n in student.graph for v in n.outputs if v.name == one.output)
    reader = sole_consumer(made)
    direct = following.input == one.output
    behind = (
        reader is not None and clipping_of(reader) is not None and reader.outputs[0].name == following.input
    )
    return (direct or behind) and not following.projected and not following.skip


def _values(model: ir.Model) -> list[ir.Value]:
    return [*model.graph.inputs, *(value for node in model.graph for value in node.outputs)]


def _spatial(value: ir.Value) -> tuple[int, ...]:
    return tuple(int(size or 0) for size in shape_of(value)[2:])


def _last(array: Array) -> Array:
    return np.ascontiguousarray(np.moveaxis(array, 1, -1))


def _projected(z: Array, columns: Array, stride: int) -> Array:
    inner = z[:, :, ::stride, ::stride]
    made = np.einsum("nchw,co->nohw", inner, columns[:-1].astype(np.float32), optimize=True)
    return np.asarray(made + columns[-1].astype(np.float32)[:, None, None])


def _weights(found: Fitted, patches: Patches, projection: Array | None) -> BlockWeights:
    return BlockWeights(
        gate=None if found.gate is None else _kernel(found.gate, patches),
        value=_kernel(found.value, patches),
        out=_pointwise(found.w, found.b),
        projection=None if projection is None else _pointwise(projection[:-1], projection[-1]),
    )


def _kernel(columns: Array, patches: Patches) -> Kernel:
    weight, bias = patches.weight(columns[None])
    return Kernel(weight, np.zeros(len(weight), np.float32) if bias is None else bias)


def _pointwise(w: Array, b: Array) -> Kernel:
    return Kernel(w.T[:, :, None, None].astype(np.float32), b.astype(np.float32))
