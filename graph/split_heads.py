"""Queries, keys and values that one layer makes are parted where they are still channels.

``qkv.reshape(B, N, 3, heads, dims).permute(2, 0, 3, 1, 4)`` and three selections on the first axis (timm, torch) become three
Reshapes and Transposes of a Split of the layer's output: the values are moved once as before, of rank 4 instead of 5, and
each part has channels of its own, so that keys can lose other dims than values.

Cases, for a Reshape whose input's axis c becomes an axis of k parts and further ones, seen through Transpose, Squeeze and
Unsqueeze with no other readers:
1. all readers are Gather by one constant number on the axis of parts;
2. or Slice of one position on it, or one Split into single positions; where a Squeeze of that axis follows, it goes too.
Anything else that reads the parts, and a second open axis beside the batch, leaves the graph as it is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgec.graph.edit import take_over
from edgec.graph.views import add_initializer, attribute, constant, fresh_name, sole_consumer

MOST = 4
"""Parts that one layer makes: queries, keys, values, and sometimes a gate."""

Dims = tuple[int | None, ...]


@dataclass(frozen=True)
class _Chain:
    """A Reshape and what follows up to the selections: ``axes`` are those of the Reshape's output in the order in which
    ``end`` has them, None for an axis of 1 that was put in."""

    reshape: ir.Node
    channels: int
    """The Reshape's input axis that becomes several."""
    parts: int
    """The first of these."""
    end: ir.Value
    axes: tuple[int | None, ...]


@dataclass(frozen=True)
class _Part:
    """One selection: part ``number`` is what ``value`` holds; ``kept``: with an axis of 1 where the parts were."""

    number: int
    value: ir.Value
    kept: bool


def split_heads(model: ir.Model) -> int:
    """Rewrite in place; the number of Reshapes that went."""
    count = 0
    for node in list(model.graph):
        for chain in _chains(node) if node.op_type == "Reshape" else ():
            if parts := _parts(chain):
                _rewrite(model.graph, chain, parts)
                count += 1
                break
    return count


def _dims(value: ir.Value | None) -> Dims | None:
    if value is None or value.shape is None:
        return None
    return tuple(size if isinstance(size, int) else None for size in value.shape)


def _chains(reshape: ir.Node) -> list[_Chain]:
    """All that the Reshape may part: an axis of channels, and the axis of its parts; what lies before is as large in both."""
    old, new = _dims(reshape.inputs[0]), _dims(reshape.outputs[0])
    if old is None or new is None or constant(reshape.inputs[1]) is None or new.count(None) > 1:
        return []
    found = []
    for channels, size in enumerate(old):
        for parts, count in enumerate(new):
            fits = (
                size is not None
                and count is not None
                and 2 <= count <= MOST
                and size > count
                and not size % count
            )
            if fits and _product(old[:channels]) == _product(new[:parts]):
                found.append(_followed(reshape, channels, parts, len(new)))
    return [chain for chain in found if chain is not None]


def _followed(reshape: ir.Node, channels: int, parts: int, rank: int) -> _Chain | None:
    """From the Reshape to the selections."""
    axes: tuple[int | None, ...] = tuple(range(rank))
    value = reshape.outputs[0]
    while (reader := sole_consumer(value)) is not None and reader.op_type in (
        "Transpose",
        "Squeeze",
        "Unsqueeze",
    ):
        moved = _moved(reader, axes)
        if moved is None or parts not in moved:
            return None
        value, axes = reader.outputs[0], moved
    return None if value.is_graph_output() else _Chain(reshape, channels, parts, value, axes)


def _product(dims: Dims) -> tuple[int, int]:
    """Elements along the known axes, and how many axes are not."""
    return math.prod(size for size in dims if size is not None), dims.count(None)


def _moved(node: ir.Node, axes: tuple[int | None, ...]) -> tuple[int | None, ...] | None:
    """The axes behind a Transpose, Squeeze or Unsqueeze; None where its setting is not known."""
    if node.op_type == "Transpose":
        return tuple(axes[i] for i in attribute(node, "perm", tuple(reversed(range(len(axes))))))
    given = constant(node.inputs[1]) if len(node.inputs) > 1 else None
    if given is None:
        return None
    rank = len(axes) + (given.size if node.op_type == "Unsqueeze" else 0)
    places = {int(axis) % rank for axis in given.reshape(-1)}
    if node.op_type == "Squeeze":
        return tuple(axis for place, axis in enumerate(axes) if place not in places)
    left = iter(axes)
    return tuple(None if place in places else next(left) for place in range(rank))


def _parts(chain: _Chain) -> list[_Part]:
    """What every reader selects; empty where one selects otherwise."""
    found: list[_Part] = []
    place = chain.axes.index(chain.parts)
    for reader in chain.end.consumers():
        picked = _picked(reader, chain, place)
        if not picked:
            return []
        found += picked
    return found


def _picked(node: ir.Node, chain: _Chain, place: int) -> list[_Part]:
    rank, count = len(chain.axes), (_dims(chain.reshape.outputs[0]) or ())[chain.parts] or 0
    if any(value.is_graph_output() for value in node.outputs) or node.inputs[0] is not chain.end:
        return []
    if node.op_type == "Gather" and attribute(node, "axis", 0) % rank == place:
        index = constant(node.inputs[1])
        return (
            [_Part(int(index) % count, node.outputs[0], False)]
            if index is not None and index.ndim == 0
            else []
        )
    if node.op_type == "Split" and attribute(node, "axis", 0) % rank == place and len(node.outputs) == count:
        return [
            _squeezed(_Part(number, value, True), place, rank) for number, value in enumerate(node.outputs)
        ]
    if node.op_type == "Slice":
        number = _position(node, place, rank, count)
        return [] if number is None else [_squeezed(_Part(number, node.outputs[0], True), place, rank)]
    return []


def _position(node: ir.Node, place: int, rank: int, count: int) -> int | None:
    """The one position that a Slice takes on the axis ``place``, and nowhere else."""
    settings = [constant(value) for value in node.inputs[1:]]
    if len(settings) < 3 or any(array is None or array.size != 1 for array in settings):
        return None
    start, end, axis, *step = (int(array.reshape(())) for array in settings if array is not None)
    taken = range(count)[slice(start, end, *step)]
    return taken[0] if axis % rank == place and len(taken) == 1 else None


def _squeezed(part: _Part, place: int, rank: int) -> _Part:
    """The part behind a Squeeze of its axis, where nothing else reads it."""
    reader = sole_consumer(part.value)
    given = (
        constant(reader.inputs[1])
        if reader is not None and reader.op_type == "Squeeze" and len(reader.inputs) > 1
        else None
    )
    if reader is None or given is None or reader.outputs[0].is_graph_output():
        return part
    alone = [int(axis) % rank for axis in given.reshape(-1)] == [place]
    return _Part(part.number, reader.outputs[0], False) if alone else part


def _rewrite(graph: ir.Graph, chain: _Chain, parts: Sequence[_Part]) -> None:
    name = chain.reshape.name or "heads"
    split = _split(graph, chain, f"{name}_parts")
    order = [axis for axis in chain.axes if axis is not None and axis != chain.parts]
    for part in parts:
        made = _shaped(graph, chain, split[part.number], order, f"{name}_{part.number}")
        places = [axis for axis in chain.axes if part.kept or axis != chain.parts]
        single = [place for place, axis in enumerate(places) if axis in (None, chain.parts)]
        if single:
            axes = add_initializer(graph, f"{name}_axes", np.array(single, np.int64))
            made = _put(
                graph, chain.reshape, ir.node("Unsqueeze", [made, axes]), f"{name}_{part.number}_unsqueezed"
            )
        take_over(graph, part.value, made)


def _split(graph: ir.Graph, chain: _Chain, name: str) -> Sequence[ir.Value]:
    """The parts as channels."""
    x, dims = chain.reshape.inputs[0], _dims(chain.reshape.outputs[0])
    if x is None or x.shape is None or dims is None:
        raise ValueError("a chain has shapes")  # `_chain` has looked
    count = dims[chain.parts] or 0
    options = {"axis": chain.channels, "num_outputs": count}
    node = ir.node("Split", [x], options, num_outputs=count, name=fresh_name(graph, name))
    graph.insert_before(chain.reshape, node)
    for number, value in enumerate(node.outputs):
        sizes = list(x.shape)
        sizes[chain.channels] = (_dims(x) or ())[chain.channels] // count  # type: ignore[operator]
        value.name, value.type, value.shape = fresh_name(graph, f"{name}_{number}"), x.type, ir.Shape(sizes)
    return node.outputs


def _shaped(graph: ir.Graph, chain: _Chain, value: ir.Value, order: Sequence[int], name: str) -> ir.Value:
    """``value`` reshaped to the axes in ``order``, in the order of the Reshape, then transposed."""
    new = _dims(chain.reshape.outputs[0]) or ()
    sizes = [new[axis] for axis in sorted(order)]
    target = add_initializer(
        graph, f"{name}_shape", np.array([-1 if size is None else size for size in sizes], np.int64)
    )
    made = _put(graph, chain.reshape, ir.node("Reshape", [value, target]), f"{name}_reshaped", sizes)
    perm = [sorted(order).index(axis) for axis in order]
    if perm == sorted(perm):
        return made
    node = ir.node("Transpose", [made], {"perm": perm})
    return _put(graph, chain.reshape, node, f"{name}_transposed", [new[axis] for axis in order])


def _put(
    graph: ir.Graph, before: ir.Node, node: ir.Node, name: str, sizes: Sequence[int | None] | None = None
) -> ir.Value:
    """Insert ``node`` and name what it makes."""
    node.name = fresh_name(graph, name)
    made = node.outputs[0]
    made.name, source = fresh_name(graph, name), node.inputs[0]
    made.type = None if source is None else source.type
    batch = next((size for size in (before.outputs[0].shape or ()) if not isinstance(size, int)), None)
    made.shape = None if sizes is None else ir.Shape([batch if size is None else size for size in sizes])
    graph.insert_before(before, node)
    return made
