"""Batches of augmented inputs, each decided by its number and the seed alone: a run that goes on later sees the same ones.

Teachers are certain of the pictures that they were trained on, and calibration pictures often are those. What they have to
weigh are pictures that they never saw: turned, shifted and scaled a little, brighter or darker, and mixtures of two of them
(mixup, arXiv 1710.09412). The teacher looks at the same view as the student, so any task may be shown any view; mirrored ones
only where the data say so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from edgec.graph.data import Dataset

Array = np.ndarray[Any, np.dtype[Any]]
Feeds = dict[str, Array]

IN_MEMORY = 1 << 30
"""Bytes of inputs that are read once and kept; more are read again for every batch."""
LOOKED_AT = 64
"""Samples from which the range and the spread of the values are taken."""
TURN, GROW, SHIFT, LIGHT = math.radians(10), 0.12, 0.08, 0.15
"""Largest angle, growth (as a logarithm), shift (of the side), and change of contrast and of brightness (of the spread)."""
LEAST_SHARE = 0.3
"""Of either picture in a mixture."""


@dataclass(frozen=True)
class Kinds:
    """What may be done to the inputs. ``channels_last``: names of those with pixels of (height, width, channels)."""

    hflip: bool
    pictures: bool
    mixup: bool
    channels_last: frozenset[str] = frozenset()


class Views:
    """Batches of ``size`` views of ``data``."""

    def __init__(self, data: Dataset, size: int, kinds: Kinds, seed: int) -> None:
        self.data, self.kinds, self.seed = data, kinds, seed
        self.size = min(size, len(data))
        self.per_round = len(data) // self.size
        self._held = _read(data) if _bytes(data) <= IN_MEMORY else None
        some = self.read(range(min(LOOKED_AT, len(data))))
        self._ranges = {name: _Range.of(array) for name, array in some.items()}

    def read(self, places: Sequence[int]) -> Feeds:
        """The samples at ``places``, as they are."""
        if self._held is not None:
            return {name: array[list(places)] for name, array in self._held.items()}
        return self.data.source.read([self.data.indices[place] for place in places])

    def batch(self, number: int) -> Feeds:
        """Every round shows each sample once, but for those that fill no batch."""
        turn, place = divmod(number, self.per_round)
        order = np.random.default_rng([self.seed, 0, turn]).permutation(len(self.data))
        chosen = order[place * self.size : (place + 1) * self.size]
        return self.changed(self.read(chosen.tolist()), np.random.default_rng([self.seed, 1, number]))

    def changed(self, feeds: Feeds, rng: np.random.Generator, mixed: float = 0.5) -> Feeds:
        """Views of ``feeds``; ``mixed``: the share of those that are mixtures."""
        if self.kinds.pictures:
            move = _Move.drawn(rng, _count(feeds), self.kinds.hflip)
            feeds = {name: self._moved(name, array, move, rng) for name, array in feeds.items()}
        return _mixed(feeds, rng, mixed) if self.kinds.mixup else feeds

    def _moved(self, name: str, array: Array, move: _Move, rng: np.random.Generator) -> Array:
        if array.ndim != 4 or array.dtype.kind != "f":
            return array
        last = name in self.kinds.channels_last
        picture = array.transpose(0, 3, 1, 2) if last else array
        lit = self._ranges[name].lit(move.applied(picture), rng)
        return np.ascontiguousarray(lit.transpose(0, 2, 3, 1) if last else lit)


@dataclass(frozen=True)
class _Move:
    """One affine map for each sample, (N, 2, 3), in torch's terms."""

    maps: Array

    @staticmethod
    def drawn(rng: np.random.Generator, count: int, hflip: bool) -> _Move:
        angle = rng.uniform(-TURN, TURN, count)
        grown = np.exp(rng.uniform(-GROW, GROW, count))
        shift = rng.uniform(-2 * SHIFT, 2 * SHIFT, (count, 2))  # torch's coordinates go from -1 to 1
        side = np.where(rng.random(count) < 0.5, -1.0, 1.0) if hflip else np.ones(count)
        cos, sin = grown * np.cos(angle), grown * np.sin(angle)
        rows = [np.stack([side * cos, -sin, shift[:, 0]], 1), np.stack([side * sin, cos, shift[:, 1]], 1)]
        return _Move(np.stack(rows, 1).astype(np.float32))

    def applied(self, pictures: Array) -> Array:
        x = torch.from_numpy(np.ascontiguousarray(pictures))
        grid = F.affine_grid(torch.from_numpy(self.maps), list(x.shape), align_corners=False)
        moved = F.grid_sample(x, grid.to(x.dtype), padding_mode="reflection", align_corners=False)
        return np.asarray(moved.numpy())


@dataclass(frozen=True)
class _Range:
    """Of an input's values, channel by channel where it is a picture: no view leaves what the network is used to."""

    low: float
    high: float
    spread: float

    @staticmethod
    def of(array: Array) -> _Range:
        real = array.astype(np.float64)
        return _Range(float(np.min(real)), float(np.max(real)), float(np.std(real)))

    def lit(self, pictures: Array, rng: np.random.Generator) -> Array:
        shape = (len(pictures), 1, 1, 1)
        contrast = rng.uniform(1 - LIGHT, 1 + LIGHT, shape).astype(np.float32)
        added = rng.uniform(-LIGHT, LIGHT, (len(pictures), pictures.shape[1], 1, 1)) * self.spread
        mean = pictures.mean(axis=(1, 2, 3), keepdims=True, dtype=np.float32)
        changed = (pictures - mean) * contrast + mean + added.astype(np.float32)
        clipped: Array = np.clip(changed, self.low, self.high)
        return clipped


def _mixed(feeds: Feeds, rng: np.random.Generator, part: float) -> Feeds:
    """Some of the samples mixed with the next one of the batch, in all inputs alike."""
    count = _count(feeds)
    shares = np.where(rng.random(count) < part, rng.uniform(LEAST_SHARE, 1 - LEAST_SHARE, count), 1.0)
    if any(array.dtype.kind != "f" for array in feeds.values()):
        return feeds
    found = {}
    for name, array in feeds.items():
        share = shares.reshape(-1, *(1,) * (array.ndim - 1)).astype(array.dtype)
        found[name] = share * array + (1 - share) * np.roll(array, 1, axis=0)
    return found


def _count(feeds: Mapping[str, Array]) -> int:
    return len(next(iter(feeds.values())))


def _bytes(data: Dataset) -> int:
    one = data.source.read(data.indices[:1])
    return len(data) * sum(array.nbytes for array in one.values())


def _read(data: Dataset) -> Feeds:
    parts = list(data.batches(100))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
