"""The per-layer table of a report: what each node cost before and costs now, and how far its output has moved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnx_ir as ir

from edgec.graph.compare import compare
from edgec.graph.cost import NodeCost, cost
from edgec.graph.data import Dataset

SAMPLES = 16
"""Images that the per-layer differences are taken on: enough for a ratio of energies, cheap enough for every run."""


@dataclass(frozen=True)
class LayerRow:
    """One node by name; zeros before for new ones, zeros after for those that are gone."""

    name: str
    op: str
    before: NodeCost | None
    after: NodeCost | None
    error: float | None = None
    sqnr_db: float | None = None
    latency_ms: float | None = None


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
    rows = []
    for name in [*before, *(name for name in after if name not in before)]:
        old, new = before.get(name), after.get(name)
        known = old or new
        rows.append(
            LayerRow(
                name=name,
                op=known.op if known is not None else "",
                before=old,
                after=new,
                error=error.get(name),
                sqnr_db=sqnr.get(name),
                latency_ms=per_node_ms.get(name),
            )
        )
    return tuple(rows)


def _sqnr(reference: ir.Model, other: ir.Model, data: Dataset, threads: int) -> dict[str, float]:
    """SQNR in dB by node, at the values that both graphs compute under one name and shape."""
    differences = compare(reference, other, data, threads=threads)
    return {one.node: one.sqnr_db for one in differences if one.node}
