"""What SLICE and STRIDED_SLICE keep of each axis: their masks, negative numbers and -1 sizes settled."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from edgec.graph.errors import ModelError
from edgec.graph.tflite.lift.call import Call

_BEFORE = int(np.iinfo(np.int64).min)
"""An end behind which even a step back stops nowhere."""


@dataclass(frozen=True)
class Cut:
    """Of one axis, as ONNX's Slice takes it."""

    start: int
    stop: int
    step: int = 1

    def is_whole(self, size: int) -> bool:
        """True where nothing of an axis goes."""
        return self.step == 1 and self.start == 0 and self.stop >= size


def cuts_of(call: Call) -> tuple[list[Cut], tuple[int, ...]]:
    """A cut for each axis, and the shape that they leave before axes are dropped or added."""
    found = list(_plain(call) if call.op.code == "SLICE" else _strided(call))
    if len(found) != len(call.shape()):
        why = f"it cuts {len(found)} axes of {len(call.shape())}"
        raise ModelError("the TFLite file is damaged", where=call.where, why=why)
    kept = tuple(len(range(size)[_slice(one)]) for size, one in zip(call.shape(), found, strict=True))
    return found, kept


def _slice(cut: Cut) -> slice:
    return slice(cut.start, None if cut.stop == _BEFORE else cut.stop, cut.step)


def _plain(call: Call) -> Iterator[Cut]:
    sizes = call.ints(2, "size")
    for axis, begin in enumerate(call.ints(1, "begin")):
        yield Cut(begin, call.shape()[axis] if sizes[axis] == -1 else begin + sizes[axis])


def _strided(call: Call) -> Iterator[Cut]:
    """The entries of begin, end and stride; an ellipsis stands for whole axes, a new axis for none."""
    begins, ends, steps = (call.ints(at, what) for at, what in ((1, "begin"), (2, "end"), (3, "stride")))
    masks = {
        name: int(call.option(f"{name}_mask", 0))
        for name in ("begin", "end", "ellipsis", "new_axis", "shrink_axis")
    }
    entries = [k for k in range(len(begins)) if not masks["new_axis"] >> k & 1]
    rank, axis = len(call.shape()), 0
    for place, k in enumerate(entries):
        if masks["ellipsis"] >> k & 1:
            behind = len(entries) - place - 1
            while axis < rank - behind:
                yield Cut(0, call.shape()[axis])
                axis += 1
            continue
        yield _one(
            call.shape()[axis], begins[k], ends[k], steps[k], {n: m >> k & 1 for n, m in masks.items()}
        )
        axis += 1
    for size in call.shape()[axis:]:
        yield Cut(0, size)


def _one(size: int, begin: int, end: int, step: int, masked: dict[str, int]) -> Cut:
    if masked["shrink_axis"]:
        at = begin % size
        return Cut(at, at + 1)
    low, high, step = slice(None if masked["begin"] else begin, None if masked["end"] else end, step).indices(
        size
    )
    return Cut(low, _BEFORE if high < 0 else high, step)
