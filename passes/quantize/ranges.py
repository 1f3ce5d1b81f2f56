"""From the histogram of a tensor to the range that the quantiser covers.

Methods: ``minmax``; ``percentile`` (the given share of values is covered, the rest saturates); ``mse`` (least
mean square error of quantised values, saturation included: Sung et al. 2015, the objective of TensorRT's and
NNCF's searches); and ``entropy`` (least Kullback-Leibler divergence between the histogram and its quantised
form: Migacz, GTC 2017).
"""

from __future__ import annotations

from collections.abc import Callable
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
    cost = _square_error(histogram, bits) if method == "mse" else _divergences(histogram, bits)
    return _search_both(max(-low, high), cost) if symmetric else _search(low, high, cost)


Costs = Callable[[Array, Array], Array]
"""From lower ends and upper ends to what each of these ranges costs."""


def _search(low: float, high: float, cost: Costs) -> tuple[float, float]:
    """Shrink both ends together, then each by itself, along a geometric grid, keeping what lowers the cost."""
    factors = np.geomspace(1.0, FINEST, STEPS)
    whole = np.array([low, high])
    best, least = whole, float(cost(whole[:1], whole[1:])[0])
    for sides in ([0, 1], [0], [1], [0], [1]):
        if not whole[sides].any():
            continue  # an end at zero stays there
        ends = np.tile(best, (STEPS, 1))
        ends[:, sides] = np.outer(factors, whole[sides])
        values = cost(ends[:, 0], ends[:, 1])
        number = int(np.argmin(values))
        if values[number] < least:
            least, best = float(values[number]), ends[number]
    return float(best[0]), float(best[1])


def _search_both(reach: float, cost: Costs) -> tuple[float, float]:
    """The best range with equal ends, along the same grid; of equals the widest."""
    ends = reach * np.geomspace(1.0, FINEST, STEPS)
    best = float(ends[np.argmin(cost(-ends, ends))])
    return -best, best


def _square_error(histogram: Histogram, bits: int) -> Costs:
    """The sum of squared errors of the histogram's values, quantised to a range from low to high, as a function of these.

    Values ascend, so those outside a range are the first and the last ones, and running sums of them and of their squares, from
    either end, give all ranges at once. Within it the error is uniform: evaluating the rounding at bin centres would alias.
    """
    used = np.flatnonzero(histogram.counts)
    values, counts = histogram.centres[used], histogram.counts[used].astype(np.float64)
    below, above = _Running(values, counts), _Running(-values[::-1], counts[::-1])
    total = counts.sum()

    def cost(low: Array, high: Array) -> Array:
        step = (high - low) / ((1 << bits) - 1)
        first = np.searchsorted(values, low, "left")
        last = len(values) - np.searchsorted(values, high, "right")
        inside = total - below.counts[first] - above.counts[last]
        found: Array = below.squares(first, low) + above.squares(last, -high) + inside * step * step / 12.0
        return found

    return cost


class _Running:
    """Sums over the first of ascending values (0, 1, ... of them) that occur ``counts`` times."""

    def __init__(self, values: Array, counts: Array) -> None:
        weights = [counts, counts * values, counts * np.square(values)]
        self.counts, self.sums, self.powers = (np.concatenate([[0.0], np.cumsum(one)]) for one in weights)

    def squares(self, first: Array, end: Array) -> Array:
        """Of the distances of the ``first`` values from ``end``."""
        found: Array = self.powers[first] + end * (end * self.counts[first] - 2 * self.sums[first])
        return np.maximum(found, 0.0)


def _divergences(histogram: Histogram, bits: int) -> Costs:
    def cost(low: Array, high: Array) -> Array:
        return np.array([_divergence(histogram, bits, *ends) for ends in zip(low, high, strict=True)])

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
