"""Networks with several answers, such as detectors: what their quantisation settles by measurement before anything is fitted.

An average error says little of them. Objects are rare, and the values that carry them are the largest of a layer: a range
with the least mean square error cuts them off. And one layer whose steps are too coarse ruins the scores of all. So two
things are measured, on the worst part (`graph.parts`): whether ranges that cut nothing off are nearer to the original, and
what each layer does alone. A layer that by itself leaves less than `LEAST_DB` stays float.
"""

from __future__ import annotations

from dataclasses import replace

import onnx_ir as ir

from edgec.graph.data import Dataset
from edgec.graph.parts import parts_of
from edgec.passes.base import Context, Note
from edgec.passes.quantize.compose import Prepared, Settings, assemble
from edgec.passes.quantize.mixed import Sensitivity, sensitivities, without
from edgec.passes.quantize.score import Reference, nearer

LEAST_DB = 25.0
"""An error of 0.3% of the worst part's energy from one layer of many (docs/results.md)."""
PROBE_SAMPLES = 8


def has_several(model: ir.Model) -> bool:
    """Whether the outputs are of more than one kind."""
    return len(parts_of(model)) > 1


def settle(
    reference: Reference,
    teacher: ir.Model,
    prepared: Prepared,
    data: Dataset,
    settings: Settings,
    context: Context,
) -> tuple[Settings, tuple[Sensitivity, ...], tuple[Note, ...]]:
    """``settings`` with the better ranges and the layers that must stay float, all sensitivities, and what to say of it."""
    settings, notes = _ranges(reference, prepared, settings)
    ranked = sensitivities(teacher, prepared, data, settings, context, PROBE_SAMPLES)
    coarse = tuple(one for one in ranked if one.sqnr_db < LEAST_DB)
    told = tuple(
        Note(f"{one.unit} stays float: alone in int8 it leaves {one.sqnr_db:.1f} dB", "info", one.unit)
        for one in coarse
    )
    return replace(settings, excluded=without(settings, coarse)), ranked, (*notes, *told)


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
