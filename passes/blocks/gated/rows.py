"""Rows for one gated block: patches of what the student makes before it, and what the teacher makes behind it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from edgec.passes.solvers.gram import Patches, targets_at

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Rows:
    """``p`` (rows, n) raw patches with their constant, ``target`` (rows, out) of the whole sum, ``skip`` (rows, out) or None."""

    p: Array
    target: Array
    skip: Array | None

    @staticmethod
    def none(unknowns: int, outputs: int) -> Rows:
        """No rows."""
        return Rows(np.empty((0, unknowns), np.float32), np.empty((0, outputs), np.float32), None)

    @property
    def wanted(self) -> Array:
        """What is left for the block to make."""
        return self.target if self.skip is None else self.target - self.skip


class Collector:
    """Takes batches, keeps rows of sampled pixels."""

    def __init__(self, patches: Patches, fraction: float, seed: int) -> None:
        self.patches, self.fraction = patches, fraction
        self.rng = np.random.default_rng(seed)
        self.parts: list[tuple[Array, Array, Array | None]] = []

    def add(self, z: Array, target: Array, skip: Array | None) -> None:
        """One batch: the block's input (n, c, h, w), the teacher's value behind it, and what the skip makes (None: nothing)."""
        picked = self.patches.sample(z, self.fraction, self.rng)
        p = np.concatenate([tile[0] for _, tile in self.patches.tiles(z, picked)])
        found = targets_at(target, picked, 1)[0]
        self.parts.append((p, found, None if skip is None else targets_at(skip, picked, 1)[0]))

    def rows(self) -> Rows:
        """All of them."""
        ps, targets, skips = zip(*self.parts, strict=True)
        skip = None if skips[0] is None else np.concatenate(skips)
        self.parts.clear()
        return Rows(np.concatenate(ps), np.concatenate(targets), skip)
