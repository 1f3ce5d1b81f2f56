"""Normal equations against im2col written out, and against onnxruntime's convolution."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator

from edgec.passes.solvers.gram import Gram, Patches, targets_at


def conv(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, geometry: Patches) -> np.ndarray:
    """The same convolution by onnx's reference implementation."""
    node = onnx.helper.make_node(
        "Conv",
        ["x", "w", "b"],
        ["y"],
        strides=geometry.strides,
        pads=geometry.pads,
        dilations=geometry.dilations,
        group=geometry.group,
    )
    makers = [
        onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, None) for n in ("x", "w", "b", "y")
    ]
    graph = onnx.helper.make_graph([node], "conv", makers[:3], makers[3:])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)])
    return ReferenceEvaluator(model).run(None, {"x": x, "w": weight, "b": bias})[0]


@st.composite
def geometries(draw: st.DrawFn) -> tuple[Patches, tuple[int, int]]:
    group, each = draw(st.sampled_from([(1, 1), (1, 3), (2, 2), (4, 1)]))
    kernel = (draw(st.integers(1, 3)), draw(st.integers(1, 3)))
    strides = (draw(st.integers(1, 2)), draw(st.integers(1, 2)))
    dilations = (draw(st.integers(1, 2)), draw(st.integers(1, 2)))
    pads = tuple(draw(st.integers(0, 2)) for _ in range(4))
    size = (draw(st.integers(5, 8)), draw(st.integers(5, 8)))
    return Patches(group * each, kernel, strides, pads, dilations, group), size


@settings(max_examples=40, deadline=None)
@given(geometries(), st.integers(0, 2**16))
def test_patches_times_columns_is_the_convolution(case: tuple[Patches, tuple[int, int]], seed: int) -> None:
    geometry, size = case
    rng = np.random.default_rng(seed)
    outputs = 2 * geometry.group
    x = rng.standard_normal((3, geometry.channels, *size)).astype(np.float32)
    weight = rng.standard_normal((outputs, geometry.group_channels, *geometry.kernel)).astype(np.float32)
    bias = rng.standard_normal(outputs).astype(np.float32)
    y = conv(x, weight, bias, geometry)
    assert y.shape[2:] == geometry.out_shape(size)
    rows = geometry.sample(x, 1.0, rng)
    columns = geometry.columns(weight, bias)
    target = targets_at(y, rows, geometry.group)
    for part, p in geometry.tiles(x, rows):
        np.testing.assert_allclose(p @ columns, target[:, part], rtol=1e-4, atol=1e-4)
    back, offsets = geometry.weight(columns)
    np.testing.assert_array_equal(back, weight)
    np.testing.assert_array_equal(offsets, bias)


@pytest.mark.parametrize("spread", [(), (2, 2)])
def test_no_rows_have_no_tiles(spread: tuple[int, ...]) -> None:
    geometry = Patches(4, (3, 3), (1, 1), (1, 1, 1, 1), (1, 1), spread=spread)
    assert not list(geometry.tiles(np.ones((2, 4, 5, 5), np.float32), np.zeros(0, np.int64)))


def test_streamed_statistics_are_those_of_all_rows_at_once() -> None:
    rng = np.random.default_rng(0)
    geometry = Patches(4, (3, 3), (1, 1), (1, 1, 1, 1), (1, 1))
    x = rng.standard_normal((6, 4, 9, 9)).astype(np.float32)
    t = rng.standard_normal((6, 5, 9, 9)).astype(np.float32)
    whole, parts = Gram.zeros(1, geometry.unknowns, 5), Gram.zeros(1, geometry.unknowns, 5)
    rows = geometry.sample(x, 1.0, rng)
    p = np.concatenate([tile for _, tile in geometry.tiles(x, rows)], axis=1).astype(np.float64)
    target = targets_at(t, rows, 1).astype(np.float64)
    for start in (0, 2, 4):
        piece = Gram.zeros(1, geometry.unknowns, 5)
        some, wanted = x[start : start + 2], t[start : start + 2]
        picked = geometry.sample(some, 1.0, rng)
        at = targets_at(wanted, picked, 1)
        for part, tile in geometry.tiles(some, picked):
            piece.add(tile, at[:, part])
        parts.merge(piece)
    whole.h[:], whole.s[:] = p[0].T @ p[0], p[0].T @ target[0]
    np.testing.assert_allclose(parts.h, whole.h, rtol=1e-5, atol=1e-3)
    np.testing.assert_allclose(parts.s, whole.s, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(parts.energy[0], np.square(target[0]).sum(0), rtol=1e-5)
    assert parts.rows == 6 * 81
    columns = rng.standard_normal((1, geometry.unknowns, 5))
    residual = np.square(p[0] @ columns[0] - target[0]).sum()
    assert parts.error(columns) == pytest.approx(residual, rel=1e-5)
    assert parts.relative_error(columns) == pytest.approx(residual / np.square(target).sum(), rel=1e-5)


def test_sampling_is_reproducible_and_has_the_asked_size() -> None:
    geometry = Patches(3, (3, 3), (2, 2), (1, 1, 1, 1), (1, 1))
    x = np.zeros((4, 3, 16, 16), np.float32)
    rows = geometry.sample(x, 0.25, np.random.default_rng(7))
    assert len(rows) == 64
    assert len(set(rows.tolist())) == 64
    np.testing.assert_array_equal(rows, geometry.sample(x, 0.25, np.random.default_rng(7)))


def test_row_weights_count_like_repeated_rows() -> None:
    rng = np.random.default_rng(1)
    p, t = (
        rng.standard_normal((1, 8, 3)).astype(np.float32),
        rng.standard_normal((1, 8, 2)).astype(np.float32),
    )
    weights = np.array([1, 2, 0, 3, 1, 1, 2, 0])
    weighted, repeated = Gram.zeros(1, 3, 2), Gram.zeros(1, 3, 2)
    weighted.add(p, t, weights)
    repeated.add(np.repeat(p, weights, axis=1), np.repeat(t, weights, axis=1))
    np.testing.assert_allclose(weighted.h, repeated.h, rtol=1e-5)
    np.testing.assert_allclose(weighted.s, repeated.s, rtol=1e-5)
    assert weighted.rows == repeated.rows == 10


def test_a_layer_predicts_itself_without_error() -> None:
    rng = np.random.default_rng(2)
    p = rng.standard_normal((2, 50, 4)).astype(np.float32)
    columns = rng.standard_normal((2, 4, 3))
    gram = Gram.zeros(2, 4, 3)
    gram.add(p, (p @ columns).astype(np.float32))
    assert gram.predicted(columns).relative_error(columns) < 1e-12
    np.testing.assert_allclose(gram.predicted(columns).s, gram.s, rtol=1e-4, atol=1e-4)


@settings(max_examples=60, deadline=None)
@given(geometries(), st.integers(0, 2**16))
def test_few_rows_are_looked_up_as_they_stand_in_the_whole_map(
    case: tuple[Patches, tuple[int, int]], seed: int
) -> None:
    """The same bytes, whether the map is turned or only the pixels of the rows are read."""
    geometry, size = case
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((40, geometry.channels, *size)).astype(np.float32)
    y = rng.standard_normal((40, 2 * geometry.group, *geometry.out_shape(size))).astype(np.float32)
    everything = np.arange(len(x) * int(np.prod(geometry.out_shape(size))))
    few = np.sort(rng.choice(everything, 5, replace=False))
    whole = np.concatenate([p for _, p in geometry.tiles(x, everything)], axis=1)
    (found,) = [p for _, p in geometry.tiles(x, few)]
    np.testing.assert_array_equal(found, whole[:, few])
    targets = targets_at(y, everything, geometry.group)
    np.testing.assert_array_equal(targets_at(y, few, geometry.group), targets[:, few])
