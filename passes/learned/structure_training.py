"""The loop of `learn-structure`: weights and gates learn together while the budget falls, then the gates are fixed.

1. First the limits fall from what the network costs to what it may cost, by equal factors. At every step the multipliers are
   such that the expected costs are just there (`passes.structure.multipliers`), gates are drawn, and the gradients of the loss
   move weights and gains.
2. Then the limits stay, and the gates harden.
3. Widths are planned by the gains as they are (`passes.structure.allocation`), and the units of the least gain are closed for
   good. Where the weights are wanted too, they go on alone; only these states are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from edgec.graph.channels import ChannelGroup
from edgec.passes.learned.gates import SHIFT, GatedModule
from edgec.passes.learned.judge import Score
from edgec.passes.learned.training import Training, described
from edgec.passes.solvers.obs import Curve
from edgec.passes.structure.gains import curve_of
from edgec.passes.structure.limits import Limit
from edgec.passes.structure.multipliers import Gate, Prices, solve

Array = np.ndarray[Any, np.dtype[Any]]

FALLING = 0.8
"""Share of the steps that decide after which the budget is reached."""
DECIDING = 0.6
"""Share of the steps that decide, where the weights go on behind them."""
SOFT, HARD = 1.5, 6.0
"""The gates' sharpness at the start and when they are fixed."""

LINES = 3
"""How often costs are taken anew around the widths that the prices before led to."""


@dataclass(frozen=True)
class Structure:
    """What is decided: units of ``groups`` under ``limits``; ``chosen`` gives the widths for curves of all groups."""

    groups: tuple[ChannelGroup, ...]
    limits: tuple[Limit, ...]
    chosen: Callable[[Mapping[str, Curve]], Mapping[str, int]]
    rate: float
    """Largest step of a gain's logarithm."""
    weights: bool
    """Whether the weights go on when the gates are fixed; else all steps decide."""

    def open(self, gains: Array) -> Tensor:
        """(units,): 1 for those that stay by ``gains`` (logarithms), else 0."""
        curves, first = {}, 0
        top = float(gains.max(initial=0.0))
        for group in self.groups:
            own = gains[first : first + group.size].astype(np.float64)
            curves[group.name], first = curve_of(np.exp(own - top)), first + group.size
        widths, rows = self.chosen(curves), []
        for group in self.groups:
            row = torch.zeros(group.size)
            row[torch.from_numpy(curves[group.name].kept(widths[group.name]))] = 1.0
            rows.append(row)
        return torch.cat(rows)


class StructureTraining(Training):
    """``student`` learns which of its channels to keep, and to do without the others."""

    student: GatedModule

    def __init__(self, plain: Training, student: GatedModule, structure: Structure) -> None:
        """``plain``: the loop as it is without gates."""
        self.structure = structure
        sizes = [group.size for group in structure.groups]
        self.group_of = np.repeat(np.arange(len(sizes)), sizes)
        self.asked = np.array([one.most for one in structure.limits])
        full = {group.name: group.size for group in structure.groups}
        self.whole = np.maximum(Prices.at(structure.limits, full).spent, self.asked)
        self.prices = Prices.at(structure.limits, full)
        self.student = student
        super().__init__(student, plain.teacher, plain.goals, plain.views, plain.judge, plain.settings)

    def _scale(self, weight: torch.nn.Parameter) -> float:
        if weight is self.student.edgec_gains:
            return self.structure.rate / self.settings.rate
        return super()._scale(weight)

    def _step(self, step: int) -> float:
        if step == self.fixed_at:
            self.decide()
        if step >= self.fixed_at:
            self.student.fix()
        else:
            self._draw(step, step / self.fixed_at)
        return super()._step(step)

    def _thrown_far(self, loss: float) -> bool:
        """Never: closing gates raise the loss, and that is what is asked for."""
        return False

    def decide(self) -> None:
        """Fix the gates by the gains as they are."""
        gains = self.student.edgec_gains.detach().cpu().double().numpy()
        self.student.fix(self.structure.open(gains).to(self.settings.device))

    @property
    def fixed_at(self) -> int:
        """The first step with fixed gates."""
        steps = self.state.steps
        return min(round(DECIDING * steps), steps - 1) if self.structure.weights else steps

    def _look(self, start: Score) -> str:
        if self.state.step < self.fixed_at:
            shares = self._limits(self.state.step / self.fixed_at) / self.whole
            told = [
                f"{one.text} at {share:.0%}" for one, share in zip(self.structure.limits, shares, strict=True)
            ]
            return f"the gates are open for {', '.join(told)}"
        if not self.structure.weights:
            return "the widths are learned"
        score = self._judged()
        if not self.state.at or score.loss < self.best.loss:
            self._take(score)
        return f"the gates are fixed: {described(score)}"

    def _limits(self, progress: float) -> Array:
        return np.asarray(self.whole * (self.asked / self.whole) ** min(progress / FALLING, 1.0))

    def _draw(self, step: int, progress: float) -> None:
        sharpness = SOFT * (HARD / SOFT) ** progress
        gains = self.student.edgec_gains.detach().cpu().double().numpy()
        limits = self._limits(progress)
        gate = Gate(sharpness, SHIFT)
        price = solve(gains, self.group_of, self._prices(gains, limits, gate), limits, gate)
        generator = torch.Generator().manual_seed((self.views.seed << 32) + step)
        noise = torch.rand(len(gains), generator=generator).clamp(1e-6, 1 - 1e-6)
        logs = torch.from_numpy(np.log(price)[self.group_of].astype(np.float32))
        device = self.settings.device
        self.student.draw(noise.to(device), logs.to(device), sharpness)

    def _prices(self, gains: Array, limits: Array, gate: Gate) -> Prices:
        """Costs around the widths that keep ``limits``: from the full ones on, so that they follow from the step alone."""
        names = [group.name for group in self.structure.groups]
        prices = self.prices
        for _ in range(LINES):
            price = solve(gains, self.group_of, prices, limits, gate)
            counts = np.bincount(self.group_of, gate.open(gains, price[self.group_of]), minlength=len(names))
            widths = {name: max(1, round(float(count))) for name, count in zip(names, counts, strict=True)}
            prices = Prices.at(self.structure.limits, widths)
        return prices
