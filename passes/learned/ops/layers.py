"""Layers: convolutions, products with matrices, norms."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import onnx_ir as ir
import torch
import torch.nn.functional as F
from torch import Tensor

from edgec.graph.views import attribute, is_constant, shape_of
from edgec.passes.learned.ops.op import Op, Table, only_result, operand, refuse


def around(x: Tensor, begins: Sequence[int], ends: Sequence[int], value: float = 0.0) -> Tensor:
    """``x`` padded along its last axes; where the counts are negative, cut."""
    if not any((*begins, *ends)):
        return x
    pairs = [amount for pair in zip(reversed(begins), reversed(ends), strict=True) for amount in pair]
    return F.pad(x, pairs, value=value)


def conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    *,
    strides: tuple[int, ...],
    pads: tuple[int, ...],
    dilations: tuple[int, ...],
    group: int,
) -> Tensor:
    rank = len(strides)
    begins, ends = pads[:rank], pads[rank:]
    if begins != ends or min(begins) < 0:
        x, begins = around(x, begins, ends), (0,) * rank
    return torch.convolution(x, weight, bias, strides, begins, dilations, False, (0,) * rank, group)


def conv_transpose(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    *,
    strides: tuple[int, ...],
    pads: tuple[int, ...],
    dilations: tuple[int, ...],
    group: int,
    extra: tuple[int, ...],
) -> Tensor:
    """``extra``: what is added to the size of the result behind it (ONNX's output_padding)."""
    rank = len(strides)
    begins, ends = pads[:rank], pads[rank:]
    if (
        begins == ends
        and min(begins) >= 0
        and all(e < max(s, d) for e, s, d in zip(extra, strides, dilations, strict=True))
    ):
        return torch.convolution(x, weight, bias, strides, begins, dilations, True, extra, group)
    whole = torch.convolution(x, weight, None, strides, (0,) * rank, dilations, True, (0,) * rank, group)
    ends = tuple(more - end for more, end in zip(extra, ends, strict=True))
    cut = around(whole, [-begin for begin in begins], ends)
    return cut if bias is None else cut + bias.reshape(1, -1, *(1,) * rank)


def gemm(
    a: Tensor, b: Tensor, c: Tensor | None, *, alpha: float, beta: float, trans_a: bool, trans_b: bool
) -> Tensor:
    if trans_b and not trans_a and alpha == beta == 1.0 and (c is None or c.ndim == 1):
        return F.linear(a, b, c)
    product = alpha * ((a.t() if trans_a else a) @ (b.t() if trans_b else b))
    return product if c is None else product + beta * c


def einsum(*tensors: Tensor, equation: str) -> Tensor:
    return torch.einsum(equation, *tensors)


def batch_norm(
    x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, *, epsilon: float
) -> Tensor:
    return F.batch_norm(x, mean, variance, scale, bias, False, 0.0, epsilon)


def instance_norm(x: Tensor, scale: Tensor, bias: Tensor, *, epsilon: float) -> Tensor:
    return F.instance_norm(x, weight=scale, bias=bias, eps=epsilon)


def layer_norm(x: Tensor, scale: Tensor, bias: Tensor | None, *, axis: int, epsilon: float) -> Tensor:
    shape = x.shape[axis:]
    if scale.shape == shape:
        return F.layer_norm(x, shape, scale, bias, epsilon)
    normed = F.layer_norm(x, shape, None, None, epsilon) * scale
    return normed if bias is None else normed + bias


def lp_norm(x: Tensor, *, axis: int, p: int) -> Tensor:
    norm = torch.linalg.vector_norm(x, p, axis, keepdim=True)
    return torch.where(
        norm == 0, torch.zeros_like(x), x / torch.where(norm == 0, torch.ones_like(norm), norm)
    )


def lrn(x: Tensor, *, alpha: float, beta: float, bias: float, size: int) -> Tensor:
    """Over ``size`` neighbouring channels, of which one more lies behind where the number is even."""
    before = (size - 1) // 2
    squares = (x * x).flatten(2).transpose(1, 2)
    padded = F.pad(squares, (before, size - 1 - before))
    sums = padded.unfold(2, size, 1).sum(-1).transpose(1, 2).reshape(x.shape)
    return x * (bias + alpha / size * sums) ** -beta


def _spread(node: ir.Node) -> dict[str, tuple[int, ...]]:
    if attribute(node, "auto_pad", "NOTSET") not in ("NOTSET", "", "VALID"):
        refuse(node, "its padding follows from the size of the input (auto_pad)")
    rank = len(shape_of(node.inputs[1])) - 2
    return {
        "strides": tuple(attribute(node, "strides", (1,) * rank)),
        "pads": tuple(attribute(node, "pads", (0,) * 2 * rank)),
        "dilations": tuple(attribute(node, "dilations", (1,) * rank)),
    }


def _conv(node: ir.Node) -> Op:
    return Op(partial(conv, **_spread(node), group=attribute(node, "group", 1)), (0, 1, 2), (1, 2))  # type: ignore[arg-type]


def _conv_transpose(node: ir.Node) -> Op:
    spread = _spread(node)
    rank = len(spread["strides"])
    extra = tuple(attribute(node, "output_padding", (0,) * rank))
    if "output_shape" in node.attributes:
        sizes = shape_of(node.inputs[0])[2:]
        kernel = shape_of(node.inputs[1])[2:]
        if None in sizes or None in kernel:
            refuse(node, "its size is not known (output_shape)")
        wanted = attribute(node, "output_shape", ())[-rank:]
        spread["pads"] = _from_output(sizes, kernel, wanted, spread, extra)  # type: ignore[arg-type]
    run = partial(conv_transpose, **spread, group=attribute(node, "group", 1), extra=extra)  # type: ignore[arg-type]
    return Op(run, (0, 1, 2), (1, 2))


def _from_output(
    sizes: Sequence[int],
    kernel: Sequence[int],
    wanted: Sequence[int],
    spread: dict[str, tuple[int, ...]],
    extra: Sequence[int],
) -> tuple[int, ...]:
    """Pads that give the size that the node names: halves, the larger one in front."""
    whole = [
        stride * (size - 1) + more + (k - 1) * dilation + 1
        for size, k, stride, dilation, more in zip(
            sizes, kernel, spread["strides"], spread["dilations"], extra, strict=True
        )
    ]
    total = [max(have - want, 0) for have, want in zip(whole, wanted, strict=True)]
    return (*(one - one // 2 for one in total), *(one // 2 for one in total))


def _gemm(node: ir.Node) -> Op:
    run = partial(
        gemm,
        alpha=attribute(node, "alpha", 1.0),
        beta=attribute(node, "beta", 1.0),
        trans_a=bool(attribute(node, "transA", 0)),
        trans_b=bool(attribute(node, "transB", 0)),
    )
    return Op(run, (0, 1, 2), (1, 2))


def _matmul(node: ir.Node) -> Op:
    return Op(torch.matmul, (0, 1), tuple(i for i in (0, 1) if is_constant(operand(node, i))))


def _einsum(node: ir.Node) -> Op:
    reads = tuple(range(len(node.inputs)))
    run = partial(einsum, equation=attribute(node, "equation", "").replace(" ", ""))
    return Op(run, reads, tuple(i for i in reads if is_constant(operand(node, i))))


def _batch_norm(node: ir.Node) -> Op:
    only_result(node)
    if attribute(node, "training_mode", 0):
        refuse(node, "it computes the statistics of the batch (training_mode)")
    return Op(partial(batch_norm, epsilon=attribute(node, "epsilon", 1e-5)), (0, 1, 2, 3, 4), (1, 2))


def _instance_norm(node: ir.Node) -> Op:
    return Op(partial(instance_norm, epsilon=attribute(node, "epsilon", 1e-5)), (0, 1, 2), (1, 2))


def _layer_norm(node: ir.Node) -> Op:
    only_result(node)
    rank = len(shape_of(node.inputs[0]))
    axis = attribute(node, "axis", -1) % rank
    run = partial(layer_norm, axis=axis, epsilon=attribute(node, "epsilon", 1e-5))
    return Op(run, (0, 1, 2), (1, 2))


def _lp_norm(node: ir.Node) -> Op:
    return Op(partial(lp_norm, axis=attribute(node, "axis", -1), p=attribute(node, "p", 2)))


def _lrn(node: ir.Node) -> Op:
    run = partial(
        lrn,
        alpha=attribute(node, "alpha", 1e-4),
        beta=attribute(node, "beta", 0.75),
        bias=attribute(node, "bias", 1.0),
        size=attribute(node, "size", 1),
    )
    return Op(run)


OPS: Table = {
    "BatchNormalization": _batch_norm,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Einsum": _einsum,
    "Gemm": _gemm,
    "InstanceNormalization": _instance_norm,
    "LRN": _lrn,
    "LayerNormalization": _layer_norm,
    "LpNormalization": _lp_norm,
    "MatMul": _matmul,
}
