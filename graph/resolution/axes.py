"""Axes of values whose sizes follow the picture's: what each is made of, now and at another size.

An axis is a row of runs, joined by a Concat; a run is a product of factors, merged by a Reshape. Rows of a detector are
``(h/8 * w/8) + (h/16 * w/16)``, tokens of an attention are ``h/16 * w/16``. So where a Reshape takes an axis apart again, it is
known which of its factors are the picture's and which are not.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Literal

import onnx_ir as ir

from edgec.graph.errors import UnsupportedError
from edgec.graph.provenance import place

Side = Literal["", "h", "w"]


class SizeError(UnsupportedError):
    """The network cannot take a size; ``where`` is the node that forbids it."""


def refused(node: ir.Node, why: str) -> SizeError:
    """``node`` forbids the size, because of ``why``."""
    return SizeError("the network cannot take this size", where=place(node), why=why)


@dataclass(frozen=True)
class Factor:
    """Part of an axis: ``old`` long at the source's size, ``new`` at the other one.

    ``side``: of the picture, which it follows; empty where it does not. ``stride``: pixels of that side from entry to entry.
    """

    old: int
    new: int
    side: Side = ""
    stride: Fraction = Fraction(1)


def fixed(size: int) -> Factor:
    """A factor that no size of the picture changes."""
    return Factor(size, size)


Run = tuple[Factor, ...]


@dataclass(frozen=True)
class Axis:
    """One axis of a value. ``batch``: the open one of the samples, which is left alone."""

    runs: tuple[Run, ...]
    batch: bool = False

    @staticmethod
    def of(*factors: Factor) -> Axis:
        """One run."""
        return Axis((tuple(factors),))

    @property
    def old(self) -> int:
        """Its size at the source's size."""
        return sum(math.prod(factor.old for factor in run) for run in self.runs)

    @property
    def new(self) -> int:
        """Its size at the other one."""
        return sum(math.prod(factor.new for factor in run) for run in self.runs)

    @property
    def follows(self) -> bool:
        """Whether the picture's size decides it."""
        return any(factor.side for run in self.runs for factor in run)

    @property
    def sole(self) -> Factor | None:
        """Its factor, where it has one and no other."""
        run = self.runs[0]
        return run[0] if len(self.runs) == 1 and len(run) == 1 else None

    @property
    def sizes(self) -> tuple[int, int]:
        """(old, new)."""
        return self.old, self.new

    def scaled(self, old: int, new: int, stride: Fraction = Fraction(1)) -> Axis:
        """Windows over this axis, ``stride`` entries apart: ``old`` and ``new`` of them."""
        factor = self.sole
        side: Side = next((one.side for run in self.runs for one in run if one.side), "")
        step = factor.stride if factor is not None else Fraction(1)
        return Axis.of(Factor(old, new, side, step * stride))


Axes = tuple[Axis, ...]
BATCH_AXIS = Axis(((Factor(1, 1),),), batch=True)


def plain(sizes: Iterable[object]) -> Axes:
    """Axes of a value that does not follow; an open size is the batch."""
    return tuple(Axis.of(fixed(size)) if isinstance(size, int) else BATCH_AXIS for size in sizes)


def regrouped(node: ir.Node, axes: Axes, targets: Sequence[int]) -> Axes:
    """The axes that a Reshape to ``targets`` (sizes at the source's size) makes of ``axes``; no batch among them.

    Factors keep their order. One that does not follow the picture may be taken apart; one that does may not.
    Raises SizeError.
    """
    queue, result = [axis for axis in axes if axis.old != 1 or axis.follows], []
    for target in targets:
        if queue and queue[0].old == target and (target != 1 or queue[0].follows):
            result.append(queue.pop(0))
            continue
        taken: Run = ()
        while math.prod(one.old for one in taken) < target:
            if not queue:
                raise refused(node, f"its sizes {list(targets)} do not follow from those of its input")
            left = target // math.prod(one.old for one in taken)
            first = queue.pop(0)
            if len(first.runs) > 1:
                raise refused(
                    node, f"it merges an axis of {first.old} that a Concat joined, or takes it apart"
                )
            run = [one for one in first.runs[0] if one.old != 1 or one.side] or [fixed(1)]
            factor, rest = run[0], run[1:]
            if factor.old > left:
                factor, other = _apart(node, factor, left)
                rest = [other, *rest]
            taken = (*taken, factor)
            if rest:
                queue.insert(0, Axis((tuple(rest),)))
        if math.prod(one.old for one in taken) != target:
            raise refused(node, f"its sizes {list(targets)} do not follow from those of its input")
        result.append(Axis((taken or (fixed(1),),)))
    if any(axis.old != 1 or axis.new != 1 for axis in queue):
        raise refused(node, f"its sizes {list(targets)} do not follow from those of its input")
    return tuple(result)


_BLOCK = 4
"""Sides of squares that become channels (a pixel unshuffle) are no longer than this; windows are."""


def _apart(node: ir.Node, factor: Factor, outer: int) -> tuple[Factor, Factor]:
    """``factor`` as ``outer`` times the rest."""
    inner = factor.old // outer
    if factor.old % outer:
        raise refused(node, f"it takes an axis of {factor.old} apart by {outer}")
    if not factor.side:
        return fixed(outer), fixed(inner)
    # Windows, or the squares of a pixel shuffle: which of the two is fixed is not written anywhere.
    if factor.new == factor.old or (inner <= _BLOCK < outer and factor.new % inner == 0):
        return replace(factor, old=outer, new=factor.new // inner, stride=factor.stride * inner), fixed(inner)
    why = f"it cuts an axis of {factor.old} pixels into {outer} x {inner} (windows, or patches), and does not say which stays"
    raise refused(node, why)
