"""From the histogram of a tensor to the range that the quantiser covers.

Methods: ``minmax``; ``percentile`` (the given share of values is covered, the rest saturates); ``mse`` (least
mean square error of quantised values, saturation included: Sung et al. 2015, the objective of TensorRT's and
NNCF's searches); and ``entropy`` (least Kullback-Leibler divergence between the histogram and its quantised
form: Migacz, GTC 2017).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from edgec.passes.quantize.histogram import Histogram

Array = np.ndarray[Any, np.dtype[Any]]

STEPS = 96
FINEST = 0.02
"""The search never shrinks a range below this share of the observed one."""


def choose(
    histogram: Histogram, method: str, *, percentile: float = 99.99, bits: int = 8, symmetric: bool = False
) -> tuple[float, float]:
    """The range for one tensor, within what was observed and widened to hold zero; its end and minus that where ``symmetric``."""
    low, high = min(histogram.low, 0.0), max(histogram.high, 0.0)
    if method == "minmax" or histogram.reach == 0.0 or low == high:
        return low, high
    if method == "percentile":
        share = percentile / 100.0
        return min(histogram.quantile(1.0 - share), 0.0), max(histogram.quantile(share), 0.0)
    cost = _square_error(histogram, bits) if method == "mse" else partial(_divergence, histogram, bits)
    return _search_both(max(-low, high), cost) if symmetric else _search(low, high, cost)


def _search(low: float, high: float, cost: Callable[[float, float], float]) -> tuple[float, float]:
    """Shrink both ends together, then each by itself, along a geometric grid, keeping what lowers the cost."""
    factors = np.geomspace(1.0, FINEST, STEPS)
    best, least = (low, high), cost(low, high)
    for sides in ((0, 1), (0,), (1,), (0,), (1,)):
        for factor in factors if any((low, high)[side] for side in sides) else ():
            ends = list(best)
            for side in sides:
                ends[side] = (low, high)[side] * factor
            value = cost(ends[0], ends[1])
            if value < least:
                least, best = value, (ends[0], ends[1])
    return best


def _search_both(reach: float, cost: Callable[[float, float], float]) -> tuple[float, float]:
    """The best range with equal ends, along the same grid."""
    factors = np.geomspace(1.0, FINEST, STEPS)
    best = min((cost(-reach * factor, reach * factor), -factor) for factor in factors)
    return best[1] * reach, -best[1] * reach


def _square_error(histogram: Histogram, bits: int) -> Callable[[float, float], float]:
    """The sum of squared errors of the histogram's values, quantised to a range from low to high, as a function of these."""
    used = np.flatnonzero(histogram.counts)
    values, counts = histogram.centres[used], histogram.counts[used].astype(np.float64)

    def cost(low: float, high: float) -> float:
        step = (high - low) / ((1 << bits) - 1)
        # Values ascend: those within the range lie in one piece.
        first, last = np.searchsorted(values, low, "left"), np.searchsorted(values, high, "right")
        errors = np.empty_like(values)
        errors[:first] = np.square(low - values[:first])
        # Uniform error within the range: evaluating the rounding at bin centres would alias.
        errors[first:last] = step * step / 12.0
        errors[last:] = np.square(values[last:] - high)
        return float(np.sum(counts * errors))

    return cost


def _divergence(histogram: Histogram, bits: int, low: float, high: float) -> float:
    """Kullback-Leibler divergence of the saturated histogram from its quantised form."""
    half = len(histogram.counts) // 2
    width = histogram.reach / half
    first, last = half + int(np.floor(low / width)), half + int(np.ceil(high / width))
    first, last = max(first, 0), min(last, len(histogram.counts))
    levels = 1 << bits
    if last - first < levels:
        return np.inf
    inside = histogram.counts[first:last].astype(np.float64)
    clipped = inside.copy()
    clipped[0] += histogram.counts[:first].sum()
    clipped[-1] += histogram.counts[last:].sum()
    group = (np.arange(last - first) * levels) // (last - first)
    sums = np.bincount(group, weights=inside, minlength=levels)
    used = np.bincount(group, weights=(inside > 0).astype(np.float64), minlength=levels)
    spread = np.where(inside > 0, (sums / np.maximum(used, 1.0))[group], 0.0)
    p = clipped / max(clipped.sum(), 1.0)
    q = spread / max(spread.sum(), 1.0)
    q = np.where((p > 0) & (q == 0), 1e-9, q)
    mask = p > 0
    return float(np.sum(p[mask] * np.log(p[mask] / q[mask])))
