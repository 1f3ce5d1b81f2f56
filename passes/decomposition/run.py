"""What the `decompose-...` passes have in common: their options, and the way from a budget to a model in pieces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import onnx_ir as ir

from edgec.graph.cost import cost
from edgec.graph.sharing import shares_weight
from edgec.graph.transposed import TransposedView
from edgec.passes.base import (
    NUMBER_FORMATS,
    Context,
    LayerReport,
    Need,
    Note,
    PassResult,
    Switch,
    option,
)
from edgec.passes.budget import budget_option
from edgec.passes.budgeted import Budgeted
from edgec.passes.channel_pruning.costs import source_cost
from edgec.passes.channel_pruning.statistics import MAX_UNKNOWNS, ConsumerStatistics, gather
from edgec.passes.decomposition.cuts import Form
from edgec.passes.decomposition.pieces import Geometry
from edgec.passes.decomposition.ranks import Candidate, Way, candidate, choose, damages
from edgec.passes.decomposition.surgery import split
from edgec.passes.options import BYTES, MULTIPLE, RIDGE, ROWS
from edgec.passes.pricing import Price, price_of
from edgec.passes.refit.batches import Batches, wants_flips
from edgec.passes.refit.fit import FitOptions
from edgec.passes.refit.layers import Layer, layers_of
from edgec.passes.sensitivity.measure import measure
from edgec.passes.sensitivity.validation_split import validation_split
from edgec.passes.solvers.parallel import in_order


@dataclass(frozen=True)
class Decomposition(Budgeted):
    """Cut layers into pieces until a budget is met."""

    needs: ClassVar[frozenset[Need]] = frozenset({Need.DATA})
    never_after: ClassVar[frozenset[str]] = NUMBER_FORMATS
    forms: ClassVar[tuple[Form, ...]]
    """In which pieces."""

    macs: str = budget_option("macs", "budget of multiplications: 60%, 20M")
    params: str = budget_option("params", "budget of parameters: 60%, 1.2M")
    size: str = budget_option("size", "budget of weight bytes: 4MB, 60%")
    latency: str = budget_option("latency", "budget of the target's estimated latency: 25ms, 60%")
    whitened: bool = option(True, "factors that matter under the data, else those of the weights alone")
    sensitivity: bool = option(True, "scale errors by what they do to the output, measured")
    pays: Literal["time", "cost"] = option(
        "time", "pieces must save time, where the target's is known, or the budget's unit alone"
    )
    multiple: int = option(0, "round ranks to this; 0: the target's, else 1", MULTIPLE)
    rows: float = option(20.0, "rows per unknown above which pixels are sampled", ROWS)
    ridge: float = option(1e-3, "ridge of the fits, relative to the mean input energy", RIDGE)
    hflip: Switch = option("auto", "mirror the pictures too")
    mixup: bool = option(True, "mix the mirrored pictures with one another")
    bytes_per_weight: float = option(4.0, "bytes of one weight in the shipped file, for size budgets", BYTES)

    def run(self, model: ir.Model, context: Context) -> PassResult:
        """Raises UsageError for none or several budgets, and PassError without data."""
        budget = self.budget()
        price = price_of(budget, context.target, context.prices, self.bytes_per_weight)
        source, now = source_cost(budget, context), price(cost(model).nodes)
        limit = budget.limit(source)
        if now <= limit:
            return PassResult(model, modified=False, notes=(Note("the budget is met already"),))
        candidates, notes = self.candidates(model, context, price)
        chosen = choose(candidates, now - limit)
        reports = [cut(model, one, chosen[one.name]) for one in candidates if one.name in chosen]
        notes += [Note(_stays(one), node=one.name) for one in candidates if one.name not in chosen]
        left = price(cost(model).nodes)
        notes.insert(
            0, Note(f"{len(chosen)} layers in pieces: {budget.unit} at {left / source:.1%} of the source")
        )
        if left > limit * (1 + 1e-9):
            text = f"{budget.text} is out of reach: with all that pays in pieces {left / source:.1%} of the source are left"
            notes.insert(0, Note(text, level="warning"))
        data = {
            "cuts": {name: [way.cut.form.name, list(way.cut.rank)] for name, way in chosen.items()},
            "predicted_error": damages(chosen),
        }
        return PassResult(model, modified=bool(chosen), notes=tuple(notes), layers=tuple(reports), data=data)

    def allowed(self) -> tuple[Form, ...]:
        """The forms that this run may use."""
        return self.forms

    def candidates(
        self, model: ir.Model, context: Context, price: Price
    ) -> tuple[list[Candidate], list[Note]]:
        """Every layer that can be cut, with its ways judged; and why the others cannot."""
        layers = layers_of(model)
        refused = {name: why for name, layer in layers.items() if (why := refusal(layer, self.allowed()))}
        eligible = [layer for name, layer in layers.items() if name not in refused]
        notes = [Note(f"stays: {why}", node=name) for name, why in refused.items()]
        fits, validation = validation_split(context) if self.sensitivity else (context, context)
        found = self.factored(self.statistics(model, eligible, fits), context, price)
        if not self.sensitivity:
            return found, notes
        subjects = [subject for one in found for subject in one.subjects()]
        measured = measure(model, subjects, validation, self.name)
        return [one.judged(measured) for one in found], notes

    def step(self, context: Context) -> int:
        """Ranks and widths are multiples of this."""
        return self.multiple or (context.target.channel_multiple if context.target is not None else 1)

    def factored(
        self, statistics: Sequence[ConsumerStatistics], context: Context, price: Price
    ) -> list[Candidate]:
        """The ways to cut the layers behind ``statistics``."""
        multiple, prices = self.step(context), context.prices
        # Milliseconds are the price itself in a latency budget.
        table = None if prices is None or self.latency or self.pays == "cost" else prices.table

        def ways(one: ConsumerStatistics) -> Candidate:
            geometry = Geometry.of(one.layer)
            assert geometry is not None  # `refusal` has looked
            return candidate(
                one, geometry, self.allowed(), price, table, whitened=self.whitened, multiple=multiple
            )

        made = in_order(ways, statistics, context.threads)
        return list(context.progress.over(f"{self.name}: factors", made, len(statistics)))

    def statistics(
        self, model: ir.Model, layers: Sequence[Layer], context: Context
    ) -> list[ConsumerStatistics]:
        """What ``layers`` see, from one walk."""
        if not layers:
            return []
        hflip = wants_flips(self.hflip, model)
        batches = Batches.of(context, model.graph, held_out=0.0, hflip=hflip, mixup=self.mixup)
        fit = FitOptions(ridge=self.ridge, rows_per_unknown=self.rows, seed=context.seed)
        return list(gather(model, layers, batches, fit, context, self.name).values())


def refusal(layer: Layer, forms: Sequence[Form]) -> str | None:
    """Why a layer cannot be cut into any of ``forms``, or None."""
    if shares_weight(layer.node):
        return "another layer reads its weight too"
    if isinstance(layer.view, TransposedView):
        return "it is a transposed convolution"
    if layer.patches.group > 1:
        return "its channels are in groups"
    if layer.channels_last or not layer.patches.bias:
        return "a MatMul has no bias to take the mean of what is cut off"
    if layer.patches.unknowns > MAX_UNKNOWNS:
        return f"more than {MAX_UNKNOWNS} unknowns"
    if Geometry.of(layer) is None:
        return "the size of its input is not known"
    reasons = [form.why_not(layer) for form in forms]
    return None if None in reasons else next(iter(reasons), "no form is asked for")


def cut(model: ir.Model, one: Candidate, way: Way) -> LayerReport:
    """Put the pieces in the layer's place."""
    factors, body = way.cut.factors()
    layer, rows = one.statistics.layer, one.statistics.rows
    split(model, layer, one.geometry, way.cut.pieces, factors, one.response.bias_for(body))
    n, out = one.response.body.shape
    few = "; fewer rows than unknowns" if rows < n + 1 else ""
    note = f"{n} x {out} as {way.cut.label}{few}"
    return LayerReport(layer.name, round(rows), n + 1, 1.0, 0.0, one.relative(way.cut), kept=True, note=note)


def _stays(one: Candidate) -> str:
    n, out = one.response.body.shape
    if one.ways:
        widest = {way.cut.form.name: way.cut for way in sorted(one.ways, key=lambda way: way.cut.rank)}
        upto = ", ".join(cut.label for cut in widest.values())
        return f"stays: others lose less; pays up to {upto} ({n} x {out})"
    if one.slower is not None:
        pieces, whole = one.slower
        return f"stays: not faster in pieces: {pieces:.3g} ms, in one {whole:.3g} ms ({n} x {out})"
    return f"stays: its pieces cost more than the one at every rank ({n} x {out})"
