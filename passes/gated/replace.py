"""Replace the parts of a region one after the other: data through the student so far, a fit, a new block."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx_ir as ir

from edgec.graph.data import Dataset
from edgec.graph.errors import PassError
from edgec.graph.execute import Executor
from edgec.graph.views import constant, own_constant, sole_consumer
from edgec.passes.base import Context
from edgec.passes.gated.block import BlockOptions, Figures, Fitted, Unconverged, fit_block
from edgec.passes.gated.parts import Part
from edgec.passes.gated.rows import Collector, Rows
from edgec.passes.gated.surgery import BlockWeights, Kernel, put_in, skip_value
from edgec.passes.recovery.goals import clipping_of
from edgec.passes.recovery.layers import layers_of
from edgec.passes.recovery.store import ActivationStore
from edgec.passes.recovery.walk import batch_size
from edgec.passes.solvers.gram import Gram, Patches, targets_at
from edgec.passes.solvers.rectified import Clipping
from edgec.passes.solvers.ridge import ridge

Array = np.ndarray[Any, np.dtype[Any]]

MEMORY = 600 << 20
"""Bytes of activations held; what exceeds them goes to disk."""
ROW_BYTES = 400 << 20
"""Bytes of patches, raw and whitened together."""
PROJECTION_RIDGE = 1e-3


@dataclass
class Replacement:
    """``student`` is changed in place. ``fit`` and ``held`` are the two parts of the data; ``rows`` limits those of one fit."""

    student: ir.Model
    teacher: ir.Model
    parts: Sequence[Part]
    context: Context
    fit: Dataset
    held: Dataset
    rows: int
    options: BlockOptions
    figures: list[Figures] = field(default_factory=list)
    outs: list[str] = field(default_factory=list)

    def run(self) -> Unconverged | None:
        """Replace all parts; stops where the convex solver does not converge. Raises PassError where nothing varies."""
        self.size = batch_size(self.student.graph)
        self.filters = {name: layer.columns()[0] for name, layer in layers_of(self.student).items()
                        if any(name in part.firsts for part in self.parts)}  # fmt: skip
        self.store = ActivationStore(self.context.scratch, MEMORY)
        try:
            self._begin()
            for number, part in enumerate(self.parts):
                self.context.progress.step("distill-convex: blocks", number, len(self.parts))
                found = self._one(number, part)
                if isinstance(found, Unconverged):
                    return found
                if number + 1 < len(self.parts):
                    self._advance(part.input, self.parts[number + 1].input)
        finally:
            self.store.clear()
        return None

    def errors(self) -> tuple[float, float]:
        """Relative errors at the end of the region on the held-out samples: of the student, and with nothing but the skips."""
        bare = self.student.clone()
        for node in bare.graph:
            if node.name in self.outs:
                for index in (1, 2):
                    own_constant(bare.graph, node, index, np.zeros_like(constant(node.inputs[index])))
        return self._error(self.student), self._error(bare)

    @property
    def batches(self) -> int:
        return -(-len(self.fit) // self.size) + -(-len(self.held) // self.size)

    @property
    def first_held(self) -> int:
        return -(-len(self.fit) // self.size)

    def _feeds(self) -> Iterator[dict[str, Array]]:
        yield from self.fit.batches(self.size)
        yield from self.held.batches(self.size)

    def _begin(self) -> None:
        """The input of the first part, and the teacher's values behind all of them."""
        threads = self.context.threads
        student = Executor(self.student, outputs=[self.parts[0].input], threads=threads)
        teacher = Executor(self.teacher, outputs=[part.output for part in self.parts], threads=threads)
        for number, feeds in enumerate(self._feeds()):
            self.context.progress.step("distill-convex: activations", number, self.batches)
            self.store.put("z", number, student.run(feeds)[self.parts[0].input])
            for name, value in teacher.run(feeds).items():
                self.store.put(f"t:{name}", number, value)

    def _advance(self, old: str, new: str) -> None:
        executor = Executor(self.student, inputs=[old], outputs=[new], threads=self.context.threads)
        for number in range(self.batches):
            self.store.put("z", number, executor.run({old: self.store.get("z", number)})[new])

    def _one(self, number: int, part: Part) -> Unconverged | None:
        geometry = part.geometry
        strides = (geometry.stride,) * 2
        patches = Patches(geometry.channels, (3, 3), strides, (1,) * 4, (1, 1))
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
        self.outs.append(put_in(self.student, part, _weights(found, patches, projection)))
        return None

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
        for which, (data, batches) in enumerate(
            ((self.fit, range(self.first_held)), (self.held, range(self.first_held, self.batches)))
        ):
            pixels = int(np.prod(patches.out_shape(self.store.get("z", 0).shape[2:])))
            fraction = min(1.0, limit / max(len(data) * pixels, 1))
            collector = Collector(patches, fraction, self.options.seed * 1000 + 2 * number + which)
            for batch in batches:
                self.context.progress.step("distill-convex: rows", batch, self.batches)
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
        return np.asarray(ridge(gram.h, gram.s, np.zeros_like(gram.s), PROJECTION_RIDGE).columns[0])

    def _error(self, model: ir.Model) -> float:
        last = self.parts[-1]
        clipping = self._clipping(last) or Clipping(None, None)
        mine = Executor(model, outputs=[last.output], threads=self.context.threads)
        theirs = Executor(self.teacher, outputs=[last.output], threads=self.context.threads)
        error = energy = 0.0
        data = self.held if len(self.held) else self.fit
        for feeds in data.batches(self.size):
            one, all_ = clipping.error(mine.run(feeds)[last.output], theirs.run(feeds)[last.output], None)
            error, energy = error + one, energy + all_
        return error / energy if energy else 0.0


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
