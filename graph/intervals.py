"""How sure a figure is: the 95% interval of a rate, and of a figure over samples.

A rate has Wilson's interval (E. B. Wilson, JASA 22, 1927), which is sound near 0 and 1 too, and the difference of two rates over
the same samples Newcombe's, which is made of both. Every other figure is a function of
means over samples and has the bootstrap's, bias-corrected and accelerated (B. Efron, JASA 82, 1987): samples are drawn again,
with replacement, and the figure is computed of each draw. Draws of few samples vary too little, as does a normal distribution
for Student's: the interval is widened by both (T. C. Hesterberg, "What teachers should know about the bootstrap", American
Statistician 69, 2015, the expanded percentile interval). How often they hold the true value: `bench/intervals.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist
from typing import Any

import numpy as np
from scipy.special import stdtrit

Array = np.ndarray[Any, np.dtype[Any]]
Statistic = Callable[[Array], Array]
"""From means over samples (draws, columns) to the figure (draws,)."""

Z = 1.959964
"""Standard deviations that hold 95% of a normal distribution."""
DRAWS = 1000
_AT_ONCE = 4_000_000
"""Numbers of one step of the bootstrap: 32 MB."""


def wilson(rate: float, count: int) -> tuple[float, float]:
    """The 95% interval of a rate over ``count`` samples."""
    if count < 1:
        return 0.0, 1.0
    z2 = Z**2
    middle = (rate + z2 / (2 * count)) / (1 + z2 / count)
    half = math.sqrt(z2 * (rate * (1 - rate) / count + z2 / (4 * count**2))) / (1 + z2 / count)
    return max(0.0, middle - half), min(1.0, middle + half)


def paired(ours: Array, theirs: Array) -> tuple[float, float]:
    """The 95% interval of the difference of two rates over the same samples (R. G. Newcombe, Stat. Med. 17, 1998, method 10).

    ``ours`` and ``theirs`` are of bool, by sample. Where no sample differs, what other samples may do is still not nothing.
    """
    count = len(ours)
    if not count:
        return -1.0, 1.0
    both, neither = int((ours & theirs).sum()), int((~ours & ~theirs).sum())
    first, second = float(ours.mean()), float(theirs.mean())
    (low1, high1), (low2, high2) = wilson(first, count), wilson(second, count)
    product = both * neither - int((ours & ~theirs).sum()) * int((theirs & ~ours).sum())
    scale = math.sqrt(first * (1 - first) * second * (1 - second)) * count**2
    together = (
        max(product - count / 2, 0) / scale
        if product > 0 and scale
        else min(product, 0) / scale
        if scale
        else 0.0
    )
    down, up = first - low1, high1 - first
    under = math.sqrt(max(down**2 - 2 * together * down * (high2 - second) + (high2 - second) ** 2, 0))
    over = math.sqrt(max(up**2 - 2 * together * up * (second - low2) + (second - low2) ** 2, 0))
    return max(first - second - under, -1.0), min(first - second + over, 1.0)


def bootstrap(rows: Array, statistic: Statistic, seed: int = 0) -> tuple[float, float] | None:
    """The 95% interval of ``statistic`` over samples, each of which is one of ``rows`` (samples, columns).

    None where the samples say nothing of it: fewer than two, or all alike.
    """
    rows = np.asarray(rows, np.float64).reshape(len(rows), -1)
    count = len(rows)
    if count < 2:
        return None
    means = rows.mean(axis=0)
    whole = float(statistic(means[None])[0])
    left_out = statistic((count * means - rows) / (count - 1))
    away = left_out.mean() - left_out
    spread = float((away**2).sum())
    if not np.isfinite(whole) or not np.isfinite(spread) or spread <= 1e-24 * max(1.0, whole * whole):
        return None
    drawn = _draws(rows, statistic, np.random.default_rng(seed))
    drawn = drawn[np.isfinite(drawn)]
    below = ((drawn < whole).sum() + 0.5 * (drawn == whole).sum()) / max(len(drawn), 1)
    normal = NormalDist()
    bias = normal.inv_cdf(min(max(float(below), 0.5 / DRAWS), 1 - 0.5 / DRAWS))
    acceleration = float((away**3).sum()) / (6 * spread**1.5)
    wide = math.sqrt(count / (count - 1)) * float(stdtrit(count - 1, normal.cdf(Z)))
    at = [normal.cdf(bias + (bias + z) / max(1 - acceleration * (bias + z), 1e-3)) for z in (-wide, wide)]
    low, high = np.quantile(drawn, at)
    return float(low), float(high)


def _draws(rows: Array, statistic: Statistic, rng: np.random.Generator) -> Array:
    step = max(1, _AT_ONCE // rows.size)
    found = []
    for start in range(0, DRAWS, step):
        chosen = rng.integers(0, len(rows), (min(step, DRAWS - start), len(rows)))
        found.append(statistic(rows[chosen].mean(axis=1)))
    return np.concatenate(found)
