"""How far quantised networks are from their float original: its outputs computed once, measured by one of `rulers`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from edgec.graph.execute import Executor
from edgec.graph.parts import parts_of
from edgec.graph.picks import judged
from edgec.passes.base import Context
from edgec.passes.incremental.executor import IncrementalExecutor
from edgec.passes.incremental.store import ActivationStore
from edgec.passes.quantize.rulers import ByAnswers, ByParts, Ruler
from edgec.passes.refit.layers import layers_of
from edgec.passes.solvers.guard import CLEAR, Verdict, amplitude, noise_floor, weigh

if TYPE_CHECKING:
    from edgec.graph.data import Dataset

Array = np.ndarray[Any, np.dtype[Any]]

HELD_BYTES = 16 << 20
"""Inputs and outputs of the samples that judge stay in memory up to this."""


@dataclass(frozen=True)
class Score:
    """``sqnr_db`` is that of the worst part over all samples, or that of the task's answers; ``typical_db`` averages the decibels
    of single samples, so that a few loud ones do not decide; ``agreement`` is the share of equal answers: of equal arg-max
    classes at the first output, or in the task's terms.

    ``drop`` is the loss of top-1 accuracy in percent where the data has labels and no task's terms decide, else
    100 (1 - agreement). ``samples`` are the decibels of every sample, at its worst part, and ``noise_db`` what rounding may make
    of their mean.
    """

    sqnr_db: float
    typical_db: float
    agreement: float
    drop: float
    samples: tuple[float, ...] = ()
    noise_db: float = 0.0


def nearer(before: Score, after: Score, *, drawn: bool = False) -> Verdict:
    """Whether the second graph is nearer to the original, by the decibels of every sample; a lone one has to gain `CLEAR` dB.

    ``drawn``: its codes were rounded layer after layer, or its ranges searched for anew (`Verdict.drawn`).
    """
    gains = np.array(after.samples) - np.array(before.samples)
    return weigh(gains, len(gains) * before.noise_db, alone=CLEAR, drawn=drawn)


class Reference:
    """What a float network makes of some samples: computed once, held in memory up to `HELD_BYTES`, then on disk.

    As a context it leaves nothing behind.
    """

    def __init__(self, original: ir.Model, data: Dataset, context: Context, *, batch: int = 8) -> None:
        self.data, self.context, self.batch = data, context, batch
        ends = original if context.answers is not None else judged(original)
        self.names = [value.name or "" for value in ends.graph.outputs]
        self.parts = parts_of(ends)
        self.amplitude: float = _amplitude(original)
        self.store: ActivationStore = ActivationStore(context.scratch, HELD_BYTES)
        try:
            self.walk: IncrementalExecutor = IncrementalExecutor(
                original, data.batches(batch), self.store, context.threads
            )
            for _ in self.walk.move(list(dict.fromkeys([*self.walk.live, *self.names]))):
                pass
        except BaseException:
            self.store.clear()
            raise

    def __enter__(self) -> Reference:
        return self

    def __exit__(self, *error: object) -> None:
        self.store.clear()

    def score(self, quantised: ir.Model) -> Score:
        """How near a graph with the same inputs and outputs comes."""
        executor = Executor(quantised, outputs=self.names, threads=self.context.threads)
        return self._score(self.walk.run(executor, number) for number in range(len(self.walk.sizes)))

    @contextmanager
    def beside(self, model: ir.Model) -> Iterator[IncrementalExecutor]:
        """A walk over the same samples through ``model``, for `score_from`."""
        with ActivationStore(self.context.scratch, HELD_BYTES) as store:
            yield IncrementalExecutor(model, self.data.batches(self.batch), store, self.context.threads)

    def score_from(self, walk: IncrementalExecutor, quantised: ir.Model) -> Score:
        """`score` of a graph that computes the same as the one of ``walk`` up to where that stands: only the rest is run."""
        executor = walk.executor(self.names, quantised)
        return self._score(walk.run(executor, number) for number in range(len(walk.sizes)))

    def _score(self, found: Iterable[Mapping[str, Array]]) -> Score:
        answers, labels = self.context.answers, self.data.labels
        ruler: Ruler = ByParts(self.parts) if answers is None else ByAnswers(answers)
        seen = 0
        for number, made in enumerate(found):
            wanted, size = [self.store.get(name, number) for name in self.names], self.walk.sizes[number]
            ruler.add(
                wanted,
                [made[name] for name in self.names],
                None if labels is None else labels[seen : seen + size],
            )
            seen += size
        every = ruler.decibels()
        samples = every.min(axis=0)
        agreement, drop = ruler.agreement()
        typical = min(float(np.mean(values)) for values in every)
        noise = _noise(self.amplitude, samples)
        return Score(ruler.sqnr_db(), typical, agreement, drop, tuple(samples.tolist()), noise)


def _amplitude(original: ir.Model) -> float:
    """What rounding errors of all layers together make of an output, as a share of it."""
    return amplitude(sum(layer.patches.unknowns for layer in layers_of(original).values()), codes=True)


def _noise(share: float, samples: Array) -> float:
    """What rounding errors make of the mean of decibels: d(10 log10 e) for the noise floor of an error e."""
    errors = 10.0 ** (-samples / 10)
    floors = [noise_floor(float(error), 1.0, share) / float(error) for error in errors]
    return float(10 / np.log(10) * np.mean(floors)) if floors else 0.0
