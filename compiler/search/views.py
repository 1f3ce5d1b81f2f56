"""What the source says of a picture, over changes that leave what the picture shows as it is.

A network that takes a smaller picture answers differently where the source itself wavers: of a picture that is moved by a few
pixels, or given at a neighbouring size, it says something else too. Such answers are as often right as the source's, so they are
no loss, while a pruned network, which was fitted to the source's own answers, looks better by them than it is. So classes are
compared with the mean of the source's probabilities over

1. the picture moved by a quarter of the total stride, up, down, left and right;
2. the picture at sizes near the source's, larger and smaller, as long as the source says much the same there (`ALIKE`).

The size that is judged is left out of the mean, and what the source itself differs from the mean is no loss.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from edgec.compiler.search.divergence import calibrated_divergence, probabilities
from edgec.graph.data import Dataset
from edgec.graph.execute import Executor
from edgec.graph.resolution.axes import SizeError
from edgec.graph.resolution.resize import picture_of, resized, size_of, total_stride
from edgec.graph.resolution.trace import places

Array = np.ndarray[Any, np.dtype[Any]]
Size = tuple[int, int]
BATCH = 8
NEAR = 0.7
"""Least share of the source's area whose answers count."""
ALIKE = 4.0
"""Sizes count where the source is at most so many times further from the moved pictures' mean than those are."""
MOVES = ((1, 0), (-1, 0), (0, 1), (0, -1))


@dataclass(frozen=True)
class Views:
    """Probabilities (samples, classes) of the source's classes: of moved pictures, and by size."""

    moved: tuple[Array, ...]
    sized: Mapping[Size, Array]

    @staticmethod
    def of(source: ir.Model, data: Dataset, sizes: Sequence[Size], threads: int) -> Views:
        """Run ``source``, a classifier, on the views of ``data``; ``sizes`` are looked at too where they are near."""
        moved = tuple(_answers(source, views, threads) for views in _moved(source, data))
        middle = np.mean(moved, axis=0)
        apart = np.mean([calibrated_divergence(middle, one).mean() for one in moved])
        sized = {}
        for size in (*_larger(source), *sizes):
            if NEAR * _area(size_of(source)) <= _area(size):
                network = resized(source, size)
                found = _answers(network, data.at(network).batches(BATCH), threads)
                if calibrated_divergence(middle, found).mean() <= ALIKE * apart:
                    sized[size] = found
        return Views(moved, sized)

    def without(self, size: Size) -> Array:
        """(samples, classes) the mean over all views but those at ``size``."""
        others = [found for at, found in self.sized.items() if at != size]
        return np.asarray(np.mean([*self.moved, *others], axis=0))


def _moved(source: ir.Model, data: Dataset) -> list[Iterator[dict[str, Array]]]:
    picture = picture_of(source)
    name, axes, step = picture.name or "", places(picture), max(1, total_stride(source) // 4)

    def batches(move: tuple[int, int]) -> Iterator[dict[str, Array]]:
        for feeds in data.batches(BATCH):
            yield {**feeds, name: _shifted(feeds[name], axes, tuple(step * one for one in move))}

    return [batches(move) for move in MOVES]


def _shifted(x: Array, axes: Sequence[int], by: Sequence[int]) -> Array:
    """``x`` moved along ``axes``, with the pixels of its edge where nothing is known."""
    for axis, step in zip(axes, by, strict=True):
        places_of = np.clip(np.arange(x.shape[axis]) - step, 0, x.shape[axis] - 1)
        x = np.take(x, places_of, axis=axis)
    return x


def _larger(source: ir.Model) -> Iterator[Size]:
    """Half a stride more, and a whole one, where the network can."""
    stride, (tall, wide) = total_stride(source), size_of(source)
    for more in (max(1, stride // 2), stride):
        size = (tall + more, round(wide * (tall + more) / tall))
        try:
            resized(source, size)
        except SizeError:
            continue
        yield size


def _area(size: Size) -> int:
    return size[0] * size[1]


def _answers(network: ir.Model, batches: Iterator[dict[str, Array]], threads: int) -> Array:
    runner = Executor(network, threads=threads)
    return probabilities(np.concatenate([next(iter(runner.run(feeds).values())) for feeds in batches]))
