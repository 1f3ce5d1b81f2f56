"""Streaming statistics of one tensor in constant memory."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

BINS = 8192
ENOUGH = 1 << 21
"""So many values of one tensor are counted at most, spread evenly over each sample; its ends are those of all values."""


class Histogram:
    """Counts of a tensor's values over [-reach, reach), in `BINS` bins, with exact minimum and maximum.

    The reach is a power of two and doubles when a larger value comes, pairs of bins then being merged: the
    result depends neither on how the values were cut into batches nor on their order, and memory does not
    grow. Exact zeros (what a Relu leaves) are counted apart, because every quantiser represents them exactly.
    """

    def __init__(self) -> None:
        self.counts = np.zeros(BINS, np.int64)
        self.reach = 0.0
        self.zeros = 0
        self.low = np.inf
        self.high = -np.inf
        self.finite = True

    def add(self, values: Array, step: int = 1) -> None:
        """Count every ``step``-th of each sample's ``values``; NaN or infinity among them all clears ``finite``."""
        flat = values.reshape(-1)
        if not flat.size:
            return
        low, high = float(flat.min()), float(flat.max())
        if not (np.isfinite(low) and np.isfinite(high)):
            self.finite = False
            return
        self.low, self.high = min(self.low, low), max(self.high, high)
        peak = max(-low, high)
        if step > 1:
            flat = values.reshape(len(values), -1)[:, ::step].reshape(-1)
        if peak == 0.0:
            self.zeros += flat.size
            return
        self._reach(peak)
        scale = np.float32(BINS / 2 / self.reach)
        places = flat * scale
        # intp is what bincount takes: any other type it would copy.
        index = np.floor(places, out=places).astype(np.intp)
        index += BINS // 2
        np.clip(index, 0, BINS - 1, out=index)
        counts = np.bincount(index, minlength=BINS)
        zeros = flat.size - int(np.count_nonzero(flat != 0))
        counts[BINS // 2] -= zeros
        self.zeros += zeros
        self.counts += counts

    def _reach(self, peak: float) -> None:
        if self.reach == 0.0:
            self.reach = float(2.0 ** np.ceil(np.log2(peak)))
        while peak > self.reach:
            half = BINS // 2
            merged = np.zeros_like(self.counts)
            merged[half // 2 : half + half // 2] = self.counts.reshape(half, 2).sum(axis=1)
            self.counts = merged
            self.reach *= 2.0

    @property
    def total(self) -> int:
        """Number of values seen."""
        return int(self.counts.sum()) + self.zeros

    @property
    def centres(self) -> Array:
        """The middle of every bin."""
        width = 2.0 * self.reach / BINS
        return (np.arange(BINS) - BINS // 2 + 0.5) * width

    def clipped(self, low: float, high: float) -> Histogram:
        """The histogram of the values held within [low, high], to one bin; itself where none lies outside."""
        if low <= self.low and self.high <= high:
            return self
        result = Histogram()
        result.reach, result.zeros, result.finite = self.reach, self.zeros, self.finite
        result.low, result.high = float(np.clip(self.low, low, high)), float(np.clip(self.high, low, high))
        ends = (
            [
                int(np.clip(np.floor(end / self.reach * (BINS / 2)), -BINS // 2, BINS // 2 - 1))
                for end in (low, high)
            ]
            if self.reach
            else [0, 0]
        )
        first, last = (end + BINS // 2 for end in ends)
        result.counts = self.counts.copy()
        result.counts[first] += result.counts[:first].sum()
        result.counts[:first] = 0
        result.counts[last] += result.counts[last + 1 :].sum()
        result.counts[last + 1 :] = 0
        return result

    def quantile(self, fraction: float) -> float:
        """The value below which ``fraction`` of all values lie (to one bin), within the observed range."""
        counts = self.counts.astype(np.float64)
        counts[BINS // 2] += self.zeros
        cumulative = np.cumsum(counts)
        index = int(np.searchsorted(cumulative, fraction * cumulative[-1]))
        width = 2.0 * self.reach / BINS
        edge = (min(index, BINS - 1) - BINS // 2 + (1 if fraction > 0.5 else 0)) * width
        return float(np.clip(edge, self.low, self.high))


def merge(histograms: list[Histogram]) -> Histogram:
    """One histogram for tensors that share parameters: each counts alike, whatever its size."""
    if len(histograms) == 1:
        return histograms[0]
    result = Histogram()
    largest = max(h.total for h in histograms)
    for histogram in histograms:
        result.low, result.high = min(result.low, histogram.low), max(result.high, histogram.high)
        result.finite = result.finite and histogram.finite
    peak = max((h.reach for h in histograms), default=0.0)
    if peak:
        result._reach(peak)
    for histogram in histograms:
        weight = largest // max(histogram.total, 1)
        result.zeros += histogram.zeros * weight
        if not histogram.reach:
            continue
        grown = Histogram()
        grown.counts, grown.reach = histogram.counts.copy(), histogram.reach
        grown._reach(peak)
        result.counts += grown.counts * weight
    return result


def step_of(size: int, samples: int) -> int:
    """Which values of a sample with ``size`` of them are counted, so that ``samples`` make about `ENOUGH`: every how-manieth.

    It has no factor in common with the size, and so with no axis: columns and channels are seen alike.
    """
    step = max(1, size * samples // ENOUGH)
    while math.gcd(step, size) > 1:
        step += 1
    return step
