"""Layouts: what a tensor holds must always be the ONNX tensor, whatever order its bytes lie in."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from edgec.compiler.emit.tflite.layout import (
    UNIT,
    Layout,
    Regrouping,
    broadcast_layout,
    channels_last,
    identity,
    regroup,
    reshaped,
    same_bytes,
)

Array = np.ndarray[Any, np.dtype[Any]]


def unplace(array: Array, layout: Layout) -> Array:
    """The inverse of `Layout.place`, written independently."""
    units = tuple(p for p, axis in enumerate(layout.perm) if axis == UNIT)
    bare = np.squeeze(array, axis=units)
    axes = [axis for axis in layout.perm if axis != UNIT]
    logical = np.transpose(bare, np.argsort(axes)) if axes else bare
    for axis, order in layout.orders:
        sorted_back = np.empty_like(logical)
        index: list[Any] = [slice(None)] * logical.ndim
        for place, source in enumerate(order):
            index[axis] = source
            from_index = [*index]
            from_index[axis] = place
            sorted_back[tuple(index)] = logical[tuple(from_index)]
        logical = sorted_back
    return logical


shapes = st.lists(st.sampled_from([1, 2, 3, 4]), min_size=1, max_size=4).map(tuple)


@st.composite
def layouts(draw: st.DrawFn, shape: tuple[int, ...]) -> Layout:
    perm = list(draw(st.permutations(range(len(shape)))))
    if draw(st.booleans()):
        perm.insert(draw(st.integers(0, len(perm))), UNIT)
    orders = {}
    for axis, size in enumerate(shape):
        if size > 1 and draw(st.integers(0, 3)) == 0:
            orders[axis] = tuple(draw(st.permutations(range(size))))
    return Layout(tuple(perm)).with_orders(orders)


@given(st.data())
def test_place_is_undone(data: st.DataObject) -> None:
    shape = data.draw(shapes)
    layout = data.draw(layouts(shape))
    array = np.arange(math.prod(shape)).reshape(shape)
    placed = layout.place(array)
    assert placed.shape == layout.shape(shape)
    np.testing.assert_array_equal(unplace(placed, layout), array)


@given(st.data())
def test_transpose_is_a_change_of_names(data: st.DataObject) -> None:
    shape = data.draw(shapes)
    layout = data.draw(layouts(shape))
    perm = data.draw(st.permutations(range(len(shape))))
    array = np.arange(math.prod(shape)).reshape(shape)
    np.testing.assert_array_equal(
        layout.transposed(perm).place(np.transpose(array, perm)), layout.place(array)
    )


def factorisations(total: int) -> list[tuple[int, ...]]:
    found = [(total,), (1, total), (total, 1)]
    for a in range(2, total):
        if total % a == 0:
            found += [(a, total // a), (a, 1, total // a)]
            found += [(a, b, total // a // b) for b in range(2, total // a) if (total // a) % b == 0]
    return found


@given(st.data())
def test_reshape_moves_no_bytes(data: st.DataObject) -> None:
    shape = data.draw(shapes)
    layout = data.draw(layouts(shape))
    target = data.draw(st.sampled_from(factorisations(math.prod(shape))))
    result = reshaped(layout, shape, target)
    array = np.arange(math.prod(shape)).reshape(shape)
    if result is not None:
        np.testing.assert_array_equal(
            result.place(array.reshape(target)), layout.place(array).reshape(result.shape(target))
        )


def test_reshapes_that_need_no_transposition() -> None:
    nhwc = channels_last(4)
    assert reshaped(nhwc, (None, 8, 1, 1), (None, 8)) == Layout((0, 1))
    shuffle = reshaped(nhwc, (None, 6, 4, 4), (None, 2, 3, 4, 4))
    assert shuffle == Layout((0, 3, 4, 1, 2))
    flat = reshaped(nhwc, (None, 2, 2, 2), (None, 8))
    assert flat == Layout((0, 1), ((1, (0, 4, 1, 5, 2, 6, 3, 7)),))
    assert reshaped(nhwc, (None, 6, 4, 4), (None, 3, 2, 16)) == Layout((0, 3, 1, 2))
    assert reshaped(nhwc, (None, 6, 4, 4), (None, 3, 32)) is None
    assert reshaped(identity(3), (None, 4, 4), (None, 2, 8)) == identity(3)


def test_regroup_refuses_what_an_open_axis_hides() -> None:
    assert regroup((None, 4), (2, None)) is None
    assert regroup((None, 4, 3), (None, 3)) is None
    assert regroup((None, 4), (None, 2, 2)) == Regrouping((((0,), (0,)), ((1,), (1, 2))))


@given(st.data())
def test_broadcasting_is_onnx(data: st.DataObject) -> None:
    shape = data.draw(shapes)
    layout = data.draw(layouts(shape)).without_orders()
    rank = data.draw(st.integers(0, len(shape)))
    other = tuple(data.draw(st.sampled_from([1, size])) for size in shape[len(shape) - rank :])
    a = np.arange(math.prod(shape)).reshape(shape)
    b = 100 * np.arange(math.prod(other)).reshape(other)
    physical = layout.place(a) + broadcast_layout(layout, rank, len(shape)).place(b)
    np.testing.assert_array_equal(physical, layout.place(a + b))


def test_same_bytes() -> None:
    assert same_bytes(channels_last(4), identity(4), (1, 8, 1, 1))
    assert same_bytes(channels_last(4), identity(4), (1, 1, 8, 8))
    assert not same_bytes(channels_last(4), identity(4), (1, 2, 8, 8))
    for perm in itertools.permutations(range(3)):
        assert same_bytes(Layout(perm), identity(3), (1, 1, 5))
