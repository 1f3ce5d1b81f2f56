"""Streaming normal equations of convolutions and fully connected layers.

A convolution is linear in its weight: at every output pixel, ``y = W' p``, where ``p`` is the input patch under the kernel and
a constant 1 for the bias. `Patches` turns batches of feature maps into rows ``p``; `Gram` sums ``H = sum p p'`` and
``S = sum p t'`` over rows in tiles: float32 products of at most `TILE_ROWS` rows, float64 sums. Neither ever holds the rows of
the data set. Statistics of disjoint rows add (`Gram.merge`).

Unknowns are ordered (tap, input channel), the constant last: patches are then copied channel by channel in one piece.
`Patches.columns` and `Patches.weight` translate from and to ONNX weight tensors.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

TILE_ROWS = 4096
"""Rows whose products are summed in float32 before they are added in float64."""
TILE_BYTES = 32 << 20
SPARSE = 8
"""Where rows read fewer than one of so many pixels, they are looked up one by one: turning the whole map would read all."""


@dataclass(frozen=True)
class Patches:
    """Geometry of a convolution, in ONNX's terms; a fully connected layer is one without spatial axes.

    ``group`` splits the input channels into groups with unknowns of their own: a depthwise convolution has one input channel
    per group. ``bias`` adds the constant to every row. ``spread`` puts zeros between the input's pixels, from one to the next
    so many steps: a transposed convolution is a convolution of such a map.
    """

    channels: int
    kernel: tuple[int, ...] = ()
    strides: tuple[int, ...] = ()
    pads: tuple[int, ...] = ()
    dilations: tuple[int, ...] = ()
    group: int = 1
    bias: bool = True
    spread: tuple[int, ...] = ()

    @cached_property
    def taps(self) -> tuple[tuple[int, ...], ...]:
        """Kernel positions, the last axis fastest."""
        return tuple(np.ndindex(*self.kernel))

    @property
    def group_channels(self) -> int:
        return self.channels // self.group

    @property
    def unknowns(self) -> int:
        """Per group and output channel."""
        return len(self.taps) * self.group_channels + self.bias

    @property
    def is_spread(self) -> bool:
        """True where zeros stand between the input's pixels."""
        return any(step != 1 for step in self.spread)

    def spread_out(self, spatial: Sequence[int]) -> tuple[int, ...]:
        """Spatial size of the input with its zeros."""
        if not self.is_spread:
            return tuple(spatial)
        return tuple((size - 1) * step + 1 for size, step in zip(spatial, self.spread, strict=True))

    def out_shape(self, spatial: Sequence[int]) -> tuple[int, ...]:
        """Spatial size of the output."""
        rank = len(self.kernel)
        return tuple(
            (size + self.pads[i] + self.pads[i + rank] - self.dilations[i] * (self.kernel[i] - 1) - 1)
            // self.strides[i]
            + 1
            for i, size in enumerate(self.spread_out(spatial))
        )

    def columns(self, weight: Array, bias: Array | None) -> Array:
        """(out, in/group, *kernel) and (out,) -> (group, unknowns, out/group), float64."""
        outputs = weight.shape[0] // self.group
        shaped = weight.reshape(self.group, outputs, self.group_channels, len(self.taps))
        found = shaped.transpose(0, 3, 2, 1).reshape(self.group, -1, outputs).astype(np.float64)
        if not self.bias:
            return found
        offsets = np.zeros((self.group, 1, outputs)) if bias is None else bias.reshape(self.group, 1, outputs)
        return np.concatenate([found, offsets], axis=1)

    def weight(self, columns: Array) -> tuple[Array, Array | None]:
        """The inverse of `columns`, float32: weight and bias (None where the geometry has none)."""
        outputs = columns.shape[2]
        body = columns[:, :-1] if self.bias else columns
        shaped = body.reshape(self.group, len(self.taps), self.group_channels, outputs).transpose(0, 3, 2, 1)
        weight = shaped.reshape(self.group * outputs, self.group_channels, *self.kernel).astype(np.float32)
        return weight, columns[:, -1].reshape(-1).astype(np.float32) if self.bias else None

    def sample(self, x: Array, fraction: float, rng: np.random.Generator) -> Array:
        """Numbers of the output positions to use, (image, position) flattened and sorted; all of them for fraction >= 1."""
        total = len(x) * math.prod(self.out_shape(x.shape[2:]))
        if fraction >= 1:
            return np.arange(total)
        count = max(1, round(total * fraction))
        return np.sort(rng.choice(total, count, replace=False))

    def tile_rows(self) -> int:
        """Rows of one tile: few enough for float32 sums and for the cache."""
        return int(np.clip(TILE_BYTES // (4 * self.unknowns * self.group), 64, TILE_ROWS))

    def tiles(self, x: Array, rows: Array) -> Iterator[tuple[slice, Array]]:
        """Patches of the output positions ``rows`` of ``x`` (n, channels, *spatial): (part of ``rows``, (group, r, unknowns))."""
        if not len(rows):
            return
        bases, offsets, padded = self._places(len(x), x.shape[2:], rows)
        step = self.tile_rows()
        parts = [slice(start, min(start + step, len(rows))) for start in range(0, len(rows), step)]
        if self.is_spread or len(rows) * len(self.taps) * SPARSE > len(x) * math.prod(x.shape[2:]):
            flat = self._flatten(x, padded)
            for part in parts:
                yield part, self._gather(flat, (bases[part] + offset for offset in offsets), part)
            return
        pixels, places = np.unique(bases[:, None] + offsets, return_inverse=True)
        flat, places = self._pixels(x, pixels, padded), places.reshape(len(rows), -1)
        for part in parts:
            yield part, self._gather(flat, places[part].T, part)

    def _flatten(self, x: Array, padded: tuple[int, ...]) -> Array:
        """All padded pixels, (pixels, channels)."""
        spatial = x.shape[2:]
        last = np.moveaxis(x, 1, -1)
        if any(self.pads) or self.is_spread:
            room = np.zeros((len(x), *padded, self.channels), np.float32)
            steps = self.spread or (1,) * len(spatial)
            ends = self.spread_out(spatial)
            inside = (slice(p, p + end, step) for p, end, step in zip(self.pads, ends, steps, strict=False))
            room[(slice(None), *inside)] = last
            last = room
        return np.ascontiguousarray(last).reshape(-1, self.channels)

    def _pixels(self, x: Array, pixels: Array, padded: tuple[int, ...]) -> Array:
        """Some of the padded pixels, by their numbers: (pixels, channels). The others are not read."""
        spatial = x.shape[2:]
        image, *position = np.unravel_index(pixels, (len(x), *padded))
        inside, flat = np.ones(len(pixels), bool), np.zeros(len(pixels), np.int64)
        for at, pad, size in zip(position, self.pads, spatial, strict=False):
            inside &= (at >= pad) & (at < pad + size)
            flat = flat * size + at - pad
        found = np.zeros((len(pixels), self.channels), np.float32)
        found[inside] = x.reshape(len(x), self.channels, -1)[image[inside], :, flat[inside]]
        return found

    def _places(
        self, count: int, spatial: Sequence[int], rows: Array
    ) -> tuple[Array, Array, tuple[int, ...]]:
        """First padded pixel of every row's patch, offset of every tap, and the padded size."""
        rank = len(self.kernel)
        spread = self.spread_out(spatial)
        padded = tuple(size + self.pads[i] + self.pads[i + rank] for i, size in enumerate(spread))
        steps = np.array([math.prod(padded[i + 1 :]) for i in range(rank)], np.int64)
        image, *position = np.unravel_index(rows, (count, *self.out_shape(spatial)))
        bases = image * math.prod(padded)
        for axis in range(rank):
            bases = bases + position[axis] * self.strides[axis] * steps[axis]
        offsets = [
            sum(t * d * s for t, d, s in zip(tap, self.dilations, steps, strict=True)) for tap in self.taps
        ]
        return bases, np.array(offsets, np.int64), padded

    def _gather(self, flat: Array, taps: Iterable[Array], part: slice) -> Array:
        """Patches of ``part`` of the rows: per tap, the numbers of the pixels that it reads."""
        count, each = part.stop - part.start, self.group_channels
        room = np.empty((self.group, count, self.unknowns), np.float32)
        for t, places in enumerate(taps):
            found = flat[places]
            if self.group > 1:
                found = found.reshape(count, self.group, each).transpose(1, 0, 2)
            room[:, :, t * each : (t + 1) * each] = found
        if self.bias:
            room[:, :, -1] = 1
        return room


def targets_at(t: Array, rows: Array, group: int) -> Array:
    """Rows of a target map (n, out, *spatial) at output positions: (group, r, out/group), float32."""
    pixels = math.prod(t.shape[2:])
    if len(rows) * SPARSE < len(t) * pixels:
        image, place = np.divmod(rows, pixels)
        flat = t.reshape(len(t), t.shape[1], pixels)[image, :, place]
    else:
        flat = np.ascontiguousarray(np.moveaxis(t, 1, -1)).reshape(-1, t.shape[1])[rows]
    return np.ascontiguousarray(flat.reshape(len(rows), group, -1).transpose(1, 0, 2), np.float32)


@dataclass
class Gram:
    """Sums over rows, per group: ``h`` (group, n, n), ``s`` (group, n, out), ``energy`` (group, out), all float64.

    ``energy`` is the sum of squared targets; ``rows`` counts rows (or sums their weights).
    """

    h: Array
    s: Array
    energy: Array
    rows: float = 0.0

    @staticmethod
    def zeros(group: int, unknowns: int, outputs: int) -> Gram:
        """Empty statistics; ``outputs`` are those of one group."""
        return Gram(
            np.zeros((group, unknowns, unknowns)),
            np.zeros((group, unknowns, outputs)),
            np.zeros((group, outputs)),
        )

    def add(self, p: Array, t: Array, weights: Array | None = None) -> None:
        """One tile: patches (group, r, n), targets (group, r, out), and optionally a non-negative weight per row (r,)."""
        if weights is not None:
            root = np.sqrt(weights).astype(np.float32)[None, :, None]
            p, t = p * root, t * root
        turned = np.swapaxes(p, 1, 2)
        # The same buffer on both sides: numpy calls the symmetric rank-k update, half the work of a product.
        self.h += turned @ p
        self.s += turned @ t
        self.energy += np.einsum("gro,gro->go", t, t, dtype=np.float64)
        self.rows += float(p.shape[1]) if weights is None else float(weights.sum())

    def merge(self, other: Gram) -> None:
        """Add the statistics of other rows."""
        self.h += other.h
        self.s += other.s
        self.energy += other.energy
        self.rows += other.rows

    def error(self, columns: Array) -> float:
        """``sum |W' p - t|^2`` over all rows, for ``columns`` (group, n, out)."""
        quadratic = np.einsum("gno,gno->", columns, self.h @ columns)
        return float(max(quadratic - 2 * np.einsum("gno,gno->", columns, self.s) + self.energy.sum(), 0.0))

    def relative_error(self, columns: Array) -> float:
        """`error` over the energy of the targets."""
        total = float(self.energy.sum())
        return self.error(columns) / total if total else 0.0

    def predicted(self, columns: Array) -> Gram:
        """The same rows with ``W' p`` as their targets: what a layer makes of its own inputs."""
        s = self.h @ columns
        return Gram(self.h, s, np.einsum("gno,gno->go", columns, s), self.rows)

    def select(self, unknowns: Array) -> Gram:
        """Statistics of some of the unknowns (group 1 layers: channels that stay)."""
        return Gram(
            self.h[:, unknowns[:, None], unknowns[None, :]], self.s[:, unknowns], self.energy, self.rows
        )
