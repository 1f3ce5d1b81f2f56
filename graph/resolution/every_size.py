"""A network for every size of its picture: whether it is one, and the form of it that says so.

A canonical graph has sizes, and constants made for them. A model whose height and width are open, and that nobody gave a size, is
read at a size that stands in for all (`stood_in`). What the walk of `resize` would have to change for other sizes is written such
that it holds for all of them (`for_every_size`):

1. a Reshape whose target follows the picture: 0 stands where an axis is as long as before, -1 for one of the others, and what is
   left is read from the shape of an earlier map with such an axis (tokens that become a map again);
2. a Resize to the size of a map that is a multiple of its own, or 1/2, 1/4, ... of it, at uneven sizes too: by scales;
3. other sizes that an earlier map has (of a Resize, Expand, Tile, Split, Slice): read from the shape of that map;
4. anything else that follows the picture (pools as large as the map, grids of places, position embeddings) belongs to one size.

A map of 333 places has 166 or 167 behind a stride of 2, which no size that strides divide shows. So the walk is taken at such a
size too, where the network has one; where source and artifact are not alike there, the note says which sizes are meant.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from edgec.graph.canonicalise import TOLERANCE, canonicalise
from edgec.graph.equivalence import worst_difference
from edgec.graph.errors import EdgecError
from edgec.graph.execute import Executor
from edgec.graph.inputs import InputSpec, noise
from edgec.graph.listener import Listener
from edgec.graph.read.metadata import add_note, mark_open, open_sides
from edgec.graph.resolution.axes import Axis, SizeError, refused
from edgec.graph.resolution.resize import RULES, picture_of, size_of, total_stride
from edgec.graph.resolution.trace import Edit, Size, Walk, places, walk
from edgec.graph.sizes import STAND_IN, OpenSizeError, stand_in
from edgec.graph.tidy import infer_shapes
from edgec.graph.views import Names, attribute, constant, own_constant

Array = np.ndarray[Any, np.dtype[Any]]


def stood_in(source: onnx.ModelProto, error: OpenSizeError, listener: Listener) -> ir.Model:
    """The canonical graph of ``source`` at a size that stands in for all, marked as open; it computes what ``source`` does at
    another size too. Raises ``error``, with the reason, where the network is not one for every size."""
    found = stand_in(source)
    if found is None:
        raise error
    shape, sides = found
    model: ir.Model | None = None
    try:
        model = canonicalise(source, input_shape=shape, listener=listener)
        mark_open(model, sides)
        step = _agree(source, model, shape)
    except EdgecError as other:
        said = "" if model is None else _fixed_size(source, model, shape)
        said = said or (
            f"{other.where}: {other.why or other.what}" if other.where else other.why or other.what
        )
        raise OpenSizeError(error.what, where=error.where, why=said, hint=error.hint) from other
    tall, wide = size_of(model)
    which = f" for multiples of {step}" if step > 1 else ""
    add_note(
        model,
        f"height or width is open, and stays so in the artifact{which}: figures here are for {tall} x {wide}",
    )
    return model


def _agree(source: onnx.ModelProto, model: ir.Model, shape: Mapping[str, Sequence[int]]) -> int:
    """Sides must be multiples of this. Raises SizeError where the form for every size gives others than ``source`` read at
    another size does, though every stride divides that."""
    every = for_every_size(model)
    size = _others(model)[0]
    difference = _difference(source, every, shape, size)
    if not difference <= TOLERANCE:
        raise SizeError(f"at {size[0]} x {size[1]} it would differ by {difference:.2g} of its range")
    try:
        alike = _difference(source, every, shape, _uneven(model)) <= TOLERANCE
    except EdgecError:  # the source itself takes no such size, or the artifact does not
        alike = False
    return 1 if alike else total_stride(model)


def _difference(
    source: onnx.ModelProto, every: ir.Model, shape: Mapping[str, Sequence[int]], size: Size
) -> float:
    """Between ``source`` read at ``size`` and ``every``, relative: the worst output's. Raises ModelError where one cannot run."""
    other = _read_at(source, picture_of(every), shape, size)
    rng = np.random.default_rng(0)
    feeds = {one.name: noise(rng, (1, *one.shape), one.dtype) for one in InputSpec.of(other)}
    theirs, ours = Executor(other).run(feeds).values(), Executor(every).run(feeds).values()
    if any(first.shape != second.shape for first, second in zip(theirs, ours, strict=True)):
        return math.inf
    return max(worst_difference(*pair) for pair in zip(theirs, ours, strict=True))


def _read_at(
    source: onnx.ModelProto, picture: ir.Value, shape: Mapping[str, Sequence[int]], size: Size
) -> ir.Model:
    """The canonical graph of ``source`` for a picture of ``size``."""
    there = list(shape[picture.name or ""])
    for at, side in zip(places(picture), size, strict=True):
        there[at] = side
    return canonicalise(source, input_shape={**shape, picture.name or "": there})


def _fixed_size(source: onnx.ModelProto, model: ir.Model, shape: Mapping[str, Sequence[int]]) -> str:
    """What to say of the first Resize that makes one size of every picture; empty where none does."""
    with contextlib.suppress(EdgecError):
        twice = _opened(model, (2 * STAND_IN, 2 * STAND_IN), 1)
        other = _read_at(source, picture_of(model), shape, twice)
        there = {node.name: node for node in other.graph if node.op_type == "Resize"}
        for node in model.graph:
            if node.op_type != "Resize" or node.name not in there:
                continue
            made, again = (list(one.outputs[0].shape or ())[2:] for one in (node, there[node.name]))
            given = [list(one.inputs[0].shape or ())[2:] for one in (node, there[node.name]) if one.inputs[0]]
            if made == again and given[0] != given[-1]:
                size = " x ".join(str(side) for side in made)
                return f"node {node.name!r} (Resize): it makes {size} of a picture of any size"
    return ""


def for_every_size(model: ir.Model) -> ir.Model:
    """A copy of ``model`` whose open sides (`open_sides`) have names instead of sizes. Raises SizeError, naming the node that
    belongs to one size."""
    copy = model.clone()
    picture = picture_of(copy)
    walks = [walk(copy, picture, size, RULES) for size in _others(copy)]
    with contextlib.suppress(SizeError):  # a network with skips may take only what its strides divide
        walks.append(walk(copy, picture, _uneven(copy), RULES))
    for edits in _side_by_side(walks):
        _hold(copy, edits, walks)
    shape = list(picture.shape or ())
    for at, side, name in zip(places(picture), "hw", ("height", "width"), strict=True):
        if side in open_sides(model):
            shape[at] = ir.SymbolicDim(name)
    picture.shape = ir.Shape(shape)
    for value in copy.graph.outputs:
        axes = walks[0].axes(value)
        value.shape = ir.Shape(
            f"{value.name}_{at}" if axis.follows else size
            for at, (axis, size) in enumerate(zip(axes, value.shape or (), strict=True))
        )
    infer_shapes(copy)
    return copy


def _others(model: ir.Model) -> tuple[Size, Size]:
    """Two other sizes, both sides of their own number of strides; a side that is not open stays."""
    step = total_stride(model)
    count = STAND_IN // step
    first, second = (count + 1, count + 3), (count + 5, count + 2)
    return _opened(model, first, step), _opened(model, second, step)


def _uneven(model: ir.Model) -> Size:
    """A size that no stride divides, at no depth."""
    return _opened(model, (333, 459), 1)


def _opened(model: ir.Model, counts: tuple[int, int], step: int) -> Size:
    (tall, wide), sides = size_of(model), open_sides(model)
    return counts[0] * step if "h" in sides else tall, counts[1] * step if "w" in sides else wide


def _side_by_side(walks: Sequence[Walk]) -> list[list[Edit]]:
    """Edits of the same constant or attribute in each of ``walks``; one that a walk leaves as it is counts as that."""
    found = [{(id(edit.node), edit.index, edit.name): edit for edit in one.edits} for one in walks]
    first = {key: edit for one in reversed(found) for key, edit in one.items()}
    return [[one.get(key) or _as_it_is(edit) for one in found] for key, edit in first.items()]


def _as_it_is(edit: Edit) -> Edit:
    if edit.name:
        return replace(edit, value=attribute(edit.node, edit.name, None))
    return replace(edit, value=constant(edit.node.inputs[edit.index]))


SIZES = {("Reshape", 1), ("Expand", 1), ("Resize", 3), ("Tile", 1), ("Split", 1), ("Slice", 1), ("Slice", 2)}
"""Operands that are sizes, or places counted in them."""


def _hold(model: ir.Model, edits: Sequence[Edit], walks: Sequence[Walk]) -> None:
    """Write one constant such that it holds for every size; ``edits`` is what it becomes at the sizes of ``walks``."""
    node, index = edits[0].node, edits[0].index
    before = constant(node.inputs[index]) if index >= 0 else None
    if before is not None and all(np.array_equal(edits[0].value, edit.value) for edit in edits):
        own_constant(model.graph, node, index, np.asarray(edits[0].value, before.dtype))
    elif before is None or (node.op_type, index) not in SIZES:
        raise refused(node, "it holds something made for one size of the picture")
    elif node.op_type == "Reshape":
        _retarget(model, node, index, _target(node, before, edits, walks), walks)
    elif node.op_type != "Resize" or not _by_scales(model, node, walks):
        _retarget(model, node, index, _varied(before, edits), walks)


def _varied(before: Array, edits: Sequence[Edit]) -> list[int | tuple[int, ...]]:
    """Sizes that stay, and the others as their sizes now and then."""
    rows = zip(before.tolist(), *(np.asarray(edit.value).tolist() for edit in edits), strict=True)
    return [row[0] if len(set(row)) == 1 else row for row in rows]


def _target(
    node: ir.Node, before: Array, edits: Sequence[Edit], walks: Sequence[Walk]
) -> list[int | tuple[int, ...]]:
    """A Reshape's target: 0 and -1 for axes that follow the picture; where several do, all but the last as their sizes now and
    then."""
    if attribute(node, "allowzero", 0) and not all(before):
        raise refused(node, "its target takes 0 for a size")
    node.attributes.pop("allowzero", None)
    target: list[int | tuple[int, ...]] = [int(size) for size in before]
    given = [found.axes(node.inputs[0]) for found in walks]
    for at, size in enumerate(map(int, before)):
        if size != 0 and _copied(at, size, edits, given):
            target[at] = 0
    loose = [
        at for at, size in enumerate(target) if size != 0 and any(size != edit.value[at] for edit in edits)
    ]
    if any(size == -1 for at, size in enumerate(target) if at not in loose):
        raise refused(node, "its target leaves an axis open that is not the picture's")
    made = [found.axes(node.outputs[0]) for found in walks]
    for at in loose:
        target[at] = -1 if at == loose[-1] else (made[0][at].old, *(axes[at].new for axes in made))
    return target


def _retarget(
    model: ir.Model, node: ir.Node, index: int, target: Sequence[int | tuple[int, ...]], walks: Sequence[Walk]
) -> None:
    """Give a node its sizes: a constant, or one that is put together from the shapes of earlier maps."""
    numbers = [size for size in target if isinstance(size, int)]
    if len(numbers) == len(target):
        own_constant(model.graph, node, index, np.asarray(numbers, np.int64))
        return
    names, pieces = Names(model.graph), []
    for size in target:
        if isinstance(size, int):
            pieces.append(names.initializer(f"{node.name}.size", np.asarray([size], np.int64)))
            continue
        value, at = _place_of(model, node, size, walks)
        name = names.fresh(f"{node.name}.shape")
        shape = ir.node("Shape", [value], {"start": at, "end": at + 1}, name=name)
        model.graph.insert_before(node, shape)
        pieces.append(shape.outputs[0])
        pieces[-1].name = name
    name = names.fresh(f"{node.name}.target")
    whole = ir.node("Concat", pieces, {"axis": 0}, name=name)
    whole.outputs[0].name = name
    model.graph.insert_before(node, whole)
    node.replace_input_with(index, whole.outputs[0])


def _place_of(
    model: ir.Model, node: ir.Node, sizes: tuple[int, ...], walks: Sequence[Walk]
) -> tuple[ir.Value, int]:
    """The first value in front of ``node``, and its axis, that is so long at the size now and at those of ``walks``."""
    earlier = [*model.graph.inputs]
    for one in model.graph:
        if one is node:
            break
        earlier += one.outputs
    for value in earlier:
        known = [found.known.get(value.name or "") for found in walks]
        for at in range(len(value.shape or ())):
            axes = [one[at] for one in known if one is not None and one[at].follows]
            if len(axes) == len(walks) and (axes[0].old, *(axis.new for axis in axes)) == sizes:
                return value, at
    raise refused(node, "sizes in it follow the picture, and no earlier map has them")


def _copied(at: int, size: int, edits: Sequence[Edit], given: Sequence[Sequence[Axis]]) -> bool:
    """Whether axis ``at`` of the target is that of the input at every size: the batch, or one that follows."""
    if any(at >= len(axes) for axes in given):
        return False
    if size == -1:
        return all(axes[at].batch for axes in given)
    pairs = zip(edits, given, strict=True)
    return all(axes[at].follows and axes[at].sizes == (size, int(edit.value[at])) for edit, axes in pairs)


def _by_scales(model: ir.Model, node: ir.Node, walks: Sequence[Walk]) -> bool:
    """Whether a Resize to sizes became one by scales, which these are the same for at every size and exact in float32."""
    x, y = node.inputs[0], node.outputs[0]
    found = [_scales(one.axes(x), one.axes(y)) for one in walks]
    held = found[0]
    if any(one != held for one in found) or any(
        one is None or one.denominator & (one.denominator - 1) for one in held
    ):
        return False
    axes = attribute(node, "axes", None)
    kept = range(len(held)) if axes is None else [int(at) for at in axes]
    scales = np.asarray([float(held[at] or 1) for at in kept], np.float32)
    node.replace_input_with(3, None)
    own_constant(model.graph, node, 2, scales)
    return True


def _scales(given: Sequence[Axis], made: Sequence[Axis]) -> tuple[Fraction | None, ...]:
    """Of every axis; None where the size now and the other one do not say the same."""
    pairs = [((b.old, a.old), (b.new, a.new)) for a, b in zip(given, made, strict=True)]
    return tuple(Fraction(*now) if Fraction(*now) == Fraction(*then) else None for now, then in pairs)
