"""The guard behind a whole pass: are the network's outputs nearer to what they should be, on samples that the pass did not fit?

A fit that helps its own layer may still harm the network: layers behind it amplify what is left (gates multiply it), and what
every layer gains is measured on the layer alone. So a pass that claims to recover accuracy (`Pass.recovers`) is judged by the
outputs, each part of them by itself (`graph.parts`), with the paired errors of `solvers.guard`: where one became worse beyond
doubt the pass is taken back, or, where it fitted layer after layer, as far as the longest beginning that does no harm (found
by bisection).

It costs two or three runs over the held-out samples, and one more for each step of the bisection.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import onnx_ir as ir

from edgec.graph.compare import difference_of
from edgec.graph.data import Dataset
from edgec.graph.execute import Executor
from edgec.graph.parts import Part, parts_of
from edgec.passes.base import Choice, Context, Note, Partial, Pass, PassResult
from edgec.passes.incremental.executor import batch_size
from edgec.passes.refit.layers import layers_of
from edgec.passes.sensitivity.measure import output_names
from edgec.passes.solvers.guard import Verdict, judge

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Outputs:
    """What a reference makes of some samples, part by part, and how to compare others with it.

    Probabilities are compared in front of their Softmax or Sigmoid: saturated, they hide differences. ``unknowns`` counts the
    products on the way to an output, all layers together.
    """

    data: Dataset
    parts: tuple[Part, ...]
    wanted: tuple[Array, ...]
    unknowns: float
    codes: bool
    threads: int

    @staticmethod
    def of(reference: ir.Model, data: Dataset, threads: int, *, codes: bool = False) -> Outputs:
        """Run ``reference`` over ``data``. ``codes``: those that are compared with it are quantised."""
        unknowns = sum(layer.patches.unknowns for layer in layers_of(reference).values())
        parts = parts_of(reference)
        wanted = _parts(parts, _outputs(reference, data, threads), len(data))
        return Outputs(data, parts, wanted, float(max(unknowns, 1)), codes, threads)

    def errors(self, model: ir.Model) -> tuple[Array, ...]:
        """Squared errors of every part by sample: (samples,) each."""
        made = _parts(self.parts, _outputs(model, self.data, self.threads), len(self.data))
        return tuple(
            np.square(difference_of(mine, wanted, part.name)).sum(axis=1)
            for part, mine, wanted in zip(self.parts, made, self.wanted, strict=True)
        )

    def verdict(self, before: Sequence[Array], after: Sequence[Array]) -> Verdict:
        """Of the part that fared worst."""
        found = [
            judge(old, new, _energy(wanted), unknowns=self.unknowns, codes=self.codes)
            for old, new, wanted in zip(before, after, self.wanted, strict=True)
        ]
        return min(found, key=lambda one: one.margin)

    def decibels(self, errors: Sequence[Array]) -> float:
        """Signal to noise of the worst part."""
        ratios = [
            _energy(wanted) / max(float(left.sum()), 1e-30)
            for wanted, left in zip(self.wanted, errors, strict=True)
        ]
        return float(10 * np.log10(max(min(ratios), 1e-30)))


def guarded(one: Pass, before: ir.Model, result: PassResult, context: Context) -> PassResult:
    """``result``, or as much of it as does no harm: what the pass left where the outputs did not become worse."""
    data = one.unseen(context) if one.recovers and result.modified else None
    if data is None or not len(data):
        return result
    quantised = context.reference is not None
    outputs = Outputs.of(context.reference or context.teacher, data, context.threads, codes=quantised)
    start, end = outputs.errors(before), outputs.errors(result.model)
    verdict = outputs.verdict(start, end)
    figures = {
        "samples": len(data),
        "before_db": outputs.decibels(start),
        "after_db": outputs.decibels(end),
        "choice": asdict(Choice.of("whole", verdict)),
    }
    result = replace(result, data={**result.data, "whole": figures})
    if not verdict.worse:
        return result
    told = f"{len(data)} held-out samples: {figures['before_db']:.1f} -> {figures['after_db']:.1f} dB"
    kept = 0 if result.partial is None else _longest(result.partial, outputs, start)
    if result.partial is None or not kept:
        note = Note(f"the network's output became worse on {told}; the pass is taken back", "reverted")
        return _shortened(result, before, 0, note)
    model = result.partial.model(kept)
    left = outputs.decibels(outputs.errors(model))
    note = Note(
        f"with all layers the network's output became worse on {told}; the first {kept} of {result.partial.count} fits stay: "
        f"{left:.1f} dB",
        "reverted",
    )
    return _shortened(result, model, kept, note)


def _longest(partial: Partial, outputs: Outputs, start: Sequence[Array]) -> int:
    """How many fits may stay: a beginning that does no harm, whose successor does or was not looked at."""
    good, bad = 0, partial.count
    while bad - good > 1:
        middle = (good + bad) // 2
        if outputs.verdict(start, outputs.errors(partial.model(middle))).worse:
            bad = middle
        else:
            good = middle
    return good


def _shortened(result: PassResult, model: ir.Model, kept: int, note: Note) -> PassResult:
    """``result`` with ``model``, and reports that say which layers went back."""
    gone = None if result.partial is None else result.partial.undone(kept)
    layers = tuple(
        replace(
            layer,
            kept=False,
            error_after=layer.error_before,
            note="; ".join(filter(None, (layer.note, "taken back with the whole"))),
        )
        if layer.kept and (gone is None or layer.node in gone)
        else layer
        for layer in result.layers
    )
    modified = kept > 0
    return replace(result, model=model, modified=modified, notes=(note, *result.notes), layers=layers)


def _energy(values: Array) -> float:
    return float(np.square(values, dtype=np.float64).sum())


def _parts(parts: Sequence[Part], outputs: Sequence[Array], samples: int) -> tuple[Array, ...]:
    return tuple(part.of(outputs, samples) for part in parts)


def _outputs(model: ir.Model, data: Dataset, threads: int) -> tuple[Array, ...]:
    names = output_names(model.graph)
    executor = Executor(model, outputs=list(dict.fromkeys(names)), threads=threads)
    parts = [executor.run(feeds) for feeds in data.batches(batch_size(model.graph))]
    return tuple(np.concatenate([np.atleast_1d(part[name]) for part in parts]) for name in names)
