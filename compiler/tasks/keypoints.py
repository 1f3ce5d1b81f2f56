"""Keypoints from heatmaps: the highest place of each map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from edgec.compiler.tasks.measure import Measure, change, over_samples, ratio
from edgec.compiler.tasks.task import Truth

Array = np.ndarray[Any, np.dtype[Any]]

NEAR = 0.05
"""Of the picture's longer side: two keypoints that are nearer are the same."""
SEEN = 0.2
"""Of the picture's highest map: a keypoint counts from this height on, others lie anywhere."""


@dataclass(frozen=True)
class Keypoints:
    """Output ``output`` is (samples, keypoints, height, width), or has the keypoints last; ``size``: of the input."""

    size: tuple[int, int]
    output: int = 0
    channels_last: bool = False
    name: Literal["keypoints"] = "keypoints"

    def tally(self) -> KeypointsTally:
        return KeypointsTally(self)

    def points(self, outputs: Sequence[Array]) -> Array:
        """(samples, keypoints, 3): x and y in pixels of the input, height of the map."""
        maps = np.asarray(outputs[self.output], np.float64)
        maps = np.moveaxis(maps, -1, 1) if self.channels_last else maps
        height, width = maps.shape[2:]
        flat = maps.reshape(*maps.shape[:2], -1)
        at = flat.argmax(axis=2)
        x = (at % width + 0.5) * self.size[1] / width
        y = (at // width + 0.5) * self.size[0] / height
        return np.stack([x, y, flat.max(axis=2)], axis=2)

    @property
    def near(self) -> float:
        """Pixels within which two keypoints are the same."""
        return NEAR * max(self.size)

    def answers(self, outputs: Sequence[Array]) -> list[dict[str, Any]]:
        return [{"keypoints": sample.tolist()} for sample in self.points(outputs)]


@dataclass
class KeypointsTally:
    """By sample: keypoints, those that stay near, and how far they moved."""

    task: Keypoints
    errors: list[float] = field(default_factory=list)
    changed: list[bool] = field(default_factory=list)
    rows: list[Array] = field(default_factory=list)
    right: list[Array] = field(default_factory=list)
    source_right: list[Array] = field(default_factory=list)

    def add(self, source: Sequence[Array], ours: Sequence[Array], truth: Truth | None) -> None:
        for number, (wanted, made) in enumerate(
            zip(self.task.points(source), self.task.points(ours), strict=True)
        ):
            seen = wanted[:, 2] >= SEEN * wanted[:, 2].max()
            row = self._row(wanted, made, seen)
            self.rows.append(row)
            self.errors.append(float(row[2] / max(row[1], 1)))
            self.changed.append(bool(row[0] < row[1]))
            if truth is not None:
                label = np.asarray(truth[number], np.float64)
                there = label[:, 2] > 0 if label.shape[1] > 2 else np.ones(len(label), bool)
                self.right.append(self._row(label, made, there))
                self.source_right.append(self._row(label, wanted, there))

    def _row(self, wanted: Array, made: Array, seen: Array) -> Array:
        """Near, all, sum of distances."""
        far = np.hypot(*(wanted[seen, :2] - made[seen, :2]).T)
        return np.array([(far <= self.task.near).sum(), seen.sum(), far.sum()], np.float64)

    def figures(self) -> dict[str, Any]:
        measures: list[Measure] = []
        within = f"within {self.task.near:.3g} px of"
        if self.right:
            ours, theirs = np.array(self.right), np.array(self.source_right)
            measures += self._pair(
                f"Keypoints {within} the labels", "labels", ours, change(ours, theirs, ratio)
            )
        measures += self._pair(f"Keypoints {within} the original's", "source", np.array(self.rows), {})
        return {"measures": tuple(measures)}

    def _pair(
        self, name: str, against: Literal["source", "labels"], rows: Array, moved: Any
    ) -> list[Measure]:
        lost = int(rows[:, 1].sum() - rows[:, 0].sum())
        near = over_samples(
            name,
            rows,
            ratio,
            against=against,
            of="keypoints",
            count=int(rows[:, 1].sum()),
            lost=lost,
            **moved,
        )
        distance = over_samples(
            "Mean distance",
            rows[:, [2, 1]],
            ratio,
            against=against,
            unit="px",
            lower_is_better=True,
            best=0.0,
        )
        return [near, distance]
