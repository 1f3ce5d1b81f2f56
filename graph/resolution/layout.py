"""What moves values: reshapes, transposes, joins, cuts, margins."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import onnx_ir as ir

from edgec.graph.resolution.axes import BATCH_AXIS, Axis, Factor, Run, Side, fixed, refused, regrouped
from edgec.graph.resolution.grids import regrown
from edgec.graph.resolution.pointwise import joined
from edgec.graph.resolution.trace import Rule, Walk, integers, side_at
from edgec.graph.views import attribute, constant, is_constant

_END = np.iinfo(np.int64).max


def _reshape(walk: Walk, node: ir.Node) -> None:
    axes, out = walk.axes(node.inputs[0]), node.outputs[0]
    sizes = list(out.shape or ())
    open_batch = bool(axes) and axes[0].batch
    if open_batch and (not sizes or isinstance(sizes[0], int)):
        raise refused(node, "it merges the batch with the map")
    targets = [int(size) for size in sizes[open_batch:] if isinstance(size, int)]
    if len(targets) != len(sizes) - open_batch:
        raise refused(node, "its sizes are open")
    result = (*((BATCH_AXIS,) if open_batch else ()), *regrouped(node, axes[open_batch:], targets))
    if node.op_type == "Flatten":
        # Flatten folds all axes around one: at any size of the map the same ones.
        walk.set(out, result)
        return
    given = integers(node, 1) or []
    if any(axis.old != axis.new for axis in result) or any(axis.old != axis.new for axis in axes):
        lead = [-1 if given[0] == -1 else 0] if open_batch else []
        told = [*lead, *(axis.new for axis in result[open_batch:])]
        if attribute(node, "allowzero", 0) and lead == [0]:
            told[0] = -1
        if told != given:
            walk.edit(node, 1, told)
    walk.set(out, result)


def _squeeze(walk: Walk, node: ir.Node) -> None:
    axes = walk.axes(node.inputs[0])
    given = integers(node, 1)
    over = [i for i, axis in enumerate(axes) if axis.old == 1] if given is None else given
    gone = {i % len(axes) for i in over}
    if any(axes[i].new != 1 for i in gone):
        raise refused(node, "it drops an axis that is longer than 1 at this size")
    walk.set(node.outputs[0], tuple(axis for i, axis in enumerate(axes) if i not in gone))


def _unsqueeze(walk: Walk, node: ir.Node) -> None:
    axes = list(walk.axes(node.inputs[0]))
    given = integers(node, 1) or []
    for at in sorted(i % (len(axes) + len(given)) for i in given):
        axes.insert(at, Axis.of(fixed(1)))
    walk.set(node.outputs[0], tuple(axes))


def _transpose(walk: Walk, node: ir.Node) -> None:
    axes = walk.axes(node.inputs[0])
    order = attribute(node, "perm", tuple(reversed(range(len(axes)))))
    walk.set(node.outputs[0], tuple(axes[i] for i in order))


def _concat(walk: Walk, node: ir.Node) -> None:
    computed = [walk.axes(value) for value in node.inputs if not is_constant(value)]
    at = attribute(node, "axis", 0) % len(computed[0])
    others = joined(node, [(*one[:at], *one[at + 1 :]) for one in computed])
    parts: list[Axis] = []
    for index, value in enumerate(node.inputs):
        array = constant(value)
        if array is None:
            parts.append(walk.axes(value)[at])
            continue
        mine = Axis.of(fixed(array.shape[at]))
        new = regrown(walk, node, array, (*others[:at], mine, *others[at:]))
        if new is not None:
            walk.edit(node, index, new)
        parts.append(mine)
    whole = Axis(tuple(_merged([run for axis in parts for run in axis.runs])))
    walk.set(node.outputs[0], (*others[:at], whole, *others[at:]))


def _merged(runs: Sequence[Run]) -> list[Run]:
    """Runs beside one another that nothing changes are one."""
    found: list[Run] = []
    for run in runs:
        plain = not any(one.side for one in run)
        if plain and found and not any(one.side for one in found[-1]):
            found[-1] = (fixed(Axis((found[-1],)).old + Axis((run,)).old),)
        else:
            found.append(run)
    return found


def _cut(node: ir.Node, axis: Axis, start: int, stop: int) -> tuple[Axis, int, int]:
    """Entries ``start`` to ``stop`` of the source's axis, and where they begin and end at the other size."""
    runs: list[Run] = []
    old = new = begin = end = 0
    for run in axis.runs:
        one = Axis((run,))
        low, high = max(start, old), min(stop, old + one.old)
        if low == start:
            begin = new if one.follows else new + low - old
        if low < high:
            if one.follows and (low, high) != (old, old + one.old):
                raise refused(node, f"it cuts {high - low} of the {one.old} places of the map")
            runs.append(run if one.follows or high - low == one.old else (fixed(high - low),))
            end = new + one.new if one.follows else new + high - old
        old, new = old + one.old, new + one.new
    return Axis(tuple(runs) or ((fixed(0),),)), begin, end


def _slice(walk: Walk, node: ir.Node) -> None:
    axes = list(walk.axes(node.inputs[0]))
    starts, ends = integers(node, 1) or [], integers(node, 2) or []
    over = integers(node, 3) or list(range(len(starts)))
    steps = integers(node, 4) or [1] * len(starts)
    new_starts, new_ends = list(starts), list(ends)
    for i, where in enumerate(over):
        at = where % len(axes)
        if axes[at].batch:
            continue
        axes[at], new_starts[i], new_ends[i] = _sliced(node, axes[at], starts[i], ends[i], steps[i])
    if new_starts != starts:
        walk.edit(node, 1, new_starts)
    if new_ends != ends:
        walk.edit(node, 2, new_ends)
    walk.set(node.outputs[0], tuple(axes))


def _sliced(node: ir.Node, axis: Axis, start: int, end: int, step: int) -> tuple[Axis, int, int]:
    """What is left of ``axis``, and the bounds at the other size."""
    old = axis.old
    if not axis.follows:
        return Axis.of(fixed(len(range(old)[slice(start, end, step)]))), start, end
    if axis.sole is not None:
        if end == old and end < _END:
            end = _END
        if step < 0 or (0 <= end < old) or start < 0:
            raise refused(node, f"it cuts a fixed part of a map of {old}")
        sizes = [len(range(one)[slice(start, end, step)]) for one in axis.sizes]
        return axis.scaled(sizes[0], sizes[1], Fraction(step)), start, end
    if step != 1:
        raise refused(node, f"it takes every {step}th of an axis that several maps were merged into")
    positions = range(old)[slice(start, end, step)]
    cut, begin, stop = _cut(node, axis, positions.start, positions.stop)
    return cut, begin, stop


def _split(walk: Walk, node: ir.Node) -> None:
    axes = walk.axes(node.inputs[0])
    at = attribute(node, "axis", 0) % len(axes)
    given = integers(node, 1)
    sizes = given or [int((value.shape or [0])[at]) for value in node.outputs]
    told, start = [], 0
    for size, value in zip(sizes, node.outputs, strict=True):
        if axes[at].follows:
            part, begin, end = _cut(node, axes[at], start, start + size)
        else:
            part, begin, end = Axis.of(fixed(size)), 0, size
        told.append(end - begin)
        walk.set(value, (*axes[:at], part, *axes[at + 1 :]))
        start += size
    if given is None and axes[at].follows and len(set(told)) > 1:
        raise refused(node, "it cuts a map into equal parts")
    if given is not None and told != given:
        walk.edit(node, 1, told)


def _gather(walk: Walk, node: ir.Node) -> None:
    axes, indices = walk.axes(node.inputs[0]), constant(node.inputs[1])
    at = attribute(node, "axis", 0) % len(axes)
    if indices is None or walk.follows(node.inputs[1]):
        raise refused(node, "its indices are computed")
    if axes[at].follows:
        first = Axis((axes[at].runs[0],))
        if first.follows or indices.min() < 0 or int(indices.max()) >= first.old:
            raise refused(node, f"it picks among the {axes[at].old} places of a map")
    inner = tuple(Axis.of(fixed(size)) for size in indices.shape)
    walk.set(node.outputs[0], (*axes[:at], *inner, *axes[at + 1 :]))


def _pad(walk: Walk, node: ir.Node) -> None:
    axes = list(walk.axes(node.inputs[0]))
    pads = integers(node, 1) or []
    over = integers(node, 3) or list(range(len(axes)))
    for i, where in enumerate(over):
        before, after = pads[i], pads[i + len(over)]
        axis = axes[where % len(axes)]
        if not before and not after:
            continue
        if axis.follows and axis.sole is None:
            raise refused(node, "it gives a margin to an axis that several maps were merged into")
        more = before + after
        axes[where % len(axes)] = (
            axis.scaled(axis.old + more, axis.new + more) if axis.follows else Axis.of(fixed(axis.old + more))
        )
    walk.set(node.outputs[0], tuple(axes))


def _expand(walk: Walk, node: ir.Node) -> None:
    """To the size of a map that was met before."""
    axes, target = walk.axes(node.inputs[0]), integers(node, 1) or []
    rank = max(len(axes), len(target))
    padded = [*[Axis.of(fixed(1))] * (rank - len(axes)), *axes]
    told = [1] * (rank - len(target)) + target
    result = [
        _grown(walk, axis, size, side_at(i, rank))
        for i, (axis, size) in enumerate(zip(padded, told, strict=True))
    ]
    new = [size if axis.batch or size == 1 else axis.new for axis, size in zip(result, told, strict=True)]
    if new != told:
        walk.edit(node, 1, new[rank - len(target) :] if new[: rank - len(target)] else new)
    walk.set(node.outputs[0], tuple(result))


def _tile(walk: Walk, node: ir.Node) -> None:
    axes, times = walk.axes(node.inputs[0]), integers(node, 1) or []
    result = []
    for i, (axis, count) in enumerate(zip(axes, times, strict=True)):
        if axis.follows and count != 1:
            if axis.sole is None:
                raise refused(node, "it repeats an axis that several maps were merged into")
            result.append(Axis.of(*axis.runs[0], fixed(count)))
        else:
            result.append(_grown(walk, axis, axis.old * count, side_at(i, len(axes))))
    told = [
        count if axis.batch or axis.follows else after.new // max(1, axis.new)
        for axis, after, count in zip(axes, result, times, strict=True)
    ]
    if told != times:
        walk.edit(node, 1, told)
    walk.set(node.outputs[0], tuple(result))


def _grown(walk: Walk, axis: Axis, size: int, side: Side) -> Axis:
    """An axis that is stretched to ``size``; ``side``: of a map that it may be."""
    if axis.batch or axis.follows or size in (1, axis.old):
        return axis
    known = walk.level(side, size) or walk.level("", size) if axis.old == 1 and side else None
    return known or Axis.of(Factor(size, size))


RULES: dict[str, Rule] = {
    **dict.fromkeys(("Reshape", "Flatten"), _reshape),
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Transpose": _transpose,
    "Concat": _concat,
    "Slice": _slice,
    "Split": _split,
    "Gather": _gather,
    "Pad": _pad,
    "Expand": _expand,
    "Tile": _tile,
}
