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
    """What is made should be ``value``, or anything else that the activation makes the same of.

    ``offset`` is added before the activation (None: nothing); ``energy`` is that of the target behind it. All arrays are
    (n, *spatial, channels); the methods take what is made of some of the images. Bounds are found anew each time: kept, they
    would be two more maps of all images.
    """

    clipping: Clipping | None
    value: Array
    offset: Array | None
    energy: float

    @staticmethod
    def of(
        value: Array, offset: Array | None, clipping: Clipping | None, parts: Sequence[slice], threads: int
    ) -> BoundedTarget:
        """Of a target ``value``, some images at a time."""

        def energy(part: slice) -> float:
            there = None if offset is None else offset[part]
            return squared(behind(clipping, value[part], there))

        return BoundedTarget(clipping, value, offset, sum(in_order(energy, parts, threads)))

    def nearest(self, made: Array, part: slice) -> Array:
        """The nearest that would do, a new array."""
        value, offset = self._of(part)
        found = value if self.clipping is None else self.clipping.nearest(made, value, offset)
        return found.copy() if found is value else found

    def error(self, made: Array, part: slice) -> float:
        """Squared, behind the activation."""
        value, offset = self._of(part)
        return squared(behind(self.clipping, made, offset) - behind(self.clipping, value, offset))

    def _of(self, part: slice) -> tuple[Array, Array | None]:
        return self.value[part], None if self.offset is None else self.offset[part]

    def relative(self, error: float) -> float:
        """A sum of errors over the energy."""
        return error / self.energy if self.energy else 0.0


def behind(clipping: Clipping | None, value: Array, offset: Array | None) -> Array:
    """``value`` and ``offset`` behind the activation."""
    total = value if offset is None else value + offset
    return total if clipping is None else clipping.apply(total)
