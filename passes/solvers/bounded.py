"""What the last layer of a chain should make, where an activation behind it may hide the difference (`rectified`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgec.passes.solvers.parallel import in_order
from edgec.passes.solvers.rectified import Clipping, squared

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class BoundedTarget:
    """What is made should lie between ``least`` and ``most``: they are the same where nothing hides it.

    ``offset`` is added before the activation (None: nothing); ``energy`` is that of the target behind it. All arrays are
    (n, *spatial, channels); the methods take what is made of some of the images.
    """

    clipping: Clipping | None
    least: Array
    most: Array
    offset: Array | None
    energy: float

    @staticmethod
    def of(
        value: Array, offset: Array | None, clipping: Clipping | None, parts: Sequence[slice], threads: int
    ) -> BoundedTarget:
        """Of a target ``value``, some images at a time."""
        least, most = value, value
        if clipping is not None:
            least, most = np.empty_like(value), np.empty_like(value)

        def fill(part: slice) -> float:
            there = None if offset is None else offset[part]
            if clipping is not None:
                least[part], most[part] = clipping.between(value[part], there)
            return squared(behind(clipping, value[part], there))

        return BoundedTarget(clipping, least, most, offset, sum(in_order(fill, parts, threads)))

    def nearest(self, made: Array, part: slice) -> Array:
        """The nearest that would do, a new array."""
        found = np.maximum(made, self.least[part])
        return np.minimum(found, self.most[part], out=found)

    def error(self, made: Array, part: slice) -> float:
        """Squared, behind the activation."""
        offset = None if self.offset is None else self.offset[part]
        # Where the target is hidden one of the bounds is the activation's own, the other infinite.
        inside = np.minimum(self.most[part], np.float32(np.finfo(np.float32).max))
        return squared(behind(self.clipping, made, offset) - behind(self.clipping, inside, offset))

    def relative(self, error: float) -> float:
        """A sum of errors over the energy."""
        return error / self.energy if self.energy else 0.0


def behind(clipping: Clipping | None, value: Array, offset: Array | None) -> Array:
    """``value`` and ``offset`` behind the activation."""
    total = value if offset is None else value + offset
    return total if clipping is None else clipping.apply(total)
