"""Sizes that are worth a look under a budget, and what each would cost and lose."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgec.graph.resolution.axes import SizeError
from edgec.graph.resolution.resize import LEAST, resized, size_of, total_stride

Size = tuple[int, int]
MOST_LOOKED_AT = 12
"""Sizes whose loss is measured with the weights as they are."""


@dataclass(frozen=True)
class Candidate:
    """A size that the network can take, the network at it, and its cost in the budget's unit."""

    size: Size
    model: ir.Model
    cost: float


@dataclass(frozen=True)
class Refusal:
    """A size that it cannot take."""

    size: Size
    why: str


def sizes_below(source: Size, stride: int) -> list[Size]:
    """Smaller sizes of the same shape: steps of a quarter of the total stride, whole multiples of it always among them.

    Between those, maps end in the middle of a window; some networks mind (see docs/resolution.md), which measuring shows.
    """
    step = max(1, stride // 4)
    short = min(source)
    found = []
    for side in range(short - step, max(LEAST, stride) - 1, -step):
        ratio = side / short
        size = (round(source[0] * ratio), round(source[1] * ratio))
        if all(one % step == whole % step for one, whole in zip(size, source, strict=True)):
            found.append(size)
    return found


def candidates(
    model: ir.Model, cost: Callable[[ir.Model], float], limit: float
) -> tuple[tuple[Candidate, ...], tuple[Refusal, ...]]:
    """Legal sizes whose network costs ``limit`` or more, and the first below it; and those that are refused on the way.

    Raises SizeError where no other size can be, whatever it is.
    """
    source, found, refusals = size_of(model), [], []
    stride = total_stride(model)
    for size in sizes_below(source, stride):
        try:
            made = resized(model, size)
        except SizeError as error:
            refusals.append(Refusal(size, str(error)))
            continue
        found.append(Candidate(size, made, cost(made)))
        if found[-1].cost <= limit:
            break
    return tuple(_thinned(found, stride)), tuple(refusals)


def _thinned(found: Sequence[Candidate], stride: int) -> list[Candidate]:
    """At most `MOST_LOOKED_AT`, the last among them."""
    if len(found) <= MOST_LOOKED_AT:
        return list(found)
    places = np.unique(np.round(np.linspace(0, len(found) - 1, MOST_LOOKED_AT)).astype(int))
    return [found[place] for place in places]


def expected_loss(
    curve: Sequence[tuple[float, float]], at_budget: float, share: float, keep_loss: float
) -> float:
    """What removing channels down to ``share`` of a network loses, by the curve of the source.

    ``curve``: (share, modelled error) of the search that kept the size, which at ``at_budget`` lost ``keep_loss``.
    """
    if share >= 1 or not curve:
        return 0.0
    ordered = sorted({(1.0, 0.0), *curve})
    shares, errors = ([one[i] for one in ordered] for i in (0, 1))
    whole = float(np.interp(at_budget, shares, errors))
    return keep_loss * float(np.interp(share, shares, errors)) / whole if whole > 0 else 0.0
