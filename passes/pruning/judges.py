"""Samples for statistics, and others to measure damage on: on their own samples, fits look better than they are."""

from __future__ import annotations

from dataclasses import replace

from edgec.passes.base import Context
from edgec.passes.pruning.damage import LEAST_SAMPLES, MOST_SAMPLES

JUDGES = 0.2
"""Most of the samples that damage is measured on; the statistics see the others."""


def split_judges(context: Context) -> tuple[Context, Context]:
    """(for the statistics, for the judges); both are ``context`` where there are too few samples to split."""
    if context.data is None or len(context.data) * JUDGES < LEAST_SAMPLES:
        return context, context
    share = min(JUDGES, MOST_SAMPLES / len(context.data))
    fit, judge = context.data.split(share, context.seed)
    return replace(context, data=fit), replace(context, data=judge)
