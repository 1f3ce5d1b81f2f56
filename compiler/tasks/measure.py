"""One figure of a task, with its 95% interval: what a report says of it, and what a gate judges."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from edgec.graph.intervals import Statistic, bootstrap, paired, wilson

Array = np.ndarray[Any, np.dtype[Any]]
Against = Literal["source", "labels"]


@dataclass(frozen=True)
class Measure:
    """A figure over ``samples`` samples, against the answers of the source network or against labels.

    ``unit``: ``%`` for shares of 1 (0.981, not 98.1), else what the figure is in. ``interval`` says how ``low`` and ``high`` were
    found; they are None where the samples say nothing of them. ``change``: the difference to the source network's own figure,
    paired by sample, with its interval.
    """

    name: str
    value: float
    samples: int
    against: Against = "source"
    unit: str = "%"
    low: float | None = None
    high: float | None = None
    interval: Literal["", "wilson", "bootstrap"] = ""
    lower_is_better: bool = False
    best: float | None = 1.0
    """The value of a network that answers as it should in everything; None where there is none, such as for decibels."""
    of: str = "inputs"
    """What is counted by ``lost`` and ``won``."""
    count: int | None = None
    lost: int | None = None
    won: int | None = None
    change: float | None = None
    change_low: float | None = None
    change_high: float | None = None
    evaluator: str = ""
    """Who computed it, where that was another library."""


def share(values: Array) -> Array:
    """The mean of the first column."""
    return values[:, 0]


def ratio(values: Array) -> Array:
    """The first column over the second; 1 where there is nothing to be had."""
    return np.asarray(np.divide(values[:, 0], values[:, 1], out=np.ones(len(values)), where=values[:, 1] > 0))


def rate(name: str, hits: Sequence[bool] | Array, **more: Any) -> Measure:
    """The share of samples that are ``hits``, with Wilson's interval."""
    found = np.asarray(hits, bool)
    value = float(found.mean()) if len(found) else 0.0
    low, high = wilson(value, len(found))
    return Measure(name, value, len(found), low=low, high=high, interval="wilson", count=len(found), **more)


def hits_change(ours: Array, source: Array) -> dict[str, Any]:
    """Fields of `Measure` for two networks that answer the same samples, right or wrong."""
    low, high = paired(ours, source)
    return {
        "lost": int((source & ~ours).sum()),
        "won": int((ours & ~source).sum()),
        "change": float(ours.mean() - source.mean()) if len(ours) else 0.0,
        "change_low": low,
        "change_high": high,
    }


def over_samples(
    name: str, rows: Array | Sequence[Any], statistic: Statistic = share, **more: Any
) -> Measure:
    """``statistic`` of means over samples, each of which is one of ``rows`` (samples, columns), with the bootstrap's interval.

    Where all samples are alike a share has Wilson's: that none of 30 differs does not mean that none will.
    """
    table = np.asarray(rows, np.float64).reshape(len(rows), -1)
    value = float(statistic(table.mean(axis=0)[None])[0])
    how: Literal["", "wilson", "bootstrap"] = "bootstrap"
    found = bootstrap(table, statistic)
    if found is None and more.get("unit", "%") == "%" and 0 <= value <= 1:
        found, how = wilson(value, len(table)), "wilson"
    low, high = found or (None, None)
    return Measure(name, value, len(table), low=low, high=high, interval=how if found else "", **more)


def change(ours: Array, source: Array, statistic: Statistic = share) -> dict[str, Any]:
    """Fields of `Measure` for the difference to the source, paired: both have the same samples."""
    columns = ours.shape[1]
    table = np.concatenate([ours, source], axis=1)

    def difference(values: Array) -> Array:
        return np.asarray(statistic(values[:, :columns]) - statistic(values[:, columns:]))

    low, high = bootstrap(table, difference) or (None, None)
    value = float(difference(table.mean(axis=0)[None])[0])
    return {"change": value, "change_low": low, "change_high": high}


def with_labels(
    name: str, ours: Sequence[Any], source: Sequence[Any], statistic: Statistic = share, **more: Any
) -> Measure:
    """`over_samples` of a network against labels, with its `change` to the source; both have one row for each sample."""
    mine, theirs = (np.asarray(rows, np.float64).reshape(len(rows), -1) for rows in (ours, source))
    moved = change(mine, theirs, statistic)
    return over_samples(name, mine, statistic, against="labels", **more, **moved)
