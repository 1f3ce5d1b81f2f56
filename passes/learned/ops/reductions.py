"""Ops that reduce axes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import onnx_ir as ir
import torch
from torch import Tensor

from edgec.graph.views import attribute
from edgec.passes.learned.ops.op import Builder, Op, Table, numbers

Axes = tuple[int, ...]
Reduce = Callable[[Tensor, Axes, bool], Tensor]


def total(x: Tensor, axes: Axes, keep: bool) -> Tensor:
    return x.sum(axes, keepdim=keep)


def mean(x: Tensor, axes: Axes, keep: bool) -> Tensor:
    return x.mean(axes, keepdim=keep)


def most(x: Tensor, axes: Axes, keep: bool) -> Tensor:
    return x.amax(axes, keepdim=keep)


def least(x: Tensor, axes: Axes, keep: bool) -> Tensor:
    return x.amin(axes, keepdim=keep)


def product(x: Tensor, axes: Axes, keep: bool) -> Tensor:
    for axis in sorted((axis % x.ndim for axis in axes), reverse=True):
        x = x.prod(axis, keepdim=keep)
    return x


def size(x: Tensor, axes: Axes, keep: bool) -> Tensor:
    return x.abs().sum(axes, keepdim=keep)


def length(x: Tensor, axes: Axes, keep: bool) -> Tensor:
    made: Tensor = torch.linalg.vector_norm(x, 2, axes, keepdim=keep)
    return made


def squares(x: Tensor, axes: Axes, keep: bool) -> Tensor:
    return (x * x).sum(axes, keepdim=keep)


def log_sum(x: Tensor, axes: Axes, keep: bool) -> Tensor:
    return x.sum(axes, keepdim=keep).log()


def log_sum_exp(x: Tensor, axes: Axes, keep: bool) -> Tensor:
    return torch.logsumexp(x, axes, keepdim=keep)


def reduced(x: Tensor, *, by: Reduce, axes: Axes | None, keep: bool, idle: bool) -> Tensor:
    """``idle``: without axes nothing is reduced, else everything."""
    if not axes:
        if idle:
            return by(x.unsqueeze(0), (0,), False)
        axes = tuple(range(x.ndim))
    return by(x, axes, keep)


def arg(x: Tensor, *, by: Callable[..., Tensor], axis: int, keep: bool, last: bool) -> Tensor:
    """The place of the most or the least; of equal ones the first, or the ``last``."""
    found = by(x.flip(axis) if last else x, axis, keepdim=keep)
    return x.shape[axis] - 1 - found if last else found


def _reduce(by: Reduce) -> Builder:
    def build(node: ir.Node) -> Op:
        axes, keep = numbers(node, 1, "axes"), bool(attribute(node, "keepdims", 1))
        idle = bool(attribute(node, "noop_with_empty_axes", 0))
        return Op(partial(reduced, by=by, axes=axes, keep=keep, idle=idle))

    return build


def _arg(by: Callable[..., Tensor]) -> Builder:
    def build(node: ir.Node) -> Op:
        axis, keep = attribute(node, "axis", 0), bool(attribute(node, "keepdims", 1))
        last = bool(attribute(node, "select_last_index", 0))
        return Op(partial(arg, by=by, axis=axis, keep=keep, last=last))

    return build


OPS: Table = {
    "ArgMax": _arg(torch.argmax),
    "ArgMin": _arg(torch.argmin),
    "ReduceL1": _reduce(size),
    "ReduceL2": _reduce(length),
    "ReduceLogSum": _reduce(log_sum),
    "ReduceLogSumExp": _reduce(log_sum_exp),
    "ReduceMax": _reduce(most),
    "ReduceMean": _reduce(mean),
    "ReduceMin": _reduce(least),
    "ReduceProd": _reduce(product),
    "ReduceSum": _reduce(total),
    "ReduceSumSquare": _reduce(squares),
}
