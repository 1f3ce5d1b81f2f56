"""What is tried on a channel group to measure its sensitivity: a few widths, its consumers re-fitted."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import onnx_ir as ir

from edgec.graph.channels import ChannelGroup
from edgec.passes.channel_pruning.products import of_product
from edgec.passes.channel_pruning.statistics import ConsumerStatistics, restore
from edgec.passes.sensitivity.measure import Subject, Trial
from edgec.passes.solvers.obs import Curve

Array = np.ndarray[Any, np.dtype[Any]]

WIDTHS = (0.75, 0.5, 0.25)
"""Shares of a group's units at which its sensitivity is measured."""


def of_group(
    model: ir.Model, group: ChannelGroup, curve: Curve, statistics: Mapping[str, ConsumerStatistics]
) -> Subject:
    """A channel group at `WIDTHS`, its consumers re-fitted."""
    widths = sorted({max(1, round(share * group.size)) for share in WIDTHS} - {group.size}, reverse=True)
    if not group.consumers:
        return of_product(model, group, curve, widths)
    names = {member.node for member in group.consumers}
    readers = [one for name, one in statistics.items() if name in names]  # in graph order

    def narrow(gone: Array) -> None:
        for reader in readers:
            rows = reader.units(group)
            if rows is not None:
                reader.set_columns(reader.compensated(rows[gone].ravel()))

    trials = []
    for width in widths:
        gone = np.setdiff1d(np.arange(group.size), curve.kept(width))
        trials.append(Trial(float(curve.errors[group.size - width]), partial(narrow, gone)))
    return Subject(group.name, readers[0].layer.name, tuple(trials), partial(restore, readers))
