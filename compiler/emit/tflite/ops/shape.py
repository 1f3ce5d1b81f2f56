"""Operators that give elements another place or shape: Reshape and its kin, Transpose, Expand, Tile, depth and space."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgec.compiler.emit.tflite.call import Call
from edgec.compiler.emit.tflite.context import FixedBatchError, Home, Lowering, Placed, RefusalError
from edgec.compiler.emit.tflite.layout import Shape, channels_last, identity, reshaped
from edgec.compiler.emit.tflite.registry import Registry
from edgec.graph.views import attribute

SHAPE = Registry()

MAX_ORDER = 1 << 16
"""Longest shuffled axis that is remembered instead of sorted."""


@SHAPE.register("Reshape", "Flatten", "Squeeze", "Unsqueeze")
def reshape(ctx: Lowering, node: ir.Node) -> None:
    """RESHAPE of the bytes as they lie wherever the axes allow it, else of the ONNX-ordered tensor."""
    call = Call(ctx, node, moves=True)
    home, source, target = call.home(0), call.in_shape(), call.out_shape()
    if home.array is not None:
        call.finish_constant(home, home.array.reshape([d or 1 for d in target]))
        return
    for x in home.placements:
        layout = reshaped(x.layout, source, target)
        if layout is None or any(len(order) > MAX_ORDER for _, order in layout.orders):
            continue
        y = ctx.reshape(x.tensor, layout.shape(target), call.name)
        result = call.finish(y, layout)
        if layout.orders and result.placements[0].tensor is y:
            result.unflatten = lambda: _in_onnx_order(ctx, home, target, call.name)
        return
    placed = _in_onnx_order(ctx, home, target, call.name)
    call.finish(placed.tensor, placed.layout)


def _in_onnx_order(ctx: Lowering, home: Home, target: Shape, name: str) -> Placed:
    return Placed(ctx.reshape(ctx.take_identity(home).tensor, target, name), identity(len(target)))


@SHAPE.register("Transpose")
def transpose(ctx: Lowering, node: ir.Node) -> None:
    """No operator: the same bytes under renamed axes."""
    call = Call(ctx, node, moves=True)
    rank = len(call.in_shape())
    perm = attribute(node, "perm", tuple(reversed(range(rank))))
    home = call.home(0)
    if home.array is not None:
        call.finish_constant(home, np.transpose(home.array, perm))
        return
    x = call.take(0)
    result = call.finish(x.tensor, x.layout.transposed(perm))
    if result.placements[0].tensor is x.tensor:
        others = [p for p in home.placements if p is not x]
        result.placements.extend(Placed(p.tensor, p.layout.transposed(perm)) for p in others)


@SHAPE.register("Expand")
def expand(ctx: Lowering, node: ir.Node) -> None:
    """BROADCAST_TO."""
    call = Call(ctx, node, moves=True)
    target = call.out_shape()
    if None in target:
        raise FixedBatchError
    home = call.home(0)
    rank, added = len(target), len(target) - len(call.in_shape())
    x = ctx.take_identity(home) if added else call.take(0)
    layout = identity(rank) if added else x.layout
    shape = layout.shape(target)
    if shape == x.tensor.shape:
        call.finish(x.tensor, layout)
        return
    y = call.tensor(layout, like=x.tensor)
    ctx.program.add("BROADCAST_TO", [x.tensor, ctx.ints([int(d or 1) for d in shape])], [y])
    call.finish(y, layout)


@SHAPE.register("Tile")
def tile(ctx: Lowering, node: ir.Node) -> None:
    """TILE."""
    call = Call(ctx, node, moves=True)
    repeats = [int(r) for r in call.constant(1, "repeats").reshape(-1)]
    x = call.take(0)
    if any(repeats[axis] != 1 for axis, _ in x.layout.orders):
        x = call.take(0, x.layout.without_orders())
    y = call.tensor(x.layout, like=x.tensor)
    multiples = [1 if axis < 0 else repeats[axis] for axis in x.layout.perm]
    ctx.program.add("TILE", [x.tensor, ctx.ints(multiples)], [y])
    call.finish(y, x.layout)


@SHAPE.register("DepthToSpace")
def depth_to_space(ctx: Lowering, node: ir.Node) -> None:
    """DEPTH_TO_SPACE, whose blocks are ONNX's DCR; CRD is DCR behind a shuffle of the channels."""
    call = Call(ctx, node, moves=True)
    block = int(attribute(node, "blocksize", 1))
    channels = call.in_shape()[1]
    if channels is None:
        raise RefusalError("its channels are open", "Fix them with --input-shape.")
    order = None
    if attribute(node, "mode", "DCR") == "CRD":
        grid = np.arange(channels).reshape(channels // block**2, block * block)
        order = tuple(int(i) for i in grid.T.reshape(-1))
    x = call.take(0, channels_last(4).with_orders({1: order}))
    y = call.tensor(channels_last(4), like=x.tensor)
    ctx.program.add("DEPTH_TO_SPACE", [x.tensor], [y], {"block_size": block})
    call.finish(y, channels_last(4))


@SHAPE.register("SpaceToDepth")
def space_to_depth(ctx: Lowering, node: ir.Node) -> None:
    """SPACE_TO_DEPTH, whose blocks are ONNX's DCR; CRD leaves the channels shuffled."""
    call = Call(ctx, node, moves=True)
    block, channels = int(attribute(node, "blocksize", 1)), call.in_shape()[1]
    if channels is None:
        raise RefusalError("its channels are open", "Fix them with --input-shape.")
    layout = channels_last(4)
    if attribute(node, "mode", "DCR") == "CRD":
        grid = np.arange(channels * block**2).reshape(channels, block**2)
        layout = layout.with_orders({1: tuple(int(i) for i in grid.T.reshape(-1))})
    x = call.take(0, channels_last(4))
    y = call.tensor(layout, like=x.tensor)
    ctx.program.add("SPACE_TO_DEPTH", [x.tensor], [y], {"block_size": block})
    call.finish(y, layout)
