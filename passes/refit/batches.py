"""Calibration samples as recovery and pruning see them: in batches, mirrored and mixed ones beside them, judges last."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from edgec.graph.batch import sample_bytes
from edgec.graph.data import Dataset
from edgec.graph.errors import PassError
from edgec.graph.inputs import is_channels_last
from edgec.graph.views import is_constant
from edgec.passes.base import Context
from edgec.passes.incremental.executor import batch_size
from edgec.passes.solvers.guard import held_count

Array = np.ndarray[Any, np.dtype[Any]]
Feeds = dict[str, Array]

MEMORY = 128e6
"""Bytes of activations that a walk holds; what exceeds them goes to disk."""


@dataclass(frozen=True)
class Batches:
    """Calibration batches, those that score the fits last. With ``hflip``, every batch that is fitted comes mirrored too,
    and with ``mixup`` each mirrored picture is mixed with another one of its batch;
    ``mirror`` shows all of them mirrored. Activations above ``memory`` bytes go to disk."""

    feeds: Dataset
    held: Dataset
    size: int
    hflip: bool = False
    mirror: bool = False
    memory: float = MEMORY
    mixup: bool = False
    channels_last: frozenset[str] = frozenset()
    """Inputs of (N, height, width, channels), which mirroring must know."""
    largest: int = 0
    """Bytes of the largest map of a sample; 0: not known."""

    @staticmethod
    def of(
        context: Context, graph: ir.Graph, *, held_out: float, hflip: bool, mixup: bool = False
    ) -> Batches:
        """Split the context's data by its seed."""
        if context.data is None or not len(context.data):
            raise PassError("needs calibration data")
        size = batch_size(graph)
        fit, held = split(context.data, held_out, context.seed)
        made = (value for node in graph for value in node.outputs if not is_constant(value))
        largest = max(map(sample_bytes, made), default=0)
        return Batches(
            fit, held, size, hflip, mixup=mixup, channels_last=channels_last(graph), largest=largest
        )

    def __iter__(self) -> Iterator[Feeds]:
        return (feeds for _, feeds in self.numbered(range(self.count)))

    def numbered(self, numbers: Collection[int]) -> Iterator[tuple[int, Feeds]]:
        """The batches of these numbers, in order; samples of others are not read."""
        for number in range(self.first_held // self.each):
            views = [view for view in range(self.each) if number * self.each + view in numbers]
            if views:
                feeds = self._read(self.feeds, number)
                turned = mirrored(feeds, self.channels_last) if self.mirror or 1 in views else feeds
                both = (turned if self.mirror else feeds), (blended(turned, number) if self.mixup else turned)
                yield from ((number * self.each + view, both[view]) for view in views)
        for number in range(self.first_held, self.count):
            if number in numbers:
                yield number, self._read(self.held, number - self.first_held)

    def _read(self, data: Dataset, number: int) -> Feeds:
        start = number * self.size
        return next(data.only(range(start, min(start + self.size, len(data)))).batches(self.size))

    def enough(self, samples: float) -> tuple[int, ...]:
        """Numbers of so many batches that they hold ``samples`` to fit on, or all; those that judge are always among them.

        They are spread over all samples, whatever the order of these, and what is enough for fewer is a part of what is enough
        for more. Where the largest map of all of them takes no more than half of ``memory``, little is saved by taking fewer:
        then it is all.
        """
        if self.largest and self.samples * self.largest <= self.memory / 2:
            samples = self.samples
        found, seen = list(range(self.first_held, self.count)), 0
        for number in spread(self.first_held // self.each):
            if seen >= samples:
                break
            found += range(number * self.each, (number + 1) * self.each)
            seen += self.each * min(self.size, len(self.feeds) - number * self.size)
        return tuple(sorted(found))

    @property
    def each(self) -> int:
        """Batches that are made of the same samples."""
        return 1 + self.hflip

    @property
    def first_held(self) -> int:
        """Number of the first batch that is held out."""
        return -(-len(self.feeds) // self.size) * self.each

    @property
    def count(self) -> int:
        """Batches in all."""
        return self.first_held + -(-len(self.held) // self.size)

    @property
    def samples(self) -> int:
        """Samples that are fitted, mirrored ones included."""
        return len(self.feeds) * self.each


def spread(count: int) -> list[int]:
    """The numbers below ``count`` in an order whose beginnings are spread evenly: their bits backwards (van der Corput)."""
    bits = max(count - 1, 0).bit_length()
    backwards = (int(f"{number:0{bits}b}"[::-1], 2) if bits else 0 for number in range(1 << bits))
    return [number for number in backwards if number < count]


def split(data: Dataset, held_out: float, seed: int) -> tuple[Dataset, Dataset]:
    """Samples to fit on and samples that judge; none of the latter where ``held_out`` is 0, or where there is but one."""
    count = held_count(len(data), held_out)
    return data.split(count / len(data), seed) if count else (data, data.take(0))


def held_or_all(context: Context, held_out: float) -> Dataset | None:
    """The samples that judge; all of them where none are held out."""
    if context.data is None or not len(context.data):
        return context.data
    fit, held = split(context.data, held_out, context.seed)
    return held if len(held) else fit


def mirrored(feeds: Feeds, last: frozenset[str]) -> Feeds:
    """Pictures left to right; anything that is no picture as it is. ``last``: inputs of (N, height, width, channels)."""
    return {
        name: np.ascontiguousarray(np.flip(array, 2 if name in last else 3)) if array.ndim == 4 else array
        for name, array in feeds.items()
    }


def blended(feeds: Feeds, seed: int) -> Feeds:
    """Every picture with its neighbour in the batch, in random proportions (mixup, arXiv 1710.09412).

    Calibration pictures are often training pictures, of which the teacher is certain. What lies between two of them is what
    it has to weigh, as with pictures that it never saw.
    """
    rng = np.random.default_rng(seed)
    count = max((len(array) for array in feeds.values()), default=0)
    shares = rng.uniform(0.3, 0.7, count).astype(np.float32)
    found = {}
    for name, array in feeds.items():
        share = shares.reshape(-1, *(1,) * (array.ndim - 1))
        if array.ndim != 4:
            found[name] = array
            continue
        mixed = share * array + (1 - share) * np.roll(array, 1, axis=0)
        found[name] = mixed if array.dtype.kind == "f" else np.rint(mixed)
    return {name: array.astype(feeds[name].dtype, copy=False) for name, array in found.items()}


def wants_flips(choice: str, model: ir.Model) -> bool:
    """``auto``: where every input is a picture with three channels, mirroring shows the network something plausible."""
    if choice != "auto":
        return choice == "yes"
    last = channels_last(model.graph)
    shapes = [(value.shape, 3 if value.name in last else 1) for value in model.graph.inputs]
    return all(shape is not None and len(shape) == 4 and shape[axis] == 3 for shape, axis in shapes)


def channels_last(graph: ir.Graph) -> frozenset[str]:
    """Inputs that hold pictures of (N, height, width, channels)."""
    return frozenset(value.name or "" for value in graph.inputs if is_channels_last(value))
