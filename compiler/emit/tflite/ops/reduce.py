"""Reductions, ArgMax, TopK, and cumulative sums."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from edgec.compiler.emit.tflite.call import Call
from edgec.compiler.emit.tflite.context import Lowering, Placed, RefusalError
from edgec.compiler.emit.tflite.layout import Layout
from edgec.compiler.emit.tflite.ops.elementwise import binary_tensors
from edgec.compiler.emit.tflite.program import Tensor
from edgec.compiler.emit.tflite.registry import Registry
from edgec.graph.tflite.schema import TensorType
from edgec.graph.views import attribute

REDUCE = Registry()

_CODE = {
    "ReduceMean": "MEAN",
    "ReduceSum": "SUM",
    "ReduceMax": "REDUCE_MAX",
    "ReduceMin": "REDUCE_MIN",
    "ReduceProd": "REDUCE_PROD",
    "ReduceL1": "SUM",
    "ReduceL2": "SUM",
    "ReduceSumSquare": "SUM",
    "ReduceLogSum": "SUM",
    "ReduceLogSumExp": "SUM",
}
_BEFORE = {"ReduceL1": "ABS", "ReduceL2": "SQUARE", "ReduceSumSquare": "SQUARE", "ReduceLogSumExp": "EXP"}
_AFTER = {"ReduceL2": "SQRT", "ReduceLogSum": "LOG", "ReduceLogSumExp": "LOG"}
_ON_CODES = frozenset({"ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin"})
_MOVING = frozenset({"ReduceMax", "ReduceMin"})
_NUMBERS = (TensorType.FLOAT32, TensorType.INT32, TensorType.INT64)


@REDUCE.register(*_CODE)
def reduce(ctx: Lowering, node: ir.Node) -> None:
    """MEAN, SUM, REDUCE_MAX and the like over constant axes."""
    op = node.op_type
    call = Call(ctx, node, moves=op in _MOVING, real=op not in _ON_CODES)
    rank = len(call.in_shape())
    axes = _axes(call, rank)
    x = call.take(0)
    keep = bool(attribute(node, "keepdims", 1))
    if not axes:
        call.finish(x.tensor, x.layout)
        return
    if x.tensor.quantization is None and x.tensor.type not in _NUMBERS:
        raise RefusalError(f"it reduces {x.tensor.type.name}", "Use float32 in the source network.")
    layout = _result_layout(x.layout, axes, keep)
    tensor, shift = _prepared(ctx, op, x, axes, call.name)
    y = call.tensor(layout, like=tensor if op in _MOVING else None)
    positions = ctx.ints(sorted(x.layout.position(a) for a in axes))
    ctx.program.add(_CODE[op], [tensor, positions], [y], {"keep_dims": keep})
    if op in _AFTER:
        y = _unary(ctx, _AFTER[op], y, call.name)
    if shift is not None:
        y = binary_tensors(ctx, "ADD", y, ctx.reshape(shift, y.shape, call.name), call.name)
    call.finish(y, layout)


def _axes(call: Call, rank: int) -> list[int]:
    given = attribute(call.node, "axes", None)
    if given is None:
        array = call.optional(1, "axes")
        given = None if array is None else [int(a) for a in array.reshape(-1)]
    if not given:
        return [] if attribute(call.node, "noop_with_empty_axes", 0) else list(range(rank))
    return sorted(int(a) % rank for a in given)


def _result_layout(layout: Layout, axes: Sequence[int], keep: bool) -> Layout:
    if not keep:
        return layout.reduced(axes)
    return layout.with_orders({a: o for a, o in layout.orders if a not in axes})


def _prepared(
    ctx: Lowering, op: str, x: Placed, axes: Sequence[int], name: str
) -> tuple[Tensor, Tensor | None]:
    """The operand before the sum; a log-sum-exp has its maximum taken out, which is added again behind it."""
    tensor, shift = x.tensor, None
    if op == "ReduceLogSumExp":
        shape = tuple(1 if axis in axes else d for axis, d in zip(x.layout.perm, tensor.shape, strict=True))
        shift = ctx.program.tensor(name, tensor.type, shape)
        positions = ctx.ints(sorted(x.layout.position(a) for a in axes))
        ctx.program.add("REDUCE_MAX", [tensor, positions], [shift], {"keep_dims": True})
        tensor = binary_tensors(ctx, "SUB", tensor, shift, name)
    return (_unary(ctx, _BEFORE[op], tensor, name) if op in _BEFORE else tensor), shift


def _unary(ctx: Lowering, code: str, x: Tensor, name: str) -> Tensor:
    if x.type != TensorType.FLOAT32:
        raise RefusalError(f"{code} takes no {x.type.name}", "Use float32 in the source network.")
    y = ctx.program.tensor(name, x.type, x.shape)
    ctx.program.add(code, [x], [y])
    return y


@REDUCE.register("ArgMax", "ArgMin")
def arg_max(ctx: Lowering, node: ir.Node) -> None:
    """ARG_MAX and ARG_MIN; the last of equal ones is the first of the reversed axis."""
    call = Call(ctx, node, real=True)
    value = call.operand(0)
    home = ctx.codes(value) or ctx.real(value)  # codes compare like the numbers they stand for
    shape = call.in_shape()
    axis = int(attribute(node, "axis", 0)) % len(shape)
    size = shape[axis]
    x = ctx.take(home)
    if x.layout.order_of(axis) is not None:
        x = ctx.take(home, x.layout.with_orders({a: o for a, o in x.layout.orders if a != axis}))
    position, tensor = x.layout.position(axis), x.tensor
    last = bool(attribute(node, "select_last_index", 0))
    if last:
        if size is None:
            raise RefusalError("it compares samples of the batch")
        tensor = ctx.gather(tensor, position, np.arange(size)[::-1], call.name)
    layout = x.layout.reduced([axis])
    reduced_shape = tuple(d for p, d in enumerate(tensor.shape) if p != position)
    y = ctx.program.tensor(call.name, TensorType.INT64, reduced_shape)
    dimension = ctx.program.constant("axis", np.asarray(position, np.int32))
    code = "ARG_MAX" if node.op_type == "ArgMax" else "ARG_MIN"
    ctx.program.add(code, [tensor, dimension], [y], {"output_type": int(TensorType.INT64)})
    if last:
        limit = ctx.program.constant("last", np.full((1,) * len(reduced_shape), int(size or 1) - 1, np.int64))
        y = binary_tensors(ctx, "SUB", limit, y, call.name)
    if attribute(node, "keepdims", 1):
        kept = x.layout.with_orders({a: o for a, o in x.layout.orders if a != axis})
        y, layout = ctx.reshape(y, kept.shape(call.out_shape()), call.name), kept
    call.finish(y, layout)


@REDUCE.register("TopK")
def top_k(ctx: Lowering, node: ir.Node) -> None:
    """TOPK_V2 along the last axis; the smallest are the largest of the negatives."""
    call = Call(ctx, node, real=True)
    shape = call.in_shape()
    rank = len(shape)
    axis = int(attribute(node, "axis", -1)) % rank
    k = int(call.constant(1, "count").reshape(-1)[0])
    x = call.take(0)
    layout = Layout((*(a for a in x.layout.perm if a != axis), axis))
    x = call.take(0, layout)
    smallest = not attribute(node, "largest", 1)
    if smallest and x.tensor.type not in _NUMBERS:
        raise RefusalError(f"it takes the smallest {x.tensor.type.name}")
    tensor = x.tensor
    if smallest:
        tensor = ctx.program.tensor(call.name, x.tensor.type, x.tensor.shape)
        ctx.program.add("NEG", [x.tensor], [tensor])
    out = (*x.tensor.shape[:-1], k)
    values = ctx.program.tensor(call.name, tensor.type, out)
    found = ctx.program.tensor(f"{call.name}_indices", TensorType.INT32, out)
    count = ctx.program.constant("k", np.asarray(k, np.int32))
    ctx.program.add("TOPK_V2", [tensor, count], [values, found])
    if smallest:
        positive = ctx.program.tensor(call.name, tensor.type, out)
        ctx.program.add("NEG", [values], [positive])
        values = positive
    call.finish(values, layout)
    indices = ctx.program.tensor(f"{call.name}_indices", TensorType.INT64, out)
    options = {"in_data_type": int(TensorType.INT32), "out_data_type": int(TensorType.INT64)}
    ctx.program.add("CAST", [found], [indices], options)
    call.finish(indices, layout, 1)


@REDUCE.register("CumSum")
def cumsum(ctx: Lowering, node: ir.Node) -> None:
    """CUMSUM."""
    call = Call(ctx, node, real=True)
    axis = int(call.constant(1, "axis").reshape(-1)[0]) % len(call.in_shape())
    x = call.take(0)
    if x.layout.order_of(axis) is not None:
        x = call.take(0, x.layout.without_orders())
    if x.tensor.type not in _NUMBERS:
        raise RefusalError(f"it sums {x.tensor.type.name}", "Use float32 in the source network.")
    y = call.tensor(x.layout)
    position = ctx.program.constant("axis", np.asarray(x.layout.position(axis), np.int32))
    options = {
        "exclusive": bool(attribute(node, "exclusive", 0)),
        "reverse": bool(attribute(node, "reverse", 0)),
    }
    ctx.program.add("CUMSUM", [x.tensor, position], [y], options)
    call.finish(y, x.layout)
