"""Ops that take each element for itself, and those that weigh it along one axis."""

from __future__ import annotations

from functools import partial

import numpy as np
import onnx_ir as ir
import torch
import torch.nn.functional as F
from torch import Tensor

from edgec.graph.views import attribute, constant
from edgec.passes.learned.ops.op import Op, Table, number, only_result, operand, plain, refuse

TYPES = {
    ir.DataType.FLOAT: torch.float32,
    ir.DataType.DOUBLE: torch.float64,
    ir.DataType.FLOAT16: torch.float16,
    ir.DataType.BFLOAT16: torch.bfloat16,
    ir.DataType.INT8: torch.int8,
    ir.DataType.INT16: torch.int16,
    ir.DataType.INT32: torch.int32,
    ir.DataType.INT64: torch.int64,
    ir.DataType.UINT8: torch.uint8,
    ir.DataType.BOOL: torch.bool,
}


def hard_sigmoid(x: Tensor, alpha: float, beta: float) -> Tensor:
    return torch.clamp(alpha * x + beta, 0.0, 1.0)


def selu(x: Tensor, alpha: float, gamma: float) -> Tensor:
    return gamma * torch.where(x > 0, x, alpha * torch.expm1(torch.clamp(x, max=0.0)))


def swish(x: Tensor, alpha: float) -> Tensor:
    return F.silu(x) if alpha == 1.0 else x * torch.sigmoid(alpha * x)


def thresholded(x: Tensor, alpha: float) -> Tensor:
    return torch.where(x > alpha, x, torch.zeros_like(x))


def mish(x: Tensor) -> Tensor:
    return F.mish(x)


def softplus(x: Tensor) -> Tensor:
    return F.softplus(x, threshold=1e3)


def hardmax(x: Tensor, axis: int) -> Tensor:
    return torch.zeros_like(x).scatter(axis, x.argmax(axis, keepdim=True), 1.0)


def same(x: Tensor) -> Tensor:
    return x


def cast(x: Tensor, to: torch.dtype) -> Tensor:
    return x != 0 if to == torch.bool else x.to(to)


def clip(x: Tensor, low: Tensor | None, high: Tensor | None) -> Tensor:
    x = x if low is None else torch.maximum(x, low)
    return x if high is None else torch.minimum(x, high)


def bounded(x: Tensor, low: float | None, high: float | None) -> Tensor:
    if low == 0.0 and x.is_floating_point():
        return F.relu(x) if high is None else F.relu6(x) if high == 6.0 else torch.clamp(x, 0.0, high)
    return torch.clamp(x, low, high)


def _clip(node: ir.Node) -> Op:
    bounds = [operand(node, 1), operand(node, 2)]
    arrays = [constant(value) for value in bounds]
    computed = any(v is not None and a is None for v, a in zip(bounds, arrays, strict=True))
    if computed:
        return Op(clip, (0, 1, 2))
    low, high = (None if array is None else number(array) for array in arrays)
    low = None if low is not None and low <= float(np.finfo(np.float32).min) else low
    high = None if high is not None and high >= float(np.finfo(np.float32).max) else high
    return Op(same) if low is None and high is None else Op(partial(bounded, low=low, high=high))


def _cast(node: ir.Node) -> Op:
    to = TYPES.get(ir.DataType(attribute(node, "to", 0)))
    if to is None:
        refuse(node, f"torch has no type {ir.DataType(attribute(node, 'to', 0)).name}")
    return Op(partial(cast, to=to))


def _dropout(node: ir.Node) -> Op:
    only_result(node)
    return Op(same)


def _gelu(node: ir.Node) -> Op:
    way = attribute(node, "approximate", "none")
    return Op(partial(F.gelu, approximate=way))


def _softmax(node: ir.Node) -> Op:
    return Op(partial(torch.softmax, dim=attribute(node, "axis", -1)))


def _log_softmax(node: ir.Node) -> Op:
    return Op(partial(torch.log_softmax, dim=attribute(node, "axis", -1)))


def _hardmax(node: ir.Node) -> Op:
    return Op(partial(hardmax, axis=attribute(node, "axis", -1)))


def _selu(node: ir.Node) -> Op:
    alpha = attribute(node, "alpha", 1.6732632423543772)
    return Op(partial(selu, alpha=alpha, gamma=attribute(node, "gamma", 1.0507009873554805)))


def _hard_sigmoid(node: ir.Node) -> Op:
    return Op(partial(hard_sigmoid, alpha=attribute(node, "alpha", 0.2), beta=attribute(node, "beta", 0.5)))


def _leaky(node: ir.Node) -> Op:
    return Op(partial(F.leaky_relu, negative_slope=attribute(node, "alpha", 0.01)))


OPS: Table = {
    "Abs": plain(torch.abs),
    "Cast": _cast,
    "Ceil": plain(torch.ceil),
    "Celu": lambda node: Op(partial(F.celu, alpha=attribute(node, "alpha", 1.0))),
    "Clip": _clip,
    "Cos": plain(torch.cos),
    "Dropout": _dropout,
    "Elu": lambda node: Op(partial(F.elu, alpha=attribute(node, "alpha", 1.0))),
    "Erf": plain(torch.erf),
    "Exp": plain(torch.exp),
    "Floor": plain(torch.floor),
    "Gelu": _gelu,
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": plain(F.hardswish),
    "Hardmax": _hardmax,
    "Identity": plain(same),
    "LeakyRelu": _leaky,
    "Log": plain(torch.log),
    "LogSoftmax": _log_softmax,
    "Mish": plain(mish),
    "Neg": plain(torch.neg),
    "Not": plain(torch.logical_not),
    "Reciprocal": plain(torch.reciprocal),
    "Relu": plain(F.relu),
    "Round": plain(torch.round),
    "Selu": _selu,
    "Sigmoid": plain(torch.sigmoid),
    "Sign": plain(torch.sign),
    "Sin": plain(torch.sin),
    "Softmax": _softmax,
    "Softplus": plain(softplus),
    "Softsign": plain(F.softsign),
    "Sqrt": plain(torch.sqrt),
    "Swish": lambda node: Op(partial(swish, alpha=attribute(node, "alpha", 1.0))),
    "Tan": plain(torch.tan),
    "Tanh": plain(torch.tanh),
    "ThresholdedRelu": lambda node: Op(partial(thresholded, alpha=attribute(node, "alpha", 1.0))),
}
