"""Whether what was learned is better, on samples that it was not learned from.

What was tried, and fooled: the divergence on held-out *training* pictures (networks are certain of those, whatever they do with
others), and the divergence as it is: multiplying the logits of a closed form by 0.7 alone took it from .564 to .432, below
that of most networks that were distilled. So

1. samples are shown as they are, and as mixtures and in other light and place, which no network was trained on;
2. classes are compared at the temperature that suits each network best, one for all samples: a change of the logits' scale
   alone gains nothing;
3. a network is kept only where its divergence fell beyond doubt, by paired differences per sample, and neither its agreement
   with the teacher nor any part of its outputs became worse beyond doubt (`solvers.guard`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor

from edgec.graph.data import Dataset
from edgec.passes.learned.goals import Goal, Values
from edgec.passes.learned.views import Feeds, Views
from edgec.passes.solvers.guard import CLEAR, Verdict, weigh

Array = np.ndarray[Any, np.dtype[Any]]
Network = Callable[[Feeds], Values]

MOST_JUDGES = 256
LOOKS = 4
"""Views of each sample: as it is, changed, and changed and mixed with another one, twice."""
BATCH = 32
MOST_LOGITS = 2 << 20
"""So many say what temperature suits a network: the search looks at all of them some thirty times."""


@dataclass(frozen=True)
class Score:
    """Of one network: by part and sample, the loss; by sample, how often it gives the teacher's class (1 where there is none).

    ``scale``: by which its logits were multiplied, of the parts that are classes.
    """

    losses: Array
    agreement: Array
    scales: tuple[float, ...]

    @property
    def loss(self) -> float:
        """Summed over the parts, averaged over the samples."""
        return float(self.losses.mean(1).sum())

    @property
    def agrees(self) -> float:
        return float(self.agreement.mean())

    def against(self, other: Score) -> Verdict:
        """Is this one better than ``other``? The verdict on the parts together, or on what became worse beyond doubt."""
        parts = [
            _verdict(theirs - mine, mine) for mine, theirs in zip(self.losses, other.losses, strict=True)
        ]
        answers = _verdict(self.agreement - other.agreement, np.ones(len(self.agreement)))
        worse = [one for one in (*parts, answers) if one.worse]
        together = _verdict((other.losses - self.losses).sum(0), self.losses.sum(0))
        return min(worse, key=lambda one: one.margin) if worse else together


def _verdict(gains: Array, left: Array) -> Verdict:
    return weigh(gains, 0.0, alone=CLEAR * float(np.abs(left).sum()))


class Judge:
    """Fixed views of ``data`` with what the teacher says to them."""

    def __init__(
        self, data: Dataset, views: Views, teacher: Network, goals: Sequence[Goal], seed: int
    ) -> None:
        self.goals = tuple(goals)
        self.count = min(len(data), MOST_JUDGES)
        places = np.sort(np.random.default_rng([seed, 2]).permutation(len(data))[: self.count])
        self.feeds: list[Feeds] = []
        for start in range(0, self.count, BATCH):
            some = views.read(places[start : start + BATCH].tolist())
            for look in range(LOOKS):
                rng = np.random.default_rng([seed, 3, start, look])
                self.feeds.append(self._look(views, some, look, rng))
        self.taught: list[Array] = self._answers(teacher, taught=True)

    @staticmethod
    def _look(views: Views, feeds: Feeds, look: int, rng: np.random.Generator) -> Feeds:
        return views.changed(feeds, rng, mixed=0.0 if look == 1 else 1.0) if look else feeds

    def score(self, network: Network) -> Score:
        """How near ``network`` comes to the teacher."""
        losses, agreement, scales = [], np.ones(self.count), []
        for goal, said, taught in zip(self.goals, self._answers(network), self.taught, strict=True):
            scale = 1.0
            if goal.classes is not None:
                scale = _best_scale(said, taught)
                same = (said.argmax(-1) == taught.argmax(-1)).reshape(len(said), -1).mean(1)
                agreement = np.minimum(agreement, self._by_sample(same))
                scales.append(scale)
            found = goal.losses(torch.from_numpy(scale * said), torch.from_numpy(taught))
            losses.append(self._by_sample(found.numpy().astype(np.float64)))
        return Score(np.stack(losses), agreement, tuple(scales))

    def _answers(self, network: Network, *, taught: bool = False) -> list[Array]:
        """By goal: (views, ...), what the network says to all of them."""
        rows: list[list[Tensor]] = [[] for _ in self.goals]
        for feeds in self.feeds:
            values = network(feeds)
            for kept, goal in zip(rows, self.goals, strict=True):
                kept.append((goal.taught(values) if taught else goal.said(values)).float().cpu())
        return [torch.cat(kept).numpy() for kept in rows]

    def _by_sample(self, found: Array) -> Array:
        """The mean over the views of each sample."""
        means, at = [], 0
        for start in range(0, self.count, BATCH):
            size = min(BATCH, self.count - start)
            means.append(found[at : at + LOOKS * size].reshape(LOOKS, size).mean(0))
            at += LOOKS * size
        return np.concatenate(means)


def _best_scale(said: Array, taught: Array) -> float:
    """By what the logits ``said`` are to be multiplied for the least divergence from ``taught``, between 1/8 and 8; of a map or a
    line of text every how-manieth place tells it."""
    places, classes = math.prod(said.shape[1:-1]), said.shape[-1]
    every = -(-said.size // MOST_LOGITS)
    while math.gcd(every, places) > 1:  # else it would be the same columns of all maps
        every += 1
    said, taught = said.reshape(-1, classes)[::every], taught.reshape(-1, classes)[::every]
    top = taught - taught.max(-1, keepdims=True)
    p = np.exp(top - np.log(np.exp(top).sum(-1, keepdims=True))).astype(np.float64)
    centred = said.astype(np.float64) - said.max(-1, keepdims=True)
    cross = float((p * centred).sum(-1).mean())

    def divergence(log_scale: float) -> float:
        scale = float(np.exp(log_scale))
        return float(np.log(np.exp(scale * centred).sum(-1)).mean()) - scale * cross

    bound = float(np.log(8))
    return float(np.exp(minimize_scalar(divergence, bounds=(-bound, bound), method="bounded").x))
