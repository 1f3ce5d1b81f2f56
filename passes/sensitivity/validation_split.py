"""Samples for statistics, and others to measure sensitivity on: on their own samples, fits look better than they are."""

from __future__ import annotations

from dataclasses import replace

from edgec.passes.base import Context
from edgec.passes.sensitivity.measure import LEAST_SAMPLES, MOST_SAMPLES

VALIDATION_SHARE = 0.2
"""Most of the samples that sensitivity is measured on; the statistics see the others."""


def validation_split(context: Context) -> tuple[Context, Context]:
    """(for the statistics, for the validation split); both are ``context`` where there are too few samples to split."""
    if context.data is None or len(context.data) * VALIDATION_SHARE < LEAST_SAMPLES:
        return context, context
    share = min(VALIDATION_SHARE, MOST_SAMPLES / len(context.data))
    fit, validation = context.data.split(share, context.seed)
    return replace(context, data=fit), replace(context, data=validation)
