"""A layer on whole maps: what it makes, its transpose, and its normal equations, all pixels of them.

`gram.Patches.tiles` takes any rows it is asked for and copies every one of them. Where all pixels count there is less to do:

1. pointwise (a kernel of 1 without stride or padding, and fully connected): the map itself holds the rows;
2. depthwise (one input channel per group): products of shifted rows, patches are never made (`depthwise`);
3. any other: patches are copied from a strided view, some images at a time.

Images are taken in chunks, ``threads`` of them at a time: enough rows for a product to be worth its sum, few enough for the
cache. Products are float32 over at most `TILE_ROWS` rows, sums float64.
Maps are (n, *spatial, channels), float32; ``columns`` (group, unknowns, out/group) as in `gram`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgec.passes.solvers import depthwise
from edgec.passes.solvers.gram import TILE_ROWS, Patches
from edgec.passes.solvers.parallel import in_order, run_all

Array = np.ndarray[Any, np.dtype[Any]]

PATCH_BYTES = 4 << 20
"""Patches of one chunk."""
MAP_BYTES = 1 << 20
"""Pixels of one chunk where patches are never made."""


@dataclass(frozen=True)
class Kernel:
    """A layer's weights as maps meet them: ``w`` (group, taps * channels, out/group) and ``bias`` (out,), float32."""

    patches: Patches
    w: Array
    bias: Array

    @staticmethod
    def of(patches: Patches, columns: Array, *, linear: bool = False) -> Kernel:
        """Of ``columns`` (group, unknowns, out/group); ``linear``: without the bias."""
        w = columns.astype(np.float32)
        if not patches.bias:
            return Kernel(patches, w, np.zeros(columns.shape[0] * columns.shape[2], np.float32))
        return Kernel(patches, w[:, :-1], w[:, -1].reshape(-1) * np.float32(not linear))

    def out_shape(self, x: Array) -> tuple[int, ...]:
        """Of what it makes of ``x``."""
        spatial = self.patches.out_shape(x.shape[1:-1])
        return (len(x), *spatial, self.patches.group * self.w.shape[2])

    def apply(self, x: Array, out: Array | None = None) -> Array:
        """The layer's output, in ``out`` where that is given."""
        made = np.empty(self.out_shape(x), np.float32) if out is None else out
        for part in _chunks(self.patches, x.shape):
            self._apply(x[part], made[part])
        return made

    def _apply(self, x: Array, out: Array) -> None:
        patches = self.patches
        if _is_pointwise(patches):
            flat = out.reshape(-1, out.shape[-1])
            np.matmul(x.reshape(-1, patches.channels), self.w[0], out=flat)
            flat += self.bias
        elif depthwise.fits(patches):
            depthwise.apply(patches, self.w, self.bias, x, out)
        else:
            made = (_patches(patches, x) @ self.w).transpose(1, 0, 2)
            np.add(made.reshape(out.shape), self.bias, out=out)

    def pull_back(self, gradient: Array, spatial: Sequence[int]) -> Array:
        """The transposed layer: gradient at its output -> gradient at its input of size ``spatial``."""
        patches = self.patches
        found = np.empty((len(gradient), *spatial, patches.channels), np.float32)
        for part in _chunks(patches, found.shape):
            if _is_pointwise(patches):
                flat = gradient[part].reshape(-1, gradient.shape[-1])
                np.matmul(flat, self.w[0].T, out=found[part].reshape(-1, patches.channels))
            elif depthwise.fits(patches):
                found[part] = depthwise.pull_back(patches, self.w, gradient[part], spatial)
            else:
                padded, inside = _padded_shape(patches, spatial)
                room = np.zeros((len(found[part]), *padded, patches.channels), np.float32)
                _spread(patches, self.w, gradient[part], room)
                found[part] = room[inside]
        return found


def apply(patches: Patches, columns: Array, x: Array, threads: int = 1) -> Array:
    """The layer's output."""
    kernel = Kernel.of(patches, columns)
    out = np.empty(kernel.out_shape(x), np.float32)

    def make(part: slice) -> None:
        kernel.apply(x[part], out[part])

    run_all(make, _chunks(patches, x.shape), threads)
    return out


def pull_back(
    patches: Patches, columns: Array, gradient: Array, spatial: Sequence[int], threads: int = 1
) -> Array:
    """The transposed layer: gradient at its output -> gradient at its input of size ``spatial``."""
    kernel = Kernel.of(patches, columns)
    found = np.empty((len(gradient), *spatial, patches.channels), np.float32)

    def spread(part: slice) -> None:
        found[part] = kernel.pull_back(gradient[part], spatial)

    run_all(spread, _chunks(patches, found.shape), threads)
    return found


def project(patches: Patches, x: Array, gradient: Array, threads: int = 1) -> Array:
    """``sum p g'`` over all pixels: (group, unknowns, out/group)."""
    outputs = gradient.shape[-1] // patches.group
    found = np.zeros((patches.group, patches.unknowns, outputs))
    n = patches.unknowns - patches.bias

    def part_of(part: slice) -> tuple[Array, Array]:
        sums = _row_sums(gradient[part].reshape(1, -1, gradient.shape[-1]))
        if depthwise.fits(patches):
            return depthwise.project(patches, x[part], gradient[part]), sums
        flat = gradient[part].reshape(-1, patches.group, outputs).transpose(1, 0, 2)
        p = _patches(patches, x[part])
        total = np.zeros((patches.group, n, outputs))
        for rows in _rows(p.shape[1]):
            total += np.swapaxes(p[:, rows], 1, 2) @ flat[:, rows]
        return total, sums

    for body, sums in in_order(part_of, _chunks(patches, x.shape), threads):
        found[:, :n] += body
        if patches.bias:
            found[:, -1] += sums.reshape(patches.group, outputs)
    return found


def normal(patches: Patches, x: Array, threads: int = 1) -> Array:
    """``sum p p'`` over all pixels: (group, unknowns, unknowns)."""
    found = np.zeros((patches.group, patches.unknowns, patches.unknowns))
    n = patches.unknowns - patches.bias

    def part_of(part: slice) -> tuple[Array, Array]:
        if depthwise.fits(patches):
            return depthwise.normal(patches, x[part])
        p = _patches(patches, x[part])
        total = np.zeros((patches.group, n, n))
        for rows in _rows(p.shape[1]):
            for g in range(patches.group):
                # The same buffer on both sides: numpy calls the symmetric rank-k update, half the work of a product.
                total[g] += p[g, rows].T @ p[g, rows]
        return total, _row_sums(p)

    for body, sums in in_order(part_of, _chunks(patches, x.shape), threads):
        found[:, :n, :n] += body
        if patches.bias:
            found[:, -1, :n] += sums
    if patches.bias:
        found[:, -1, -1] = len(x) * math.prod(patches.out_shape(x.shape[1:-1]))
        found[:, :n, -1] = found[:, -1, :n]
    return found


def _is_pointwise(patches: Patches) -> bool:
    plain = all(k == 1 for k in patches.kernel) and all(s == 1 for s in patches.strides)
    return plain and patches.group == 1 and not any(patches.pads)


def _chunks(patches: Patches, shape: Sequence[int]) -> Iterator[slice]:
    """Some images at a time of maps of ``shape``."""
    pixels = math.prod(shape[1:-1])
    if _is_pointwise(patches):
        step = TILE_ROWS // max(pixels, 1)
    elif depthwise.fits(patches):
        step = MAP_BYTES // (4 * max(pixels * shape[-1], 1))
    else:
        floats = pixels * patches.unknowns * patches.group // math.prod(patches.strides)
        step = PATCH_BYTES // (4 * max(floats, 1))
    step = max(1, step)
    for start in range(0, shape[0], step):
        yield slice(start, min(start + step, shape[0]))


def _rows(count: int) -> Iterator[slice]:
    """Few enough rows for sums in float32."""
    for start in range(0, count, TILE_ROWS):
        yield slice(start, min(start + TILE_ROWS, count))


def _row_sums(p: Array) -> Array:
    """Sums over rows, (group, n): products with ones of at most `TILE_ROWS` rows."""
    total = np.zeros((p.shape[0], p.shape[2]))
    for rows in _rows(p.shape[1]):
        part = p[:, rows]
        total += np.ones(part.shape[1], np.float32) @ part
    return total


def _padded_shape(patches: Patches, spatial: Sequence[int]) -> tuple[tuple[int, ...], tuple[slice, ...]]:
    """Size with the padding, and where the map lies in it (all images first)."""
    rank = len(patches.kernel)
    padded = tuple(size + patches.pads[i] + patches.pads[i + rank] for i, size in enumerate(spatial))
    inside = tuple(slice(patches.pads[i], patches.pads[i] + size) for i, size in enumerate(spatial))
    return padded, (slice(None), *inside)


def _padded(patches: Patches, x: Array) -> Array:
    if not any(patches.pads):
        return x
    padded, inside = _padded_shape(patches, x.shape[1:-1])
    room = np.zeros((len(x), *padded, patches.channels), np.float32)
    room[inside] = x
    return room


def _shifts(patches: Patches, padded: Array, out: Sequence[int]) -> Iterator[Array]:
    """Per tap, a view of the pixels that it reads."""
    for tap in patches.taps:
        place = (
            slice(t * d, t * d + (size - 1) * s + 1, s)
            for t, d, s, size in zip(tap, patches.dilations, patches.strides, out, strict=True)
        )
        yield padded[(slice(None), *place)]


def _windows(patches: Patches, padded: Array, out: Sequence[int]) -> Array:
    """A view of all patches: (group, n, *out, *kernel, channels/group)."""
    image, *axes, channel = padded.strides
    each = patches.group_channels
    return np.lib.stride_tricks.as_strided(
        padded,
        (patches.group, len(padded), *out, *patches.kernel, each),
        (
            each * channel,
            image,
            *(stride * s for stride, s in zip(axes, patches.strides, strict=True)),
            *(stride * d for stride, d in zip(axes, patches.dilations, strict=True)),
            channel,
        ),
        writeable=False,
    )


def _patches(patches: Patches, x: Array) -> Array:
    """Patches of all pixels: (group, rows, taps * channels)."""
    if _is_pointwise(patches):
        return x.reshape(1, -1, patches.channels)
    out = patches.out_shape(x.shape[1:-1])
    view = _windows(patches, _padded(patches, x), out)
    return np.ascontiguousarray(view).reshape(patches.group, -1, patches.unknowns - patches.bias)


def _spread(patches: Patches, w: Array, gradient: Array, found: Array) -> None:
    """Add to ``found``, padded, what every tap passes back."""
    out, taps = gradient.shape[1:-1], len(patches.taps)
    rows = gradient.reshape(-1, patches.group, w.shape[2]).transpose(1, 0, 2)
    shares = (rows @ w.transpose(0, 2, 1)).reshape(patches.group, -1, *out, taps, patches.group_channels)
    for number, shifted in enumerate(_shifts(patches, found, out)):
        for group, piece in enumerate(np.split(shifted, patches.group, axis=-1)):
            piece += shares[group, ..., number, :]
