"""Layers on whole maps against the same layer row by row, and the transpose against the definition of an adjoint."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgec.passes.solvers import maps
from edgec.passes.solvers.gram import Gram, Patches, targets_at

Case = tuple[Patches, np.ndarray, np.ndarray, tuple[int, ...]]


@st.composite
def layers(draw: st.DrawFn) -> Case:
    """A layer of any geometry with its columns and a few maps."""
    rank = draw(st.integers(0, 2))
    kernel = tuple(draw(st.integers(1, 3)) for _ in range(rank))
    strides = tuple(draw(st.integers(1, 2)) for _ in range(rank))
    dilations = tuple(draw(st.integers(1, 2)) for _ in range(rank))
    pads = tuple(draw(st.integers(0, 2)) for _ in range(2 * rank))
    group, each = draw(st.sampled_from([(1, 1), (1, 3), (3, 1), (2, 2)])) if rank else (1, 3)
    patches = Patches(group * each, kernel, strides, pads, dilations, group=group, bias=draw(st.booleans()))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    spatial = tuple(draw(st.integers(5, 8)) for _ in range(rank))
    columns = rng.standard_normal((group, patches.unknowns, draw(st.integers(1, 3))))
    x = rng.standard_normal((draw(st.integers(1, 4)), *spatial, group * each)).astype(np.float32)
    return patches, columns, x, spatial


def rows_of(patches: Patches, x: np.ndarray) -> np.ndarray:
    """All patches, one by one: (group, rows, unknowns)."""
    first = np.moveaxis(x, -1, 1)
    count = len(x) * int(np.prod(patches.out_shape(x.shape[1:-1])))
    tiles = [p for _, p in patches.tiles(first, np.arange(count))]
    return np.concatenate(tiles, axis=1).astype(np.float64)


@given(layers())
@settings(max_examples=120, deadline=None)
def test_apply_is_patches_times_columns(case: Case) -> None:
    patches, columns, x, spatial = case
    made = maps.apply(patches, columns, x)
    wanted = (rows_of(patches, x) @ columns).transpose(1, 0, 2)
    assert made.shape == (len(x), *patches.out_shape(spatial), patches.group * columns.shape[2])
    np.testing.assert_allclose(made.reshape(wanted.reshape(len(wanted), -1).shape), wanted.reshape(len(wanted), -1), atol=1e-4)  # fmt: skip


@given(layers())
@settings(max_examples=120, deadline=None)
def test_pull_back_is_the_adjoint(case: Case) -> None:
    patches, columns, x, spatial = case
    if patches.bias:
        columns[:, -1] = 0
    y = maps.apply(patches, columns, x)
    g = np.random.default_rng(1).standard_normal(y.shape).astype(np.float32)
    back = maps.pull_back(patches, columns, g, spatial)
    assert back.shape == x.shape
    assert np.sum(y * g) == pytest.approx(np.sum(x * back), rel=1e-3, abs=1e-3)


@given(layers())
@settings(max_examples=120, deadline=None)
def test_normal_equations_are_those_of_the_rows(case: Case) -> None:
    patches, columns, x, _ = case
    y = maps.apply(patches, columns, x)
    gram = Gram.zeros(patches.group, patches.unknowns, columns.shape[2])
    target = np.moveaxis(y, -1, 1)
    gram.add(
        rows_of(patches, x).astype(np.float32),
        targets_at(target, np.arange(y.size // y.shape[-1]), patches.group),
    )
    np.testing.assert_allclose(maps.normal(patches, x), gram.h, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(maps.project(patches, x, y), gram.s, rtol=1e-4, atol=1e-2)


def test_chunks_cover_all_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """One image at a time makes what all at once make."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((5, 7, 7, 4)).astype(np.float32)
    for group in (1, 4):
        patches = Patches(4, (3, 3), (2, 2), (1, 1, 1, 1), (1, 1), group)
        columns = rng.standard_normal((group, patches.unknowns, 4 // group))
        whole = maps.apply(patches, columns, x)
        results = [maps.normal(patches, x), maps.project(patches, x, whole), maps.pull_back(patches, columns, whole, (7, 7))]  # fmt: skip
        with monkeypatch.context() as small:
            for name in ("PATCH_BYTES", "MAP_BYTES"):
                small.setattr(maps, name, 1)
            small.setattr(maps, "TILE_ROWS", 3)
            np.testing.assert_allclose(maps.apply(patches, columns, x), whole, rtol=1e-5, atol=1e-5)
            pieces = [maps.normal(patches, x), maps.project(patches, x, whole), maps.pull_back(patches, columns, whole, (7, 7))]  # fmt: skip
        for one, other in zip(results, pieces, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-3)
