"""Joint steps of runs of blocks: the gradient is the gradient, every step descends, and a run that made the target is found."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from edgec.passes.solvers.gated import Whitening
from edgec.passes.solvers.gated_joint import JointGoal, Stage, _Run, refine_jointly
from edgec.passes.solvers.gram import Patches
from edgec.passes.solvers.rectified import Clipping


def stage(
    rng: np.random.Generator, channels: int, outputs: int, k: int, stride: int, gated: bool, identity: bool
) -> Stage:
    patches = Patches(channels, (3, 3), (stride, stride), (1,) * 4, (1, 1))
    n = patches.unknowns
    mix = np.eye(n) + 0.1 * rng.standard_normal((n, n))
    root = Whitening(np.tril(mix))
    gate = 3 * rng.standard_normal((n, k)) if gated else None
    v, w = rng.standard_normal((n, k)) / np.sqrt(n), rng.standard_normal((k, outputs)) / np.sqrt(k)
    return Stage(patches, root, v, w, 0.1 * rng.standard_normal(outputs), gate, identity, Clipping())


def run_of(gated: bool, seed: int = 0) -> tuple[list[Stage], JointGoal]:
    rng = np.random.default_rng(seed)
    stages = [stage(rng, 2, 3, 4, 2, gated, False), stage(rng, 3, 3, 5, 1, gated, True)]
    z = rng.standard_normal((6, 6, 6, 2)).astype(np.float32)
    skip = rng.standard_normal((6, 3, 3, 3)).astype(np.float32)
    return stages, JointGoal(z, np.zeros((6, 3, 3, 3), np.float32), skip)


def made(stages: list[Stage], goal: JointGoal) -> np.ndarray:
    return _Run(stages, goal, 1e-6).states[-1].y


def test_the_gradient_is_that_of_the_objective():
    stages, goal = run_of(gated=False)
    goal = replace(
        goal, target=np.random.default_rng(9).standard_normal(goal.target.shape).astype(np.float32)
    )
    run = _Run(stages, goal, 1e-3)
    gradient, _ = run._gradients(run._residual())
    rng = np.random.default_rng(1)
    for number in range(2):
        along = rng.standard_normal(stages[number].v.shape)
        values = []
        for share in (1e-3, -1e-3):
            moved = list(stages)
            moved[number] = replace(stages[number], v=stages[number].v + share * along)
            values.append(_Run(moved, goal, 1e-3).objective())
        slope = -(values[0] - values[1]) / 2e-3
        assert float((gradient[number][0] * along).sum()) == pytest.approx(slope, rel=0.05)


@pytest.mark.parametrize("gated", [False, True])
def test_every_step_descends_towards_a_run_that_made_the_target(gated):
    truth, goal = run_of(gated)
    goal = replace(goal, target=made(truth, goal))
    rng = np.random.default_rng(5)
    start = [replace(s, v=s.v + 0.3 * rng.standard_normal(s.v.shape) / np.sqrt(len(s.v))) for s in truth]
    found, history = refine_jointly(start, goal, 1e-6, 60)
    assert all(after <= before * (1 + 1e-6) for before, after in itertools.pairwise(history))
    assert history[-1] < 0.2 * history[0]
    assert len(found) == 2
