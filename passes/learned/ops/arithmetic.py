"""Ops of several tensors, element by element, with numpy's broadcasting."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, reduce

import onnx_ir as ir
import torch
from torch import Tensor

from edgec.graph.views import attribute, is_constant
from edgec.passes.learned.ops.op import Builder, Op, Table, operand, plain


def add(x: Tensor, y: Tensor) -> Tensor:
    return x + y


def sub(x: Tensor, y: Tensor) -> Tensor:
    return x - y


def mul(x: Tensor, y: Tensor) -> Tensor:
    return x * y


def div(x: Tensor, y: Tensor) -> Tensor:
    """Of whole numbers: towards zero."""
    return x / y if x.is_floating_point() else torch.div(x, y, rounding_mode="trunc")


def mod(x: Tensor, y: Tensor, *, like_c: bool) -> Tensor:
    return torch.fmod(x, y) if like_c else torch.remainder(x, y)


def power(x: Tensor, y: Tensor) -> Tensor:
    return torch.pow(x, y).to(x.dtype)


def prelu(x: Tensor, slope: Tensor) -> Tensor:
    return torch.clamp(x, min=0.0) + slope * torch.clamp(x, max=0.0)


def folded(*tensors: Tensor, by: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    return reduce(by, tensors)


def mean(*tensors: Tensor) -> Tensor:
    return reduce(add, tensors) / len(tensors)


def _all(run: Callable[..., Tensor]) -> Builder:
    return lambda node: Op(run, tuple(range(len(node.inputs))))


def _add(node: ir.Node) -> Op:
    """The constant behind a product with a constant matrix is the bias of a layer."""
    for index in (0, 1):
        value, other = operand(node, index), operand(node, 1 - index)
        product = None if value is None else value.producer()
        if product is not None and product.op_type == "MatMul" and is_constant(product.inputs[1]):
            return Op(add, (0, 1), (1 - index,) if is_constant(other) else ())
    return Op(add, (0, 1))


OPS: Table = {
    "Add": _add,
    "And": plain(torch.logical_and, 2),
    "Div": plain(div, 2),
    "Equal": plain(torch.eq, 2),
    "Greater": plain(torch.gt, 2),
    "GreaterOrEqual": plain(torch.ge, 2),
    "Less": plain(torch.lt, 2),
    "LessOrEqual": plain(torch.le, 2),
    "Max": _all(partial(folded, by=torch.maximum)),
    "Mean": _all(mean),
    "Min": _all(partial(folded, by=torch.minimum)),
    "Mod": lambda node: Op(partial(mod, like_c=bool(attribute(node, "fmod", 0))), (0, 1)),
    "Mul": plain(mul, 2),
    "Or": plain(torch.logical_or, 2),
    "PRelu": lambda node: Op(prelu, (0, 1), (1,)),
    "Pow": plain(power, 2),
    "Sub": plain(sub, 2),
    "Sum": _all(partial(folded, by=add)),
    "Where": plain(torch.where, 3),
    "Xor": plain(torch.logical_xor, 2),
}
