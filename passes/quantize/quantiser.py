"""The pass ``quantize``: static int8 in QDQ form, from unlabelled data.

A program before and after::

    y = Conv(x, w, b)   ->   xq = DequantizeLinear(QuantizeLinear(x))
                             wq = DequantizeLinear(int8 codes)
                             bq = DequantizeLinear(int32 codes)
                             h  = Conv(xq, wq, bq)
                             y  = DequantizeLinear(QuantizeLinear(h))
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal

import onnx_ir as ir

from edgec.graph.cost import cost
from edgec.graph.data import Dataset
from edgec.graph.errors import DataError, PassError, UsageError
from edgec.graph.provenance import place
from edgec.graph.read.own_codes import SourceCodes, source_codes
from edgec.graph.values import Range
from edgec.passes.base import NUMBER_FORMATS, Context, Need, Note, Pass, PassResult, Switch, option
from edgec.passes.options import SAMPLES
from edgec.passes.quantize.compose import Outcome, Prepared, Settings, build, prepare, split_data
from edgec.passes.quantize.dialects import DIALECTS, ORT_X86, TFLITE_16X8, Dialect
from edgec.passes.quantize.fit import FitOptions
from edgec.passes.quantize.insert import Form, store
from edgec.passes.quantize.mixed import MixedGoal, Sensitivity, figures, search, sensitivities
from edgec.passes.quantize.plan import make_plan
from edgec.passes.quantize.rewrites import prepare as rewrite
from edgec.passes.quantize.score import Reference
from edgec.passes.quantize.several import has_several, settle
from edgec.targets.jetpack import jetpack

if TYPE_CHECKING:
    from edgec.targets import Target

Method = Literal["minmax", "percentile", "mse", "entropy"]
Correction = Literal["auto", "none", "bias", "round", "refit"]
Activation = Literal["auto", "uint8", "int8", "int16"]
Scales = Literal["data", "source"]
REDUCED = 63
"""The largest weight code of ``reduce_range=yes``: 7 bits."""
MUCH = 0.25
"""Share of the multiply-adds from which it is said that they stay in float."""
WIDE = (
    "16-bit activations are TFLite's 16x8 mode, for accelerators that have it: LiteRT runs it with slow "
    "reference kernels on a CPU, and onnxruntime in float"
)


@dataclass(frozen=True)
class Quantize(Pass):
    """Static int8: weights symmetric per channel, activations asymmetric per tensor, TFLite's rules."""

    name: ClassVar[str] = "quantize"
    summary: ClassVar[str] = "static int8 (QDQ), ranges and corrections from unlabelled data"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.DATA})
    never_after: ClassVar[frozenset[str]] = NUMBER_FORMATS
    changes_function: ClassVar[bool] = True

    method: Method = option("mse", "how activation ranges are chosen")
    percentile: float = option(
        99.99, "share of values that the percentile method covers, in percent", Range(50, 100, above=True)
    )
    correct: Correction = option(
        "auto", "layer by layer corrections (auto: refit, or round where that does not help)"
    )
    scales: Scales = option(
        "data",
        "where scales come from (source: a network that came quantised keeps its own, and nothing is corrected)",
    )
    equalize: Switch = option("auto", "equalise channel ranges first (auto: where held-out samples say so)")
    activations: Activation = option(
        "auto", "activation type (auto: the target's); int16 is TFLite's 16x8 mode"
    )
    per_channel: bool = option(True, "one weight scale per output channel instead of one per tensor")
    reduce_range: Switch = option("auto", "7-bit weights (auto: where the target's x86 lacks VNNI)")
    exclude: str = option("", "node names to leave in float: patterns with * and ?, separated by |")
    fit_samples: int = option(256, "samples that the corrections use at most", SAMPLES)
    min_sqnr: float = option(
        0.0,
        "leave the fewest layers in float so that output SQNR is at least this many dB (0: off)",
        Range(0, 300),
    )
    max_drop: float = option(
        0.0,
        "leave the fewest layers in float so that top-1 (agreement without labels) drops by at most so many percent (0: off)",
        Range(0, 100),
    )
    sensitivity: bool = option(False, "measure every layer's sensitivity for the report")

    def requires(self, model: ir.Model) -> None:
        refuse_quantised(model, self.name)

    def run(self, model: ir.Model, context: Context) -> PassResult:
        self.requires(model)
        if context.data is None:
            hint = "Give --data, or --data random for noise."
            raise DataError("no calibration data", where="quantize", hint=hint)
        if context.target is not None and not context.target.precisions.int8.supported:
            why = context.target.precisions.int8.why
            raise PassError(f"{context.target.title} has no int8", where="quantize", why=why)
        codes = self._source_codes(model)
        teacher = model.clone()
        changed = rewrite(model, self._dialect(context))
        excluded = matcher(self.exclude, model)
        several = context.answers is not None or has_several(teacher)
        settings = self._settings(context, excluded, codes, several=several)
        if not make_plan(model, settings.form.dialect, excluded).nodes:
            note = Note("nothing to quantise: no node has an int8 form", "warning")
            return PassResult(model, bool(changed), (note,))
        prepared = prepare(model, context.data, settings, context)
        outcome, ranked, goal_notes = self._build(teacher, prepared, context.data, settings, context)
        store(outcome.model, self._dialect(context))
        wide = (Note(WIDE, "warning"),) if self.activations == "int16" else ()
        own = () if codes is None else (_kept_note(outcome, codes),)
        notes = (
            *target_notes(context),
            *wide,
            *own,
            *outcome.notes,
            *goal_notes,
            *_left_note(outcome, teacher),
            *_float_notes(outcome, model),
        )
        return PassResult(outcome.model, True, notes, outcome.layers, self._figures(outcome, ranked, context))

    def _build(
        self, teacher: ir.Model, prepared: Prepared, data: Dataset, settings: Settings, context: Context
    ) -> tuple[Outcome, tuple[Sensitivity, ...], tuple[Note, ...]]:
        """The outcome, the sensitivities where they were measured, and what to say about the goal."""
        goal = MixedGoal(self.min_sqnr or None, self.max_drop or None)
        check = split_data(data, settings.fit_samples, context.seed)[1]
        with Reference(teacher, check, context) as reference:
            notes: tuple[Note, ...] = ()
            ranked: tuple[Sensitivity, ...] = ()
            several = context.answers is not None or (goal == MixedGoal() and has_several(teacher))
            if several:
                settings, ranked, notes = settle(reference, teacher, prepared, data, settings, context)
            if goal == MixedGoal():
                if self.sensitivity and not several:
                    ranked = sensitivities(teacher, prepared, data, settings, context)
                return build(reference, prepared, data, settings, context), ranked, notes
            outcome, met, ranked = search(reference, teacher, prepared, data, settings, goal, context)
        result = f"SQNR {outcome.score.sqnr_db:.1f} dB, drop {outcome.score.drop:.2f}%"
        text = f"{goal}: {'met' if met else 'not reachable, even with every layer in float'} ({result})"
        return outcome, ranked, (*notes, Note(text, "info" if met else "warning"))

    def _source_codes(self, model: ir.Model) -> SourceCodes | None:
        """The source's scales where they are to be kept. Raises PassError where it had none."""
        if self.scales == "data":
            return None
        if self.activations == "int16":
            raise PassError(
                "int8 scales cannot be kept with 16-bit activations",
                where="quantize",
                hint="Leave out scales=source.",
            )
        codes = source_codes(model)
        if codes is None:
            why = "it came in real numbers, or with weights alone or dynamically quantised"
            hint = "Leave out --keep-quantized (scales=source): scales are then found from the data."
            raise PassError("the source has no scales to keep", where="quantize", why=why, hint=hint)
        return codes

    def _settings(
        self, context: Context, excluded: Callable[[str], bool], codes: SourceCodes | None, *, several: bool
    ) -> Settings:
        dialect = self._dialect(context)
        limit = self._weight_limit(dialect, context)
        return Settings(
            form=Form(dialect.on_host(), limit, self.per_channel, kept=codes),
            method=self.method,
            percentile=self.percentile,
            equalise=self.equalize if codes is None else "no",
            fits=fit_options(self.correct, limit) if codes is None else (),
            fit_samples=self.fit_samples,
            probes=several or self.sensitivity or self.min_sqnr > 0 or self.max_drop > 0,
            excluded=excluded,
        )

    def _dialect(self, context: Context) -> Dialect:
        """The target's, with the codes that were asked for."""
        found = dialect_of(context.target)
        if self.activations == "auto" or self.activations == found.codes:
            return found
        if found.inputs_only:
            why = "TensorRT takes int8 codes with zero point 0 and no others"
            raise UsageError(
                f"activations={self.activations} is not for this target", where="quantize", why=why
            )
        return TFLITE_16X8 if self.activations == "int16" else replace(found, codes=self.activations)

    def _weight_limit(self, dialect: Dialect, context: Context) -> int:
        if self.reduce_range != "auto":
            return REDUCED if self.reduce_range == "yes" else dialect.weight_limit
        slow = context.target is not None and not context.target.dot_product
        return dialect.weight_limit_without_dot if slow else dialect.weight_limit

    def _figures(
        self, outcome: Outcome, ranked: tuple[Sensitivity, ...], context: Context
    ) -> dict[str, object]:
        """For the report: the table by tensor name (zero points in the signed code domain), the result."""
        return {
            "activations": self._dialect(context).codes,
            "sqnr_db": outcome.score.sqnr_db,
            "agreement": outcome.score.agreement,
            "choices": [asdict(one) for one in outcome.choices],
            "sensitivity": dict(figures(ranked)),
            "quantised_nodes": list(outcome.plan.nodes),
            "float_nodes": dict(outcome.plan.floats),
            "tensors": {
                name: {"scale": params.scale, "zero_point": params.zero_point}
                for name, params in outcome.table.tensors.items()
            },
        }


def dialect_of(target: Target | None) -> Dialect:
    """The dialect of a target; onnxruntime's on x86 where there is none."""
    if target is None:
        return ORT_X86
    found = DIALECTS[target.dialect]
    if target.jetpack is None or not found.inputs_only:
        return found
    return replace(found, depthwise_gates=jetpack(target.jetpack).gates_depthwise)


def refuse_quantised(model: ir.Model, name: str) -> None:
    """Raise PassError from pass ``name``, with the node, for a model that holds quantised ops."""
    for node in model.graph:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear") or node.op_type.startswith("QLinear"):
            raise PassError(
                "the model is quantised already",
                where=f"{name}: {place(node)}",
                hint="Start from the float model, or leave this pass out.",
            )


def fit_options(correct: str, limit: int = 127) -> tuple[FitOptions, ...]:
    """The corrections that a word stands for; each includes those before it.

    auto takes the last, or where that does not help the one before it: the last judges layer by layer whether to re-fit, and was
    as near or nearer on most networks (docs/results.md).
    """
    bias = FitOptions(weights=False, refit=False, limit=limit)
    rounded, refitted = FitOptions(refit=False, limit=limit), FitOptions(limit=limit)
    return {
        "none": (),
        "bias": (bias,),
        "round": (rounded,),
        "refit": (refitted,),
        "auto": (refitted, rounded),
    }[correct]


def matcher(patterns: str, model: ir.Model) -> Callable[[str], bool]:
    """True for names that match one of ``patterns``. Raises UsageError for a pattern that matches no node."""
    wanted = [pattern.strip() for pattern in patterns.split("|") if pattern.strip()]
    names = [node.name or "" for node in model.graph]
    for pattern in wanted:
        if not fnmatch.filter(names, pattern):
            hint = "edgec inspect --layers lists the names."
            raise UsageError(f"exclude pattern {pattern!r} matches no node", where="quantize", hint=hint)
    return lambda name: any(fnmatch.fnmatchcase(name, pattern) for pattern in wanted)


def target_notes(context: Context) -> tuple[Note, ...]:
    """What a person should know before they spend time on int8 for this target, or on noise."""
    notes = []
    if getattr(context.data, "is_random", False):
        notes.append(Note("calibrated on random noise: ranges and corrections mean nothing", "warning"))
    target = context.target
    if target is not None:
        support = target.precisions.int8
        if not (support.pays and target.dot_product):
            notes.append(Note(f"int8 on {target.title}: {support.why}", "warning"))
        lacking = (a for a in target.accelerators if not a.precisions.int8.supported)
        notes.extend(Note(f"{a.name}: {a.precisions.int8.why}", "warning") for a in lacking)
    return tuple(notes)


def _kept_note(outcome: Outcome, codes: SourceCodes) -> Note:
    names = [name for name in outcome.table.tensors if name in codes.activations]
    found = f"{len(names)} of {len(outcome.table.tensors)} activations keep the scales that the source had"
    return Note(
        found if len(names) == len(outcome.table.tensors) else f"{found}; the others' are from the data"
    )


def _left_note(outcome: Outcome, source: ir.Model) -> tuple[Note, ...]:
    """Where much of the work stays in float: nothing else says why a file in int8 is hardly smaller."""
    layers = [node for node in cost(source).nodes if node.macs]
    left = [node for node in layers if node.name in outcome.plan.floats]
    share = sum(node.macs for node in left) / max(sum(node.macs for node in layers), 1)
    if share < MUCH:
        return ()
    one = len(left) == 1
    what = f"{len(left)} of {len(layers)} layers stay{'s' * one} in float, {share:.0%} of the multiply-adds"
    return (
        Note(
            f"{what}: the file is larger for {'it' if one else 'them'}; the report says why",
            "warning",
        ),
    )


def _float_notes(outcome: Outcome, model: ir.Model) -> tuple[Note, ...]:
    kinds = {node.name or "": node.op_type for node in model.graph}
    return tuple(
        Note(f"{name} ({kinds[name]}) stays float: {reason}", "info", name)
        for name, reason in outcome.plan.floats.items()
    )
