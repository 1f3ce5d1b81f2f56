"""What a metric judges on: inputs as the network takes them, and what came beside them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import onnx_ir as ir

from edgec.graph.data import Dataset

Array = np.ndarray[Any, np.dtype[Any]]

_BATCH = 32


class Samples:
    """What a metric judges on: inputs as the network takes them, and what came beside them.

    Goes through batches ``(x, y)`` of at most 32 samples, as a DataLoader does; ``x`` and ``y`` hold all at once. x is an array,
    or a dict by input where the model has several; y is None where the data has no labels.
    """

    def __init__(self, data: Dataset, targets: Any = None, label_offset: int = 0) -> None:
        labels = data.labels if targets is None else targets
        classes = isinstance(labels, np.ndarray) and labels.ndim == 1 and labels.dtype.kind in "iu"
        self._data = data
        self._y = labels + label_offset if classes and labels is not None else labels

    def __len__(self) -> int:
        return len(self._data)

    def at(self, model: ir.Model) -> Samples:
        """The same for a network that takes its picture at another size."""
        found = Samples(self._data.at(model))
        found._y = self._y
        return found

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        return self.batches(_BATCH)

    def batches(self, size: int) -> Iterator[tuple[Any, Any]]:
        """``(x, y)`` of ``size`` samples at a time; memory holds one batch."""
        done = 0
        for feeds in self._data.batches(size):
            count = len(next(iter(feeds.values())))
            yield alone(feeds), None if self._y is None else self._y[done : done + count]
            done += count

    @property
    def x(self) -> Any:
        """All inputs at once."""
        return alone(next(iter(self._data.batches(len(self)))))

    @property
    def y(self) -> Any:
        """Class labels as an array, or whatever came beside the samples: an array where it has one shape, else a tuple."""
        return self._y


def alone(values: Mapping[str, Array]) -> Any:
    """The array, where there is one; else all of them by name."""
    return next(iter(values.values())) if len(values) == 1 else dict(values)
