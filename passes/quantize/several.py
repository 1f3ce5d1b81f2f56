"""Networks with several answers, such as detectors: what their quantisation settles by measurement before anything is fitted.

An average error says little of them. Objects are rare, and the values that carry them are the largest of a layer: a range
with the least mean square error cuts them off. And one layer whose steps are too coarse ruins the scores of all. So it is
measured, in the task's own terms where those are known and else on the worst part (`rulers`):

1. whether ranges that cut nothing off are nearer to the original;
2. what each layer does alone. Where it leaves less than `LEAST_DB`, whether its values may saturate (`_saturated`): logits of
   -600 are no other answer than logits of -10, but they make the steps of all others coarse;
3. which layers must stay float: those that leave less than that, or where the task's terms are known, and errors can be added up,
   the worst until the sum of the others is small enough.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from edgec.graph.data import Dataset
from edgec.graph.execute import Executor
from edgec.graph.parts import parts_of
from edgec.graph.picks import judged
from edgec.passes.base import Context, Note
from edgec.passes.quantize.compose import Prepared, Settings, assemble
from edgec.passes.quantize.mixed import Bench, Sensitivity, without
from edgec.passes.quantize.score import Reference, nearer

LEAST_DB = 25.0
"""An error of 0.3% of the worst part's energy from one layer of many (docs/results.md)."""
ENOUGH_DB = 20.0
"""What the errors of all layers together may leave, before corrections (docs/results.md)."""
PROBE_SAMPLES = 8
LOOKED_AT = 64
"""Samples of which the `PROBE_SAMPLES` with the most answers are taken: a picture without an object says little of a detector."""
SHARES = tuple(4.0**-power for power in range(1, 8))
"""Of its longer end, that a range may keep: BlazeFace's logits reach -38,000, and -10 is as good."""
WORTH_DB = 1.0
"""What a saturated range must gain, so that a few samples do not decide about a nothing."""
LOST_DB = 6.0
"""So far below the best no smaller share is looked at."""

Settled = tuple[Settings, tuple[Sensitivity, ...], tuple[Note, ...]]


def has_several(model: ir.Model) -> bool:
    """Whether the outputs are of more than one kind."""
    return len(parts_of(judged(model))) > 1


def settle(
    reference: Reference,
    teacher: ir.Model,
    prepared: Prepared,
    data: Dataset,
    settings: Settings,
    context: Context,
) -> Settled:
    """``settings`` with the better ranges and the layers that must stay float, all sensitivities, and what to say of it."""
    settings, notes = _ranges(reference, prepared, settings)
    settings, ranked, cut = _probed(teacher, prepared, _telling(teacher, data, context), settings, context)
    coarse = _too_coarse(ranked, whole=context.answers is not None)
    told = tuple(
        Note(f"{one.unit} stays float: alone in int8 it leaves {one.sqnr_db:.1f} dB", "info", one.unit)
        for one in coarse
    )
    return replace(settings, excluded=without(settings, coarse)), ranked, (*notes, *cut, *told)


def _ranges(
    reference: Reference, prepared: Prepared, settings: Settings
) -> tuple[Settings, tuple[Note, ...]]:
    """``settings``, or the same with ranges that cut nothing off where those are nearer to the ``reference``."""
    if settings.method != "mse":
        return settings, ()
    whole = replace(settings, method="minmax")
    before, after = (reference.score(assemble(prepared, one)[0]) for one in (settings, whole))
    verdict = nearer(before, after)
    # Neither is the plainer choice: what is likelier nearer is taken, as soon as rounding cannot have decided.
    better = verdict.gain > verdict.noise
    text = f"ranges of all values: SQNR per sample {before.typical_db:.1f} -> {after.typical_db:.1f} dB"
    note = Note(text, "info" if better else "reverted")
    return whole if better else settings, (note,)


def _telling(teacher: ir.Model, data: Dataset, context: Context) -> Dataset:
    """The samples to probe on: those with the most answers, in their order, where the task says what answers are."""
    looked = data.take(LOOKED_AT if context.answers is not None else PROBE_SAMPLES, context.seed)
    if context.answers is None or len(looked) <= PROBE_SAMPLES:
        return looked
    executor, counts = Executor(teacher, threads=context.threads), []
    for feeds in looked.batches(PROBE_SAMPLES):
        outputs = list(executor.run(feeds).values())
        counts += context.answers.energies(outputs, outputs)[0].tolist()
    most = np.argsort(-np.array(counts), kind="stable")[:PROBE_SAMPLES]
    return looked.only(most.tolist())


def _probed(
    teacher: ir.Model, prepared: Prepared, probe: Dataset, settings: Settings, context: Context
) -> Settled:
    """Every unit alone, the worst first, with the ranges that it may saturate."""
    found, notes = [], []
    may_saturate = context.answers is not None and settings.form.kept is None  # else the source's scales stay
    with Bench.on(teacher, prepared, probe, settings, context) as bench:
        for unit in context.progress.over("sensitivity", bench.groups, len(bench.groups)):
            bench.stand(unit)
            one = bench.alone(unit, settings)
            if may_saturate and one.sqnr_db < LEAST_DB:
                settings, after = _saturated(bench, settings, one)
                if after.sqnr_db > one.sqnr_db:
                    gain = f"alone in int8 {one.sqnr_db:.1f} -> {after.sqnr_db:.1f} dB"
                    notes.append(Note(f"{unit} saturates where answers stay the same: {gain}", "info", unit))
                    one = after
            found.append(one)
    return settings, tuple(sorted(found, key=lambda one: one.sqnr_db)), tuple(notes)


def _saturated(bench: Bench, settings: Settings, found: Sensitivity) -> tuple[Settings, Sensitivity]:
    """``settings`` with the share of its longer end that the unit's range keeps, and what that leaves; as they were if none is
    worth it. Every fourth power is looked at, and the halves beside the best.
    """
    best, kept = found, 1.0
    tensors = list(_outputs(bench.prepared.original, found.nodes))

    def at(share: float) -> Settings:
        return replace(settings, cuts={**settings.cuts, **dict.fromkeys(tensors, share)})

    for share in SHARES:
        one = bench.alone(found.unit, at(share))
        if one.sqnr_db > best.sqnr_db:
            best, kept = one, share
        elif kept < 1.0 and one.sqnr_db < best.sqnr_db - LOST_DB:
            break
    for share in (kept * 2, kept / 2) if kept < 1.0 else (0.5,):
        one = bench.alone(found.unit, at(share))
        best, kept = (one, share) if one.sqnr_db > best.sqnr_db else (best, kept)
    return (at(kept), best) if best.sqnr_db > found.sqnr_db + WORTH_DB else (settings, found)


def _too_coarse(ranked: Sequence[Sensitivity], *, whole: bool) -> tuple[Sensitivity, ...]:
    """The units that stay float: those that leave less than `LEAST_DB` alone; of the ``whole``, whose errors add up, the worst
    until the errors of the others leave `ENOUGH_DB`."""
    if not whole:
        return tuple(one for one in ranked if one.sqnr_db < LEAST_DB)
    errors = [10 ** (-one.sqnr_db / 10) for one in ranked]
    allowed = 10 ** (-ENOUGH_DB / 10)
    count = next(count for count in range(len(ranked) + 1) if sum(errors[count:]) <= allowed)
    return tuple(ranked[:count])


def _outputs(model: ir.Model, names: Iterable[str]) -> Iterable[str]:
    wanted = set(names)
    return (value.name or "" for node in model.graph if node.name in wanted for value in node.outputs)
