"""In which order the units of a group go, and what each costs: group OBS, and the baselines that it is measured against."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from edgec.graph.channels import ChannelGroup
from edgec.graph.views import constant
from edgec.passes.channel_pruning.statistics import ConsumerStatistics
from edgec.passes.solvers.obs import Curve, eliminate
from edgec.passes.solvers.parallel import in_order

Array = np.ndarray[Any, np.dtype[Any]]


def obs_curves(
    groups: Sequence[ChannelGroup],
    statistics: Mapping[str, ConsumerStatistics],
    lam: float,
    threads: int = 1,
) -> dict[str, Curve]:
    """By group: the relative error added at the outputs of all consumers, after a re-fit. Groups that no consumer which can be
    fitted reads are left out."""
    curves = in_order(lambda group: _obs_curve(group, statistics, lam), groups, threads)
    return {group.name: curve for group, curve in zip(groups, curves, strict=True) if curve is not None}


def _obs_curve(group: ChannelGroup, statistics: Mapping[str, ConsumerStatistics], lam: float) -> Curve | None:
    readers = [
        statistics[name] for name in dict.fromkeys(m.node for m in group.consumers) if name in statistics
    ]
    consumers = [one.consumer(group) for one in readers]
    known = [one for one in consumers if one is not None]
    return eliminate(known, lam) if known else None


def score_curve(scores: Array) -> Curve:
    """Units in ascending order of their scores; the error is the share of the total score that is gone."""
    order = np.argsort(scores, kind="stable")
    total = float(scores.sum()) or 1.0
    gone = np.concatenate([[0.0], np.cumsum(scores[order])[:-1]]) / total
    return Curve(tuple(int(unit) for unit in order), gone)


def l1_scores(group: ChannelGroup, model: ir.Model) -> Array:
    """Mean absolute weight of the filters that make each unit (Li et al., arXiv 1608.08710)."""
    nodes = {node.name: node for node in model.graph}
    scores = np.zeros(group.size)
    for member in group.producers:
        weight = constant(nodes[member.node].inputs[member.operand])
        if weight is not None:
            sums = (
                np.abs(np.moveaxis(weight, member.axis, 0))
                .reshape(weight.shape[member.axis], -1)
                .mean(axis=1)
            )
            scores += sums[member.index].sum(axis=1)
    return scores


def activation_scores(group: ChannelGroup, statistics: Mapping[str, ConsumerStatistics]) -> Array:
    """Energy of each unit where it is read."""
    scores = np.zeros(group.size)
    for name in dict.fromkeys(member.node for member in group.consumers):
        rows = statistics[name].units(group) if name in statistics else None
        if rows is not None:
            scores += np.diagonal(statistics[name].h)[rows].sum(axis=1)
    return scores


def random_scores(groups: Sequence[ChannelGroup], seed: int) -> dict[str, Array]:
    """Equal on average, in an order that only the seed decides."""
    rng = np.random.default_rng(seed)
    return {group.name: rng.uniform(0.5, 1.5, group.size) for group in groups}
