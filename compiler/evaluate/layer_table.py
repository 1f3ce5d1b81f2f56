"""The per-layer table of a report: what each node cost before and costs now, and how far its output has moved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from edgec.graph.compare import common_values
from edgec.graph.cost import NodeCost, cost
from edgec.graph.data import Dataset
from edgec.graph.execute import Executor
from edgec.graph.provenance import origins

Array = np.ndarray[Any, np.dtype[Any]]

SAMPLES = 16
"""Images that the per-layer differences are taken on: enough for a ratio of energies, cheap enough for every run."""


@dataclass(frozen=True)
class LayerRow:
    """One node by name; zeros before for new ones, zeros after for those that are gone.

    ``made_by`` and ``source``: the pass that made it and the node of the source model that it stands for (`graph.provenance`).
    """

    name: str
    op: str
    before: NodeCost | None
    after: NodeCost | None
    error: float | None = None
    sqnr_db: float | None = None
    latency_ms: float | None = None
    made_by: str = ""
    source: str = ""


def layer_table(
    source: ir.Model,
    models: Mapping[str, ir.Model],
    data: Dataset | None,
    per_node_ms: Mapping[str, float],
    threads: int,
) -> tuple[LayerRow, ...]:
    """Rows in the order of the source graph, new nodes behind them."""
    before = {node.name: node for node in cost(source).nodes}
    after = {node.name: node for node in cost(models["fp32"]).nodes}
    error: dict[str, float] = {}
    sqnr: dict[str, float] = {}
    if data is not None and len(data):
        few = data.take(SAMPLES)
        moved = models["fp32"] is not source
        error = (
            {n: 10 ** (-db / 10) for n, db in _sqnr(source, models["fp32"], few, threads).items()}
            if moved
            else {}
        )
        quantised = list(models.values())[-1]
        sqnr = _sqnr(models["fp32"], quantised, few, threads) if len(models) > 1 else {}
    known = {**origins(source), **origins(models["fp32"])}
    rows = []
    for name in [*before, *(name for name in after if name not in before)]:
        old, new = before.get(name), after.get(name)
        either, found = old or new, known.get(name)
        rows.append(
            LayerRow(
                name=name,
                op=either.op if either is not None else "",
                before=old,
                after=new,
                error=error.get(name),
                sqnr_db=sqnr.get(name),
                latency_ms=per_node_ms.get(name),
                made_by=found.made_by if found is not None else "",
                source=found.source if found is not None else "",
            )
        )
    return tuple(rows)


def _sqnr(reference: ir.Model, other: ir.Model, data: Dataset, threads: int) -> dict[str, float]:
    """SQNR in dB by node, at the values that both graphs compute under one name and shape.

    Each channel may differ by a factor: equalisation moves scales from one layer into the next without changing the function,
    and that is no noise.
    """
    shared = common_values(reference, other)
    names = [name for name, _, _ in shared]
    left, right = (
        Executor(reference, outputs=names, threads=threads),
        Executor(other, outputs=names, threads=threads),
    )
    sums: dict[str, Array] = {}
    ours, theirs = data.at(reference), data.at(other)
    pairs = zip(ours.batches(1), theirs.batches(1), strict=True)
    for feeds, others in pairs:  # every inner value of both graphs is held at once
        x, y = left.run(feeds), right.run(others)
        for name in names:
            found = _channel_sums(x[name], y[name])
            sums[name] = found if name not in sums else sums[name] + found
    return {node: _decibels(sums[name]) for name, node, _ in shared}


def _channel_sums(reference: Array, value: Array) -> Array:
    """(3, channels): energy of the reference, energy of the value, their product."""
    a, b = reference.astype(np.float64), value.astype(np.float64)
    axes = tuple(axis for axis in range(a.ndim) if axis != 1)
    return np.stack([np.atleast_1d(np.sum(product, axis=axes)) for product in (a * a, b * b, a * b)])


def _decibels(sums: Array) -> float:
    energy, other, product = sums
    explained = np.divide(product**2, other, out=np.zeros_like(product), where=other > 0)
    noise = float(np.maximum(energy - explained, 0).sum())
    if not energy.sum():
        return float("inf")
    return float(10 * np.log10(energy.sum() / noise)) if noise else float("inf")
