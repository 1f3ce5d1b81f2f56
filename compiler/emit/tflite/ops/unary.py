"""Activations and other operators on one operand."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from edgec.compiler.emit.tflite.call import Call, clip_bounds, is_read
from edgec.compiler.emit.tflite.context import TYPES, Lowering, RefusalError
from edgec.compiler.emit.tflite.layout import Layout, channels_last, identity
from edgec.compiler.emit.tflite.patterns import WrittenOutGelu
from edgec.compiler.emit.tflite.program import Tensor
from edgec.compiler.emit.tflite.quantisation import CodeForm, quantise
from edgec.compiler.emit.tflite.registry import Registry
from edgec.graph.tflite.schema import TensorType
from edgec.graph.tflite.tensors import Quantization
from edgec.graph.views import attribute, constant

UNARY = Registry()

_PLAIN = {
    "Exp": "EXP", "Log": "LOG", "Sqrt": "SQRT", "Abs": "ABS", "Neg": "NEG", "Floor": "FLOOR", "Ceil": "CEIL",
    "Round": "ROUND", "Sin": "SIN", "Cos": "COS", "Sign": "SIGN", "Not": "LOGICAL_NOT",
}  # fmt: skip
_TYPES = {
    "ABS": {TensorType.FLOAT32, TensorType.INT32},
    "NEG": {TensorType.FLOAT32, TensorType.INT32, TensorType.INT64},
    "LOGICAL_NOT": {TensorType.BOOL},
}
_FLOAT = {TensorType.FLOAT32}

PROBABILITY = {
    TensorType.INT8: Quantization.per_tensor(1 / 256, -128),
    TensorType.INT16: Quantization.per_tensor(1 / 32768, 0),
}
SIGNED_UNIT = {
    TensorType.INT8: Quantization.per_tensor(1 / 128, 0),
    TensorType.INT16: Quantization.per_tensor(1 / 32768, 0),
}


def _emit(
    call: Call, code: str, x: Tensor, layout: Layout, form: CodeForm | None = None, **options: Any
) -> None:
    y = call.tensor(layout, form=form)
    call.ctx.program.add(code, [x], [y], options)
    call.finish(y, layout)


def _is_wide(ctx: Lowering, value: ir.Value | None) -> bool:
    """True for 16-bit codes, which not every kernel takes."""
    home = None if value is None else ctx.codes(value)
    return home is not None and any(placed.tensor.type == TensorType.INT16 for placed in home.placements)


def fixed_form(call: Call, table: dict[TensorType, Quantization]) -> CodeForm | None:
    """The codes that TFLite prescribes for a function with a bounded range."""
    form = call.form()
    return None if form is None else CodeForm(form.type, table[form.type])


@UNARY.register(*_PLAIN)
def plain(ctx: Lowering, node: ir.Node) -> None:
    """One TFLite operator of the same meaning, on real numbers."""
    call = Call(ctx, node, real=True)
    code, x = _PLAIN[node.op_type], call.take(0)
    if x.tensor.type not in _TYPES.get(code, _FLOAT):
        raise RefusalError(f"{code} takes no {x.tensor.type.name}", "Use float32 in the source network.")
    _emit(call, code, x.tensor, x.layout)


@UNARY.register("Sigmoid")
def sigmoid(ctx: Lowering, node: ir.Node) -> None:
    """LOGISTIC."""
    call = Call(ctx, node)
    x = call.take(0)
    _emit(call, "LOGISTIC", x.tensor, x.layout, fixed_form(call, PROBABILITY))


@UNARY.register("Tanh")
def tanh(ctx: Lowering, node: ir.Node) -> None:
    """TANH."""
    call = Call(ctx, node)
    x = call.take(0)
    _emit(call, "TANH", x.tensor, x.layout, fixed_form(call, SIGNED_UNIT))


@UNARY.register("LeakyRelu")
def leaky_relu(ctx: Lowering, node: ir.Node) -> None:
    """LEAKY_RELU."""
    call = Call(ctx, node)
    x = call.take(0)
    _emit(call, "LEAKY_RELU", x.tensor, x.layout, alpha=float(attribute(node, "alpha", 0.01)))


@UNARY.register("HardSwish")
def hard_swish(ctx: Lowering, node: ir.Node) -> None:
    """HARD_SWISH."""
    call = Call(ctx, node, real=_is_wide(ctx, node.inputs[0]))
    x = call.take(0)
    _emit(call, "HARD_SWISH", x.tensor, x.layout)


@UNARY.register("Gelu")
def gelu(ctx: Lowering, node: ir.Node) -> None:
    """GELU, exact or by tanh."""
    call = Call(ctx, node, real=_is_wide(ctx, node.inputs[0]))
    x = call.take(0)
    _emit(call, "GELU", x.tensor, x.layout, approximate=attribute(node, "approximate", "none") == "tanh")


def written_out_gelu(ctx: Lowering, gelu: WrittenOutGelu) -> None:
    """GELU in the place of the nodes that spell it; the last of them gives the result."""
    first, wide = gelu.nodes[0], _is_wide(ctx, gelu.x)
    call = Call(ctx, first, data=(list(first.inputs).index(gelu.x),), tail=gelu.nodes[-1], real=wide)
    x = call.take(call.data[0])
    _emit(call, "GELU", x.tensor, x.layout, approximate=False)


@UNARY.register("Relu", "Clip")
def clip(ctx: Lowering, node: ir.Node) -> None:
    """RELU, RELU6, RELU_N1_TO_1, or MAXIMUM and MINIMUM. Codes that cannot leave the bounds pass through."""
    bounds = clip_bounds(node)
    if bounds is None:
        raise RefusalError("its bounds are computed", "Make the bounds of Clip constants.")
    call = Call(ctx, node)
    x = call.take(0)
    form = call.form()
    if x.tensor.type != TensorType.FLOAT32 and not call.quantised:
        _limits(call, x.tensor, x.layout, bounds)
        return
    if form is not None and bounds[0] <= form.range()[0] and form.range()[1] <= bounds[1]:
        call.finish(x.tensor, x.layout)
        return
    code = {(0.0, np.inf): "RELU", (0.0, 6.0): "RELU6", (-1.0, 1.0): "RELU_N1_TO_1"}.get(bounds)
    if code is None or x.tensor.type == TensorType.INT16:
        _limits(call, x.tensor, x.layout, bounds)
    else:
        _emit(call, code, x.tensor, x.layout)


def _limits(call: Call, x: Tensor, layout: Layout, bounds: tuple[float, float]) -> None:
    """MAXIMUM by the lower bound, MINIMUM by the upper one; on codes in the result's parameters."""
    ctx, form = call.ctx, call.form()
    if form is not None:
        x = ctx.requantise(x, form.quantization, form.type, call.name)
    for code, bound in (("MAXIMUM", bounds[0]), ("MINIMUM", bounds[1])):
        if np.isinf(bound):
            continue
        shape = (1,) * len(x.shape)
        if form is None:
            dtype = {TensorType.FLOAT32: "float32", TensorType.INT32: "int32", TensorType.INT64: "int64"}.get(
                x.type
            )
            if dtype is None:
                raise RefusalError(f"{code} takes no {x.type.name}", "Use float32 in the source network.")
            limit = ctx.program.constant("bound", np.full(shape, bound, dtype))
        else:
            codes = quantise(np.full(shape, bound), form)
            limit = ctx.program.constant("bound", codes, form.quantization)
        y = ctx.program.tensor(call.name, x.type, x.shape, x.quantization)
        ctx.program.add(code, [x, limit], [y])
        x = y
    call.finish(x, layout)


@UNARY.register("Softmax", "LogSoftmax")
def softmax(ctx: Lowering, node: ir.Node) -> None:
    """SOFTMAX and LOG_SOFTMAX, which work along the last physical axis."""
    log = node.op_type == "LogSoftmax"
    call = Call(ctx, node, real=log)
    rank = len(call.in_shape())
    axis = int(attribute(node, "axis", -1)) % max(rank, 1)
    x = call.take(0)
    if x.layout.perm[-1] != axis:
        layout = channels_last(rank) if axis == 1 and rank > 2 else _axis_last(rank, axis)
        x = call.take(0, layout, free=range(rank))
    shape = x.tensor.shape
    tensor = x.tensor
    if len(shape) > 4:
        tensor = ctx.reshape(tensor, (*_leading(shape[:-1]), shape[-1]), call.name)
    form = None if log else fixed_form(call, PROBABILITY)
    y = call.tensor(x.layout, form=form, shape=tensor.shape)
    ctx.program.add("LOG_SOFTMAX" if log else "SOFTMAX", [tensor], [y], {} if log else {"beta": 1.0})
    call.finish(ctx.reshape(y, shape, call.name), x.layout)


def _leading(shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
    if shape[0] is None:
        return (None, int(np.prod([d or 1 for d in shape[1:]])))
    return (None if None in shape else int(np.prod([d or 1 for d in shape])),)


def _axis_last(rank: int, axis: int) -> Layout:
    return Layout((*(a for a in range(rank) if a != axis), axis)) if rank else identity(0)


@UNARY.register("Cast")
def cast(ctx: Lowering, node: ir.Node) -> None:
    """CAST between the types that TFLite has."""
    call = Call(ctx, node, real=True)
    x = call.take(0)
    target = ir.DataType(attribute(node, "to", 1))
    if target not in TYPES:
        raise RefusalError(f"it casts to {target.name}", "Use float32 in the source network.")
    kind = TYPES[target]
    if kind == x.tensor.type:
        call.finish(x.tensor, x.layout)
        return
    y = ctx.program.tensor(call.name, kind, x.tensor.shape)
    options = {"in_data_type": int(x.tensor.type), "out_data_type": int(kind)}
    ctx.program.add("CAST", [x.tensor], [y], options)
    call.finish(y, x.layout)


def _is_false(value: ir.Value) -> bool:
    array = constant(value)
    return array is not None and not array.any()


@UNARY.register("Identity", "Dropout")
def identity_op(ctx: Lowering, node: ir.Node) -> None:
    """Nothing: the result is the operand's tensor."""
    if any(is_read(value) for value in node.outputs[1:]):
        raise RefusalError("its mask is read")
    training = node.inputs[2] if node.op_type == "Dropout" and len(node.inputs) > 2 else None
    if training is not None and not _is_false(training):
        raise RefusalError("it is in training mode", "Export the network in inference mode.")
    call = Call(ctx, node, moves=True)
    x = call.take(0)
    call.finish(x.tensor, x.layout)
