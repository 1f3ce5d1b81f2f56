"""Errors of several candidates for one layer on the same rows, image by image, for `guard`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from edgec.passes.solvers.guard import Verdict, choose, judge, per_image
from edgec.passes.solvers.parallel import in_order
from edgec.passes.solvers.rectified import Clipping, Tile, squared

Array = np.ndarray[Any, np.dtype[Any]]


class Scores:
    """``candidates`` are columns (group, n, out), rounded to float32 as they will be stored. Rows are added tile by tile; none
    is kept. ``errors`` is (candidates, images), ``energy`` that of the target, both behind the activation where there is one.
    ``codes``: inputs or weights are 8-bit codes.
    """

    def __init__(
        self,
        candidates: Sequence[Array],
        images: int,
        clipping: Clipping | None = None,
        *,
        codes: bool = False,
    ) -> None:
        self.codes = codes
        self.weights = [columns.astype(np.float32) for columns in candidates]
        self.clipping = clipping
        self.errors = np.zeros((len(candidates), images))
        self.energy = 0.0

    def add(self, tile: Tile, images: Array) -> None:
        """Rows of one tile, and the image that each belongs to."""
        self.add_all([(tile, images)])

    def add_all(self, tiles: Iterable[tuple[Tile, Array]], threads: int = 1) -> None:
        """`add` each of them; ``threads`` change no result."""
        for errors, energy in in_order(lambda one: self._of(*one), tiles, threads):
            self.errors += errors
            self.energy += energy

    def _of(self, tile: Tile, images: Array) -> tuple[Array, float]:
        p, target, offset = tile
        clipping, count = self.clipping, self.errors.shape[1]
        if clipping is not None:
            target = clipping.apply(target if offset is None else target + offset)
        errors = np.empty_like(self.errors)
        for room, w in zip(errors, self.weights, strict=True):
            made = p @ w
            if clipping is not None:
                made = clipping.apply(made if offset is None else made + offset)
            room[:] = per_image(made - target, images, count)
        return errors, squared(target)

    @property
    def unknowns(self) -> int:
        """Of one prediction."""
        return int(self.weights[0].shape[1])

    def relative(self, number: int) -> float:
        """The error of one candidate over the energy."""
        return float(self.errors[number].sum()) / self.energy if self.energy else 0.0

    def verdict(self, condition: float = 1.0) -> Verdict:
        """Of the second candidate against the first."""
        before, after = self.errors
        return judge(
            before, after, self.energy, unknowns=self.unknowns, condition=condition, codes=self.codes
        )

    def choose(self, conditions: Sequence[float]) -> tuple[int, tuple[Verdict, ...]]:
        """`guard.choose` among the candidates, the first being what there was; ``conditions`` of the others."""
        first, *others = self.errors
        return choose(
            first, others, self.energy, unknowns=self.unknowns, conditions=conditions, codes=self.codes
        )
