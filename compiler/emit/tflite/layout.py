"""Where the axes of an ONNX tensor lie in a TFLite tensor.

Convolutions of TFLite read and write channels last. Instead of transposing around them, every value of the network is
kept in whatever physical order its producer left it, and the order is remembered: an ONNX Transpose is then a change
of that note alone, and axis numbers are translated where operators name them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
Shape = tuple["int | None", ...]
"""A logical or physical shape; None is the batch axis where its size is open."""

UNIT = -1
"""In ``Layout.perm``: a physical axis of size 1 that the ONNX tensor does not have."""


@dataclass(frozen=True)
class Layout:
    """``perm[p]`` is the ONNX axis that lies at physical position ``p``, or UNIT.

    ``orders`` holds, for axes whose elements are shuffled too, ``(axis, order)`` with ``order[i]`` the ONNX index of
    the element stored at place ``i``. Flattening a channels-last map leaves one: ONNX flattens C,H,W, the tensor holds
    H,W,C. A constant weight absorbs it for nothing.
    """

    perm: tuple[int, ...]
    orders: tuple[tuple[int, tuple[int, ...]], ...] = ()

    def order_of(self, axis: int) -> tuple[int, ...] | None:
        """The shuffle of an ONNX axis, or None."""
        return next((order for a, order in self.orders if a == axis), None)

    def position(self, axis: int) -> int:
        """The physical position of an ONNX axis."""
        return self.perm.index(axis)

    def without_orders(self) -> Layout:
        return Layout(self.perm)

    def with_orders(self, orders: Mapping[int, tuple[int, ...] | None]) -> Layout:
        """The same axes with these shuffles."""
        return Layout(self.perm, tuple(sorted((a, o) for a, o in orders.items() if o is not None)))

    def shape(self, logical: Shape) -> Shape:
        """The physical shape of a tensor of this ONNX shape."""
        return tuple(1 if axis == UNIT else logical[axis] for axis in self.perm)

    def place(self, array: Array) -> Array:
        """A constant, from ONNX order into this layout."""
        for axis, order in self.orders:
            array = np.take(array, order, axis=axis)
        array = np.transpose(array, [axis for axis in self.perm if axis != UNIT])
        for position, axis in enumerate(self.perm):
            if axis == UNIT:
                array = np.expand_dims(array, position)
        return array

    def transposed(self, perm: Sequence[int]) -> Layout:
        """The layout of the same bytes seen through an ONNX Transpose (``output axis i = input axis perm[i]``)."""
        new_axis = {old: new for new, old in enumerate(perm)}
        moved = tuple(UNIT if axis == UNIT else new_axis[axis] for axis in self.perm)
        return Layout(moved, tuple(sorted((new_axis[axis], order) for axis, order in self.orders)))

    def reduced(self, axes: Sequence[int]) -> Layout:
        """The layout after these ONNX axes are gone."""
        kept = [a for a in sorted(a for a in self.perm if a != UNIT) if a not in axes]
        new_axis = {old: new for new, old in enumerate(kept)}
        perm = tuple(UNIT if a == UNIT else new_axis[a] for a in self.perm if a not in axes)
        return Layout(perm, tuple((new_axis[a], order) for a, order in self.orders if a in new_axis))


def identity(rank: int) -> Layout:
    """ONNX order."""
    return Layout(tuple(range(rank)))


def channels_last(rank: int) -> Layout:
    """N, spatial axes, C; a one-dimensional signal gets a height of 1, as TFLite's operators want it."""
    if rank == 3:
        return Layout((0, UNIT, 2, 1))
    return Layout((0, *range(2, rank), 1))


def same_bytes(a: Layout, b: Layout, logical: Shape) -> bool:
    """True when a tensor of this ONNX shape has its elements in the same sequence in both layouts."""
    return a.orders == b.orders and _significant(a, logical) == _significant(b, logical)


def _significant(layout: Layout, logical: Shape) -> list[int]:
    return [axis for axis in layout.perm if axis != UNIT and logical[axis] != 1]


def broadcast_layout(target: Layout, rank: int, full_rank: int) -> Layout:
    """The layout that an operand of lower rank needs so that physical broadcasting against ``target`` is ONNX's.

    ONNX aligns axes at the right; the missing leading ones become physical axes of size 1.
    """
    shift = full_rank - rank
    perm = tuple(UNIT if axis < shift else axis - shift for axis in target.perm)
    return Layout(perm, tuple((a - shift, o) for a, o in target.orders if a >= shift))


@dataclass(frozen=True)
class Regrouping:
    """How a reshape moves axes: each group maps some input axes onto some output axes of the same product."""

    groups: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]


def regroup(source: Shape, target: Shape) -> Regrouping | None:
    """Split a reshape into its smallest independent groups, or None when an open axis makes that ambiguous.

    Axes of size 1 carry nothing and stand in no group.
    """
    a = [i for i, d in enumerate(source) if d != 1]
    b = [i for i, d in enumerate(target) if d != 1]
    groups: list[tuple[tuple[int, ...], tuple[int, ...]]] = []
    i = j = 0
    while i < len(a) or j < len(b):
        left: list[int] = []
        right: list[int] = []
        sizes = [(0, 1), (0, 1)]  # (number of open axes, product of the known ones), on either side
        while True:
            if not left or (sizes[0] != sizes[1] and _smaller(sizes[0], sizes[1])):
                if i >= len(a):
                    return None
                left.append(a[i])
                sizes[0] = _times(sizes[0], source[a[i]])
                i += 1
            elif not right or sizes[0] != sizes[1]:
                if j >= len(b):
                    return None
                right.append(b[j])
                sizes[1] = _times(sizes[1], target[b[j]])
                j += 1
            else:
                break
        groups.append((tuple(left), tuple(right)))
    return Regrouping(tuple(groups))


def _times(size: tuple[int, int], dim: int | None) -> tuple[int, int]:
    return (size[0] + 1, size[1]) if dim is None else (size[0], size[1] * dim)


def _smaller(a: tuple[int, int], b: tuple[int, int]) -> bool:
    return a < b


def reshaped(layout: Layout, source: Shape, target: Shape) -> Layout | None:
    """The layout of ``target`` when the bytes of ``source`` in ``layout`` are only given a new shape.

    None where the bytes would have to move. A group of axes that merge into one may lie in another order than ONNX's:
    the merged axis then carries that order.
    """
    regrouping = regroup(source, target)
    if regrouping is None:
        return None
    by_first = {axis: group for group in regrouping.groups for axis in group[0]}
    physical = [axis for axis in layout.perm if axis != UNIT and source[axis] != 1]
    placed: list[int] = []
    orders: dict[int, tuple[int, ...]] = {}
    while physical:
        ins, outs = by_first[physical[0]]
        run = tuple(physical[: len(ins)])
        physical = physical[len(ins) :]
        if set(run) != set(ins):
            return None
        if run != ins and not all(isinstance(source[axis], int) for axis in ins):
            return None
        order = _merged_order(layout, source, ins, run)
        if order is not None:
            if len(outs) != 1:
                return None
            orders[outs[0]] = order
        placed.extend(outs)
    perm = _with_units(placed, target)
    return Layout(perm, tuple(sorted(orders.items())))


def _merged_order(
    layout: Layout, source: Shape, ins: tuple[int, ...], run: tuple[int, ...]
) -> tuple[int, ...] | None:
    """The shuffle that merging ``ins`` leaves when they physically lie as ``run``; None for none."""
    if run == ins and not any(layout.order_of(axis) for axis in ins):
        return None
    sizes = [source[axis] or 1 for axis in ins]  # no open axis here: the caller saw to that
    index = np.arange(int(np.prod(sizes))).reshape(sizes)
    for k, axis in enumerate(ins):
        order = layout.order_of(axis)
        if order is not None:
            index = np.take(index, order, axis=k)
    index = index.transpose([ins.index(axis) for axis in run]).reshape(-1)
    return tuple(int(i) for i in index)


def _with_units(placed: Sequence[int], target: Shape) -> tuple[int, ...]:
    """Insert the axes of size 1 after the axis that precedes them in ONNX order."""
    perm = list(placed)
    for axis, size in enumerate(target):
        if size == 1:
            perm.insert(1 + perm.index(axis - 1) if axis > 0 else 0, axis)
    return tuple(perm)
