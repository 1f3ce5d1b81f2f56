"""The guard behind a whole pass: are the network's outputs nearer to what they should be, on samples that the pass did not fit?

A fit that helps its own layer may still harm the network: layers behind it amplify what is left (gates multiply it), and what
every layer gains is measured on the layer alone. So a pass that claims to recover accuracy (`Pass.recovers`) is judged by the
outputs, each part of them by itself (`graph.parts`) or in the task's own terms where these are known, with the paired errors of
`solvers.guard`: where one became worse beyond doubt the pass is taken back, or, where it fitted layer after layer, as far as the
longest beginning that does no harm (found by bisection).

It costs two or three runs over the held-out samples, and one more for each step of the bisection.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol

import numpy as np
import onnx_ir as ir

from edgec.graph.compare import difference_of
from edgec.graph.data import Dataset
from edgec.graph.execute import Executor
from edgec.graph.parts import Part, parts_of
from edgec.graph.picks import judged
from edgec.passes.base import Answers, Choice, Context, Note, Partial, Pass, PassResult
from edgec.passes.incremental.executor import batch_size
from edgec.passes.refit.layers import layers_of
from edgec.passes.sensitivity.measure import output_names
from edgec.passes.solvers.guard import Verdict, judge

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Errors:
    """Of one part by sample: what counts in it, and what is wrong with that; (samples,) each."""

    counts: Array
    wrong: Array

    @property
    def energy(self) -> float:
        return float(self.counts.sum())


class Measure(Protocol):
    """What of the outputs is compared: one part of them, or more."""

    def errors(self, wanted: Sequence[Array], made: Sequence[Array], samples: int) -> list[Errors]:
        """Of every part, from both networks' outputs for one batch."""


@dataclass(frozen=True)
class Values:
    """Squares of the values, and of what they are off, part by part."""

    parts: tuple[Part, ...]

    def errors(self, wanted: Sequence[Array], made: Sequence[Array], samples: int) -> list[Errors]:
        pairs = [(part.of(wanted, samples), part.of(made, samples), part.name) for part in self.parts]
        return [Errors(_squares(a), _squares(difference_of(b, a, name))) for a, b, name in pairs]


@dataclass(frozen=True)
class Meaning:
    """The task's own terms, where it is known what the outputs mean (`Context.answers`)."""

    answers: Answers

    def errors(self, wanted: Sequence[Array], made: Sequence[Array], samples: int) -> list[Errors]:
        return [Errors(*self.answers.energies(wanted, made))]


@dataclass(frozen=True)
class Outputs:
    """What a reference makes of some samples, ``size`` at a time, and how to compare others with it.

    ``names`` are the outputs; where values are compared, what stands in front of a Softmax or Sigmoid: saturated, they hide
    differences. ``unknowns`` counts the products on the way to an output, all layers together.
    """

    data: Dataset
    size: int
    measure: Measure
    names: Callable[[ir.Model], Sequence[str]]
    wanted: tuple[list[Array], ...]
    unknowns: float
    codes: bool
    threads: int

    @staticmethod
    def of(reference: ir.Model, data: Dataset, context: Context) -> Outputs:
        """Run ``reference`` over ``data``; behind ``quantize``, what is compared with it has codes."""
        unknowns = sum(layer.patches.unknowns for layer in layers_of(reference).values())
        answers, codes = context.answers, context.reference is not None
        measure: Measure = Values(parts_of(judged(reference))) if answers is None else Meaning(answers)
        names = _judged_names if answers is None else _last_names
        size = batch_size(reference.graph)
        wanted = tuple(_outputs(reference, names(reference), data.batches(size), context.threads))
        return Outputs(data, size, measure, names, wanted, float(max(unknowns, 1)), codes, context.threads)

    def errors(self, model: ir.Model) -> tuple[Errors, ...]:
        """Of every part, over all samples."""
        made = _outputs(model, self.names(model), self.data.batches(self.size), self.threads)
        found = [
            self.measure.errors(right, mine, min(self.size, len(self.data) - number * self.size))
            for number, (right, mine) in enumerate(zip(self.wanted, made, strict=True))
        ]
        return tuple(
            Errors(np.concatenate([one.counts for one in part]), np.concatenate([one.wrong for one in part]))
            for part in zip(*found, strict=True)
        )

    def verdict(self, before: Sequence[Errors], after: Sequence[Errors]) -> Verdict:
        """Of the part that fared worst."""
        found = [
            judge(old.wrong, new.wrong, new.energy, unknowns=self.unknowns, codes=self.codes)
            for old, new in zip(before, after, strict=True)
        ]
        return min(found, key=lambda one: one.margin)

    def decibels(self, errors: Sequence[Errors]) -> float:
        """Signal to noise of the worst part."""
        ratios = [one.energy / max(float(one.wrong.sum()), 1e-30) for one in errors]
        return float(10 * np.log10(max(min(ratios), 1e-30)))


def guarded(one: Pass, before: ir.Model, result: PassResult, context: Context) -> PassResult:
    """``result``, or as much of it as does no harm: what the pass left where the outputs did not become worse."""
    data = one.unseen(context) if one.recovers and result.modified else None
    if data is None or not len(data):
        return result
    outputs = Outputs.of(context.reference or context.teacher, data, context)
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


def _longest(partial: Partial, outputs: Outputs, start: Sequence[Errors]) -> int:
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


def _squares(values: Array) -> Array:
    return np.asarray(np.square(values, dtype=np.float64).sum(axis=1))


def _last_names(model: ir.Model) -> list[str]:
    return [value.name or "" for value in model.graph.outputs]


def _judged_names(model: ir.Model) -> Sequence[str]:
    return output_names(judged(model).graph)


def _outputs(
    model: ir.Model, names: Sequence[str], batches: Iterable[dict[str, Array]], threads: int
) -> Iterator[list[Array]]:
    """The values ``names``, batch by batch."""
    executor = Executor(model, outputs=list(dict.fromkeys(names)), threads=threads)
    for feeds in batches:
        found = executor.run(feeds)
        yield [np.atleast_1d(found[name]) for name in names]
