"""The layers of a student to fit, one after the other, each with what the fit needs: inputs, targets, and what is added to it.

The student's inputs come from the student as corrected so far; the targets come from the clean teacher (the order of FSKD's
block coordinate descent, arXiv 1812.01839). Both networks are walked through once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx_ir as ir

from edgec.graph.sharing import shares_weight
from edgec.graph.views import computed_from, constant
from edgec.passes.base import Context
from edgec.passes.incremental.executor import IncrementalExecutor
from edgec.passes.incremental.store import ActivationStore
from edgec.passes.refit.batches import Batches, Feeds
from edgec.passes.refit.channel_map import ChannelMap, channel_maps
from edgec.passes.refit.fit_target import FitTarget, Inner, chain_before, fit_target_of
from edgec.passes.refit.layers import Layer, layers_of
from edgec.passes.refit.order import skips_first
from edgec.passes.refit.pooled import Pool, applied
from edgec.passes.solvers.parallel import prefetch

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Sample:
    """One batch at one layer, channels on axis 1. ``offset`` is what the network adds to the layer's output (None: nothing);
    ``target`` is wanted of the layer alone, without it. ``held`` batches score the fit and take no part in it."""

    x: Array
    target: Array
    offset: Array | None
    held: bool
    start: Array | None = None
    """Input of the chain's first layer, where there is a chain."""
    images: int = 0
    """Samples in the batch: where a batch is merged with tokens or windows, fewer than the length of ``x``."""
    pixels: tuple[Array, Array] | None = None
    """Where a global pool is in front: the map before it, and what is wanted of the layer at each of its pixels."""


@dataclass(frozen=True)
class LayerFit:
    """One layer, ready to be fitted: ``samples`` may be read once."""

    number: int
    layer: Layer
    goal: FitTarget
    samples: Iterator[Sample]
    images: int
    rows: int
    """Samples that are fitted, and their output pixels."""
    held: int = 0
    """Samples that judge, and come last."""
    chain: tuple[Inner, ...] = ()
    """Layers in front that may be fitted together with this one."""


class LayerFits:
    """A walk through ``student`` and the context's teacher; iterate once. ``depth``: how many layers a chain has in front.

    ``enough``: how many samples the fit of a layer, the last of these, needs; None: all. Samples join the walk where a layer
    needs them first: near the input, where maps are large and unknowns few, most are not there yet.
    """

    def __init__(
        self,
        student: ir.Model,
        context: Context,
        names: Sequence[str],
        batches: Batches,
        depth: int = 0,
        enough: Callable[[Sequence[Layer]], float] | None = None,
    ) -> None:
        self.student, self.context, self.batches = student, context, batches
        self.kept: dict[str, ChannelMap] = channel_maps(student)
        skips_first(student.graph)
        position = {node: number for number, node in enumerate(student.graph)}
        layers = layers_of(student)
        self.originals: Mapping[str, Layer] = layers_of(context.original)
        self.planned: list[tuple[Layer, FitTarget, int]] = []
        self.chains: list[tuple[Inner, ...]] = []
        self.pools: list[Pool | None] = []
        self.skipped: dict[str, str] = {}
        made = made_at(context.original.graph)
        for name in names:
            layer = layers[name]
            if shares_weight(layer.node):
                self.skipped[name] = "another layer reads its weight too"
                continue
            goal = fit_target_of(layer, position)
            if goal.value not in made:
                goal = FitTarget(layer.y.name or "")
            if goal.value not in made:
                self.skipped[name] = "the teacher has no such tensor to fit it to"
                continue
            self.planned.append((layer, goal, position[layer.node]))
            self.chains.append(chain_before(layer, depth))
            self.pools.append(self._pool(layer, goal, made))
        self.holds: list[tuple[str, ...]] = self._holds(position)
        self.numbers: list[tuple[int, ...]] = self._numbers(enough)
        # A goal may lie behind the next ones: the teacher stops before the first of all that are still to come.
        stops = [made[goal.value] for _, goal, _ in self.planned]
        for number, pool in enumerate(self.pools):
            if pool is not None:
                # The map in front of the pool must still be live there.
                stops[number] = min(stops[number], made[pool.node.outputs[0].name or ""])
        self.teacher_stops: list[int] = [min(stops[i:]) for i in range(len(stops))]

    def __len__(self) -> int:
        return len(self.planned)

    def __iter__(self) -> Iterator[LayerFit]:
        if not self.planned:
            return
        # A quarter for each: the other half is for the sessions, which run while rows are gathered.
        folder, limit = self.context.scratch, int(self.batches.memory / 4)
        stores = ActivationStore(folder, limit), ActivationStore(folder, limit)
        try:
            student = IncrementalExecutor(self.student, (), stores[0], self.context.threads)
            teacher = IncrementalExecutor(self.context.original, (), stores[1], self.context.threads)
            for walk in (student, teacher):
                walk.join(self.batches.numbered(self.numbers[0]))
            teacher.go(self.teacher_stops[0])
            for number, (layer, goal, _) in enumerate(self.planned):
                new = set(self.numbers[number]) - set(student.sizes)
                for walk in (student, teacher) if new else ():
                    walk.join(self.batches.numbered(new))
                following = self.teacher_stops[min(number + 1, len(self.planned) - 1)]
                chain = self.chains[number]
                samples = prefetch(self._samples(student, teacher, number, following), self.context.threads)
                weights = [inner.layer.columns() for inner in chain]
                images = sum(size for one, size in student.sizes.items() if one < self.batches.first_held)
                held = len(self.batches.held)
                yield LayerFit(number, layer, goal, samples, images, images * layer.rows, held, chain)
                for _ in samples:
                    # The walk must go on even where nobody looked at the samples.
                    pass
                changed = [
                    a.layer.y
                    for a, b in zip(chain, weights, strict=True)
                    if not np.array_equal(a.layer.columns(), b)
                ]
                stale = {value.name for value in computed_from(changed)}
                for held_value in [value for value in student.live if value in stale]:
                    student.forget(held_value)
        finally:
            for store in stores:
                store.clear()

    def _numbers(self, enough: Callable[[Sequence[Layer]], float] | None) -> list[tuple[int, ...]]:
        """Per site, the batches that take part: never fewer than before it."""
        found, most = list[tuple[int, ...]](), 0.0
        for (layer, _, _), chain in zip(self.planned, self.chains, strict=True):
            layers = [*(inner.layer for inner in chain), layer]
            most = max(most, math.inf if enough is None else enough(layers))
            found.append(self.batches.enough(most))
        return found

    def _pool(self, layer: Layer, goal: FitTarget, made: dict[str, int]) -> Pool | None:
        """A pool whose map and mean the teacher has too; sums with other tensors have no pixels of their own."""
        pool = Pool.before(layer)
        if pool is None or goal.others or layer.name not in self.originals:
            return None
        known = pool.map in made and (pool.node.outputs[0].name or "") in made
        return pool if known else None

    def _holds(self, position: dict[ir.Node, int]) -> list[tuple[str, ...]]:
        """Per site, the inputs of chains that begin at or before it and end at it or later."""
        found: list[set[str]] = [set() for _ in self.planned]
        for number, chain in enumerate(self.chains):
            if chain:
                begin = position[chain[0].layer.node]
                for other in range(number + 1):
                    if self.planned[other][2] >= begin:
                        found[other].add(chain[0].layer.x)
            pool = self.pools[number]
            if pool is not None:
                begin = position[pool.node]
                for other in range(number + 1):
                    if self.planned[other][2] >= begin:
                        found[other].add(pool.map)
        return [tuple(sorted(names)) for names in found]

    def _samples(
        self, student: IncrementalExecutor, teacher: IncrementalExecutor, site: int, following: int
    ) -> Iterator[Sample]:
        layer, goal, position = self.planned[site]
        chain, pool = self.chains[site], self.pools[site]
        begin = [chain[0].layer.x] if chain else []
        front = [] if pool is None else [pool.map]
        mine = student.advance(position, [layer.x, *goal.others, *begin, *front], self.holds[site])
        theirs = teacher.advance(following, [goal.value, *front])
        kept = self.kept.get(goal.value)
        for number, own, clean in zip(student.sizes, mine, theirs, strict=True):
            found = self._sample(layer, goal, kept, own, clean[goal.value])
            held = number >= self.batches.first_held
            pixels = None
            if pool is not None and not held:
                made = applied(self.originals[layer.name], clean[pool.map])
                pixels = own[pool.map], made if kept is None else kept.of(made)
            start = chain[0].layer.first(own[begin[0]]) if chain else None
            images = student.sizes[number]
            yield replace(found, held=held, start=start, pixels=pixels, images=images)

    def _sample(
        self, layer: Layer, goal: FitTarget, kept: ChannelMap | None, own: Feeds, clean: Array
    ) -> Sample:
        wanted = clean if kept is None else kept.of(clean)
        offset: Array | None = None
        for name in goal.others:
            offset = own[name] if offset is None else offset + own[name]
        target = wanted if offset is None else wanted - offset
        return Sample(
            layer.first(own[layer.x]),
            layer.first(target),
            None if offset is None else layer.first(offset),
            held=False,
        )


def made_at(graph: ir.Graph) -> dict[str, int]:
    """Value name -> number of the node that makes it."""
    return {value.name or "": number for number, node in enumerate(graph) for value in node.outputs}


def touched_layers(student: ir.Model, teacher: ir.Model) -> tuple[str, ...]:
    """Layers that see something else than in the teacher: channels went before them, or a layer before them changed."""
    originals = {node.name: node for node in teacher.graph}
    touched = {name for name, kept in channel_maps(student).items() if kept.positions}
    found = []
    for node in student.graph:
        inputs = {value.name for value in node.inputs if value is not None}
        if inputs & touched:
            if Layer.of(node) is not None:
                found.append(node.name or "")
            touched.update(value.name or "" for value in node.outputs)
        elif not _same_weights(node, originals.get(node.name)):
            touched.update(value.name or "" for value in node.outputs)
    return tuple(found)


def _same_weights(node: ir.Node, original: ir.Node | None) -> bool:
    """False where the node is new, or where constants of one shape differ (a smaller shape was cut, which touches no value)."""
    if original is None or original.op_type != node.op_type:
        return False
    for mine, theirs in zip(node.inputs, original.inputs, strict=False):
        a, b = constant(mine), constant(theirs)
        if a is not None and b is not None and a.shape == b.shape and a is not b and not np.array_equal(a, b):
            return False
    return True
