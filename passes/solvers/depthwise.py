"""Depthwise layers on whole maps: sums over shifted rows, without a patch ever being made.

A row of a map holds pixels and channels one behind the other, (width * channels) numbers in one piece. A tap of the kernel reads
the same row some pixels further on, so all that such a layer needs are products of two rows, element by element, added up in
place: loops of hundreds of numbers that stay in the first cache, where patches would be copied nine times over and multiplied
in blocks of nine. Where the layer skips pixels (strides), maps are first parted into the grids that its taps read (`_Grids`);
within each of them it skips none.

The normal equations need the product of every tap with every other. Two pairs of taps that lie equally far apart multiply the
same pixels, but for those at the border: 13 products instead of 45 for a kernel of 3 x 3.

Maps are (n, height, width, channels), float32, of few enough images for sums in float32; weights (group, taps, out/group).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from typing import Any, NamedTuple

import numpy as np

from edgec.passes.solvers.gram import Patches

Array = np.ndarray[Any, np.dtype[Any]]


def fits(patches: Patches) -> bool:
    """Whether ``patches`` are those of a depthwise layer of one or two axes."""
    return patches.group > 1 and patches.group_channels == 1 and len(patches.kernel) in (1, 2)


class _Taps(NamedTuple):
    """Taps of one axis that read one grid: their numbers, where in the grid the first of them reads, and how far the next."""

    numbers: tuple[int, ...]
    first: int
    step: int


def _axis_grids(kernel: int, stride: int, dilation: int) -> dict[int, _Taps]:
    """First pixel of a grid -> the taps that read it."""
    found: dict[int, list[int]] = {}
    for tap in range(kernel):
        found.setdefault(tap * dilation % stride, []).append(tap)
    grids = {}
    for grid, taps in found.items():
        places = [tap * dilation // stride for tap in taps]
        grids[grid] = _Taps(tuple(taps), places[0], places[1] - places[0] if len(places) > 1 else 0)
    return grids


@dataclass(frozen=True)
class _Grid:
    """Every so manieth pixel of a map, from ``place`` on, and the taps that read it."""

    place: tuple[int, int]
    rows: _Taps
    columns: _Taps

    def cut(self, padded: Array, strides: Sequence[int]) -> Array:
        """(n, rows, pixels * channels) of ``padded``."""
        view = padded[:, self.place[0] :: strides[0], self.place[1] :: strides[1]]
        return np.ascontiguousarray(view).reshape(len(view), view.shape[1], -1)

    def weights(self, w: Array) -> Array:
        """Of its taps: (taps, taps, channels) of (kernel, kernel, channels)."""
        return w[np.ix_(self.rows.numbers, self.columns.numbers)]


class _Layer(NamedTuple):
    """Kernel, strides, pads and dilations of two axes; a layer of one axis has a first one of size 1."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    pads: tuple[int, ...]
    dilations: tuple[int, ...]

    @staticmethod
    def of(patches: Patches) -> _Layer:
        if len(patches.kernel) == 2:
            return _Layer(patches.kernel, patches.strides, patches.pads, patches.dilations)
        (begin, end) = patches.pads
        return _Layer(
            (1, *patches.kernel), (1, *patches.strides), (0, begin, 0, end), (1, *patches.dilations)
        )

    def grids(self) -> Iterator[_Grid]:
        axes = [_axis_grids(*one) for one in zip(self.kernel, self.strides, self.dilations, strict=True)]
        for (y, rows), (x, columns) in product(axes[0].items(), axes[1].items()):
            yield _Grid((y, x), rows, columns)

    def padded(self, x: Array) -> Array:
        """``x`` (n, height, width, channels) with its border of zeros."""
        top, left, bottom, right = self.pads
        if not any(self.pads):
            return x
        room = np.zeros(
            (len(x), x.shape[1] + top + bottom, x.shape[2] + left + right, x.shape[3]), np.float32
        )
        room[:, top : top + x.shape[1], left : left + x.shape[2]] = x
        return room


def apply(patches: Patches, w: Array, bias: Array, x: Array, out: Array) -> None:
    """Fill ``out`` with what the layer makes of ``x``."""
    layer, each = _Layer.of(patches), w.shape[2]
    x, made = _two_axes(x), _two_axes(out)
    padded = layer.padded(x)
    grids = [(grid, grid.cut(padded, layer.strides)) for grid in layer.grids()]
    rows = made.reshape(*made.shape[:2], -1)
    # One output per group, as almost always: the map itself is the room for its sums.
    room = rows if each == 1 else np.empty((*rows.shape[:2], rows.shape[2] // each), np.float32)
    for number in range(each):
        kernel = _kernel(layer, w[:, :, number])
        for count, (grid, read) in enumerate(grids):
            found = None if count else room
            share = _correlated(read, grid.rows, grid.columns, grid.weights(kernel), made.shape[1:3], found)
            if count:
                room += share
        room += np.tile(bias.reshape(-1, each)[:, number], made.shape[2])
        if each > 1:
            made[..., number::each] = room.reshape(*made.shape[:3], -1)


def pull_back(patches: Patches, w: Array, gradient: Array, spatial: Sequence[int]) -> Array:
    """Gradient at the input, of size ``spatial``."""
    layer, each = _Layer.of(patches), w.shape[2]
    height, width = (1, *spatial)[-2:]
    top, left, bottom, right = layer.pads
    given = _two_axes(gradient)
    found = np.zeros((len(given), height + top + bottom, width + left + right, patches.channels), np.float32)
    for number in range(each):
        kernel = _kernel(layer, w[:, :, number])
        mine = np.ascontiguousarray(given[..., number::each])
        for grid in layer.grids():
            part = found[:, grid.place[0] :: layer.strides[0], grid.place[1] :: layer.strides[1]]
            part += _spread(mine, grid, grid.weights(kernel), part.shape[1:3])
    return found[:, top : top + height, left : left + width].reshape(len(given), *spatial, patches.channels)


def project(patches: Patches, x: Array, gradient: Array) -> Array:
    """``sum p g'`` over all pixels, without the bias: (group, taps, out/group)."""
    layer = _Layer.of(patches)
    x, given = _two_axes(x), _two_axes(gradient)
    each, size = gradient.shape[-1] // patches.group, given.shape[1:3]
    padded = layer.padded(x)
    found = np.zeros((*layer.kernel, patches.group, each))
    for grid in layer.grids():
        rows = grid.cut(padded, layer.strides)
        for number in range(each):
            mine = np.ascontiguousarray(given[..., number::each]).reshape(len(given), size[0], -1)
            for tap, (y, x_) in _places(grid):
                read = rows[:, y : y + size[0], x_ * patches.group : (x_ + size[1]) * patches.group]
                found[(*tap, slice(None), number)] = _folded(_product(read, mine), patches.group)
    return found.reshape(-1, patches.group, each).transpose(1, 0, 2)


def normal(patches: Patches, x: Array) -> tuple[Array, Array]:
    """``sum p p'`` and ``sum p`` over all pixels, without the bias: (group, taps, taps) and (group, taps)."""
    layer, group = _Layer.of(patches), patches.group
    size = (1, *patches.out_shape(x.shape[1:-1]))[-2:]
    padded = layer.padded(_two_axes(x))
    taps: dict[tuple[int, ...], tuple[Array, int, int]] = {}
    for grid in layer.grids():
        rows = grid.cut(padded, layer.strides)
        taps.update((tap, (rows, *place)) for tap, place in _places(grid))
    found = np.zeros((len(taps), len(taps), group))
    sums = np.zeros((len(taps), group))
    order = [taps[tap] for tap in np.ndindex(*layer.kernel)]
    for pairs in _alike(order).values():
        windows = [order[i][1:] for i, _ in pairs]
        one, other = order[pairs[0][0]], order[pairs[0][1]]
        apart = (other[1] - one[1], other[2] - one[2])
        for (i, j), total in zip(
            pairs, _window_sums(one[0], other[0], apart, windows, size, group), strict=True
        ):
            found[i, j] = found[j, i] = total
    for number, (rows, y, x_) in enumerate(order):
        read = rows[:, y : y + size[0], x_ * group : (x_ + size[1]) * group]
        sums[number] = _folded(np.einsum("nyr->r", read), group)
    return found.transpose(2, 0, 1), sums.T


def _two_axes(x: Array) -> Array:
    return x if x.ndim == 4 else x[:, None]


def _kernel(layer: _Layer, w: Array) -> Array:
    """(group, taps) -> (*kernel, group)."""
    return np.ascontiguousarray(w.T).reshape(*layer.kernel, -1)


def _places(grid: _Grid) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """Every tap of ``grid`` and where in it the first row and pixel are that it reads."""
    for (i, row), (j, column) in product(enumerate(grid.rows.numbers), enumerate(grid.columns.numbers)):
        yield (
            (row, column),
            (grid.rows.first + i * grid.rows.step, grid.columns.first + j * grid.columns.step),
        )


def _correlated(
    rows: Array, down: _Taps, along: _Taps, w: Array, size: Sequence[int], out: Array | None = None
) -> Array:
    """``sum w[i, j] rows[y + first + i step, x + ...]``: (n, height, width * channels), in ``out`` where that is given."""
    channels = w.shape[2]
    start = rows[:, down.first :, along.first * channels :]
    image, row, number = start.strides
    shape = (len(rows), size[0], len(down.numbers), len(along.numbers), size[1] * channels)
    strides = (image, row, row * down.step, along.step * channels * number, number)
    view = np.lib.stride_tricks.as_strided(start, shape, strides, writeable=False)
    room = np.empty((shape[0], shape[1], shape[4]), np.float32) if out is None else out
    np.einsum("nyabr,abr->nyr", view, np.tile(w, size[1]), out=room)
    return room


def _spread(gradient: Array, grid: _Grid, w: Array, size: Sequence[int]) -> Array:
    """What the taps of ``grid`` pass back to its pixels, (n, *size, channels): a layer with the kernel turned round."""
    borders, taps = [(0, 0)], []
    for axis, one in enumerate((grid.rows, grid.columns)):
        last = one.first + one.step * (len(one.numbers) - 1)
        borders.append((last, max(size[axis] - gradient.shape[axis + 1] - one.first, 0)))
        taps.append(_Taps(one.numbers, 0, one.step))
    padded = np.pad(gradient, [*borders, (0, 0)])
    rows = padded.reshape(len(padded), padded.shape[1], -1)
    return _correlated(rows, taps[0], taps[1], w[::-1, ::-1], size).reshape(len(gradient), *size, -1)


def _product(one: Array, other: Array) -> Array:
    """Sums over images and rows, one for each place along them."""
    return np.asarray(np.einsum("nyr,nyr->r", one, other))


def _folded(row: Array, channels: int) -> Array:
    """Sums over pixels."""
    return np.asarray(row.reshape(-1, channels).sum(axis=0, dtype=np.float64))


def _alike(order: Sequence[tuple[Array, int, int]]) -> dict[tuple[int, ...], list[tuple[int, int]]]:
    """Pairs of taps that multiply the same pixels but for the border."""
    found: dict[tuple[int, ...], list[tuple[int, int]]] = {}
    for i, (rows, y, x) in enumerate(order):
        for j, (others, below, behind) in enumerate(order[i:], i):
            found.setdefault((id(rows), id(others), below - y, behind - x), []).append((i, j))
    return found


def _window_sums(
    one: Array,
    other: Array,
    apart: tuple[int, int],
    windows: Sequence[tuple[int, int]],
    size: Sequence[int],
    channels: int,
) -> Iterator[Array]:
    """Sums over the product of ``one`` and ``other``, that many rows and pixels ``apart``, in windows of ``size`` that begin at
    ``windows``. What windows share is multiplied once."""
    begin, end = min(x for _, x in windows), max(x for _, x in windows) + size[1]
    a = one[:, :, begin * channels : end * channels]
    b = other[:, :, (begin + apart[1]) * channels : (end + apart[1]) * channels]
    rows = sorted({row for y, _ in windows for row in (y, y + size[0])})
    strips = {
        (top, bottom): _product(a[:, top:bottom], b[:, top + apart[0] : bottom + apart[0]]).astype(np.float64)
        for top, bottom in pairwise(rows)
        if any(y <= top and bottom <= y + size[0] for y, _ in windows)
    }
    for y, x in windows:
        inside = (strip for (top, bottom), strip in strips.items() if y <= top and bottom <= y + size[0])
        total = sum(inside, np.zeros(()))
        yield _folded(total[(x - begin) * channels : (x - begin + size[1]) * channels], channels)
