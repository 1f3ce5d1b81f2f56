"""Constants as large as a map: grids and anchors of detectors are made anew, what was learned for a size is not.

A constant is a grid where every entry is a plane over the map: ``a + b*y + c*x``, level by level where a Concat joined several.
What becomes of a plane at another size is read off its slope:

1. it does not rise: a stride, an anchor in pixels. It stays; where all entries are at most 1 they are shares of the picture, and
   what they stand for in pixels stays.
2. one entry of the picture's size to the next is a share of it (``(x + 0.5) * stride / width``, or ``(x + 0.5) / places``): it
   stays one.
3. it runs from end to end (-1 to 1, 0 to 1): it goes on doing so.
4. it counts places or pixels (slope 1, or the stride): it goes on with the same slope.

Anything else, as a position embedding, is refused by the name of the node that reads it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from edgec.graph.resolution.axes import Axis, Factor, Run, refused
from edgec.graph.resolution.trace import Walk

Array = np.ndarray[Any, np.dtype[Any]]
Plane = tuple[Array, dict[int, Array]]
"""Value at the first place, and what it gains by one place along each axis: arrays over the axes that do not follow."""
CLOSE = 1e-4
"""Relative to the largest entry: what float32 leaves of a plane."""


def regrown(walk: Walk, node: ir.Node, array: Array, axes: Sequence[Axis]) -> Array | None:
    """``array``, which broadcasts with ``axes``, at the other size; None where it does not vary along what follows.

    Raises SizeError for what is no grid.
    """
    over = [i for i, axis in enumerate(axes) if axis.follows and array.shape[i] != 1]
    if not over:
        return None
    if array.dtype.kind not in "fiu":
        raise refused(node, _why(array))
    runs = [[(run, Axis((run,))) for run in axes[i].runs] for i in over]
    blocks = [
        _block(node, array, axes, over, [run for run, _ in chosen]) for chosen in itertools.product(*runs)
    ]
    shares = all(block.flat for block in blocks) and _are_shares(array)
    made = [block.grown(walk, node, shares=shares, beside=False) for block in blocks]
    if any(found for _, found in made) and not all(found for _, found in made):
        # A level of one place says nothing by itself: it is of the kind of the others.
        again = zip(blocks, made, strict=True)
        made = [one if one[1] else block.grown(walk, node, shares=False, beside=True) for block, one in again]
    counts = [len(one) for one in runs]
    return _assembled([values for values, _ in made], counts, over).astype(array.dtype)


def in_pictures(walk: Walk, node: ir.Node, array: Array, axes: Sequence[Axis]) -> Array | None:
    """A factor of rows of places that is the picture's own size, or one over it, at the other size; None for any other.

    Boxes in pixels become shares of the picture, or the other way round, by it. Raises SizeError where a number is both sides.
    """
    rows = any(len({one.side for one in run} - {""}) == 2 for axis in axes for run in axis.runs)
    if node.op_type not in ("Mul", "Div") or not rows or array.dtype.kind != "f":
        return None
    (old_h, new_h), (old_w, new_w) = walk.side("h"), walk.side("w")
    flat = array.astype(np.float64).ravel()
    sides = [(old_w, new_w), (old_h, new_h)]
    if not all(any(_is_side(value, old) for old, _ in sides) for value in flat):
        return None
    if old_w == old_h and new_w != new_h and flat.size not in (2, 4):
        raise refused(node, f"it holds the picture's size, {old_w}, and of which side is not known")
    made = []
    for i, value in enumerate(flat):
        preferred = sides if i % 2 == 0 else sides[::-1]  # x, y, width, height
        old, new = next(pair for pair in preferred if _is_side(value, pair[0]))
        made.append(value * new / old if value > 1 else value * old / new)
    return np.asarray(made).reshape(array.shape).astype(array.dtype)


def _is_side(value: float, side: int) -> bool:
    return math.isclose(value, side, rel_tol=1e-6) or math.isclose(value * side, 1, rel_tol=1e-6)


def _assembled(made: Sequence[Array], counts: Sequence[int], over: Sequence[int]) -> Array:
    """Blocks in the order of `itertools.product`, joined along the axes ``over``, the last first."""
    parts = list(made)
    for count, axis in zip(reversed(counts), reversed(over), strict=True):
        parts = [np.concatenate(parts[i : i + count], axis=axis) for i in range(0, len(parts), count)]
    return parts[0]


def _are_shares(array: Array) -> bool:
    """Different numbers of at most 1: shares of the picture's sides, not pixels."""
    return bool(array.dtype.kind == "f" and 0 < array.min() < array.max() <= 1)


def _why(array: Array) -> str:
    what = f"a constant of {'x'.join(map(str, array.shape))} is made for the map's size"
    return f"{what}, and is no grid of it (a position embedding, a mask, learned offsets)"


@dataclass(frozen=True)
class _Block:
    """One run of every axis: ``values`` has an axis for each factor, ``factors`` says which."""

    values: Array
    factors: tuple[Factor | None, ...]
    grouping: tuple[tuple[int, ...], ...]
    """For each axis of the constant, the axes of ``values``."""
    whole: Array
    """The constant."""

    @property
    def places(self) -> list[int]:
        """Axes of ``values`` along the map."""
        return [i for i, one in enumerate(self.factors) if one is not None and one.side]

    @property
    def flat(self) -> bool:
        """Whether nothing rises along the map."""
        return bool(np.allclose(self.values, self._along([]), rtol=0, atol=CLOSE * _peak(self.values)))

    def _along(self, axes: Sequence[int]) -> Array:
        """The values at the first place, and at all places along ``axes``."""
        kept = tuple(
            slice(0, 1) if i in self.places and i not in axes else slice(None)
            for i in range(self.values.ndim)
        )
        return self.values[kept].astype(np.float64)

    def _steps(self, axis: int, count: int) -> Array:
        return np.arange(count).reshape([-1 if i == axis else 1 for i in range(self.values.ndim)])

    def plane(self, node: ir.Node) -> Plane:
        """Raises SizeError where the values are no plane."""
        start = fitted = self._along([])
        slopes = {}
        for axis in self.places:
            count = self.values.shape[axis]
            ends = self._along([axis])
            slopes[axis] = (np.take(ends, [-1], axis=axis) - start) / max(1, count - 1)
            fitted = fitted + slopes[axis] * self._steps(axis, count)
        if not np.allclose(fitted, self.values, rtol=0, atol=CLOSE * _peak(self.values)):
            raise refused(node, _why(self.whole))
        return start, slopes

    def grown(self, walk: Walk, node: ir.Node, *, shares: bool, beside: bool) -> tuple[Array, bool]:
        """The block at the other size, in the constant's own axes, and whether it holds places as shares of the picture.

        ``shares``: what does not rise are shares; ``beside``: other blocks of the constant hold places as shares.
        """
        start, slopes = self.plane(node)
        known = {
            axis: factor for axis, factor in enumerate(self.factors) if axis in slopes and factor is not None
        }
        if len({factor.side for factor in known.values()}) < len(known):
            raise refused(node, _why(self.whole))  # a relation of places to places
        rising, found = np.zeros(start.shape, bool), False
        for axis, factor in known.items():
            mine = np.abs(slopes[axis]) > CLOSE * _peak(self.values) / max(1, factor.old)
            rising |= mine
            if mine.any():
                slopes[axis], start, as_shares = _moved(
                    walk, node, factor, (slopes[axis], start), mine, self.whole
                )
                found |= as_shares
            elif factor.old == 1 < factor.new and (shares or beside or not self.flat):
                raise refused(
                    node, "a map of one place gets more of them, and its grid does not say how far apart"
                )
        start = _rescaled(walk, node, start, rising, found or beside, shares)
        result = start
        for axis, factor in known.items():
            result = result + slopes[axis] * self._steps(axis, factor.new)
        sizes = [math.prod(result.shape[i] for i in group) for group in self.grouping]
        return np.asarray(result.reshape(sizes)), found


def _moved(
    walk: Walk, node: ir.Node, factor: Factor, plane: tuple[Array, Array], mine: Array, whole: Array
) -> tuple[Array, Array, bool]:
    """Slope and start along one side at the other size, and whether they are shares of the picture."""
    slope, start = plane
    old_side, new_side = walk.side(factor.side)
    steps, stride = slope[mine], float(factor.stride)
    if np.allclose(steps * old_side, stride, rtol=1e-3):  # shares of the picture
        ratio = old_side / new_side
    elif np.allclose(steps * factor.old, 1, rtol=1e-3):  # shares of the map
        ratio = factor.old / factor.new
    elif _from_end_to_end(start[mine], steps, factor.old):
        ratio = (factor.old - 1) / max(1, factor.new - 1)
        return np.where(mine, slope * ratio, slope), start, False
    elif np.allclose(steps, 1, rtol=1e-3) or np.allclose(steps, stride, rtol=1e-3):  # places, or pixels
        return slope, start, False
    else:
        raise refused(node, f"{_why(whole)}; its steps are neither places, pixels, nor shares of the picture")
    return np.where(mine, slope * ratio, slope), np.where(mine, start * ratio, start), True


def _from_end_to_end(start: Array, steps: Array, count: int) -> bool:
    last = start + steps * (count - 1)
    return any(np.allclose(start, low, atol=1e-3) and np.allclose(last, 1, atol=1e-3) for low in (-1.0, 0.0))


def _rescaled(walk: Walk, node: ir.Node, start: Array, rising: Array, beside: bool, shares: bool) -> Array:
    """Entries that do not rise beside places as shares: widths and heights in shares, which are so many pixels still."""
    (old_h, new_h), (old_w, new_w) = walk.side("h"), walk.side("w")
    tall, wide = old_h / new_h, old_w / new_w
    width = start.shape[-1]
    if beside and width == 4:  # x, y, width, height
        by = np.array([1.0, 1.0, wide, tall])
    elif shares and width == 2:
        by = np.array([wide, tall])
    elif shares and math.isclose(tall, wide, rel_tol=1e-6):
        by = np.array([wide])
    elif shares:
        raise refused(node, "its entries are shares of the picture, and which side's is not known")
    else:
        return start
    return np.where(rising, start, start * by)


def _block(
    node: ir.Node, array: Array, axes: Sequence[Axis], over: Sequence[int], chosen: Sequence[Run]
) -> _Block:
    """The part of ``array`` that one run of each of the axes ``over`` makes."""
    part, at = array, dict(zip(over, chosen, strict=True))
    factors: list[Factor | None] = []
    grouping, sizes = [], []
    for axis, size in enumerate(array.shape):
        if axis not in at:
            if axes[axis].follows and size != 1:
                raise refused(node, _why(array))
            run: Sequence[Factor | None] = (None,)
            mine = [size]
        else:
            whole = axes[axis].runs
            begin = sum(Axis((one,)).old for one in whole[: _index(whole, at[axis])])
            part = np.take(part, range(begin, begin + Axis((at[axis],)).old), axis=axis)
            run, mine = at[axis], [one.old for one in at[axis]]
        grouping.append(tuple(range(len(factors), len(factors) + len(run))))
        factors += run
        sizes += mine
    return _Block(part.reshape(sizes), tuple(factors), tuple(grouping), array)


def _index(runs: Sequence[Run], wanted: Run) -> int:
    """Runs may be equal: the very one."""
    return next(i for i, run in enumerate(runs) if run is wanted)


def _peak(values: Array) -> float:
    return float(np.abs(values).max()) or 1.0
