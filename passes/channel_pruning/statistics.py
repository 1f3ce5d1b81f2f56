"""What the layers that read prunable channels see: one walk over the calibration data, one normal matrix per consumer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import numpy as np
import onnx_ir as ir

from edgec.graph.batch import sample_bytes
from edgec.graph.channels import ChannelGroup
from edgec.graph.sharing import SharedWeights
from edgec.graph.views import sole_consumer
from edgec.passes.base import Context
from edgec.passes.incremental.executor import IncrementalExecutor
from edgec.passes.incremental.store import ActivationStore
from edgec.passes.refit.batches import Batches
from edgec.passes.refit.fit import FitOptions, enough_samples, row_fraction
from edgec.passes.refit.fit_target import clipping_of, fit_target_of
from edgec.passes.refit.layers import Layer, layers_of
from edgec.passes.refit.pooled import Pool, add_pixels, mixed
from edgec.passes.solvers.gram import Gram
from edgec.passes.solvers.obs import Consumer
from edgec.passes.solvers.parallel import prefetch
from edgec.passes.solvers.rectified import squared
from edgec.passes.solvers.ridge import CARRIED, factor

Array = np.ndarray[Any, np.dtype[Any]]

MAX_UNKNOWNS = 8000
"""Wider consumers would need matrices of gigabytes."""
TOGETHER_BYTES = 48 << 20
"""Maps of one batch and normal matrices of the layers that are looked at in one go."""


@dataclass
class ConsumerStatistics:
    """One layer that reads prunable channels: ``h`` (n, n) per row, ``columns`` (n, out) as they are, block-diagonal over groups.

    ``energy`` is that of the tensor that the layer's output becomes (behind the residual sum and the activation), per row.
    """

    layer: Layer
    h: Array
    columns: Array
    energy: float
    rows: float
    ridge: float
    _units: dict[str, Array] = field(default_factory=dict)

    def units(self, group: ChannelGroup) -> Array | None:
        """Rows of ``h`` that go with each unit of ``group``; None where the layer does not read it."""
        if group.name not in self._units:
            member = next((m for m in group.activations if m.value == self.layer.x), None)
            if member is None:
                return None
            self._units[group.name] = unit_rows(self.layer, member.index)
        return self._units[group.name]

    def consumer(self, group: ChannelGroup) -> Consumer | None:
        """As the eliminator takes it; its error is relative to ``energy``."""
        rows = self.units(group)
        if rows is None:
            return None
        return Consumer(self.h, self.columns, rows, 1.0 / self.energy if self.energy else 0.0)

    def compensated(self, gone: Array) -> Array:
        """Columns that make up for the unknowns ``gone``, which become 0: the ridge solution on the others."""
        stay = np.setdiff1d(np.arange(len(self.h)), gone)
        kept = self.h[np.ix_(stay, stay)]
        columns = np.zeros_like(self.columns)
        columns[stay] = factor(kept, self.ridge, carried=CARRIED).ridge(
            self.h[stay] @ self.columns, self.columns[stay]
        )
        return columns

    def set_columns(self, columns: Array) -> None:
        """Write (n, out) columns into the layer."""
        patches = self.layer.patches
        self.layer.set_columns(columns.reshape(patches.group, patches.unknowns, -1))


def unit_rows(layer: Layer, channels: Array) -> Array:
    """Rows of the (block-diagonal) normal matrix that read the input channels (units, c) of ``layer``."""
    patches = layer.patches
    group, inner = np.divmod(channels, patches.group_channels)
    taps = np.arange(len(patches.taps)) * patches.group_channels
    rows = group[:, None, :] * patches.unknowns + taps[None, :, None] + inner[:, None, :]
    return np.asarray(np.sort(rows.reshape(len(channels), -1), axis=1))


def consumers_of(model: ir.Model, groups: Sequence[ChannelGroup]) -> tuple[list[Layer], dict[str, str]]:
    """Layers that read ``groups`` and can be re-fitted, in graph order; and why not, by node, for the others."""
    layers, refused = layers_of(model), {}
    wanted = {member.node for group in groups for member in group.consumers}
    for name in wanted:
        if name not in layers:
            refused[name] = "its weight is not constant or its geometry is not known"
        elif layers[name].patches.unknowns * layers[name].patches.group > MAX_UNKNOWNS:
            refused[name] = f"more than {MAX_UNKNOWNS} unknowns"
    return [layer for name, layer in layers.items() if name in wanted and name not in refused], refused


def restore(readers: Sequence[ConsumerStatistics]) -> None:
    """Give every layer the weights that it had."""
    for reader in readers:
        reader.set_columns(reader.columns)


def gather(
    model: ir.Model,
    layers: Sequence[Layer],
    batches: Batches,
    options: FitOptions,
    context: Context,
    label: str,
) -> dict[str, ConsumerStatistics]:
    """Run ``model`` once, front to back, and collect the statistics of ``layers``, by node name, each from as many of ``batches``
    as a fit of it needs."""
    walk = _Walk.of(model, layers, batches, options, context)
    found = context.progress.over(label, walk, len(layers))
    return _pooled(model, {one.layer.name: one for one in found})


@dataclass(frozen=True)
class _Walk:
    """Front to back through ``model``, some neighbouring ``layers`` at a time: what stands between them is held nowhere.

    ``wanted``: from how many samples each of them is summed; ``stops``: where the walk stands in front of each, and at the end.
    """

    model: ir.Model
    layers: Sequence[Layer]
    batches: Batches
    options: FitOptions
    context: Context
    position: dict[ir.Node, int]
    wanted: Sequence[float]
    stops: Sequence[int]

    @staticmethod
    def of(
        model: ir.Model, layers: Sequence[Layer], batches: Batches, options: FitOptions, context: Context
    ) -> _Walk:
        position = {node: number for number, node in enumerate(model.graph)}
        places = [_stop(layer, position) for layer in layers]
        stops = [*(min(places[i:]) for i in range(len(places))), *places[-1:]]
        wanted = list(accumulate((enough_samples([layer], options) for layer in layers), max))
        return _Walk(model, layers, batches, options, context, position, wanted, stops)

    def __iter__(self) -> Iterator[ConsumerStatistics]:
        with ActivationStore(self.context.scratch, int(self.batches.memory)) as store:
            walk = IncrementalExecutor(self.model, (), store, self.context.threads)
            for numbers, sums in self._together():
                walk.join(self.batches.numbered(set(numbers) - set(walk.sizes)))
                walk.go(self.stops[sums[0].number])
                samples, names = sum(walk.sizes.values()), list(_distinct(sums))
                seen = walk.advance(self.stops[sums[-1].number + 1], names)
                for index, found in enumerate(prefetch(seen, walk.threads)):
                    for one in sums:
                        one.add(found, index, samples, self.options)
                while sums:
                    yield sums.pop(0).statistics(self.options.ridge)

    def _together(self) -> Iterator[tuple[tuple[int, ...], list[_Sums]]]:
        """Layers that are looked at in one go, and the batches that they take part of: as many as `TOGETHER_BYTES` hold."""
        some: list[_Sums] = []
        numbers: tuple[int, ...] = ()
        for number, layer in enumerate(self.layers):
            mine, one = self.batches.enough(self.wanted[number]), _Sums.of(layer, number, self.position)
            maps = self.batches.size * sum(map(sample_bytes, _distinct([*some, one]).values()))
            held = maps + sum(each.gram.h.nbytes for each in (*some, one))
            if some and (mine != numbers or held > TOGETHER_BYTES):
                yield numbers, some
                some = []
            some.append(one)
            numbers = mine
        if some:
            yield numbers, some


@dataclass
class _Sums:
    """What is summed for one layer, number ``number`` of them; its target is what it makes here, so that only H is needed."""

    layer: Layer
    number: int
    behind: ir.Value
    """What the layer's output becomes."""
    pool: Pool | None
    gram: Gram
    dense: Gram
    columns: Array
    energy: float = 0.0
    pixels: float = 0.0

    @staticmethod
    def of(layer: Layer, number: int, position: dict[ir.Node, int]) -> _Sums:
        goal = fit_target_of(layer, position)
        behind, patches = value_named(layer, goal.value), layer.patches
        reader = sole_consumer(behind)
        if reader is not None and clipping_of(reader) is not None:
            behind = reader.outputs[0]
        gram, dense = (Gram.zeros(patches.group, patches.unknowns, 0) for _ in range(2))
        return _Sums(layer, number, behind, Pool.before(layer), gram, dense, layer.columns())

    @property
    def values(self) -> list[ir.Value]:
        """All that is looked at."""
        front = None if self.pool is None else self.pool.node.inputs[0]
        return [self.layer.view.x, self.behind, *([] if front is None else [front])]

    def add(self, found: Mapping[str, Array], index: int, samples: int, options: FitOptions) -> None:
        """One batch, number ``index`` of those that hold ``samples``."""
        layer, patches = self.layer, self.layer.patches
        x, wanted = layer.first(found[layer.x]), layer.first(found[self.behind.name or ""])
        self.pixels += wanted.size / wanted.shape[1]
        self.energy += squared(wanted)
        fraction = row_fraction(patches, layer.rows * samples, options)
        picked = patches.sample(x, fraction, np.random.default_rng((options.seed, self.number, index)))
        for _, p in patches.tiles(x, picked):
            self.gram.add(p, p[:, :, :0])
        if self.pool is not None:
            add_pixels(self.dense, layer, found[self.pool.map])

    def statistics(self, ridge: float) -> ConsumerStatistics:
        """Of all batches."""
        gram, columns = mixed(self.gram, self.dense), self.columns
        return ConsumerStatistics(
            self.layer,
            _block_diagonal(gram.h) / max(gram.rows, 1.0),
            columns.reshape(-1, columns.shape[2]),
            self.energy / max(self.pixels, 1.0),
            gram.rows,
            ridge,
        )


def _pooled(model: ir.Model, found: dict[str, ConsumerStatistics]) -> dict[str, ConsumerStatistics]:
    """Layers that share a weight are one layer that sees the rows of all: what is made of it is the same for each."""
    for names in SharedWeights.of(model.graph).names():
        known = [found[name] for name in names if name in found]
        rows = sum(one.rows for one in known)
        if len(known) < 2 or not rows:
            continue
        h = np.sum([one.h * (one.rows / rows) for one in known], axis=0)
        columns = known[0].columns
        energy = sum(one.energy * one.rows for one in known) / rows
        for one in known:
            made = ConsumerStatistics(one.layer, h, columns, energy, rows, known[0].ridge)
            found[one.layer.name] = made
    return found


def _distinct(sums: Sequence[_Sums]) -> dict[str, ir.Value]:
    """Values that they look at, by name."""
    return {value.name or "": value for one in sums for value in one.values}


def _stop(layer: Layer, position: dict[ir.Node, int]) -> int:
    """Where the walk must be for the layer's rows: before it, and before a pool whose pixels are rows too."""
    pool = Pool.before(layer)
    return position[layer.node if pool is None else pool.node]


def value_named(layer: Layer, name: str) -> ir.Value:
    """The value ``name`` on the way from the layer's output through its Adds."""
    value = layer.y
    while value.name != name:
        reader = sole_consumer(value)
        if reader is None:
            return value
        value = reader.outputs[0]
    return value


def _block_diagonal(h: Array) -> Array:
    if len(h) == 1:
        return np.asarray(h[0])
    groups, n, _ = h.shape
    whole = np.zeros((groups * n, groups * n))
    for g in range(groups):
        whole[g * n : (g + 1) * n, g * n : (g + 1) * n] = h[g]
    return whole
