"""What a network's answers hold about its inputs, in nats (see `evaluate.plausibility`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from edgec.compiler.evaluate.preparations import Change
from edgec.graph.compare import by_sample, probabilities
from edgec.graph.execute import Executor
from edgec.graph.inputs import InputSpec
from edgec.passes.incremental.executor import batch_size

Array = np.ndarray[Any, np.dtype[Any]]

BATCH = 8
"""Samples that run together, where their maps are small enough."""
MOST_SCORES = 50_000


@dataclass(frozen=True)
class Information:
    """Nats that each sample's answer holds about it; ``classes`` are the answers of a classifier of ``kinds`` classes."""

    each: Array
    dense: bool
    classes: Array | None = None
    kinds: int = 0

    @property
    def mean(self) -> float:
        """Over the samples."""
        return float(self.each.mean())

    def ahead_of(self, other: Information) -> float:
        """By how many standard errors of the paired difference it is more than ``other``."""
        difference = self.each - other.each
        error = float(difference.std(ddof=1)) / len(difference) ** 0.5
        return float(difference.mean() / max(error, 1e-6))


class Judge:
    """Runs the network and reads its answers."""

    def __init__(self, model: ir.Model, spec: InputSpec, threads: int) -> None:
        self.spec, self.executor = spec, Executor(model, threads=threads)
        self.size: int = batch_size(model.graph, most=BATCH)

    def information(self, x: Array | Mapping[str, Array], changes: tuple[Change, ...]) -> Information | None:
        """Of the answers to ``x`` (also changed by each of ``changes``); None where the outputs are no answers."""
        feeds = dict(x) if isinstance(x, Mapping) else {self.spec.name: x}
        name = self.spec.name
        versions = [feeds, *({**feeds, name: change(feeds[name])} for change in changes)]
        runs = [self._run({**one, name: self._held(one[name])}) for one in versions]
        classes = next((name for name, array in runs[0].items() if _is_classes(array)), None)
        if classes is not None:
            p = np.mean([probabilities(run[classes]) for run in runs], axis=0)
            each = (p * (np.log(p + 1e-12) - np.log(p.mean(axis=0) + 1e-12))).sum(axis=1)
            return Information(each, False, p.argmax(axis=1), p.shape[1])
        p = np.mean(
            [np.concatenate([by_sample(array) for array in run.values()], axis=1) for run in runs], axis=0
        )
        scores = np.flatnonzero(((p >= 0) & (p <= 1)).all(axis=0) & (p.std(axis=0) > 0))
        if p.shape[1] < 2 or len(scores) < 0.01 * p.shape[1]:
            return None
        return Information(_bits(p[:, scores[:: max(1, len(scores) // MOST_SCORES)]]), True)

    def _held(self, x: Array) -> Array:
        """Changed inputs in the input's own type: the nearest numbers that it has."""
        if self.spec.dtype.kind != "f":
            limits = np.iinfo(self.spec.dtype) if self.spec.dtype.kind in "iu" else np.iinfo(np.uint8)
            x = np.clip(np.rint(x), limits.min, limits.max)
        return np.ascontiguousarray(x, self.spec.dtype)

    def _run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        starts = range(0, len(next(iter(feeds.values()))), self.size)
        parts = [
            self.executor.run({name: array[i : i + self.size] for name, array in feeds.items()})
            for i in starts
        ]
        return {name: np.concatenate([part[name].astype(np.float64) for part in parts]) for name in parts[0]}


def _bits(p: Array) -> Array:
    """Information of scores that each are a yes or a no, summed."""
    mean, tiny = p.mean(axis=0), 1e-9
    yes = p * (np.log(p + tiny) - np.log(mean + tiny))
    no = (1 - p) * (np.log(1 - p + tiny) - np.log(1 - mean + tiny))
    return np.asarray((yes + no).sum(axis=1))


def _is_classes(array: Array) -> bool:
    return array.ndim >= 2 and array.shape[1] >= 3 and array[0].size == array.shape[1]
