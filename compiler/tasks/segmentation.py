"""Segmentation: a class for every pixel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from edgec.compiler.tasks.measure import Measure, over_samples, with_labels
from edgec.compiler.tasks.task import Truth
from edgec.graph.compare import paired_probabilities

Array = np.ndarray[Any, np.dtype[Any]]


SMALLEST = 1e-3
"""Share of the pixels that a class is taken to cover at least: a few of them say nothing."""


@dataclass(frozen=True)
class Segmentation:
    """Output ``output`` has ``classes`` scores for each pixel on ``axis``, one score (yes from ``threshold`` on), or class ids.

    ``axis`` counts the batch; None: the output holds class ids.
    """

    output: int = 0
    classes: int = 2
    axis: int | None = 1
    threshold: float | None = None
    name: Literal["segmentation"] = "segmentation"

    def tally(self) -> SegmentationTally:
        return SegmentationTally(self)

    def masks(self, outputs: Sequence[Array]) -> Array:
        """(samples, height, width) of class ids."""
        found = np.asarray(outputs[self.output])
        if self.axis is None:
            return found.reshape(len(found), *[size for size in found.shape[1:] if size != 1]).astype(
                np.int64
            )
        if self.threshold is not None:
            return np.asarray(found.take(0, axis=self.axis) >= self.threshold).astype(np.int64)
        return np.asarray(found.argmax(axis=self.axis))

    def energies(self, source: Sequence[Array], ours: Sequence[Array]) -> tuple[Array, Array]:
        """(what counts, what is wrong with it), each (samples,): of the probabilities of classes, pixel by pixel, without a
        threshold that small changes step over.

        A class counts the same whether it covers the picture or a corner of it, as in the mean IoU: its squares are divided by
        the pixels that the source gives it, or by a `SMALLEST` share of all.
        """
        pairs = zip(np.asarray(source[self.output]), np.asarray(ours[self.output]), strict=True)
        found = np.array([self._energies(*self._chances(a, b)) for a, b in pairs])
        return found[:, 0], found[:, 1]

    def _energies(self, wanted: Array, made: Array) -> tuple[float, float]:
        pixels = np.bincount(wanted.argmax(axis=0), minlength=len(wanted))
        weights = 1 / np.maximum(pixels, max(SMALLEST * wanted.shape[1], 1))
        right, wrong = (np.square(one, dtype=np.float32).sum(axis=1) for one in (wanted, wanted - made))
        return float(weights @ right), float(weights @ wrong)

    def _chances(self, source: Array, ours: Array) -> tuple[Array, Array]:
        """(classes, pixels) of one sample, of both networks: the probability of every class; 0 and 1 where outputs are class ids.

        What the source's output holds, both hold: the codes of an int8 Softmax do not sum to 1, and are no logits for that.
        """
        if self.axis is None:
            ids = np.arange(self.classes)[:, None]
            wanted, made = (np.asarray(one.reshape(1, -1) == ids, np.float32) for one in (source, ours))
            return wanted, made
        axis = self.axis - 1
        rows = [
            np.moveaxis(one, axis, -1).reshape(-1, one.shape[axis]).astype(np.float32)
            for one in (source, ours)
        ]
        if self.threshold is None:
            wanted, made = paired_probabilities(*rows)
            return wanted.T, made.T
        wanted, made = (
            one[:, 0] if self.threshold > 0 else 1 / (1 + np.exp(-np.clip(one[:, 0], -60, 60)))
            for one in rows
        )
        return np.stack([1 - wanted, wanted]), np.stack([1 - made, made])

    def kept(self, source: Sequence[Array], ours: Sequence[Array]) -> tuple[int, int]:
        """(pixels of the source's classes that ``ours`` gives the same, all pixels)."""
        same = self.masks(source) == self.masks(ours)
        return int(same.sum()), same.size

    def at(self, size: tuple[int, int]) -> Segmentation:
        """Masks follow the picture: nothing in it speaks of a size."""
        return self

    def answers(self, outputs: Sequence[Array]) -> list[dict[str, Any]]:
        return [{"mask": runs_of(mask)} for mask in self.masks(outputs)]


@dataclass
class SegmentationTally:
    """By sample and class: pixels that both have, and pixels that either has."""

    task: Segmentation
    errors: list[float] = field(default_factory=list)
    changed: list[bool] = field(default_factory=list)
    pixels: list[float] = field(default_factory=list)
    rows: list[Array] = field(default_factory=list)
    right: list[Array] = field(default_factory=list)
    source_right: list[Array] = field(default_factory=list)

    def add(self, source: Sequence[Array], ours: Sequence[Array], truth: Truth | None) -> None:
        for number, (wanted, made) in enumerate(
            zip(self.task.masks(source), self.task.masks(ours), strict=True)
        ):
            row = self._row(wanted, made)
            self.rows.append(row)
            alone = float(mean_iou(row[None])[0])
            self.errors.append(1 - alone)
            self.pixels.append(float((wanted == made).mean()))
            self.changed.append(alone < 0.9)
            if truth is not None:
                label = nearest(np.asarray(truth[number]), wanted.shape)
                self.right.append(self._row(label, made))
                self.source_right.append(self._row(label, wanted))

    def _row(self, wanted: Array, made: Array) -> Array:
        known = (wanted >= 0) & (wanted < self.task.classes)
        a, b = wanted[known], made[known]
        count = self.task.classes
        both = np.bincount(a[a == b], minlength=count)[:count]
        either = np.bincount(a, minlength=count)[:count] + np.bincount(b, minlength=count)[:count] - both
        return np.asarray(np.concatenate([both, either]), np.float64)

    def figures(self) -> dict[str, Any]:
        measures: list[Measure] = []
        if self.right:
            name = "Mean IoU with the labels"
            measures.append(with_labels(name, self.right, self.source_right, mean_iou))
        measures += [
            over_samples("Mean IoU with the original's masks", self.rows, mean_iou),
            over_samples("Pixels of the same class", self.pixels),
        ]
        return {"measures": tuple(measures)}


def mean_iou(values: Array) -> Array:
    """Over the classes that either has: (draws, classes of both, classes of either) to (draws,)."""
    both, either = np.split(values, 2, axis=1)
    there = either > 0
    shares = np.divide(both, either, out=np.zeros_like(both), where=there)
    return np.asarray(np.where(there.any(axis=1), shares.sum(axis=1) / np.maximum(there.sum(axis=1), 1), 1.0))


def nearest(mask: Array, shape: Sequence[int]) -> Array:
    """A mask in another size, each pixel that of the nearest one."""
    if mask.shape == tuple(shape):
        return mask
    rows, columns = (
        np.minimum(((np.arange(new) + 0.5) * old / new).astype(int), old - 1)
        for old, new in zip(mask.shape, shape, strict=True)
    )
    return np.asarray(mask[rows[:, None], columns[None, :]])


def runs_of(mask: Array, most: int = 128) -> dict[str, Any]:
    """A mask of at most ``most`` pixels a side, row by row, as runs ``[class, pixels]``."""
    height, width = mask.shape
    factor = max(1.0, max(height, width) / most)
    small = nearest(mask, (max(1, round(height / factor)), max(1, round(width / factor))))
    flat = small.ravel()
    starts = np.flatnonzero(np.diff(flat, prepend=flat[0] - 1))
    lengths = np.diff(starts, append=len(flat))
    return {
        "size": list(small.shape),
        "runs": [[int(flat[at]), int(size)] for at, size in zip(starts, lengths, strict=True)],
    }
