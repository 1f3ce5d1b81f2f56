"""Removing units of channel groups from a model, in place.

Every constant that follows a removed atom is sliced, and every operator that counts channels is told the new
count: groups of depthwise convolutions, Reshape targets, Split sizes, Slice bounds, Pad amounts, Gather
indices. A Slice or a channel shuffle whose survivors are no longer regular becomes a Gather, which is exact.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import onnx_ir as ir

from edgec.graph.channels.atoms import Dims, Labels, Mask, varying
from edgec.graph.channels.group import ChannelGroup, Clusters
from edgec.graph.channels.rules_layers import grouping
from edgec.graph.channels.rules_layout import integers, pad_amounts, slice_positions, split_sizes
from edgec.graph.channels.trace import Shuffle, Slot, Trace
from edgec.graph.edit import take_over
from edgec.graph.errors import UnsupportedError, UsageError, did_you_mean
from edgec.graph.views import (
    add_initializer,
    attribute,
    constant,
    fresh_name,
    own_constant,
    set_attribute,
    set_constant,
)


def atoms_to_remove(clusters: Clusters, removals: Mapping[str, Sequence[int]]) -> Mask:
    """For every atom whether it goes; raises for groups and units that cannot."""
    by_name = {group.name: number for number, group in enumerate(clusters.groups)}
    gone = np.zeros(len(clusters.group_of), bool)
    for name, units in removals.items():
        if name not in by_name:
            raise UsageError(f"no channel group {name!r}", hint=did_you_mean(name, by_name))
        number = by_name[name]
        chosen = _checked(clusters.groups[number], units)
        gone |= (clusters.group_of == number) & np.isin(clusters.unit_of, chosen)
    return gone


def _checked(group: ChannelGroup, units: Sequence[int]) -> list[int]:
    chosen = sorted({int(unit) for unit in units})
    where = f"channel group {group.name!r}"
    if not chosen:
        return chosen
    if not group.prunable:
        raise UnsupportedError("cannot be pruned", where=where, why=group.reason)
    if chosen[0] < 0 or chosen[-1] >= group.size:
        raise UsageError(
            f"no unit {chosen[0] if chosen[0] < 0 else chosen[-1]}", where=where, why=f"it has {group.size}"
        )
    if len(chosen) == group.size:
        raise UsageError("all units would go", where=where, why="a group must keep at least one")
    return chosen


class Removal:
    """One edit of a traced model."""

    def __init__(self, trace: Trace, gone: Mask) -> None:
        self.trace = trace
        self.gone = gone
        self.graph: ir.Graph = trace.graph
        self.old: dict[ir.Value, Dims] = {value: trace.dims(value) for value in trace.values}

    def kept(self, value: ir.Value | None) -> tuple[int, Mask] | None:
        """The axis of ``value`` that loses channels and what survives on it; None when it stays whole."""
        if value is None or value not in self.trace.values:
            return None
        labels = self.trace.values[value]
        if not self.gone[labels].any():
            return None
        axis = varying(labels)[0]
        return axis, ~self.gone[labels.ravel()]

    def new_dims(self, value: ir.Value) -> Dims:
        """The shape after the removal."""
        dims, kept = list(self.old[value]), self.kept(value)
        if kept is not None:
            dims[kept[0]] = int(kept[1].sum())
        return tuple(dims)

    def run(self) -> None:
        for node in tuple(self.graph):
            fix = FIXES.get(node.op_type)
            touched = any(self.kept(v) for v in (*node.inputs, *node.outputs))
            if fix is not None and touched and node not in self.trace.done:
                fix(self, node)
        slice_constants(self.graph, self.trace.slots, self.gone)
        for value in self.old:
            if value.shape is not None and self.kept(value) is not None:
                axis, mask = self.kept(value) or (0, np.empty(0, bool))
                shape = list(value.shape)
                shape[axis] = int(mask.sum())
                value.shape = ir.Shape(shape)


def slice_constants(graph: ir.Graph, slots: Iterable[Slot], gone: Mask) -> None:
    """Cut constant operands to their surviving positions; readers that cut alike go on sharing a tensor."""
    cuts: dict[tuple[ir.Node, int], dict[int, Mask]] = {}
    for slot in slots:
        keep = ~gone[slot.labels]
        cuts.setdefault((slot.node, slot.operand), {})[slot.axis] = keep
    readers: dict[ir.Value, dict[tuple[tuple[int, bytes], ...], list[tuple[ir.Node, int]]]] = {}
    for (node, operand), masks in cuts.items():
        value = node.inputs[operand]
        if value is not None and not all(mask.all() for mask in masks.values()):
            key = tuple((axis, mask.tobytes()) for axis, mask in sorted(masks.items()))
            readers.setdefault(value, {}).setdefault(key, []).append((node, operand))
    for value, versions in readers.items():
        for key, places in versions.items():
            array = constant(value)
            if array is None:
                continue
            for axis, mask in key:
                array = np.compress(np.frombuffer(mask, bool), array, axis)
            alone = (
                value.is_initializer() and not value.is_graph_output() and len(value.uses()) == len(places)
            )
            if alone:
                set_constant(value, array)
                continue
            fresh = add_initializer(graph, value.name or places[0][0].name or "constant", array)
            for node, operand in places:
                node.replace_input_with(operand, fresh)
        if value.is_initializer() and not value.uses() and not value.is_graph_output():
            graph.initializers.pop(value.name or "", None)


def _fix_conv(removal: Removal, node: ir.Node) -> None:
    if grouping(node) == "by group" and (kept := removal.kept(node.inputs[0])) is not None:
        set_attribute(node, "group", int(attribute(node, "group", 1) * kept[1].sum() // len(kept[1])))


def _fix_target(removal: Removal, node: ir.Node) -> None:
    """Reshape and Expand: rewrite the entries that name a changed dimension; 0, -1 and batch entries stay."""
    if node in removal.trace.shuffles:
        _to_gather(removal, removal.trace.shuffles[node])
        return
    target = list(integers(node, 1) or ())
    new = removal.new_dims(node.outputs[0])
    offset = len(new) - len(target)
    changed = [
        entry if entry in (0, -1) or new[i + offset] is None else new[i + offset]
        for i, entry in enumerate(target)
    ]
    _set_ints(removal, node, 1, changed)


def _fix_resize(removal: Removal, node: ir.Node) -> None:
    sizes = integers(node, 3)
    kept = removal.kept(node.outputs[0])
    if sizes is None or kept is None:
        return
    axes = attribute(node, "axes", None) or tuple(range(len(sizes)))
    rank = len(removal.old[node.outputs[0]])
    changed = [
        int(kept[1].sum()) if axis % rank == kept[0] else size for axis, size in zip(axes, sizes, strict=True)
    ]
    _set_ints(removal, node, 3, changed)


def _fix_split(removal: Removal, node: ir.Node) -> None:
    kept = removal.kept(node.inputs[0])
    rank = len(removal.old[node.outputs[0]])
    axis = attribute(node, "axis", 0) % rank
    if kept is None or kept[0] != axis:
        return
    ends = np.cumsum(split_sizes(node, len(kept[1])))
    sizes = [int(part.sum()) for part in np.split(kept[1], ends[:-1])]
    node.attributes.pop("num_outputs", None)
    _set_ints(removal, node, 1, sizes)


def _fix_pad(removal: Removal, node: ir.Node) -> None:
    x, y = node.inputs[0], node.outputs[0]
    kept, rank = removal.kept(y), len(removal.old[y])
    amounts = pad_amounts(node, rank)
    if x is None or kept is None or kept[0] not in amounts:
        return
    axis, mask = kept
    before, after = amounts[axis]
    if (before, after) == (0, 0):
        return
    amounts[axis] = (int(mask[:before].sum()), int(mask[len(mask) - after :].sum()) if after else 0)
    _set_ints(removal, node, 1, [a for a, _ in amounts.values()] + [b for _, b in amounts.values()])


def _fix_gather(removal: Removal, node: ir.Node) -> None:
    kept, indices = removal.kept(node.inputs[0]), constant(node.inputs[1])
    axis = attribute(node, "axis", 0) % len(removal.old[node.inputs[0]])  # type: ignore[index]
    if kept is None or indices is None or kept[0] != axis:
        return
    taken = np.arange(len(kept[1]))[indices]
    _set_ints(removal, node, 1, renumber(kept[1], taken), scalar=indices.ndim == 0)


def _fix_slice(removal: Removal, node: ir.Node) -> None:
    x = node.inputs[0]
    kept = removal.kept(x)
    if x is None or kept is None:
        return
    axis, mask = kept
    taken = slice_positions(node, removal.old[x])
    if axis not in taken:
        return
    places = renumber(mask, taken[axis])
    rows = _slice_rows(node, len(removal.old[x]))
    step = int(places[1] - places[0]) if len(places) > 1 else 1
    if step >= 1 and (np.diff(places) == step).all():
        rows[axis] = (int(places[0]), int(places[-1]) + 1, step)
    else:
        del rows[axis]
        _gather_before(removal, node, axis, places)
    if rows:
        for operand, column in ((1, 0), (2, 1), (4, 2)):
            _set_ints(removal, node, operand, [row[column] for row in rows.values()])
        _set_ints(removal, node, 3, list(rows))
    else:
        _bypass(removal, node)


def _slice_rows(node: ir.Node, rank: int) -> dict[int, tuple[int, int, int]]:
    """Axis -> start, end, step of a Slice."""
    starts, ends = integers(node, 1) or (), integers(node, 2) or ()
    axes = integers(node, 3) or tuple(range(len(starts)))
    steps = integers(node, 4) or (1,) * len(starts)
    return {
        axis % rank: (start, end, step)
        for axis, start, end, step in zip(axes, starts, ends, steps, strict=True)
    }


def _fix_mean(removal: Removal, node: ir.Node) -> None:
    """A mean over channels goes on dividing by the number that there were: those that are gone are zeros in it."""
    kept, y = removal.kept(node.inputs[0]), node.outputs[0]
    if kept is None or removal.kept(y) is not None:
        return
    share = add_initializer(removal.graph, f"{node.name}_share", np.asarray(kept[1].mean(), np.float32))
    scaled = ir.node("Mul", [y, share], name=fresh_name(removal.graph, f"{node.name}_scaled"))
    scaled.outputs[0].type, scaled.outputs[0].shape = y.type, y.shape
    removal.graph.insert_after(node, scaled)
    _take_over(removal, y, scaled)


def renumber(mask: Mask, places: Labels) -> Labels:
    """The survivors among ``places``, at their positions among all survivors."""
    renumbered: Labels = (np.cumsum(mask) - 1)[places[mask[places]]]
    return renumbered


def _to_gather(removal: Removal, shuffle: Shuffle) -> None:
    """Replace Reshape, Transpose, Reshape by a Gather of the surviving channels in their shuffled order."""
    first, _, last = shuffle.nodes
    x, y = first.inputs[0], last.outputs[0]
    kept = removal.kept(x)
    if x is None or kept is None:
        return
    gather = _gather(removal, x, shuffle.axis, renumber(kept[1], shuffle.order), first.name or "shuffle")
    removal.graph.insert_before(first, gather)
    _take_over(removal, y, gather)
    removal.graph.remove(tuple(reversed(shuffle.nodes)), safe=True)


def _gather_before(removal: Removal, node: ir.Node, axis: int, places: Labels) -> None:
    x = node.inputs[0]
    if x is None:
        return
    gather = _gather(removal, x, axis, places, f"{node.name}_gather")
    removal.graph.insert_before(node, gather)
    node.replace_input_with(0, gather.outputs[0])


def _gather(removal: Removal, x: ir.Value, axis: int, places: Labels, name: str) -> ir.Node:
    """A Gather of ``places`` along ``axis``, not yet in the graph."""
    graph = removal.graph
    indices = add_initializer(graph, f"{name}_indices", places.astype(np.int64))
    gather = ir.node("Gather", [x, indices], {"axis": axis}, name=fresh_name(graph, f"{name}_gather"))
    dims: list[int | ir.SymbolicDim] = [] if x.shape is None else list(x.shape)
    dims[axis] = len(places)
    out = gather.outputs[0]
    out.name, out.type, out.shape = fresh_name(graph, f"{name}_gathered"), x.type, ir.Shape(dims)
    return gather


def _take_over(removal: Removal, old: ir.Value, node: ir.Node) -> None:
    """Let ``node`` make what ``old`` was, under the old name."""
    new = node.outputs[0]
    take_over(removal.graph, old, new)
    removal.trace.values[new] = removal.trace.values.pop(old)
    removal.old[new] = removal.old.pop(old)


def _bypass(removal: Removal, node: ir.Node) -> None:
    """Take a Slice that cuts nothing out of the graph."""
    x, y = node.inputs[0], node.outputs[0]
    gather = None if x is None else x.producer()
    if gather is None:
        return
    _take_over(removal, y, gather)
    removal.graph.remove(node, safe=True)


def _set_ints(
    removal: Removal, node: ir.Node, operand: int, values: Sequence[int | None] | Labels, scalar: bool = False
) -> None:
    array = np.asarray(values, np.int64)
    own_constant(removal.graph, node, operand, array.reshape(()) if scalar else array, f"_{operand}")


Fix = Callable[[Removal, ir.Node], None]
FIXES: dict[str, Fix] = {
    "Conv": _fix_conv,
    "ConvTranspose": _fix_conv,
    "Reshape": _fix_target,
    "Expand": _fix_target,
    "ReduceMean": _fix_mean,
    "Resize": _fix_resize,
    "Split": _fix_split,
    "Pad": _fix_pad,
    "Gather": _fix_gather,
    "Slice": _fix_slice,
}
