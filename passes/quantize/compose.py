"""Put calibration, equalisation, insertion and corrections together, each kept only where it helps.

Work is done in the codes that every host executes in its fused kernels (`Dialect.on_host`); the file's own type comes last.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import onnx_ir as ir

from edgec.graph.channels import groups
from edgec.graph.data import Dataset
from edgec.passes.base import Choice, Context, LayerReport, Note, Switch
from edgec.passes.equalize import Peaks, equalise, segments
from edgec.passes.quantize.attenuation import restore_scores
from edgec.passes.quantize.calibrate import Calibration, observe, outlier_notes, ranges
from edgec.passes.quantize.fit import FitOptions, Student, fit
from edgec.passes.quantize.insert import Form, insert
from edgec.passes.quantize.plan import make_plan, parameters
from edgec.passes.quantize.planned import Plan, Table
from edgec.passes.quantize.remaining import round_remaining
from edgec.passes.quantize.score import Reference, Score, nearer
from edgec.passes.solvers.guard import Verdict

CHECK_SHARE = 0.15
"""Calibration samples kept apart from all fits, to judge the result as a whole."""
FEWEST_TO_SPLIT = 12


@dataclass(frozen=True)
class Settings:
    """All choices of one quantisation; the options of the pass, resolved for the target."""

    form: Form
    method: str = "mse"
    percentile: float = 99.99
    equalise: Switch = "auto"
    strength: float = 0.5
    fits: tuple[FitOptions, ...] = ()
    """Corrections to try, the fullest first: the first that helps is kept, or none."""
    fit_samples: int = 256
    probes: bool = False
    """Parts of the network will be quantised alone, so that any tensor may need a range."""
    excluded: Callable[[str], bool] = field(default=lambda name: False)
    cuts: Mapping[str, float] = field(default_factory=dict)
    """By tensor: the share of its longer end that its range keeps on either side; what lies further out saturates."""


@dataclass(frozen=True)
class Outcome:
    """A quantised graph and how it came about. ``original`` is the float graph that it was made from."""

    model: ir.Model
    original: ir.Model
    plan: Plan
    table: Table
    score: Score
    layers: tuple[LayerReport, ...] = ()
    notes: tuple[Note, ...] = ()
    choices: tuple[Choice, ...] = ()
    """Decisions about the network as a whole."""


@dataclass(frozen=True)
class Prepared:
    """A float graph with its ranges: from here graphs with any nodes excluded are made without more calibration."""

    original: ir.Model
    calibration: Calibration
    notes: tuple[Note, ...]
    equalised: Verdict | None = None
    """What the guard found about equalisation, where it was tried."""


def split_data(data: Dataset, samples: int, seed: int) -> tuple[Dataset, Dataset]:
    """(samples to fit on, samples to judge the whole on); the same ones where there are too few to split."""
    if len(data) < FEWEST_TO_SPLIT:
        return data, data
    fitting, check = data.split(CHECK_SHARE, seed)
    return fitting.take(samples, seed), check.take(samples, seed)


def prepare(model: ir.Model, data: Dataset, settings: Settings, context: Context) -> Prepared:
    """Calibrate ``model``, and its equalised form where that may pay; the better one of the two.

    Where the samples do not say that all of it pays, maps that are read by depthwise layers alone are equalised still: nothing
    is coarser for it, and what one layer gains may not show behind the errors of all others. There the samples would have to
    say that it harms.
    """
    if settings.equalise == "no":
        return _calibrated(model, data, settings, context)
    equal = model.clone()
    cut = segments(equal, groups(equal))
    peaks = Peaks(equal, {member.value: member.axis for segment in cut for member in segment.activations})
    plain = _calibrated(model, data, settings, context, peaks)
    if not peaks.axes or not equalise(equal, cut, peaks.found, settings.strength):
        return plain
    equalised = _calibrated(equal, data, settings, context)
    check = split_data(data, settings.fit_samples, context.seed)[1]
    # Rounding of weights is repaired later; what equalisation is for shows with the weights exact.
    judged = replace(settings, form=replace(settings.form, float_weights=bool(settings.fits)))
    with Reference(model, check, context) as reference:
        before, after = (reference.score(assemble(one, judged)[0]) for one in (plain, equalised))
        text = f"equalisation: SQNR per sample {before.typical_db:.1f} -> {after.typical_db:.1f} dB"
        # Both are rounded, with ranges that a search chose: weights solved for that differ by 1e-5 give either another draw.
        verdict = nearer(before, after, drawn=True)
        if settings.equalise == "yes" or verdict.kept:
            return Prepared(equalised.original, equalised.calibration, (Note(text),), verdict)
        note = Note(text + verdict.doubt, "reverted")
        costless = [one for one in cut if one.is_costless(peaks.found, settings.strength)]
        if not costless or not settings.form.per_channel:
            return Prepared(plain.original, plain.calibration, (note,), verdict)
        part = model.clone()
        equalise(part, costless, peaks.found, settings.strength)
        equalised = _calibrated(part, data, settings, context)
        after = reference.score(assemble(equalised, judged)[0])
    text = f"equalisation in front of depthwise layers: SQNR per sample {before.typical_db:.1f} -> {after.typical_db:.1f} dB"
    harm = nearer(after, before, drawn=True)
    better = plain if harm.kept else equalised
    told = Note(text, "reverted" if harm.kept else "info")
    return Prepared(better.original, better.calibration, (note, told), verdict)


def _calibrated(
    model: ir.Model, data: Dataset, settings: Settings, context: Context, peaks: Peaks | None = None
) -> Prepared:
    """Ranges of everything that could be quantised, whatever is excluded now; ``peaks`` are filled on the way."""
    plan = make_plan(model, settings.form.dialect, settings.excluded)
    tensors = (*plan.tensors, *plan.absorbed.values()) if settings.probes else plan.sources
    return Prepared(model, observe(model, data, tensors, context, peaks), ())


def assemble(
    prepared: Prepared,
    settings: Settings,
    excluded: Callable[[str], bool] | None = None,
    *,
    shipped: bool = False,
) -> tuple[ir.Model, Plan, Table]:
    """The plain quantised graph: ranges, nearest rounding, no corrections. ``shipped``: weights that stay float are as files
    store them; what is made to be measured and thrown away has them exact."""
    model = prepared.original.clone()
    dialect = settings.form.dialect
    plan = make_plan(model, dialect, excluded or settings.excluded)
    if shipped and plan.nodes and dialect.bits == 8:
        round_remaining(model, plan.nodes)
    found = ranges(
        prepared.calibration,
        plan,
        settings.method,
        percentile=settings.percentile,
        bits=dialect.bits,
        symmetric=dialect.symmetric and dialect.bits == 8,  # at 16 bits the ends are never worth a cut
        kept=settings.form.kept,
        cuts=settings.cuts,
    )
    table = parameters(plan, model, found, dialect)
    insert(model, plan, table, settings.form)
    return model, plan, table


def build(
    reference: Reference,
    prepared: Prepared,
    data: Dataset,
    settings: Settings,
    context: Context,
    excluded: Callable[[str], bool] | None = None,
) -> Outcome:
    """The quantised graph with its corrections, which stay only if they bring the outputs nearer to the ``reference``."""
    model, plan, table = assemble(prepared, settings, excluded, shipped=True)
    notes = [*prepared.calibration.notes, *outlier_notes(prepared.calibration, plan), *prepared.notes]
    choices = [] if prepared.equalised is None else [Choice.of("equalisation", prepared.equalised)]
    best = Outcome(model, prepared.original, plan, table, reference.score(model))
    limits = _limits(table, settings)
    fitting = split_data(data, settings.fit_samples, context.seed)[0]
    for options in settings.fits if plan.nodes else ():
        student = Student(model.clone(), options, limits)
        layers = fit(student, prepared.original, fitting, context)
        after = reference.score(student.model)
        change = f"{best.score.typical_db:.1f} -> {after.typical_db:.1f} dB per held-out sample"
        verdict = nearer(best.score, after, drawn=options.weights)
        text = f"corrections ({options}): SQNR {change}{verdict.doubt}"
        notes.append(Note(text, "info" if verdict.kept else "reverted"))
        choices.append(Choice.of(f"corrections ({options})", verdict))
        if verdict.kept:
            best = replace(best, model=student.model, score=after, layers=layers)
            break
    best = replace(best, notes=tuple(notes), choices=tuple(choices))
    return _restored(best, reference, fitting, context) if settings.fits and plan.nodes else best


def _restored(best: Outcome, reference: Reference, data: Dataset, context: Context) -> Outcome:
    """With the level of scores put back."""
    model = best.model.clone()
    notes, choices, kept = list(best.notes), list(best.choices), False
    for shift in restore_scores(model, best.original, data, context):
        kept = kept or shift.verdict.kept
        text = f"scores of {shift.layer}: logits {shift.logits:+.3f}{shift.verdict.doubt}"
        notes.append(Note(text, "info" if shift.verdict.kept else "reverted", shift.layer))
        choices.append(Choice.of(f"level of the scores of {shift.layer}", shift.verdict))
    best = replace(best, notes=tuple(notes), choices=tuple(choices))
    return replace(best, model=model, score=reference.score(model)) if kept else best


def _limits(table: Table, settings: Settings) -> dict[str, tuple[float, float]]:
    """What tensors that saturate on purpose can hold; a lower end of 0 is that of an activation behind."""
    known = ((name, table.tensors[name]) for name in settings.cuts if name in table.tensors)
    return {name: (one.low if one.low < 0 else -math.inf, one.high) for name, one in known}
