"""Operators that take parts of tensors or put parts together: Concat, Split, Slice, Gather."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from edgec.compiler.emit.tflite.call import Call
from edgec.compiler.emit.tflite.context import Home, Lowering, Placed, RefusalError
from edgec.compiler.emit.tflite.layout import UNIT, Layout
from edgec.compiler.emit.tflite.ops.elementwise import align, binary_tensors
from edgec.compiler.emit.tflite.program import Tensor
from edgec.compiler.emit.tflite.registry import Registry
from edgec.graph.tflite.schema import TensorType
from edgec.graph.tflite.tensors import NUMPY_TYPE
from edgec.graph.views import attribute, constant

SELECT = Registry()

MAX_SLICE_RANK = 5


@SELECT.register("Concat")
def concat(ctx: Lowering, node: ir.Node) -> None:
    """CONCATENATION; codes are first brought to the parameters of the result."""
    count = len(node.inputs)
    call = Call(ctx, node, data=range(count))
    if not call.quantised and _one_form(ctx, node):
        call = Call(ctx, node, data=range(count), moves=True)
    rank = len(call.out_shape())
    axis = int(attribute(node, "axis", 0)) % rank
    homes = [call.home(i) for i in range(count)]
    placed, layout = align(ctx, homes, call.out_shape(), free=(axis,))
    layout = layout.with_orders({**dict(layout.orders), axis: _joined_order(placed, homes, axis)})
    form = call.form()
    tensors = [p.tensor for p in placed]
    if form is not None:
        tensors = [ctx.requantise(t, form.quantization, form.type, t.name) for t in tensors]
    if count == 1:
        call.finish(tensors[0], layout)
        return
    y = call.tensor(layout, like=tensors[0])
    options = {"axis": layout.position(axis), "fused_activation_function": 0}
    ctx.program.add("CONCATENATION", tensors, [y], options)
    call.finish(y, layout)


def _joined_order(placed: Sequence[Placed], homes: Sequence[Home], axis: int) -> tuple[int, ...] | None:
    """The shuffle of the joined axis, when its parts are shuffled."""
    orders = [p.layout.order_of(axis) for p in placed]
    if not any(orders):
        return None
    joined: list[int] = []
    for home, order in zip(homes, orders, strict=True):
        base = len(joined)
        joined.extend(base + i for i in (order or range(home.shape[axis] or 0)))
    return tuple(joined)


def _one_form(ctx: Lowering, node: ir.Node) -> bool:
    """True when all operands have the same codes, so that joining them moves codes only."""
    homes = [ctx.codes(value) if value is not None else None for value in node.inputs]
    forms = {None if home is None else home.quantization for home in homes}
    return len(forms) == 1 and None not in forms


@SELECT.register("Split")
def split(ctx: Lowering, node: ir.Node) -> None:
    """SPLIT into equal parts, SPLIT_V into others."""
    call = Call(ctx, node, moves=True)
    rank = len(call.in_shape())
    axis = int(attribute(node, "axis", 0)) % rank
    x = _plain_axes(call, [axis])
    position = x.layout.position(axis)
    sizes = [call.out_shape(k)[axis] for k in range(len(node.outputs))]
    outputs = [call.tensor(x.layout, like=x.tensor, output=k) for k in range(len(sizes))]
    axis_tensor = ctx.program.constant("axis", np.asarray(position, np.int32))
    options = {"num_splits": len(sizes)}
    if len(set(sizes)) == 1:
        ctx.program.add("SPLIT", [axis_tensor, x.tensor], outputs, options)
    else:
        lengths = ctx.ints([int(s or 0) for s in sizes])
        ctx.program.add("SPLIT_V", [x.tensor, lengths, axis_tensor], outputs, options)
    for k, y in enumerate(outputs):
        call.finish(y, x.layout, k)


def _plain_axes(call: Call, axes: Sequence[int]) -> Placed:
    """The operand as it lies, but with these axes in ONNX order inside."""
    x = call.take(0)
    if any(axis in axes for axis, _ in x.layout.orders):
        kept = {a: o for a, o in x.layout.orders if a not in axes}
        return call.take(0, x.layout.with_orders(kept))
    return x


@SELECT.register("Slice")
def slice_op(ctx: Lowering, node: ir.Node) -> None:
    """SLICE, or STRIDED_SLICE where steps are not 1."""
    call = Call(ctx, node, moves=True)
    shape = call.in_shape()
    starts = [int(v) for v in call.constant(1, "start").reshape(-1)]
    ends = [int(v) for v in call.constant(2, "end").reshape(-1)]
    axes_array, steps_array = call.optional(3, "axes"), call.optional(4, "steps")
    axes = (
        list(range(len(starts)))
        if axes_array is None
        else [int(a) % len(shape) for a in axes_array.reshape(-1)]
    )
    steps = [1] * len(starts) if steps_array is None else [int(s) for s in steps_array.reshape(-1)]
    parts: dict[int, slice] = {}
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        size = shape[axis]
        if size is None:
            if start == 0 and end >= np.iinfo(np.int32).max and step == 1:
                continue
            raise RefusalError("it cuts the batch axis")
        parts[axis] = slice(*_clamped(start, end, step, size))
    x = _plain_axes(call, list(parts))
    call.finish(cut(call, x, parts), x.layout)


def _clamped(start: int, end: int, step: int, size: int) -> tuple[int, int, int]:
    """ONNX's rules for bounds beyond the tensor; an end of -1 behind a negative step means 'through cell 0'."""
    start, end = (v + size if v < 0 else v for v in (start, end))
    if step > 0:
        return min(max(start, 0), size), min(max(end, 0), size), step
    return min(max(start, 0), size - 1), min(max(end, -1), size - 1), step


def cut(call: Call, x: Placed, parts: dict[int, slice], output: int = 0) -> Tensor:
    """The part of ``x`` that ``parts`` names by ONNX axis."""
    ctx = call.ctx
    begin, end, stride, sizes, end_mask = [], [], [], [], 0
    for position, axis in enumerate(x.layout.perm):
        part = parts.get(axis) if axis != UNIT else None
        if part is None:
            begin.append(0)
            end.append(0)
            stride.append(1)
            sizes.append(-1)
            end_mask |= 1 << position
            continue
        begin.append(part.start)
        end.append(part.stop)
        stride.append(part.step)
        sizes.append(len(range(part.start, part.stop, part.step)))
        if part.stop < 0:
            end_mask |= 1 << position
    if len(begin) > MAX_SLICE_RANK:
        raise RefusalError(f"it cuts a tensor of {len(begin)} axes, TFLite takes {MAX_SLICE_RANK}")
    y = call.tensor(x.layout, like=x.tensor, output=output)
    if y.shape == x.tensor.shape and all(s == 1 for s in stride):
        return x.tensor
    if all(s == 1 for s in stride):
        ctx.program.add("SLICE", [x.tensor, ctx.ints(begin), ctx.ints(sizes)], [y])
    else:
        masks = {"begin_mask": 0, "end_mask": end_mask}
        ctx.program.add(
            "STRIDED_SLICE", [x.tensor, ctx.ints(begin), ctx.ints(end), ctx.ints(stride)], [y], masks
        )
    return y


@SELECT.register("Gather")
def gather(ctx: Lowering, node: ir.Node) -> None:
    """GATHER by constant indices of any rank, or by computed ones."""
    call = Call(ctx, node, moves=True)
    rank = len(call.in_shape())
    axis = int(attribute(node, "axis", 0)) % rank
    size = call.in_shape()[axis]
    indices = constant(call.operand(1))
    if indices is None:
        _gather_computed(ctx, call, axis)
        return
    if size is None:
        raise RefusalError("it picks samples of the batch")
    index = np.where(indices < 0, indices + size, indices)
    x = _plain_axes(call, [axis])
    position = x.layout.position(axis)
    y = ctx.gather(x.tensor, position, index.reshape(-1), call.name)
    layout, shape = _gathered_layout(x.layout, axis, index.ndim), call.out_shape()
    call.finish(ctx.reshape(y, layout.shape(shape), call.name), layout)


def _gathered_layout(layout: Layout, axis: int, added: int) -> Layout:
    """The indexed axis becomes ``added`` axes at its place."""

    def renamed(a: int) -> int:
        return a if a < axis else a + added - 1

    perm: list[int] = []
    for a in layout.perm:
        perm.extend(range(axis, axis + added) if a == axis else [a if a == UNIT else renamed(a)])
    return Layout(tuple(perm), tuple((renamed(a), order) for a, order in layout.orders if a != axis))


def _gather_computed(ctx: Lowering, call: Call, axis: int) -> None:
    """TFLite does not count from the end: computed negative indices are shifted first."""
    x = ctx.take_identity(call.home(0))
    index = ctx.take_identity(ctx.real(call.operand(1)))
    layout = Layout(tuple(range(len(call.out_shape()))))
    size = call.in_shape()[axis]
    if size is None or index.tensor.type not in (TensorType.INT32, TensorType.INT64):
        raise RefusalError("its indices are computed")
    limits = [
        ctx.program.constant(
            name, np.full((1,) * len(index.tensor.shape), value, NUMPY_TYPE[index.tensor.type])
        )
        for name, value in (("size", size), ("zero", 0))
    ]
    shifted = binary_tensors(ctx, "ADD", index.tensor, limits[0], call.name)
    negative = binary_tensors(ctx, "LESS", index.tensor, limits[1], call.name)
    rows = ctx.program.tensor(call.name, index.tensor.type, index.tensor.shape)
    ctx.program.add("SELECT_V2", [negative, shifted, index.tensor], [rows])
    y = call.tensor(layout, like=x.tensor)
    ctx.program.add("GATHER", [x.tensor, rows], [y], {"axis": axis, "batch_dims": 0})
    call.finish(y, layout)
