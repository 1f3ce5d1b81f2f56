"""Can the data carry what the passes are to learn from it? Copies and flat inputs count as what they teach: nothing new."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from edgec.graph.data import Dataset
from edgec.graph.errors import DataError
from edgec.passes.base import Need, Pass

Array = np.ndarray[Any, np.dtype[Any]]

FEWEST = 8
"""Different inputs that passes must have which choose channels or fit layers: with fewer they learn the inputs by heart
(ResNet-8, CIFAR-10, 70% of the MACs: top-1 of 89.0% becomes 10.8% with 1 picture, 40% with 3, 56% with 5)."""
FEW = 32
"""Below it the run says so."""
_BATCH = 8
_ROUNDING = frozenset({"quantize", "equalize", "round-weights", "correct-bias", "refit-quantized"})
"""Passes that learn no more than ranges and small corrections, which few inputs can carry."""


def check_enough(passes: Sequence[Pass], data: Dataset | None) -> tuple[str, ...]:
    """What is to be said of data that is little.

    Raises DataError for fewer than `FEWEST` different inputs where passes choose or fit by them, and for none that is not flat
    where ranges are learned.
    """
    reading = [one for one in passes if Need.DATA in one.needs]
    if data is None or data.is_random or not reading:
        return ()
    found = _different(data)
    fitting = [one.name for one in reading if one.name not in _ROUNDING]
    if not fitting and found:
        return ()
    what = f"{len(data)} inputs" if len(data) != 1 else "1 input"
    there = f"of {what}, {found or 'none'} differ from the others and are not flat"
    hint = f"Give at least {FEWEST} different ones of the kind that the network will see, better 100 or more, without labels."
    if not fitting:
        raise DataError("nothing to learn ranges from", where=data.name, why=there, hint=hint)
    if found < FEWEST:
        what = f"too few different inputs for {fitting[0]}"
        raise DataError(what, where=data.name, why=there, hint=hint)
    if found < FEW:
        return (
            f"only {found} different inputs for {fitting[0]}: what is fitted to so few may not hold on others",
        )
    return ()


def _different(data: Dataset) -> int:
    """Inputs that are no copies and not flat, counted up to `FEW`."""
    seen: set[bytes] = set()
    for feeds in data.batches(_BATCH):
        for rows in zip(*feeds.values(), strict=True):
            if not all(map(_is_flat, rows)):
                seen.add(hashlib.blake2b(b"".join(row.tobytes() for row in rows), digest_size=16).digest())
        if len(seen) >= FEW:
            break
    return len(seen)


def _is_flat(row: Array) -> bool:
    return row.size > 1 and bool(row.min() == row.max())
