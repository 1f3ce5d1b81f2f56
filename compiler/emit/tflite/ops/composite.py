"""Operators that TFLite has no one operator for, written out in those it has, on real numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir

from edgec.compiler.emit.tflite.call import Call, is_read
from edgec.compiler.emit.tflite.context import Lowering, RefusalError
from edgec.compiler.emit.tflite.layout import Layout, channels_last
from edgec.compiler.emit.tflite.ops.elementwise import binary_tensors
from edgec.compiler.emit.tflite.program import Tensor
from edgec.compiler.emit.tflite.registry import Registry
from edgec.graph.tflite.schema import ActivationFunctionType as Activation
from edgec.graph.tflite.schema import Padding, TensorType
from edgec.graph.views import attribute

Array = np.ndarray[Any, np.dtype[Any]]

COMPOSITE = Registry()


class Formula:
    """Small arithmetic on float tensors of one shape (or a broadcast one)."""

    def __init__(self, ctx: Lowering, name: str) -> None:
        self.ctx = ctx
        self.name = name

    def scalar(self, value: float, like: Tensor) -> Tensor:
        return self.ctx.program.constant("scalar", np.full((1,) * len(like.shape), value, np.float32))

    def binary(self, code: str, a: Tensor, b: Tensor | float) -> Tensor:
        other = b if isinstance(b, Tensor) else self.scalar(b, a)
        return binary_tensors(self.ctx, code, a, other, self.name)

    def unary(self, code: str, x: Tensor) -> Tensor:
        y = self.ctx.program.tensor(self.name, x.type, x.shape)
        self.ctx.program.add(code, [x], [y])
        return y

    def mean(self, x: Tensor, positions: list[int]) -> Tensor:
        shape = tuple(1 if p in positions else d for p, d in enumerate(x.shape))
        y = self.ctx.program.tensor(self.name, x.type, shape)
        self.ctx.program.add("MEAN", [x, self.ctx.ints(positions)], [y], {"keep_dims": True})
        return y

    def normalised(self, x: Tensor, positions: list[int], epsilon: float) -> tuple[Tensor, Tensor, Tensor]:
        """Zero mean and unit variance over these physical axes; also the mean and 1 / deviation."""
        mean = self.mean(x, positions)
        centred = self.binary("SUB", x, mean)
        variance = self.mean(self.unary("SQUARE", centred), positions)
        inverse = self.unary("RSQRT", self.binary("ADD", variance, epsilon))
        return self.binary("MUL", centred, inverse), mean, inverse


def _start(ctx: Lowering, node: ir.Node) -> tuple[Call, Formula, Tensor, Layout]:
    call = Call(ctx, node, real=True)
    x = call.take(0)
    if x.tensor.type != TensorType.FLOAT32:
        raise RefusalError(f"it works on {x.tensor.type.name}", "Use float32 in the source network.")
    return call, Formula(ctx, call.name), x.tensor, x.layout


def _register(op_type: str, write: Callable[[Formula, Tensor, ir.Node], Tensor]) -> None:
    def handler(ctx: Lowering, node: ir.Node) -> None:
        call, formula, x, layout = _start(ctx, node)
        call.finish(write(formula, x, node), layout)

    COMPOSITE.register(op_type)(handler)


def _reciprocal(f: Formula, x: Tensor, node: ir.Node) -> Tensor:
    return f.binary("DIV", f.scalar(1.0, x), x)


def _hard_sigmoid(f: Formula, x: Tensor, node: ir.Node) -> Tensor:
    """``clip(alpha x + beta, 0, 1)``."""
    line = f.binary("MUL", x, float(attribute(node, "alpha", 0.2)))
    line = f.binary("ADD", line, float(attribute(node, "beta", 0.5)))
    return f.binary("MINIMUM", f.unary("RELU", line), 1.0)


def _elu_of(f: Formula, x: Tensor, alpha: float, inner: float = 1.0) -> Tensor:
    """``max(x, 0) + alpha * (exp(min(x, 0) / inner) - 1)``; ELU is that with alpha 1."""
    if alpha == 1.0 and inner == 1.0:
        return f.unary("ELU", x)
    below = f.binary("MUL", f.binary("MINIMUM", x, 0.0), 1.0 / inner)
    curve = f.binary("MUL", f.binary("SUB", f.unary("EXP", below), 1.0), alpha)
    return f.binary("ADD", f.unary("RELU", x), curve)


def _elu(f: Formula, x: Tensor, node: ir.Node) -> Tensor:
    return _elu_of(f, x, float(attribute(node, "alpha", 1.0)))


def _celu(f: Formula, x: Tensor, node: ir.Node) -> Tensor:
    alpha = float(attribute(node, "alpha", 1.0))
    return _elu_of(f, x, alpha, alpha)


def _selu(f: Formula, x: Tensor, node: ir.Node) -> Tensor:
    alpha = float(attribute(node, "alpha", 1.67326319217681884765625))
    gamma = float(attribute(node, "gamma", 1.05070102214813232421875))
    return f.binary("MUL", _elu_of(f, x, alpha), gamma)


def _softplus(f: Formula, x: Tensor, node: ir.Node | None = None) -> Tensor:
    """``max(x, 0) + log(1 + exp(-|x|))``, which does not overflow."""
    tail = f.unary("EXP", f.unary("NEG", f.unary("ABS", x)))
    return f.binary("ADD", f.unary("RELU", x), f.unary("LOG", f.binary("ADD", tail, 1.0)))


def _softsign(f: Formula, x: Tensor, node: ir.Node) -> Tensor:
    return f.binary("DIV", x, f.binary("ADD", f.unary("ABS", x), 1.0))


def _mish(f: Formula, x: Tensor, node: ir.Node) -> Tensor:
    return f.binary("MUL", x, f.unary("TANH", _softplus(f, x)))


def _swish(f: Formula, x: Tensor, node: ir.Node) -> Tensor:
    alpha = float(attribute(node, "alpha", 1.0))
    inner = x if alpha == 1.0 else f.binary("MUL", x, alpha)
    return f.binary("MUL", x, f.unary("LOGISTIC", inner))


_register("Reciprocal", _reciprocal)
_register("HardSigmoid", _hard_sigmoid)
_register("Elu", _elu)
_register("Celu", _celu)
_register("Selu", _selu)
_register("Softplus", _softplus)
_register("Softsign", _softsign)
_register("Mish", _mish)
_register("Swish", _swish)


@COMPOSITE.register("ThresholdedRelu")
def thresholded_relu(ctx: Lowering, node: ir.Node) -> None:
    """``x`` where it exceeds alpha, else 0."""
    call, f, x, layout = _start(ctx, node)
    above = f.binary("GREATER", x, float(attribute(node, "alpha", 1.0)))
    y = call.tensor(layout)
    ctx.program.add("SELECT_V2", [above, x, f.scalar(0.0, x)], [y])
    call.finish(y, layout)


def _laid(ctx: Lowering, name: str, layout: Layout, array: Array) -> Tensor:
    """A constant that broadcasts against a tensor in ``layout``; axes of size 1 have no shuffle."""
    own = layout.with_orders({a: o for a, o in layout.orders if array.shape[a] != 1})
    return ctx.program.constant(name, own.place(array.astype(np.float32)))


def _over_channels(vector: Array, rank: int) -> Array:
    return vector.reshape([-1 if axis == 1 else 1 for axis in range(rank)])


@COMPOSITE.register("BatchNormalization")
def batch_normalization(ctx: Lowering, node: ir.Node) -> None:
    """MUL and ADD by constants; load folds it into a convolution where there is one."""
    if attribute(node, "training_mode", 0) or any(is_read(value) for value in node.outputs[1:]):
        raise RefusalError("it is in training mode", "Export the network in inference mode.")
    call, f, x, layout = _start(ctx, node)
    names = ("scale", "bias", "mean", "variance")
    scale, bias, mean, variance = (
        call.constant(i, n).astype(np.float64) for i, n in enumerate(names, start=1)
    )
    factor = scale / np.sqrt(variance + float(attribute(node, "epsilon", 1e-5)))
    rank = len(call.in_shape())
    a = _laid(ctx, f"{call.name}_factor", layout, _over_channels(factor, rank))
    b = _laid(ctx, f"{call.name}_offset", layout, _over_channels(bias - mean * factor, rank))
    call.finish(f.binary("ADD", f.binary("MUL", x, a), b), layout)


@COMPOSITE.register("InstanceNormalization")
def instance_normalization(ctx: Lowering, node: ir.Node) -> None:
    """Every channel of every sample to mean 0 and variance 1, then scale and bias."""
    call, f, x, layout = _start(ctx, node)
    rank = len(call.in_shape())
    positions = sorted(layout.position(a) for a in range(2, rank))
    y, _, _ = f.normalised(x, positions, float(attribute(node, "epsilon", 1e-5)))
    y = f.binary("MUL", y, _laid(ctx, "scale", layout, _over_channels(call.constant(1, "scale"), rank)))
    y = f.binary("ADD", y, _laid(ctx, "bias", layout, _over_channels(call.constant(2, "bias"), rank)))
    call.finish(y, layout)


@COMPOSITE.register("LayerNormalization")
def layer_normalization(ctx: Lowering, node: ir.Node) -> None:
    """The trailing axes to mean 0 and variance 1, then scale and bias."""
    call, f, x, layout = _start(ctx, node)
    rank = len(call.in_shape())
    axis = int(attribute(node, "axis", -1)) % rank
    positions = sorted(layout.position(a) for a in range(axis, rank))
    y, *statistics = f.normalised(x, positions, float(attribute(node, "epsilon", 1e-5)))
    for index, code, what in ((1, "MUL", "scale"), (2, "ADD", "bias")):
        array = call.optional(index, what)
        if array is not None:
            y = f.binary(
                code, y, _laid(ctx, what, layout, array.reshape((1,) * (rank - array.ndim) + array.shape))
            )
    call.finish(y, layout)
    kept = layout.with_orders({a: o for a, o in layout.orders if a < axis})
    for output, tensor in zip(range(1, len(node.outputs)), statistics, strict=False):
        call.finish(tensor, kept, output)


@COMPOSITE.register("LRN")
def local_response_normalization(ctx: Lowering, node: ir.Node) -> None:
    """``x * (bias + alpha / size * sum of the neighbours' squares) ^ -beta``; a 1x1 convolution of equal weights sums.

    TFLite's own operator takes odd sizes only, and its two kernels disagree on the last neighbour.
    """
    call = Call(ctx, node, real=True)
    rank, channels = len(call.in_shape()), call.in_shape()[1]
    if rank != 4 or channels is None:
        raise RefusalError(f"it has {rank - 2} spatial axes, it is written for two")
    layout, f = channels_last(rank), Formula(ctx, call.name)
    x = call.take(0, layout)
    size = int(attribute(node, "size", 1))
    offset = np.arange(channels)[None, :] - np.arange(channels)[:, None]  # of what is read to what is made
    near = (offset >= -((size - 1) // 2)) & (offset <= size // 2)
    share = float(attribute(node, "alpha", 1e-4)) / size
    weight = ctx.program.constant("neighbours", (near * share).astype(np.float32)[:, None, None, :])
    bias = np.full(channels, float(attribute(node, "bias", 1.0)), np.float32)
    total = call.tensor(layout)
    options = {
        "padding": int(Padding.VALID), "stride_w": 1, "stride_h": 1, "dilation_w_factor": 1, "dilation_h_factor": 1,
        "fused_activation_function": int(Activation.NONE),
    }  # fmt: skip
    ctx.program.add(
        "CONV_2D", [f.unary("SQUARE", x.tensor), weight, ctx.program.constant("bias", bias)], [total], options
    )
    power = f.binary("POW", total, -float(attribute(node, "beta", 0.75)))
    call.finish(f.binary("MUL", x.tensor, power), layout)
