"""Devices that do not raise their clock, or take their fast cores, for small networks: latency with a step in it.

Arm NN on the RK3588S takes 2.4 times as long as TFLite on networks of less than about 300 million multiplications, and
as long on larger ones. No sum over nodes can say that; a factor on the whole network can.
"""

from __future__ import annotations

from typing import NamedTuple

from edgec.targets.estimator.features import FEATURES, Vector

_WIDTH = 0.1  # of the transition, in natural logarithms of the work: near it either state was measured
_WORK = [FEATURES.index("macs"), FEATURES.index("macs_3x3")]


class Switch(NamedTuple):
    """Networks of less than ``work`` million multiplications (dense and pointwise) take ``factor`` times as long."""

    work: float
    factor: float

    def at(self, features: Vector) -> Vector:
        """The factor for networks with these features (last axis)."""
        share = 1 / (1 + (work_of(features) / self.work) ** (1 / _WIDTH))
        found: Vector = self.factor**share
        return found


def work_of(features: Vector) -> Vector:
    """What decides: million multiplications of dense and pointwise layers."""
    found: Vector = features[..., _WORK].sum(-1)
    return found
