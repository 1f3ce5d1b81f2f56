"""What an error inside the network does to its output: measured, label-free, for one group at a time.

The curve of a group counts errors where they arise. How much of that reaches the output differs between layers by an order of
magnitude, so each curve is scaled by (change of the output) / (modelled error), measured at a few widths on a few samples, with
the consumers re-fitted and everything else as it is. Between the measured widths the output's change is interpolated over the
error, both as logarithms; beyond them it is in proportion to the error: it never extrapolates a trend.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from edgec.graph.channels import ChannelGroup
from edgec.graph.cost import cost
from edgec.passes.base import Context
from edgec.passes.pruning.statistics import ConsumerStatistics
from edgec.passes.recovery.sites import MEMORY
from edgec.passes.recovery.store import ActivationStore
from edgec.passes.recovery.walk import Walk, batch_size
from edgec.passes.solvers.obs import Curve

Array = np.ndarray[Any, np.dtype[Any]]

WIDTHS = (0.75, 0.5, 0.25)
"""Shares of a group's units at which its damage is measured."""
WORK = 4e11
"""MACs that all measurements together may take."""
MOST_SAMPLES, LEAST_SAMPLES = 96, 8


@dataclass(frozen=True)
class Damage:
    """Measured at one width: the modelled ``error`` and the relative squared change of the ``output``."""

    width: int
    error: float
    output: float


def measure(
    model: ir.Model,
    groups: Sequence[ChannelGroup],
    curves: Mapping[str, Curve],
    statistics: Mapping[str, ConsumerStatistics],
    context: Context,
) -> dict[str, tuple[Damage, ...]]:
    """Damage of every group at `WIDTHS`. ``model`` is changed on the way and left as it was."""
    if context.data is None or not groups:
        return {}
    work = max(cost(model).macs, 1) * 0.55 * len(groups) * len(WIDTHS)
    data = context.data.take(int(np.clip(WORK / work, LEAST_SAMPLES, MOST_SAMPLES)), context.seed)
    position = {node.name: number for number, node in enumerate(model.graph)}
    first = {
        group.name: min(position[m.node] for m in group.consumers if m.node in statistics) for group in groups
    }
    names = output_names(model.graph)
    store = ActivationStore(context.scratch, int(MEMORY))
    found: dict[str, tuple[Damage, ...]] = {}
    try:
        walk = Walk(model, data.batches(batch_size(model.graph)), store, context.threads)
        reference = [centred(out, names) for out in walk.values(names)]
        for number, group in enumerate(sorted(groups, key=lambda g: first[g.name])):
            context.progress.step("prune-channels: damage", number, len(groups))
            walk.go(first[group.name])
            found[group.name] = _group(walk, group, curves[group.name], statistics, reference, names)
    finally:
        store.clear()
    return found


def _group(
    walk: Walk,
    group: ChannelGroup,
    curve: Curve,
    statistics: Mapping[str, ConsumerStatistics],
    reference: Sequence[Array],
    names: Sequence[str],
) -> tuple[Damage, ...]:
    readers = [
        statistics[name] for name in dict.fromkeys(m.node for m in group.consumers) if name in statistics
    ]
    points = []
    for width in sorted({max(1, round(share * group.size)) for share in WIDTHS}, reverse=True):
        if width == group.size:
            continue
        gone = np.setdiff1d(np.arange(group.size), curve.kept(width))
        for reader in readers:
            rows = reader.units(group)
            if rows is not None:
                reader.set_columns(reader.compensated(rows[gone].ravel()))
        error = energy = 0.0
        for wanted, out in zip(reference, walk.values(names), strict=True):
            error += float(np.square(centred(out, names) - wanted).sum())
            energy += float(np.square(wanted).sum())
        points.append(
            Damage(width, float(curve.errors[group.size - width]), error / energy if energy else 0.0)
        )
    for reader in readers:
        reader.set_columns(reader.columns)
    return tuple(points)


def scaled_errors(curve: Curve, damage: Sequence[Damage]) -> Array:
    """The curve in units of output change."""
    known = sorted({d.error: d.output for d in damage if d.error > 0 and np.isfinite(d.output)}.items())
    if not known:
        return curve.errors
    errors, outputs = (np.log([max(pair[i], 1e-30) for pair in known]) for i in (0, 1))
    with np.errstate(divide="ignore"):
        logs = np.log(curve.errors)
    # Between the points log-log, beyond them in proportion to the error.
    scaled = np.exp(np.interp(logs, errors, outputs) + logs - np.clip(logs, errors[0], errors[-1]))
    return np.maximum.accumulate(np.where(curve.errors > 0, scaled, 0.0))


def output_names(graph: ir.Graph) -> tuple[str, ...]:
    """The outputs, or what goes into a Softmax or Sigmoid that makes one: probabilities saturate and hide differences."""
    names = []
    for value in graph.outputs:
        producer = value.producer()
        if producer is not None and producer.op_type in ("Softmax", "LogSoftmax", "Sigmoid"):
            value = producer.inputs[0] or value
        names.append(value.name or "")
    return tuple(names)


def centred(outputs: Mapping[str, Array], names: Sequence[str]) -> Array:
    """All outputs of a batch side by side; class scores less their mean, which softmax ignores."""
    parts = []
    for name in names:
        flat = outputs[name].reshape(len(outputs[name]), -1).astype(np.float64)
        parts.append(flat - flat.mean(axis=1, keepdims=True) if outputs[name].ndim == 2 else flat)
    return np.concatenate(parts, axis=1)
