"""Pictures out of pictures: super-resolution, denoising."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from edgec.compiler.tasks.measure import Measure, over_samples, with_labels
from edgec.compiler.tasks.task import Truth
from edgec.graph.compare import by_sample

Array = np.ndarray[Any, np.dtype[Any]]

MOST_DB = 100.0
"""Of a picture that is the same."""
BYTES_FROM = 8.0
"""Pictures whose values go beyond this are in 0 to 255, others in 0 to 1."""
SEEN_DB = 40.0
"""Below it a difference may be seen."""


@dataclass(frozen=True)
class Restoration:
    """Output ``output`` is a picture."""

    output: int = 0
    name: Literal["super-resolution"] = "super-resolution"

    def tally(self) -> RestorationTally:
        return RestorationTally(self)

    def answers(self, outputs: Sequence[Array]) -> list[dict[str, Any]]:
        found = np.asarray(outputs[self.output])
        return [{"mean": float(one.mean()), "shape": list(one.shape)} for one in found]


@dataclass
class RestorationTally:
    """Decibels by picture."""

    task: Restoration
    errors: list[float] = field(default_factory=list)
    changed: list[bool] = field(default_factory=list)
    peak: float = 0.0
    psnr: list[float] = field(default_factory=list)
    right: list[float] = field(default_factory=list)
    source_right: list[float] = field(default_factory=list)

    def add(self, source: Sequence[Array], ours: Sequence[Array], truth: Truth | None) -> None:
        wanted, made = (by_sample(np.asarray(one[self.task.output], np.float64)) for one in (source, ours))
        if not self.peak:
            self.peak = 255.0 if np.abs(wanted).max() > BYTES_FROM else 1.0
        found = psnr(wanted, made, self.peak).tolist()
        self.psnr += found
        self.errors += [MOST_DB - one for one in found]
        self.changed += [one < SEEN_DB for one in found]
        if truth is not None:
            labels = np.stack([np.asarray(one, np.float64).ravel() for one in truth])
            self.right += psnr(labels, made, self.peak).tolist()
            self.source_right += psnr(labels, wanted, self.peak).tolist()

    def figures(self) -> dict[str, Any]:
        measures: list[Measure] = []
        shared: dict[str, Any] = {"unit": "dB", "best": None}
        if self.right:
            measures.append(with_labels("PSNR with the labels", self.right, self.source_right, **shared))
        measures.append(over_samples("PSNR with the original's pictures", self.psnr, **shared))
        return {"measures": tuple(measures)}


def psnr(wanted: Array, made: Array, peak: float) -> Array:
    """Peak signal to noise of each row, in dB, `MOST_DB` at most."""
    error = ((wanted - made) ** 2).mean(axis=1)
    return np.asarray(np.minimum(10 * np.log10(peak**2 / np.maximum(error, 1e-30)), MOST_DB))
