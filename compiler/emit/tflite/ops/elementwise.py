"""Operators that work element by element on two or more operands, with ONNX's broadcasting."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from edgec.compiler.emit.tflite.call import Call
from edgec.compiler.emit.tflite.context import Home, Lowering, Placed, RefusalError
from edgec.compiler.emit.tflite.layout import Layout, Shape, broadcast_layout, identity, same_bytes
from edgec.compiler.emit.tflite.program import Tensor
from edgec.compiler.emit.tflite.registry import Registry
from edgec.graph.tflite.schema import TensorType
from edgec.graph.views import attribute

ELEMENTWISE = Registry()

_F32, _I32, _I64, _BOOL = TensorType.FLOAT32, TensorType.INT32, TensorType.INT64, TensorType.BOOL
_FUSING = {"Add": "ADD", "Sub": "SUB", "Mul": "MUL", "Div": "DIV"}
_SELECTING = {"Max": "MAXIMUM", "Min": "MINIMUM"}
_COMPARING = {
    "Equal": "EQUAL",
    "Greater": "GREATER",
    "GreaterOrEqual": "GREATER_EQUAL",
    "Less": "LESS",
    "LessOrEqual": "LESS_EQUAL",
}
_LOGIC = {"And": "LOGICAL_AND", "Or": "LOGICAL_OR"}
_TYPES = {
    "ADD": {_F32, _I32, _I64},
    "SUB": {_F32, _I32, _I64},
    "MUL": {_F32, _I32, _I64},
    "DIV": {_F32, _I32},
    "MAXIMUM": {_F32, _I32, _I64},
    "MINIMUM": {_F32, _I32, _I64},
    "POW": {_F32, _I32},
    "FLOOR_MOD": {_F32, _I32, _I64},
    "EQUAL": {_F32, _I32, _I64, _BOOL},
    "GREATER": {_F32, _I32, _I64},
    "GREATER_EQUAL": {_F32, _I32, _I64},
    "LESS": {_F32, _I32, _I64},
    "LESS_EQUAL": {_F32, _I32, _I64},
    "LOGICAL_AND": {_BOOL},
    "LOGICAL_OR": {_BOOL},
    "SELECT_V2": {_F32, _I32, _I64, _BOOL},
}
_CODED = frozenset({"ADD", "SUB", "MUL", "MAXIMUM", "MINIMUM"})
BROADCAST_RANK = 4


def align(
    ctx: Lowering, homes: Sequence[Home], out_shape: Shape, free: Sequence[int] = ()
) -> tuple[list[Placed], Layout]:
    """All operands in one physical order, the one that moves the fewest of them, and that order for the result.

    Shuffles of the ``free`` axes may differ between operands; the result's layout names none for them.
    """
    layout = _common_layout(homes, out_shape, free)
    placed = [ctx.take(home, _operand_layout(home, layout, len(out_shape)), free) for home in homes]
    return placed, layout


def _operand_layout(home: Home, layout: Layout, full_rank: int) -> Layout:
    wanted = broadcast_layout(layout, len(home.shape), full_rank)
    return wanted.with_orders({a: o for a, o in wanted.orders if home.shape[a] != 1})


def _common_layout(homes: Sequence[Home], out_shape: Shape, free: Sequence[int]) -> Layout:
    rank = len(out_shape)
    moving = [home for home in homes if home.array is None]
    candidates = [
        _without(p.layout, free) for home in moving if len(home.shape) == rank for p in home.placements
    ]
    best, least = identity(rank), math.inf
    for layout in candidates:
        moved = sum(
            not any(
                same_bytes(_without(p.layout, free), _operand_layout(home, layout, rank), home.shape)
                for p in home.placements
            )
            for home in moving
        )
        if moved < least:
            best, least = layout, moved
    return best


def _without(layout: Layout, free: Sequence[int]) -> Layout:
    return layout.with_orders({a: o for a, o in layout.orders if a not in free})


def emit_broadcast(
    ctx: Lowering,
    code: str,
    inputs: Sequence[Tensor],
    y: Tensor,
    options: dict[str, Any] | None = None,
) -> None:
    """Add an elementwise operator; above four axes, broadcasting axes are merged to four where they can be."""
    shapes = [_padded(t.shape, len(y.shape)) for t in inputs]
    if len(y.shape) <= BROADCAST_RANK or all(s == y.shape for s in shapes):
        ctx.program.add(code, inputs, [y], options)
        return
    groups = _merge_axes([*shapes, y.shape])
    if len(groups) > BROADCAST_RANK:
        raise RefusalError(f"it broadcasts over {len(groups)} separate axes, TFLite over {BROADCAST_RANK}")
    merged = [ctx.reshape(t, _merged(s, groups), t.name) for t, s in zip(inputs, shapes, strict=True)]
    flat = ctx.program.tensor(y.name, y.type, _merged(y.shape, groups), y.quantization)
    ctx.program.add(code, merged, [flat], options)
    target = ctx.program.constant("shape", np.asarray([-1 if d is None else d for d in y.shape], np.int32))
    ctx.program.add("RESHAPE", [flat, target], [y], {})


def _padded(shape: Shape, rank: int) -> Shape:
    return (1,) * (rank - len(shape)) + tuple(shape)


def _merge_axes(shapes: Sequence[Shape]) -> list[list[int]]:
    """Runs of axes that every operand broadcasts, or does not, alike."""
    out = shapes[-1]
    groups: list[list[int]] = []
    kinds: list[tuple[bool, ...]] = []
    for axis in range(len(out)):
        kind = tuple(s[axis] != out[axis] for s in shapes)
        if (
            groups
            and (kind == kinds[-1] or out[axis] == 1)
            and out[axis] is not None
            and None not in (out[a] for a in groups[-1])
        ):
            groups[-1].append(axis)
        else:
            groups.append([axis])
            kinds.append(kind)
    return groups


def _merged(shape: Shape, groups: Sequence[Sequence[int]]) -> Shape:
    sizes = [[shape[a] for a in group] for group in groups]
    return tuple(None if None in s else math.prod(d or 1 for d in s) for s in sizes)


def binary_tensors(ctx: Lowering, code: str, a: Tensor, b: Tensor, name: str) -> Tensor:
    """One float operator on tensors whose physical axes already agree."""
    rank = max(len(a.shape), len(b.shape))
    shapes = (_padded(a.shape, rank), _padded(b.shape, rank))
    shape = tuple(q if p == 1 else p for p, q in zip(*shapes, strict=True))
    kind = TensorType.BOOL if code in _COMPARING.values() else a.type
    y = ctx.program.tensor(name, kind, shape)
    options = {"fused_activation_function": 0} if code in ("ADD", "SUB", "MUL", "DIV") else None
    emit_broadcast(ctx, code, [a, b], y, options)
    return y


def _check_types(code: str, tensors: Sequence[Tensor]) -> None:
    for tensor in tensors:
        coded = tensor.quantization is not None and code in _CODED
        if not coded and tensor.type not in _TYPES[code]:
            raise RefusalError(f"{code} takes no {tensor.type.name}", "Use float32 in the source network.")


@ELEMENTWISE.register(*_FUSING)
def arithmetic(ctx: Lowering, node: ir.Node) -> None:
    """ADD, SUB, MUL, DIV with a fused activation. DIV has no int8 kernel."""
    code = _FUSING[node.op_type]
    call = Call(ctx, node, data=(0, 1), fuse=True, real=code == "DIV")
    placed, layout = align(ctx, [call.home(0), call.home(1)], call.out_shape())
    tensors = [p.tensor for p in placed]
    _check_types(code, tensors)
    if tensors[0].type in (_I32, _I64) and call.activation:
        raise RefusalError("an integer operator has no fused activation")
    options: dict[str, Any] = {"fused_activation_function": int(call.activation)}
    if code in ("ADD", "SUB") and tensors[0].type == TensorType.INT16:
        options["pot_scale_int16"] = False
    y = call.tensor(layout)
    emit_broadcast(ctx, code, tensors, y, options)
    call.finish(y, layout)


@ELEMENTWISE.register(*_SELECTING)
def selecting(ctx: Lowering, node: ir.Node) -> None:
    """MAXIMUM and MINIMUM of any number of operands; codes must have the parameters of the result."""
    code = _SELECTING[node.op_type]
    call = Call(ctx, node, data=range(len(node.inputs)))
    placed, layout = align(ctx, [call.home(i) for i in range(len(node.inputs))], call.out_shape())
    tensors = [p.tensor for p in placed]
    form = call.form()
    if form is not None:
        tensors = [ctx.requantise(t, form.quantization, form.type, call.name) for t in tensors]
    _check_types(code, tensors)
    if len(tensors) == 1:
        call.finish(tensors[0], layout)
        return
    best = tensors[0]
    for k, tensor in enumerate(tensors[1:], start=2):
        shape = layout.shape(call.out_shape()) if k == len(tensors) else _joint(best.shape, tensor.shape)
        y = call.tensor(layout, shape=shape)
        emit_broadcast(ctx, code, [best, tensor], y)
        best = y
    call.finish(best, layout)


def _joint(a: Shape, b: Shape) -> Shape:
    return tuple(q if p == 1 else p for p, q in zip(a, b, strict=True))


@ELEMENTWISE.register("Sum", "Mean")
def variadic_sum(ctx: Lowering, node: ir.Node) -> None:
    """ONNX's Sum and Mean of several tensors: a chain of ADD."""
    call = Call(ctx, node, data=range(len(node.inputs)), real=True)
    placed, layout = align(ctx, [call.home(i) for i in range(len(node.inputs))], call.out_shape())
    total = placed[0].tensor
    for other in placed[1:]:
        total = binary_tensors(ctx, "ADD", total, other.tensor, call.name)
    if node.op_type == "Mean" and len(placed) > 1:
        share = ctx.program.constant("share", np.full((1,) * len(total.shape), 1 / len(placed), np.float32))
        total = binary_tensors(ctx, "MUL", total, share, call.name)
    call.finish(total, layout)


@ELEMENTWISE.register("Pow", "Mod", *_COMPARING, *_LOGIC)
def plain_binary(ctx: Lowering, node: ir.Node) -> None:
    """Operators without fused activation and int8 kernel."""
    if node.op_type == "Mod" and attribute(node, "fmod", 0):
        raise RefusalError("its result takes the sign of the dividend (fmod)")
    code = {"Pow": "POW", "Mod": "FLOOR_MOD", **_COMPARING, **_LOGIC}[node.op_type]
    call = Call(ctx, node, data=(0, 1), real=True)
    placed, layout = align(ctx, [call.home(0), call.home(1)], call.out_shape())
    a, b = (p.tensor for p in placed)
    if code == "POW" and a.type != b.type:
        b = _cast(ctx, b, a.type, call.name)
    _check_types(code, [a, b])
    if a.type != b.type:
        raise RefusalError(
            f"its operands are of types {a.type.name} and {b.type.name}", "Cast one to the other."
        )
    y = call.tensor(layout)
    emit_broadcast(ctx, code, [a, b], y)
    call.finish(y, layout)


def _cast(ctx: Lowering, x: Tensor, kind: TensorType, name: str) -> Tensor:
    y = ctx.program.tensor(name, kind, x.shape)
    ctx.program.add("CAST", [x], [y], {"in_data_type": int(x.type), "out_data_type": int(kind)})
    return y


@ELEMENTWISE.register("Where")
def where(ctx: Lowering, node: ir.Node) -> None:
    """SELECT_V2."""
    call = Call(ctx, node, data=(1, 2), real=True)
    placed, layout = align(ctx, [call.home(i) for i in range(3)], call.out_shape())
    tensors = [p.tensor for p in placed]
    _check_types("SELECT_V2", tensors)
    y = call.tensor(layout)
    emit_broadcast(ctx, "SELECT_V2", tensors, y)
    call.finish(y, layout)


@ELEMENTWISE.register("PRelu")
def prelu(ctx: Lowering, node: ir.Node) -> None:
    """PRELU; its slope lies over the trailing axes, as XNNPACK wants it.

    XNNPACK has it for real numbers alone; on codes it runs in the reference kernel, and a network 4 to 11 times as long.
    """
    call = Call(ctx, node, data=(0, 1), real=True)
    x, slope = call.home(0), call.home(1)
    layout = call.take(0).layout
    rank = len(call.in_shape())
    x_placed = ctx.take(x, layout)
    alpha = ctx.take(slope, _operand_layout(slope, layout, rank)).tensor
    if len(alpha.shape) > 1 and alpha.shape[0] == 1:
        alpha = _without_batch(ctx, slope, alpha)
    y = call.tensor(layout)
    ctx.program.add("PRELU", [x_placed.tensor, alpha], [y])
    call.finish(y, layout)


def _without_batch(ctx: Lowering, slope: Home, alpha: Tensor) -> Tensor:
    if alpha.data is None:
        return ctx.reshape(alpha, alpha.shape[1:], alpha.name)
    return ctx.program.constant(slope.name, alpha.data.reshape(alpha.data.shape[1:]), alpha.quantization)
