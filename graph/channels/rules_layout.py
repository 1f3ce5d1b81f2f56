"""Operators that move channels: what numpy does to the labels is what they do to the tensor."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from edgec.graph.channels.atoms import (
    Dims,
    Labels,
    UntraceableError,
    as_ints,
    collapse,
    expand_axis,
    on_axis,
    reshape_labels,
    varying,
)
from edgec.graph.channels.trace import Rule, Shuffle, Trace, parameter_slots
from edgec.graph.views import attribute, constant, is_constant, sole_consumer


def integers(node: ir.Node, operand: int) -> tuple[int, ...] | None:
    """A constant integer operand; None where there is none."""
    if operand >= len(node.inputs) or node.inputs[operand] is None:
        return None
    array = constant(node.inputs[operand])
    if array is None:
        raise UntraceableError("one of its settings is computed")
    return as_ints(array)


def slice_positions(node: ir.Node, dims: Dims) -> dict[int, Labels]:
    """For every sliced axis of known size, the input positions that a Slice takes, in order."""
    starts, ends = integers(node, 1), integers(node, 2)
    if starts is None or ends is None:
        raise UntraceableError("its bounds are missing")
    axes = integers(node, 3) or tuple(range(len(starts)))
    steps = integers(node, 4) or (1,) * len(starts)
    taken: dict[int, Labels] = {}
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        size = dims[axis % len(dims)]
        if size is not None:
            taken[axis % len(dims)] = np.arange(size, dtype=np.int64)[slice(start, end, step)]
    return taken


def pad_amounts(node: ir.Node, rank: int) -> dict[int, tuple[int, int]]:
    """Axis -> (before, after) of a Pad."""
    pads = integers(node, 1)
    if pads is None:
        raise UntraceableError("its amounts are missing")
    axes = integers(node, 3) or tuple(range(rank))
    return {axis % rank: (pads[i], pads[i + len(axes)]) for i, axis in enumerate(axes)}


def split_sizes(node: ir.Node, size: int) -> tuple[int, ...]:
    """How many positions each output of a Split takes."""
    given = integers(node, 1)
    if given is not None:
        return given
    parts = len(node.outputs)
    chunk = math.ceil(size / parts)
    return (chunk,) * (parts - 1) + (size - chunk * (parts - 1),)


def _reshape(trace: Trace, node: ir.Node) -> None:
    """Reshape, Flatten, Squeeze and Unsqueeze; channels may come to lie on several axes."""
    integers(node, 1)
    x, y = node.inputs[0], node.outputs[0]
    labels = trace.labels(x)
    out = reshape_labels(labels, trace.dims(x), trace.dims(y))
    if len(varying(out)) > 1:
        shuffle = _find_shuffle(trace, node)
        if shuffle is not None:
            _apply_shuffle(trace, shuffle)
            return
    trace.set(y, out)


def _find_shuffle(trace: Trace, first: ir.Node) -> Shuffle | None:
    """Whether ``first`` begins a Reshape, Transpose, Reshape that permutes one axis and nothing else."""
    middle = sole_consumer(first.outputs[0])
    last = sole_consumer(middle.outputs[0]) if middle is not None and middle.op_type == "Transpose" else None
    if middle is None or last is None or last.op_type != "Reshape" or constant(last.inputs[1]) is None:
        return None
    if len(varying(trace.labels(first.inputs[0]))) != 1:
        return None
    x, split, merged = (trace.dims(v) for v in (first.inputs[0], first.outputs[0], last.outputs[0]))
    axis = varying(trace.labels(first.inputs[0]))[0]
    size = x[axis]
    perm = attribute(middle, "perm", None)
    if size is None or merged != x or perm is None or split[:axis] != x[:axis]:
        return None
    places = reshape_labels(on_axis(np.arange(size, dtype=np.int64), len(x), axis), x, split)
    factors = range(axis, max(varying(places)) + 1)
    fixed = all(source == place for place, source in enumerate(perm) if place not in factors)
    if not fixed or places.size != size or min(varying(places)) < axis:
        return None
    order = np.transpose(places, perm).reshape(-1)
    return Shuffle((first, middle, last), axis, order)


def _apply_shuffle(trace: Trace, shuffle: Shuffle) -> None:
    first, middle, last = shuffle.nodes
    x = first.inputs[0]
    dims = trace.dims(x)
    channels = trace.along(trace.labels(x), shuffle.axis, dims[shuffle.axis])[shuffle.order]
    trace.set(last.outputs[0], on_axis(channels, len(dims), shuffle.axis))
    trace.shuffles[first] = shuffle
    trace.done.update((middle, last))


def _transpose(trace: Trace, node: ir.Node) -> None:
    labels = trace.labels(node.inputs[0])
    trace.set(node.outputs[0], np.transpose(labels, attribute(node, "perm", None)))


def _concat(trace: Trace, node: ir.Node) -> None:
    rank = len(trace.dims(node.outputs[0]))
    axis = attribute(node, "axis", 0) % rank
    computed = [trace.labels(v) for v in node.inputs if v is not None and not is_constant(v)]
    others = {a for labels in computed for a in varying(labels) if a != axis}
    if not others:
        _concat_along(trace, node, axis)
    elif any(axis in varying(labels) for labels in computed):
        _concat_parts(trace, node, axis)
    else:
        _concat_across(trace, node, others)


def _concat_along(trace: Trace, node: ir.Node, axis: int) -> None:
    """Joined along the channels: constants have channels of their own."""
    rank = len(trace.dims(node.outputs[0]))
    parts: list[Labels] = []
    for operand, value in enumerate(node.inputs):
        size = trace.dims(value)[axis]
        if size is None:
            raise UntraceableError("it joins along an axis of unknown size")
        if value is not None and is_constant(value):
            atoms = trace.atoms.fresh(size)
            trace.slot(node, operand, axis, atoms, "parameter")
            parts.append(atoms.reshape([size if a == axis else 1 for a in range(rank)]))
        else:
            parts.append(expand_axis(trace.labels(value), axis, size))
    trace.set(node.outputs[0], collapse(np.concatenate(parts, axis)))


def _concat_parts(trace: Trace, node: ir.Node, axis: int) -> None:
    """Channels on several axes, joined along one of them."""
    parts: list[Labels] = []
    for value in node.inputs:
        size = trace.dims(value)[axis]
        if size is None or (value is not None and is_constant(value)):
            raise UntraceableError("it joins channels on several axes with something else")
        parts.append(expand_axis(trace.labels(value), axis, size))
    whole = np.broadcast_shapes(*(tuple(np.delete(part.shape, axis)) for part in parts))
    full = [np.broadcast_to(p, (*whole[:axis], p.shape[axis], *whole[axis:])) for p in parts]
    trace.set(node.outputs[0], collapse(np.concatenate(full, axis)))


def _concat_across(trace: Trace, node: ir.Node, others: set[int]) -> None:
    """Joined along another axis than the channels': all inputs have the same channels."""
    if len(others) > 1:
        raise UntraceableError("its inputs have channels on different axes")
    labels = max((trace.labels(v) for v in node.inputs if not is_constant(v)), key=lambda one: one.size)
    for operand, value in enumerate(node.inputs):
        if value is not None and is_constant(value):
            trace.slots.extend(parameter_slots(node, operand, labels))
        else:
            trace.atoms.unite(labels, trace.labels(value))
    trace.set(node.outputs[0], labels)


def _split(trace: Trace, node: ir.Node) -> None:
    labels, dims = trace.labels(node.inputs[0]), trace.dims(node.inputs[0])
    axis = attribute(node, "axis", 0) % len(dims)
    size = dims[axis]
    if axis not in varying(labels):
        integers(node, 1)
        for value in node.outputs:
            trace.set(value, labels)
        return
    start = 0
    for value, part in zip(node.outputs, split_sizes(node, size or 0), strict=True):
        trace.set(value, collapse(labels.take(np.arange(start, start + part), axis)))
        start += part


def _slice(trace: Trace, node: ir.Node) -> None:
    labels = trace.labels(node.inputs[0])
    for axis, taken in slice_positions(node, trace.dims(node.inputs[0])).items():
        if axis in varying(labels):
            labels = labels.take(taken, axis)
    trace.set(node.outputs[0], collapse(labels))


def _gather(trace: Trace, node: ir.Node) -> None:
    labels, dims = trace.labels(node.inputs[0]), trace.dims(node.inputs[0])
    axis = attribute(node, "axis", 0) % len(dims)
    indices = constant(node.inputs[1])
    if is_constant(node.inputs[0]) or indices is None or indices.ndim > 1:
        raise UntraceableError("its indices are no constant list")
    if axis in varying(labels):
        trace.set(node.outputs[0], collapse(labels.take(indices, axis)))
    else:
        trace.set(node.outputs[0], labels if indices.ndim else labels.squeeze(axis))


def _pad(trace: Trace, node: ir.Node) -> None:
    """Padding the channel axis makes channels of its own; they can go like any other."""
    labels, dims = trace.labels(node.inputs[0]), trace.dims(node.inputs[0])
    for axis, (before, after) in pad_amounts(node, len(dims)).items():
        if axis not in varying(labels) or (before, after) == (0, 0):
            continue
        if attribute(node, "mode", "constant") != "constant" or min(before, after) < 0:
            raise UntraceableError("it pads channels with other channels")
        labels = trace.settle(labels, axis)
        rank = len(dims)
        parts = [
            trace.atoms.fresh(n).reshape([n if a == axis else 1 for a in range(rank)])
            for n in (before, after)
        ]
        labels = np.concatenate([parts[0], labels, parts[1]], axis)
    trace.set(node.outputs[0], labels)


def _depth_to_space(trace: Trace, node: ir.Node) -> None:
    dims, block = trace.dims(node.inputs[0]), int(attribute(node, "blocksize", 1)) ** 2
    channels = trace.along(trace.labels(node.inputs[0]), 1, dims[1])
    if attribute(node, "mode", "DCR") == "DCR":
        out = trace.atoms.unite_along(channels.reshape(block, -1), 0)[0]
    else:
        out = trace.atoms.unite_along(channels.reshape(-1, block), 1)[:, 0]
    trace.set(node.outputs[0], on_axis(out, len(dims), 1))


def _space_to_depth(trace: Trace, node: ir.Node) -> None:
    dims, block = trace.dims(node.inputs[0]), int(attribute(node, "blocksize", 1)) ** 2
    channels = trace.along(trace.labels(node.inputs[0]), 1, dims[1])
    trace.set(node.outputs[0], on_axis(np.tile(channels, block), len(dims), 1))


RULES: dict[str, Rule] = {
    **dict.fromkeys(("Reshape", "Flatten", "Squeeze", "Unsqueeze"), _reshape),
    "Transpose": _transpose,
    "Concat": _concat,
    "Split": _split,
    "Slice": _slice,
    "Gather": _gather,
    "Pad": _pad,
    "DepthToSpace": _depth_to_space,
    "SpaceToDepth": _space_to_depth,
}
