"""Joint fits: gradients against finite differences, and what they reach."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from edgec.passes.solvers import chain
from edgec.passes.solvers.chain import Link, Target, _Chain, forward, refine
from edgec.passes.solvers.gram import Patches
from edgec.passes.solvers.maps import Kernel
from edgec.passes.solvers.rectified import Clipping

RELU = Clipping(0.0, None)


def conv(channels: int, outputs: int, kernel: int, seed: int, *, group: int = 1, stride: int = 1) -> Link:
    patches = Patches(channels, (kernel,) * 2, (stride,) * 2, (kernel // 2,) * 4, (1, 1), group)
    rng = np.random.default_rng(seed)
    columns = rng.standard_normal((group, patches.unknowns, outputs // group)) / np.sqrt(patches.unknowns)
    return Link(patches, columns, RELU)


def problem(links: list[Link], seed: int = 0, count: int = 8, size: int = 6) -> Target:
    """Targets that the links would make with other weights."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((count, size, size, links[0].patches.channels)).astype(np.float32)
    other = [
        replace(link, columns=link.columns + 0.3 * rng.standard_normal(link.columns.shape)) for link in links
    ]
    return Target(x, forward(other, x))


CHAINS = {
    "two convolutions": [conv(3, 4, 3, 1), conv(4, 5, 3, 2)],
    "the last without activation": [conv(3, 4, 3, 1), replace(conv(4, 5, 1, 2), clipping=None)],
    "strided, then pointwise, then 3x3": [conv(3, 6, 3, 1, stride=2), conv(6, 4, 1, 2), conv(4, 5, 3, 3)],
    "pointwise, depthwise, pointwise": [
        conv(3, 6, 1, 1),
        conv(6, 6, 3, 2, group=6, stride=2),
        conv(6, 5, 1, 3),
    ],
    "grouped, with ReLU6": [
        replace(conv(4, 6, 3, 1, group=2), clipping=Clipping(0.0, 0.5)),
        conv(6, 5, 3, 2),
    ],
}


@pytest.mark.parametrize("links", CHAINS.values(), ids=CHAINS)
@pytest.mark.parametrize("offset", [False, True])
def test_gradients_are_those_of_the_loss(links: list[Link], offset: bool) -> None:
    target = problem(links)
    if offset:
        shift = np.random.default_rng(5).standard_normal(target.value.shape).astype(np.float32)
        target = replace(target, value=target.value - shift, offset=shift)
    gradients = _Chain(links, target, 1e-12).descent()

    def loss(moved: list[Link]) -> float:
        chain, everything = _Chain(moved, target, 1e-3), slice(None)
        return (
            float(
                np.square(chain.target.nearest(chain.made, everything) - chain.made, dtype=np.float64).sum()
            )
            / 2
        )

    rng = np.random.default_rng(1)
    for number, gradient in enumerate(gradients):
        direction = rng.standard_normal(gradient.shape)
        values = []
        for sign in (1, -1):
            moved = list(links)
            moved[number] = replace(links[number], columns=links[number].columns + sign * 2e-3 * direction)
            values.append(loss(moved))
        assert -(values[0] - values[1]) / 4e-3 == pytest.approx(float((gradient * direction).sum()), rel=0.03)


@pytest.mark.parametrize("links", CHAINS.values(), ids=CHAINS)
def test_tangents_are_directional_derivatives(links: list[Link]) -> None:
    target = problem(links)
    here = _Chain(links, target, 1e-3)
    rng = np.random.default_rng(1)
    direction = [rng.standard_normal(link.columns.shape) for link in links[:-1]]
    moved = [
        replace(link, columns=link.columns + 1e-3 * d) for link, d in zip(links, direction, strict=False)
    ]
    change = (forward([*moved, links[-1]], target.x) - here.made) / 1e-3
    turned = [Kernel.of(link.patches, d) for link, d in zip(links, direction, strict=False)]
    linear = [Kernel.of(link.patches, link.columns, linear=True) for link in links]
    tangent = here._tangent(slice(None), turned, linear)
    gap = np.linalg.norm(tangent - change) / np.linalg.norm(change)
    assert gap < 0.02


@pytest.mark.parametrize("links", CHAINS.values(), ids=CHAINS)
def test_joint_fits_go_far_below_what_the_last_layer_alone_reaches(links: list[Link]) -> None:
    target = problem(links, count=16)
    alone, *_ = refine(links, target, 1e-6, 0)
    fitted, errors, _ = refine(links, target, 1e-6, 20)
    assert errors[-1] < 0.5 * _Chain(alone, target, 1e-6).error
    assert all(b <= a * (1 + 1e-6) for a, b in itertools.pairwise(errors))
    assert errors[-1] == pytest.approx(_Chain(fitted, target, 1e-6).error, rel=1e-4)


@pytest.mark.parametrize("links", CHAINS.values(), ids=CHAINS)
def test_threads_change_no_byte_and_parts_only_digits(
    links: list[Link], monkeypatch: pytest.MonkeyPatch
) -> None:
    target = problem(links)
    whole = refine(links, target, 1e-3, 3)
    monkeypatch.setattr(chain, "PART_BYTES", 3 * 4 * 6 * 6 * 6)
    one, two = (refine(links, target, 1e-3, 3, threads) for threads in (1, 2))
    assert one.errors == two.errors
    assert one.errors == pytest.approx(whole.errors, rel=1e-3)
    for a, b in zip(one.links, two.links, strict=True):
        np.testing.assert_array_equal(a.columns, b.columns)


def test_a_hopeless_fit_stops_at_its_first_step() -> None:
    links = CHAINS["two convolutions"]
    seen: list[float] = []

    def hopeless(moved: Sequence[Link], condition: float, steps: int) -> bool:
        seen.append(condition)
        return True

    fitted, errors, condition = refine(links, problem(links), 1e-3, 5, hopeless=hopeless)
    assert seen == [condition]
    assert len(errors) == 2
    assert not np.array_equal(fitted[0].columns, links[0].columns)


def test_a_judge_hears_after_how_many_steps_it_is_asked() -> None:
    links = CHAINS["two convolutions"]
    seen: list[int] = []

    def hopeless(moved: Sequence[Link], condition: float, steps: int) -> bool:
        seen.append(steps)
        return steps == 2

    _, errors, _ = refine(links, problem(links), 1e-3, 5, hopeless=hopeless)
    assert seen == [1, 2]
    assert len(errors) == 3


def test_a_perfect_chain_stays() -> None:
    links = CHAINS["two convolutions"]
    rng = np.random.default_rng(0)
    x = rng.standard_normal((8, 6, 6, 3)).astype(np.float32)
    fitted, errors, _ = refine(links, Target(x, forward(links, x)), 1e-3, 3)
    assert max(errors) < 1e-9
    np.testing.assert_allclose(fitted[0].columns, links[0].columns, atol=1e-3)


def test_no_step_is_taken_where_nothing_can_be_told_from_what_there_is() -> None:
    links = CHAINS["two convolutions"]
    seen: list[float] = []

    def perfect(condition: float) -> bool:
        seen.append(condition)
        return True

    fitted, errors, condition = refine(links, problem(links), 1e-3, 5, perfect=perfect)
    assert seen == [condition]
    assert condition > 1
    assert len(errors) == 1
    for new, old in zip(fitted, links, strict=True):
        assert new is old


def test_a_huge_ridge_keeps_the_weights() -> None:
    links = CHAINS["two convolutions"]
    fitted, *_ = refine(links, problem(links), 1e9, 4)
    for new, old in zip(fitted, links, strict=True):
        np.testing.assert_allclose(new.columns, old.columns, atol=1e-3)
