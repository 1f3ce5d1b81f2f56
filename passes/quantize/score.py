"""How far a quantised network is from its float original, at the outputs, part by part (`graph.parts`)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from edgec.graph.compare import Difference, by_sample
from edgec.graph.execute import Executor
from edgec.graph.parts import parts_of
from edgec.passes.refit.layers import layers_of
from edgec.passes.solvers.guard import CLEAR, Verdict, amplitude, noise_floor, weigh

if TYPE_CHECKING:
    from edgec.graph.data import Dataset

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Score:
    """``sqnr_db`` is that of the worst part over all samples; ``typical_db`` averages the decibels of single samples, so
    that a few loud ones do not decide; ``agreement`` is the share of equal arg-max classes at the first output.

    ``drop`` is the loss of top-1 accuracy in percent where the data has labels, else 100 (1 - agreement). ``samples`` are the
    decibels of every sample, at its worst part, and ``noise_db`` what rounding may make of their mean.
    """

    sqnr_db: float
    typical_db: float
    agreement: float
    drop: float
    samples: tuple[float, ...] = ()
    noise_db: float = 0.0


def nearer(before: Score, after: Score, *, drawn: bool = False) -> Verdict:
    """Whether the second graph is nearer to the original, by the decibels of every sample; a lone one has to gain `CLEAR` dB.

    ``drawn``: its codes were rounded layer after layer (`Verdict.drawn`).
    """
    gains = np.array(after.samples) - np.array(before.samples)
    return weigh(gains, len(gains) * before.noise_db, alone=CLEAR, drawn=drawn)


def score(
    original: ir.Model, quantised: ir.Model, data: Dataset, *, threads: int = 1, batch: int = 8
) -> Score:
    """Compare two graphs with the same outputs on ``data``."""
    names = [value.name or "" for value in original.graph.outputs]
    reference, candidate = Executor(original, threads=threads), Executor(quantised, threads=threads)
    parts = parts_of(original)
    differences = [Difference(part.name) for part in parts]
    decibels: list[list[float]] = [[] for _ in parts]
    labels = data.labels
    equal = right_before = right_after = seen = 0
    for feeds in data.batches(batch):
        a, b = reference.run(feeds), candidate.run(feeds)
        wanted, made = [a[name] for name in names], [b[name] for name in names]
        for part, difference, found in zip(parts, differences, decibels, strict=True):
            mine, theirs = part.of(wanted), part.of(made)
            difference.add(mine, theirs)
            found.extend(_decibels(mine, theirs))
        before, after = _classes(a[names[0]]), _classes(b[names[0]])
        equal += int((before == after).all(axis=1).sum())
        if labels is not None:
            truth = labels[seen : seen + len(before)]
            right_before += int((before[:, 0] == truth).sum())
            right_after += int((after[:, 0] == truth).sum())
        seen += len(before)
    agreement = equal / max(seen, 1)
    drop = 1.0 - agreement if labels is None else (right_before - right_after) / max(seen, 1)
    typical = min(float(np.mean(values)) for values in decibels)
    samples = np.min(decibels, axis=0)
    sqnr = min(d.sqnr_db for d in differences)
    return Score(sqnr, typical, agreement, 100.0 * drop, tuple(samples.tolist()), _noise(original, samples))


def _noise(original: ir.Model, samples: Array) -> float:
    """What rounding errors of all layers together make of decibels: d(10 log10 e) for the noise floor of an error e."""
    unknowns = sum(layer.patches.unknowns for layer in layers_of(original).values())
    share = amplitude(unknowns, codes=True)
    errors = 10.0 ** (-samples / 10)
    floors = [noise_floor(float(error), 1.0, share) / float(error) for error in errors]
    return float(10 / np.log(10) * np.mean(floors)) if floors else 0.0


def _decibels(reference: Array, value: Array) -> list[float]:
    """SQNR of each sample, within [-20, 100] dB so that exact or meaningless ones do not swamp the mean."""
    a, b = reference.astype(np.float64), value.astype(np.float64)
    signal, noise = (a * a).sum(axis=1), ((a - b) ** 2).sum(axis=1)
    ratio = np.clip(signal / np.maximum(noise, np.maximum(signal * 1e-10, 1e-300)), 1e-2, 1e10)
    return [float(v) for v in 10.0 * np.log10(ratio)]


def _classes(output: Array) -> Array:
    """The arg-max along the last axis, one row per sample."""
    flat = by_sample(output)
    places = (
        flat.reshape(len(flat), output.shape[1], math.prod(output.shape[2:])) if output.ndim > 2 else flat
    )
    return by_sample(np.asarray(places.argmax(axis=1)))
