"""What the low-rank passes share: statistics, ranks under a budget, and the surgery.

1. One walk over the calibration data gives the second moments of what every eligible layer reads, and the error of every rank.
2. A layer is cut only below its break-even rank, ``n * out / (n + out)``: above it two pieces cost more than the one.
3. Ranks: per layer the lower convex hull of (error, cost saved); over all layers the flattest segments first, until the budget is
   met. That is the least total error for every budget that a hull's corner meets.
4. A layer becomes two: the first, of r outputs, keeps kernel, stride, pads and dilation; the second, 1x1, keeps name and output,
   so that `recover-lsq` behind the pass fits it to the teacher.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import onnx_ir as ir

from edgec.graph.cost import cost
from edgec.graph.errors import UsageError
from edgec.graph.views import ConvView, add_initializer, fresh_name, own_constant, set_attribute
from edgec.passes.base import Context, LayerReport, Note, PassResult
from edgec.passes.budget import Budget, parse_budget
from edgec.passes.pruning.statistics import MAX_UNKNOWNS, ConsumerStatistics, gather
from edgec.passes.recovery.fit import FitOptions
from edgec.passes.recovery.layers import Layer, layers_of
from edgec.passes.recovery.sites import Batches, wants_flips
from edgec.passes.solvers.factorise import LowRank, low_rank

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Options:
    """Those of the passes, read."""

    name: str
    budget: Budget
    whitened: bool
    rows: float
    flips: str


def budget_of(name: str, macs: str, params: str) -> Budget:
    """The one budget that is set. Raises UsageError for none or both."""
    given = [f"{unit}={text}" for unit, text in (("macs", macs), ("params", params)) if text]
    if len(given) != 1:
        raise UsageError(
            f"{name} needs one budget", hint=f"Write {name}{{macs=60%}} or {name}{{params=60%}}."
        )
    return parse_budget(given[0])


@dataclass(frozen=True)
class Candidate:
    """A layer with its factors, and what each rank saves in the budget's unit."""

    layer: Layer
    factors: LowRank
    energy: float
    positions: int
    """Products per weight: output pixels for MACs, 1 for parameters."""

    @property
    def size(self) -> tuple[int, int]:
        return self.factors.body.shape[0], self.factors.body.shape[1]

    @property
    def break_even(self) -> int:
        """The largest rank that costs less than the layer."""
        n, out = self.size
        return min((n * out - 1) // (n + out), self.factors.full - 1)

    def saved(self, rank: int) -> float:
        n, out = self.size
        return float(self.positions * (n * out - rank * (n + out)))

    def hull(self) -> list[tuple[int, float, float]]:
        """(rank, saved, relative error) at the corners of the lower convex hull, the whole layer first."""
        points = [(self.factors.full, 0.0, 0.0)]
        for rank in range(self.break_even, 0, -1):
            error = float(self.factors.errors[rank]) / self.energy if self.energy else 0.0
            point = (rank, self.saved(rank), error)
            while len(points) > 1 and _slope(points[-2], points[-1]) >= _slope(points[-2], point):
                points.pop()
            points.append(point)
        return points


def _slope(a: tuple[int, float, float], b: tuple[int, float, float]) -> float:
    return (b[2] - a[2]) / (b[1] - a[1])


def decompose(
    model: ir.Model, context: Context, options: Options, eligible: Callable[[Layer], str | None]
) -> PassResult:
    """Factor layers of ``model`` until the budget is met. ``eligible`` says why a layer stays, or None."""
    unit = options.budget.unit
    source, now = (_amount(one, unit) for one in (context.teacher, model))
    limit = options.budget.limit(source)
    if now <= limit:
        return PassResult(model, modified=False, notes=(Note("the budget is met already"),))
    refused = {name: why for name, layer in layers_of(model).items() if (why := _refusal(layer, eligible))}
    layers = [layer for name, layer in layers_of(model).items() if name not in refused]
    notes = [Note(f"stays: {why}", node=name) for name, why in refused.items()]
    statistics = _statistics(model, layers, context, options) if layers else {}
    macs = {node.name: node.macs for node in cost(model).nodes}
    candidates = [_candidate(one, macs[name], options) for name, one in statistics.items()]
    ranks = choose(candidates, now - limit)
    reports = []
    for one in candidates:
        rank = ranks.get(one.layer.name)
        if rank is None:
            n, out = one.size
            why = f"stays: break-even at rank {one.break_even} of {min(n, out)} ({n} x {out})"
            notes.append(Note(why, node=one.layer.name))
            continue
        reports.append(_report(one, rank, statistics[one.layer.name]))
        split(model, one.layer, one.factors, rank)
    left = _amount(model, unit)
    notes.insert(0, Note(f"{len(ranks)} layers in two: {unit} at {left / source:.1%} of the source"))
    if left > limit * (1 + 1e-9):
        text = f"{options.budget.text} is out of reach: at rank 1 everywhere {left / source:.1%} of the source are left"
        notes.insert(0, Note(text, level="warning"))
    data = {"ranks": ranks}
    return PassResult(model, modified=bool(ranks), notes=tuple(notes), layers=tuple(reports), data=data)


def choose(candidates: Sequence[Candidate], wanted: float) -> dict[str, int]:
    """Rank by layer name, for layers that are cut, saving ``wanted`` or all that can be."""
    steps = []
    for one in candidates:
        corners = one.hull()
        steps += [(_slope(a, b), one, a, b) for a, b in pairwise(corners)]
    chosen: dict[str, int] = {}
    for _, one, a, b in sorted(steps, key=lambda step: step[0]):
        if wanted <= 0:
            break
        # The last step goes no further than it must.
        enough = [
            r for r in range(min(a[0] - 1, one.break_even), b[0] - 1, -1) if one.saved(r) - a[1] >= wanted
        ]
        rank = enough[0] if enough else b[0]
        chosen[one.layer.name] = rank
        wanted -= one.saved(rank) - a[1]
    return chosen


def split(model: ir.Model, layer: Layer, factors: LowRank, rank: int) -> ir.Node:
    """Put a layer of ``rank`` outputs in front of ``layer``, which becomes 1x1; the new node."""
    graph, node, view = model.graph, layer.node, layer.view
    x, y = view.x, view.y
    name = fresh_name(graph, f"{node.name}_first")
    second, bias = factors.second(rank)
    first_weight, _ = layer.patches.weight(np.concatenate([factors.first(rank), np.zeros((1, rank))])[None])
    if isinstance(view, ConvView):
        kept = {key: attr for key, attr in node.attributes.items() if key != "group"}
        weight = add_initializer(graph, f"{name}_weight", first_weight)
        first = ir.node("Conv", [x, weight], kept, name=name)
        rank_ones = (1,) * len(view.kernel)
        for key, value in (("kernel_shape", rank_ones), ("strides", rank_ones), ("dilations", rank_ones)):
            set_attribute(node, key, value)
        set_attribute(node, "pads", (0,) * 2 * len(rank_ones))
        own_constant(graph, node, 1, _float(second.T.reshape(-1, rank, *rank_ones)), "_weight")
        own_constant(graph, node, 2, _float(bias), "_bias")
    else:
        weight = add_initializer(graph, f"{name}_weight", first_weight)
        first = ir.node("Gemm", [x, weight], {"transB": 1}, name=name)
        view.set(weight=_float(second.T), bias=_float(bias))
    made = first.outputs[0]
    made.name, made.type = fresh_name(graph, f"{y.name}_first"), y.type
    if y.shape is not None:
        made.shape = ir.Shape([y.shape[0], rank, *y.shape[2:]])
    graph.insert_before(node, first)
    node.replace_input_with(0, made)
    return first


def _float(array: Array) -> Array:
    return np.ascontiguousarray(array, np.float32)


def _refusal(layer: Layer, eligible: Callable[[Layer], str | None]) -> str | None:
    if layer.patches.group > 1:
        return "its channels are in groups"
    if layer.channels_last or not layer.patches.bias:
        return "a MatMul has no bias to take the mean of what is cut off"
    if layer.patches.unknowns > MAX_UNKNOWNS:
        return f"more than {MAX_UNKNOWNS} unknowns"
    return eligible(layer)


def _statistics(
    model: ir.Model, layers: Sequence[Layer], context: Context, options: Options
) -> Mapping[str, ConsumerStatistics]:
    batches = Batches.of(context, model.graph, held_out=0.0, flips=wants_flips(options.flips, model))
    fit = FitOptions(rows_per_unknown=options.rows, seed=context.seed)
    return gather(model, layers, batches, fit, context, options.name)


def _candidate(one: ConsumerStatistics, macs: int, options: Options) -> Candidate:
    factors = low_rank(one.h, one.columns, whitened=options.whitened)
    positions = macs // factors.body.size if options.budget.unit == "macs" else 1
    return Candidate(one.layer, factors, one.energy, positions)


def _report(one: Candidate, rank: int, statistics: ConsumerStatistics) -> LayerReport:
    n, out = one.size
    lost = float(one.factors.errors[rank]) / one.energy if one.energy else 0.0
    few = "; fewer rows than unknowns" if statistics.rows < n + 1 else ""
    note = f"{n} x {out} in two of rank {rank}, {rank * (n + out) / (n * out):.0%} of the products{few}"
    return LayerReport(one.layer.name, round(statistics.rows), n + 1, 1.0, 0.0, lost, kept=True, note=note)


def _amount(model: ir.Model, unit: str) -> float:
    found = cost(model)
    return float(found.macs if unit == "macs" else found.params)
