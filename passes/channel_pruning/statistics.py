"""What the layers that read prunable channels see: one walk over the calibration data, one normal matrix per consumer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir

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
    position = {node: number for number, node in enumerate(model.graph)}
    places = [_stop(layer, position) for layer in layers]
    stops = [*(min(places[i:]) for i in range(1, len(places))), *places[-1:]]
    store = ActivationStore(context.scratch, int(batches.memory))
    found: dict[str, ConsumerStatistics] = {}
    try:
        walk, most = IncrementalExecutor(model, (), store, context.threads), 0.0
        ways = context.progress.over(label, zip(layers, stops, strict=True), len(layers))
        for number, (layer, following) in enumerate(ways):
            most = max(most, enough_samples([layer], options))
            if not number:
                walk.join(batches.numbered(batches.enough(most)))
                walk.go(min(places))
            walk.join(batches.numbered(set(batches.enough(most)) - set(walk.sizes)))
            found[layer.name] = _one(walk, layer, following, position, options, number)
    finally:
        store.clear()
    return _pooled(model, found)


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


def _one(
    walk: IncrementalExecutor,
    layer: Layer,
    following: int,
    position: dict[ir.Node, int],
    options: FitOptions,
    number: int,
) -> ConsumerStatistics:
    patches = layer.patches
    goal = fit_target_of(layer, position)
    reader = sole_consumer(value_named(layer, goal.value))
    behind = goal.value if reader is None or clipping_of(reader) is None else reader.outputs[0].name or ""
    pool = Pool.before(layer)
    front = [] if pool is None else [pool.map]
    columns = layer.columns()
    # What the layer makes is its own target here, so only H is summed.
    gram, dense = (Gram.zeros(patches.group, patches.unknowns, 0) for _ in range(2))
    energy = pixels = 0.0
    for index, found in enumerate(prefetch(walk.advance(following, [layer.x, behind, *front]), walk.threads)):
        x, wanted = layer.first(found[layer.x]), layer.first(found[behind])
        pixels += wanted.size / wanted.shape[1]
        energy += squared(wanted)
        fraction = row_fraction(patches, layer.rows * sum(walk.sizes.values()), options)
        picked = patches.sample(x, fraction, np.random.default_rng((options.seed, number, index)))
        for _, p in patches.tiles(x, picked):
            gram.add(p, p[:, :, :0])
        if pool is not None:
            add_pixels(dense, layer, found[pool.map])
    gram = mixed(gram, dense)
    return ConsumerStatistics(
        layer,
        _block_diagonal(gram.h) / max(gram.rows, 1.0),
        columns.reshape(-1, columns.shape[2]),
        energy / max(pixels, 1.0),
        gram.rows,
        options.ridge,
    )


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
