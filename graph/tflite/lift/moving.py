"""Operators that give numbers another place: shapes, orders of axes, joins, cuts."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from edgec.graph.tflite.lift.call import Call, Handler, plain_order
from edgec.graph.tflite.lift.cuts import cuts_of
from edgec.graph.tflite.lift.lifting import CHANNELS_FIRST
from edgec.graph.tflite.lift.pointwise import shared_order


def reshape(call: Call) -> None:
    """RESHAPE, SQUEEZE, EXPAND_DIMS: the result's shape stands in the file."""
    source, target = call.shape(), call.out_shape()
    array = call.lifting.constant(call.index())
    if array is not None:
        call.lifting.give_constant(call.output(), array.reshape(target))
        return
    if source == target:
        order = call.preferred()
        call.finish(call.take(0, order), order)
        return
    call.finish(reshaped(call, call.lifting.flat(call.index()), source, target), plain_order(len(target)))


def reshaped(call: Call, name: str, source: tuple[int, ...], target: tuple[int, ...]) -> str:
    """``name`` of shape ``source`` as ``target``; a leading axis that stays is copied, so that the batch can be free."""
    kept = bool(source and target) and source[0] == target[0] and 0 not in target
    shape = call.lifting.ints([0, *target[1:]] if kept else target, f"{call.stem}_shape")
    return call.add("Reshape", [name, shape])


def transpose(call: Call) -> None:
    """TRANSPOSE: the same value under renamed axes."""
    perm = [call.axis(axis) for axis in call.ints(1, "order of axes")]
    array = call.lifting.constant(call.index())
    if array is not None:
        call.lifting.give_constant(call.output(), array.transpose(perm))
        return
    order = call.preferred()
    call.finish(call.take(0, order), tuple(perm.index(axis) for axis in order))


def concatenation(call: Call) -> None:
    """CONCATENATION."""
    parts = range(len(call.op.inputs))
    order = shared_order(call, parts)
    axis = order.index(call.axis(int(call.option("axis", 0))))
    call.finish(call.add("Concat", [call.take(at, order) for at in parts], axis=axis), order)


def pack(call: Call) -> None:
    """PACK: operands side by side along a new axis."""
    rank = len(call.out_shape())
    axis = call.axis(int(call.option("axis", 0)), rank)
    place = call.lifting.ints([axis], f"{call.stem}_axis")
    parts = [
        call.add("Unsqueeze", [call.plain(at), place], f"{call.stem}_part")
        for at in range(len(call.op.inputs))
    ]
    call.finish(call.add("Concat", parts, axis=axis), plain_order(rank))


def unpack(call: Call) -> None:
    """UNPACK: each entry along an axis by itself."""
    axis = call.axis(int(call.option("axis", 0)))
    order = tuple(a if a < axis else a - 1 for a in call.preferred() if a != axis)
    place = call.preferred().index(axis)
    x = call.take(0, call.preferred())
    for at in range(len(call.op.outputs)):
        entry = call.lifting.store(np.asarray(at, np.int64), f"{call.stem}_entry")
        stem = call.lifting.stem(call.output(at))
        call.finish(call.add("Gather", [x, entry], stem, axis=place), order, at)


def split(call: Call) -> None:
    """SPLIT (axis, operand) into equal parts."""
    axis = call.axis(call.ints(0, "axis")[0], len(call.shape(1)))
    _split(call, 1, axis, [call.out_shape(at)[axis] for at in range(len(call.op.outputs))])


def split_v(call: Call) -> None:
    """SPLIT_V (operand, sizes, axis); one size may be -1, so the results' own are taken."""
    axis = call.axis(call.ints(2, "axis")[0])
    _split(call, 0, axis, [call.out_shape(at)[axis] for at in range(len(call.op.outputs))])


def _split(call: Call, operand: int, axis: int, sizes: list[int]) -> None:
    order = call.preferred(operand)
    stems = [call.lifting.stem(index) for index in call.op.outputs]
    inputs = [call.take(operand, order), call.lifting.ints(sizes, f"{call.stem}_sizes")]
    for at, name in enumerate(call.lifting.ops("Split", inputs, stems, axis=order.index(axis))):
        call.finish(name, order, at)


def cut(call: Call) -> None:
    """SLICE and STRIDED_SLICE."""
    found, kept = cuts_of(call)
    order = call.preferred()
    name = call.take(0, order)
    moved = [axis for axis, one in enumerate(found) if not one.is_whole(call.shape()[axis])]
    if moved:
        numbers = (
            [found[a].start for a in moved], [found[a].stop for a in moved],
            [order.index(a) for a in moved], [found[a].step for a in moved],
        )  # fmt: skip
        parts = [
            call.lifting.ints(values, f"{call.stem}_{what}")
            for what, values in zip(("starts", "ends", "axes", "steps"), numbers, strict=True)
        ]
        name = call.add("Slice", [name, *parts])
    if kept == call.out_shape():
        call.finish(name, order)
        return
    if order != plain_order(len(order)):
        back = [order.index(axis) for axis in range(len(order))]
        name = call.add("Transpose", [name], f"{call.stem}_transpose", perm=back)
    call.finish(reshaped(call, name, kept, call.out_shape()), plain_order(len(call.out_shape())))


def pad(call: Call) -> None:
    """PAD with zero and PADV2 with a number."""
    fill = (
        []
        if call.op.code == "PAD"
        else [call.lifting.store(call.constant(2, "fill").reshape(()), f"{call.stem}_fill")]
    )
    order = call.preferred()
    call.finish(call.add("Pad", [call.take(0, order), _pads(call, order), *fill]), order)


def _pads(call: Call, order: tuple[int, ...]) -> str:
    cells = call.constant(1, "padding").reshape(-1, 2)
    flat = [int(cells[axis, side]) for side in (0, 1) for axis in order]
    return call.lifting.ints(flat, f"{call.stem}_pads")


def mirror_pad(call: Call) -> None:
    """MIRROR_PAD: REFLECT is ONNX's; SYMMETRIC, which repeats the border, gathers the cells."""
    order = call.preferred()
    x = call.take(0, order)
    if int(call.option("mode", 0)) == 0:
        call.finish(call.add("Pad", [x, _pads(call, order)], mode="reflect"), order)
        return
    cells = call.constant(1, "padding").reshape(-1, 2)
    for axis, (before, behind) in enumerate(cells.tolist()):
        size = call.shape()[axis]
        if not 0 <= before <= size or not 0 <= behind <= size:
            raise call.unsupported(f"it mirrors {max(before, behind)} of {size} cells")
        if before or behind:
            places = np.pad(np.arange(size), (before, behind), mode="symmetric")
            index = call.lifting.ints(places.tolist(), f"{call.stem}_cells")
            x = call.add("Gather", [x, index], f"{call.stem}_mirrored", axis=order.index(axis))
    call.finish(x, order)


def gather(call: Call) -> None:
    """GATHER along one axis."""
    if int(call.option("batch_dims", 0)):
        raise call.unsupported("it gathers by batch")
    axis, rank = call.axis(int(call.option("axis", 0))), len(call.shape(1))
    if rank == 1:
        order = call.preferred()
        call.finish(call.add("Gather", [call.take(0, order), call.plain(1)], axis=order.index(axis)), order)
        return
    name = call.add("Gather", [call.plain(), call.plain(1)], axis=axis)
    call.finish(name, plain_order(len(call.out_shape())))


def reverse(call: Call) -> None:
    """REVERSE_V2: a slice that steps back."""
    order = call.preferred()
    axes = [order.index(call.axis(axis)) for axis in call.ints(1, "axes")]
    lowest = int(np.iinfo(np.int64).min)
    parts = [
        call.lifting.ints(values, f"{call.stem}_{what}")
        for what, values in (
            ("starts", [-1] * len(axes)), ("ends", [lowest] * len(axes)), ("axes", axes), ("steps", [-1] * len(axes)),
        )
    ]  # fmt: skip
    call.finish(call.add("Slice", [call.take(0, order), *parts]), order)


def tile(call: Call) -> None:
    """TILE."""
    order = call.preferred()
    repeats = call.ints(1, "repeats")
    target = call.lifting.ints([repeats[axis] for axis in order], f"{call.stem}_repeats")
    call.finish(call.add("Tile", [call.take(0, order), target]), order)


def broadcast_to(call: Call) -> None:
    """BROADCAST_TO."""
    shape = call.out_shape()
    target = call.lifting.ints(shape, f"{call.stem}_shape")
    call.finish(call.add("Expand", [call.plain(), target]), plain_order(len(shape)))


def depth_to_space(call: Call) -> None:
    """DEPTH_TO_SPACE, whose blocks are ONNX's DCR."""
    _blocks(call, "DepthToSpace", mode="DCR")


def space_to_depth(call: Call) -> None:
    """SPACE_TO_DEPTH."""
    _blocks(call, "SpaceToDepth")


def _blocks(call: Call, op_type: str, **attributes: str) -> None:
    block = int(call.option("block_size", 0))
    call.finish(call.add(op_type, [call.picture()], blocksize=block, **attributes), CHANNELS_FIRST)


def shape_of(call: Call) -> None:
    """SHAPE: sizes are fixed in a file."""
    call.lifting.give_constant(call.output(), np.asarray(call.shape(), np.int32))


HANDLERS: Mapping[str, Handler] = {
    "RESHAPE": reshape, "SQUEEZE": reshape, "EXPAND_DIMS": reshape, "TRANSPOSE": transpose,
    "CONCATENATION": concatenation, "PACK": pack, "UNPACK": unpack, "SPLIT": split, "SPLIT_V": split_v, "SLICE": cut,
    "STRIDED_SLICE": cut, "PAD": pad, "PADV2": pad, "MIRROR_PAD": mirror_pad, "GATHER": gather, "REVERSE_V2": reverse,
    "TILE": tile, "BROADCAST_TO": broadcast_to, "DEPTH_TO_SPACE": depth_to_space, "SPACE_TO_DEPTH": space_to_depth,
    "SHAPE": shape_of,
}  # fmt: skip
