"""Gemm and MatMul: FULLY_CONNECTED by a constant matrix, BATCH_MATMUL otherwise."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir as ir

from edgec.compiler.emit.tflite.call import Call
from edgec.compiler.emit.tflite.context import Home, Lowering, Placed, RefusalError
from edgec.compiler.emit.tflite.layout import Layout, Shape, identity
from edgec.compiler.emit.tflite.ops.elementwise import binary_tensors
from edgec.compiler.emit.tflite.program import Tensor
from edgec.compiler.emit.tflite.registry import Registry
from edgec.compiler.emit.tflite.weights import Weight, bias_tensor, weight_of, weight_tensor
from edgec.graph.views import attribute, constant, sole_consumer

Array = np.ndarray[Any, np.dtype[Any]]

LINEAR = Registry()

MAX_MATMUL_RANK = 5


@LINEAR.register("Gemm")
def gemm(ctx: Lowering, node: ir.Node) -> None:
    """``alpha * A B + beta * C``; factors go into the constants they multiply."""
    alpha, beta = float(attribute(node, "alpha", 1.0)), float(attribute(node, "beta", 1.0))
    transposed_b = bool(attribute(node, "transB", 0))
    c_value = node.inputs[2] if len(node.inputs) > 2 else None
    bias = _fc_bias(ctx, c_value, ctx.shape(node.outputs[0])[-1])
    simple = _is_constant(ctx, node.inputs[1]) and (c_value is None or bias is not None)
    if not simple:
        _general_gemm(ctx, node, alpha, beta, transposed_b)
        return
    call = Call(ctx, node, fuse=True, real=alpha != 1.0 or beta != 1.0)
    weight = weight_of(ctx, call.operand(1), call.quantised, out_axis=0 if transposed_b else 1)
    weight = _out_first(weight)
    layout = Layout((1, 0)) if attribute(node, "transA", 0) else identity(2)
    k_axis = 0 if attribute(node, "transA", 0) else 1
    x = call.take(0, layout, free=(k_axis,))
    order = x.layout.order_of(k_axis)
    if order is not None:
        weight = replace(weight, array=weight.array[:, list(order)])
    if alpha != 1.0:
        weight = replace(weight, array=(weight.array * np.float32(alpha)).astype(np.float32))
    if beta != 1.0 and bias is not None:
        name = f"{call.name}_bias"
        bias_t = ctx.program.constant(name, (bias * np.float32(beta)).astype(np.float32))
    else:
        bias_t = bias_tensor(ctx, call, weight, x.tensor, None)
    y = call.tensor(identity(2))
    _fully_connected(ctx, call, _unreshaped(ctx, x.tensor, weight), weight, bias_t, y)
    call.finish(y, identity(2))


def _fc_bias(ctx: Lowering, value: ir.Value | None, outs: int | None) -> Array | None:
    """The C operand as a vector over outputs, when it is a constant that is one."""
    if value is None or not _is_constant(ctx, value):
        return None
    array = ctx.real(value).array
    if array is None or array.size not in (1, outs) or (array.ndim > 1 and array.shape[-1] != array.size):
        return None
    return np.broadcast_to(array.reshape(-1), (int(outs or 1),))


def _is_constant(ctx: Lowering, value: ir.Value | None) -> bool:
    if value is None:
        return False
    home = ctx.codes(value)
    return home.array is not None if home is not None else constant(value) is not None


def _out_first(weight: Weight) -> Weight:
    """(out, in) whatever the axis of the outputs was."""
    return weight if weight.out_axis == 0 else replace(weight, array=weight.array.T, out_axis=0)


def _unreshaped(ctx: Lowering, x: Tensor, weight: Weight) -> Tensor:
    """FULLY_CONNECTED flattens by itself: a RESHAPE in front of it is not needed."""
    source = ctx.before_reshape(x)
    features = math.prod(d or 0 for d in source.shape[1:])
    return source if source.shape[0] == x.shape[0] and features == weight.array.shape[1] else x


def _fully_connected(
    ctx: Lowering, call: Call, x: Tensor, weight: Weight, bias: Tensor, y: Tensor, keep: bool = False
) -> None:
    filters = weight_tensor(ctx, weight, (0, 1), out_axis=0)
    options = {
        "fused_activation_function": int(call.activation),
        "weights_format": 0,
        "keep_num_dims": keep,
        "asymmetric_quantize_inputs": False,
    }
    ctx.program.add("FULLY_CONNECTED", [x, filters, bias], [y], options)


def _general_gemm(ctx: Lowering, node: ir.Node, alpha: float, beta: float, transposed_b: bool) -> None:
    """With computed operands: BATCH_MATMUL, MUL, ADD on real numbers."""
    call = Call(ctx, node, data=(0, 1), real=True)
    a = _matrix(ctx, call.home(0), bool(attribute(node, "transA", 0)))
    b = _matrix(ctx, call.home(1), transposed_b)
    y = _batch_matmul(ctx, call, a, b, call.out_shape())
    if alpha != 1.0:
        y = binary_tensors(
            ctx, "MUL", y, ctx.program.constant("alpha", np.full((1, 1), alpha, np.float32)), call.name
        )
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        home = ctx.real(call.operand(2))
        c = ctx.take_identity(home).tensor
        if beta != 1.0:
            factor = ctx.program.constant("beta", np.full((1,) * max(len(c.shape), 1), beta, np.float32))
            c = binary_tensors(ctx, "MUL", c, factor, call.name)
        y = binary_tensors(ctx, "ADD", y, c, call.name)
    call.finish(y, identity(2))


@LINEAR.register("MatMul")
def matmul(ctx: Lowering, node: ir.Node) -> None:
    """FULLY_CONNECTED by a constant matrix, with a constant bias behind it; else BATCH_MATMUL."""
    shapes = [ctx.shape(value) for value in node.inputs]
    if _is_constant(ctx, node.inputs[1]) and len(shapes[1]) == 2 and len(shapes[0]) >= 2:
        _matmul_constant(ctx, node)
        return
    call = Call(ctx, node, data=(0, 1))
    homes = [call.home(0), call.home(1)]
    if len(shapes[0]) == 1:
        homes[0] = _viewed(ctx, homes[0], (1, *shapes[0]))
    if len(shapes[1]) == 1:
        homes[1] = _viewed(ctx, homes[1], (*shapes[1], 1))
    full = _matmul_shape(homes[0].shape, homes[1].shape)
    a, b = (_matrix(ctx, home, False) for home in homes)
    y = _batch_matmul(ctx, call, a, b, full)
    y = ctx.reshape(y, call.out_shape(), call.name)
    call.finish(y, identity(len(call.out_shape())))


def _matmul_shape(a: Shape, b: Shape) -> Shape:
    rank = max(len(a), len(b))
    heads = [(1,) * (rank - len(s)) + tuple(s[:-2]) for s in (a, b)]
    head = tuple(q if p == 1 else p for p, q in zip(*heads, strict=True))
    return (*head, a[-2], b[-1])


def _matmul_constant(ctx: Lowering, node: ir.Node) -> None:
    add = _bias_add(ctx, node)
    call = Call(ctx, node, fuse=True, tail=add)
    weight = _out_first(weight_of(ctx, call.operand(1), call.quantised, out_axis=1))
    rank = len(call.in_shape())
    x = call.take(0)
    if x.layout.perm[-1] != rank - 1:
        x = call.take(0, identity(rank), free=(rank - 1,))
    order = x.layout.order_of(rank - 1)
    if order is not None:
        weight = replace(weight, array=weight.array[:, list(order)])
    if add is None:
        bias = bias_tensor(ctx, call, weight, x.tensor, None, index=len(node.inputs))
    else:
        other = add.inputs[1] if add.inputs[0] is node.outputs[0] else add.inputs[0]
        numbers = _fc_bias(ctx, other, weight.array.shape[0])
        bias = ctx.program.constant(f"{call.name}_bias", np.asarray(numbers, np.float32))
    layout = x.layout.with_orders({a: o for a, o in x.layout.orders if a != rank - 1})
    y = call.tensor(layout)
    _fully_connected(ctx, call, x.tensor, weight, bias, y, keep=len(x.tensor.shape) != 2)
    call.finish(y, layout)


def _bias_add(ctx: Lowering, node: ir.Node) -> ir.Node | None:
    """The Add of a constant vector that alone reads the product."""
    add = sole_consumer(node.outputs[0])
    if add is None or add.op_type != "Add":
        return None
    other = add.inputs[1] if add.inputs[0] is node.outputs[0] else add.inputs[0]
    if other is None or other is node.outputs[0] or constant(other) is None:
        return None
    rank = len(ctx.shape(node.outputs[0]))
    if _fc_bias(ctx, other, ctx.shape(node.outputs[0])[-1]) is None or len(ctx.shape(other)) > rank:
        return None
    return add


def _viewed(ctx: Lowering, home: Home, shape: Shape) -> Home:
    """A vector as a matrix."""
    if home.array is not None:
        array = home.array.reshape([d or 1 for d in shape])
        return Home(home.name, shape, array=array, quantization=home.quantization)
    tensor = ctx.reshape(ctx.take_identity(home).tensor, shape, home.name)
    return Home(home.name, shape, [Placed(tensor, identity(len(shape)))])


def _matrix(ctx: Lowering, home: Home, transposed: bool) -> tuple[Tensor, bool]:
    """A stack of matrices, and whether the operator has to read it transposed."""
    rank = len(home.shape)
    if rank > MAX_MATMUL_RANK:
        raise RefusalError(f"it multiplies stacks of {rank} axes, TFLite takes {MAX_MATMUL_RANK}")
    swapped = Layout((*range(rank - 2), rank - 1, rank - 2))
    for placed in home.placements:
        if placed.layout == swapped:
            return placed.tensor, not transposed
    return ctx.take_identity(home).tensor, transposed


def _batch_matmul(
    ctx: Lowering, call: Call, a: tuple[Tensor, bool], b: tuple[Tensor, bool], shape: Shape
) -> Tensor:
    y = call.tensor(identity(len(shape)), shape=shape)
    ctx.program.add("BATCH_MATMUL", [a[0], b[0]], [y], {"adj_x": a[1], "adj_y": b[1]})
    return y
