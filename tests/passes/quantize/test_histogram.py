"""Streaming histograms: independent of batches and order, in constant memory; ranges chosen from them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgec.passes.quantize.histogram import BINS, ENOUGH, Histogram, merge, step_of
from edgec.passes.quantize.qparams import affine
from edgec.passes.quantize.ranges import FINEST, STEPS, choose


def filled(*parts: np.ndarray) -> Histogram:
    histogram = Histogram()
    for part in parts:
        histogram.add(part.astype(np.float32))
    return histogram


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**31),
    scale=st.floats(1e-3, 1e3),
    cuts=st.lists(st.integers(0, 500), max_size=4),
)
def test_batches_and_order_do_not_matter(seed: int, scale: float, cuts: list[int]) -> None:
    rng = np.random.default_rng(seed)
    values = (rng.standard_normal(500) * scale * rng.choice([0, 1, 10], 500)).astype(np.float32)
    whole = filled(values)
    parts = np.split(values, sorted(cuts))
    shuffled = filled(*[parts[i] for i in rng.permutation(len(parts))])
    assert (whole.low, whole.high, whole.zeros, whole.reach) == (
        shuffled.low,
        shuffled.high,
        shuffled.zeros,
        shuffled.reach,
    )
    np.testing.assert_array_equal(whole.counts, shuffled.counts)
    assert whole.total == 500


def test_values_lie_in_their_bins() -> None:
    values = np.float32([-3.0, -0.5, 0.0, 0.25, 3.999])
    histogram = filled(values)
    width = 2 * histogram.reach / BINS
    for value in values[values != 0]:
        index = int(np.floor(value / width)) + BINS // 2
        assert histogram.counts[index] == 1
    assert histogram.zeros == 1


def test_memory_does_not_grow() -> None:
    histogram = filled(np.ones(10))
    before = histogram.counts.nbytes
    for power in range(12):
        histogram.add(np.full(1000, 2.0**power, np.float32))
    assert histogram.counts.nbytes == before


def test_nan_and_infinity_are_noticed() -> None:
    assert not filled(np.array([1.0, np.nan])).finite
    assert not filled(np.array([1.0, np.inf])).finite


def test_quantile() -> None:
    values = np.random.default_rng(0).standard_normal(100_000)
    histogram = filled(values)
    for share in (0.01, 0.5, 0.99):
        assert histogram.quantile(share) == pytest.approx(np.quantile(values, share), abs=0.01)


def test_merge_weighs_tensors_alike() -> None:
    few, many = filled(np.full(100, 1.0)), filled(np.full(100_000, -3.0))
    merged = merge([few, many])
    assert (merged.low, merged.high) == (-3.0, 1.0)
    assert merged.counts[: BINS // 2].sum() == merged.counts[BINS // 2 :].sum()


@pytest.mark.parametrize("method", ["minmax", "percentile", "mse", "entropy"])
def test_a_range_holds_zero_and_stays_within_what_was_seen(method: str) -> None:
    values = np.random.default_rng(1).standard_normal(50_000) + 0.5
    low, high = choose(filled(values), method)
    assert values.min() - 1e-6 <= low <= 0 <= high <= values.max() + 1e-6


def test_mse_beats_minmax_on_heavy_tails() -> None:
    """Measured by really quantising the values."""
    values = np.random.default_rng(2).standard_t(3, 200_000).astype(np.float32)

    def error(method: str) -> float:
        params = affine(*choose(filled(values), method))
        return float(np.mean((params.dequantise(params.quantise(values)) - values) ** 2))

    assert error("mse") < 0.7 * error("minmax")
    assert error("mse") <= 1.05 * min(error("entropy"), error("percentile"))


def test_mse_is_near_the_best_range() -> None:
    values = np.abs(np.random.default_rng(3).laplace(size=100_000)).astype(np.float32)
    low, high = choose(filled(values), "mse")

    def error(top: float) -> float:
        params = affine(0.0, top)
        return float(np.mean((params.dequantise(params.quantise(values)) - values) ** 2))

    best = min(error(top) for top in np.linspace(0.2, 1, 81) * values.max())
    assert low == 0
    assert error(high) <= 1.05 * best


@given(st.integers(0, 10_000), st.sampled_from([(4, False), (8, False), (8, True)]))
def test_the_mse_range_is_the_best_of_its_grid(seed: int, kind: tuple[int, bool]) -> None:
    """Against the sum over all bins, end by end: one side of tails, both, a few far values, none at all on one side."""
    bits, symmetric = kind
    rng = np.random.default_rng(seed)
    values = rng.standard_t(rng.uniform(1.5, 20), 400) * rng.uniform(0.1, 10) + rng.uniform(-2, 2)
    histogram = filled(np.abs(values) if rng.random() < 0.3 else values)
    centres, counts = histogram.centres, histogram.counts

    def error(low: float, high: float) -> float:
        outside = np.where(centres < low, low - centres, np.where(centres > high, centres - high, 0.0))
        inside = (centres >= low) & (centres <= high)
        step = (high - low) / (2**bits - 1)
        return float((counts * (outside**2 + inside * step**2 / 12)).sum())

    low, high = choose(histogram, "mse", bits=bits, symmetric=symmetric)
    ends = min(histogram.low, 0.0), max(histogram.high, 0.0)
    grid = np.geomspace(1.0, FINEST, STEPS)
    if symmetric:
        tried = [(-max(-ends[0], ends[1]) * f, max(-ends[0], ends[1]) * f) for f in grid]
    else:
        tried = [(ends[0] * f, ends[1] * f) for f in grid] + [(low, ends[1] * f) for f in grid]
    assert error(low, high) <= min(error(*one) for one in tried) * (1 + 1e-9)


def test_percentile_covers_its_share() -> None:
    values = np.random.default_rng(4).standard_normal(200_000)
    low, high = choose(filled(values), "percentile", percentile=99.0)
    assert np.mean((values >= low) & (values <= high)) == pytest.approx(0.98, abs=0.003)


def test_a_constant_tensor_needs_no_search() -> None:
    for method in ("minmax", "percentile", "mse", "entropy"):
        assert choose(filled(np.zeros(10)), method) == (0.0, 0.0)
        low, high = choose(filled(np.full(10, 2.0)), method)
        assert low == 0.0
        assert high > 0.0


@given(st.integers(1, 4_000_000), st.integers(1, 2000))
def test_every_axis_is_counted_alike(size: int, samples: int) -> None:
    step = step_of(size, samples)
    assert math.gcd(step, size) == 1
    assert step >= size * samples // ENOUGH
    assert step == 1 or step <= 2 * size * samples / ENOUGH + 64


@pytest.mark.parametrize("cut", [1, 3, 8])
def test_some_values_of_each_sample_stand_for_all(cut: int) -> None:
    """Ends are those of all values, the result does not depend on batches, and quantiles hardly on what is left out."""
    rng = np.random.default_rng(0)
    x = np.maximum(rng.standard_normal((8, 24, 56, 56)), 0).astype(np.float32) * rng.lognormal(
        0, 1, (1, 24, 1, 1)
    ).astype(np.float32)
    x[5, 3, 7, 11] = 91.5
    x[6] = 0  # a batch of nothing but zeros weighs what any other does
    every, some, whole = Histogram(), Histogram(), Histogram()
    every.add(x)
    for start in range(0, len(x), cut):
        some.add(x[start : start + cut], 13)
    whole.add(x, 13)
    np.testing.assert_array_equal(some.counts, whole.counts)
    assert (some.low, some.high) == (every.low, every.high) == (0.0, 91.5)
    assert some.total == 8 * -(-24 * 56 * 56 // 13)
    for share in (0.5, 0.9, 0.99, 0.999):
        assert some.quantile(share) == pytest.approx(every.quantile(share), rel=0.05)
    assert some.zeros / some.total == pytest.approx(every.zeros / every.total, rel=0.02)
