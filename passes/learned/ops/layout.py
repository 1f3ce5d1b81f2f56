"""Ops that move elements: shapes, order, cuts, joins, padding."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import onnx_ir as ir
import torch
import torch.nn.functional as F
from torch import Tensor

from edgec.graph.views import attribute, constant
from edgec.passes.learned.ops.op import Op, Table, number, numbers, operand, refuse, static

MODES = {"reflect": "reflect", "edge": "edge", "wrap": "wrap"}
"""Modes of Pad, by numpy's names."""


def reshape(x: Tensor, *, target: tuple[int, ...], copies: bool) -> Tensor:
    """``copies``: 0 stands for the size that the input has there."""
    return x.reshape([x.shape[i] if copies and size == 0 else size for i, size in enumerate(target)])


def flatten(x: Tensor, *, axis: int) -> Tensor:
    axis = axis + x.ndim if axis < 0 else axis
    return x.reshape(-1, math.prod(x.shape[axis:])) if axis else x.reshape(1, -1)


def squeeze(x: Tensor, *, axes: tuple[int, ...] | None) -> Tensor:
    return x.squeeze() if axes is None else x.squeeze(axes)


def unsqueeze(x: Tensor, *, axes: tuple[int, ...]) -> Tensor:
    rank = x.ndim + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        x = x.unsqueeze(axis)
    return x


def transpose(x: Tensor, *, perm: tuple[int, ...] | None) -> Tensor:
    return x.permute(tuple(reversed(range(x.ndim))) if perm is None else perm)


def concat(*tensors: Tensor, axis: int) -> Tensor:
    return torch.cat(tensors, axis)


def split(x: Tensor, *, axis: int, sizes: tuple[int, ...] | None, parts: int) -> tuple[Tensor, ...]:
    """Equal ``parts``, the last one smaller where they do not divide, unless ``sizes`` says otherwise."""
    return tuple(torch.split(x, list(sizes) if sizes else -(-x.shape[axis] // parts), axis))


def cut(x: Tensor, *, slices: tuple[tuple[int, slice], ...]) -> Tensor:
    for axis, one in slices:
        if one.step > 0:
            x = x[(slice(None),) * (axis % x.ndim) + (one,)]
        else:
            places = torch.tensor(range(x.shape[axis])[one], dtype=torch.int64, device=x.device)
            x = x.index_select(axis, places)
    return x


def gather(x: Tensor, indices: Tensor, *, axis: int) -> Tensor:
    axis = axis % x.ndim
    flat = indices.reshape(-1).to(torch.int64)
    chosen = x.index_select(axis, torch.where(flat < 0, flat + x.shape[axis], flat))
    return chosen.reshape(*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])


def pick(x: Tensor, *, axis: int, index: int) -> Tensor:
    return x.select(axis, index)


def expand(x: Tensor, *, target: tuple[int, ...]) -> Tensor:
    return x.expand(torch.broadcast_shapes(x.shape, target))  # type: ignore[no-untyped-call]


def tile(x: Tensor, *, repeats: tuple[int, ...]) -> Tensor:
    return x.repeat(repeats)


def pad(x: Tensor, *, begins: tuple[int, ...], ends: tuple[int, ...], mode: str, value: float) -> Tensor:
    """``begins`` and ``ends`` are of all axes; negative ones cut, before anything is added."""
    if mode == "constant":
        pairs = [amount for pair in zip(reversed(begins), reversed(ends), strict=True) for amount in pair]
        return F.pad(x, pairs, value=value)
    for axis, (begin, end) in enumerate(zip(begins, ends, strict=True)):
        if begin or end:
            kept = np.arange(max(0, -begin), x.shape[axis] - max(0, -end))
            places = np.pad(kept, (max(0, begin), max(0, end)), mode=mode)  # type: ignore[call-overload]
            x = x.index_select(axis, torch.from_numpy(places).to(x.device))
    return x


def depth_to_space(x: Tensor, *, size: int, crd: bool) -> Tensor:
    n, c, h, w = x.shape
    deep = c // size**2
    split_up = x.reshape(n, deep, size, size, h, w) if crd else x.reshape(n, size, size, deep, h, w)
    order = (0, 1, 4, 2, 5, 3) if crd else (0, 3, 4, 1, 5, 2)
    return split_up.permute(order).reshape(n, deep, h * size, w * size)


def space_to_depth(x: Tensor, *, size: int, crd: bool) -> Tensor:
    n, c, h, w = x.shape
    blocks = x.reshape(n, c, h // size, size, w // size, size)
    order = (0, 1, 3, 5, 2, 4) if crd else (0, 3, 5, 1, 2, 4)
    return blocks.permute(order).reshape(n, c * size**2, h // size, w // size)


def _reshape(node: ir.Node) -> Op:
    target = numbers(node, 1)
    if target is None:
        refuse(node, "it has no shape")
    return Op(partial(reshape, target=target, copies=not attribute(node, "allowzero", 0)))


def _unsqueeze(node: ir.Node) -> Op:
    return Op(partial(unsqueeze, axes=numbers(node, 1, "axes") or ()))


def _transpose(node: ir.Node) -> Op:
    return Op(partial(transpose, perm=attribute(node, "perm", None)))


def _concat(node: ir.Node) -> Op:
    return Op(partial(concat, axis=attribute(node, "axis", 0)), tuple(range(len(node.inputs))))


def _split(node: ir.Node) -> Op:
    sizes, axis = numbers(node, 1, "split"), attribute(node, "axis", 0)
    return Op(partial(split, axis=axis, sizes=sizes, parts=len(node.outputs)))


def _slice(node: ir.Node) -> Op:
    starts, ends = numbers(node, 1, "starts"), numbers(node, 2, "ends")
    if starts is None or ends is None:
        refuse(node, "it does not say where to cut")
    axes = numbers(node, 3, "axes") or tuple(range(len(starts)))
    steps = numbers(node, 4, "steps") or (1,) * len(starts)
    found = zip(axes, starts, ends, steps, strict=True)
    return Op(partial(cut, slices=tuple((axis, slice(a, b, step)) for axis, a, b, step in found)))


def _gather(node: ir.Node) -> Op:
    axis, indices = attribute(node, "axis", 0), constant(operand(node, 1))
    if indices is not None and not indices.ndim:
        return Op(partial(pick, axis=axis, index=int(indices)))
    return Op(partial(gather, axis=axis), (0, 1))


def _expand(node: ir.Node) -> Op:
    return Op(partial(expand, target=numbers(node, 1) or ()))


def _tile(node: ir.Node) -> Op:
    return Op(partial(tile, repeats=numbers(node, 1) or ()))


def _pad(node: ir.Node) -> Op:
    amounts = numbers(node, 1, "pads") or ()
    given, x = numbers(node, 3), operand(node, 0)
    rank = len(x.shape) if x is not None and x.shape is not None else len(amounts) // 2
    axes = tuple(range(rank)) if given is None else tuple(axis % rank for axis in given)
    begins, ends = [0] * rank, [0] * rank
    for place, axis in enumerate(axes):
        begins[axis], ends[axis] = amounts[place], amounts[place + len(axes)]
    mode, filled = attribute(node, "mode", "constant"), static(node, 2)
    if mode not in ("constant", *MODES):
        refuse(node, f"its mode is {mode!r}")
    value = 0.0 if filled is None else number(filled)
    return Op(partial(pad, begins=tuple(begins), ends=tuple(ends), mode=MODES.get(mode, mode), value=value))


def _blocks(node: ir.Node) -> dict[str, int | bool]:
    return {"size": attribute(node, "blocksize", 1), "crd": attribute(node, "mode", "DCR") == "CRD"}


def _depth_to_space(node: ir.Node) -> Op:
    return Op(partial(depth_to_space, **_blocks(node)))  # type: ignore[arg-type]


def _space_to_depth(node: ir.Node) -> Op:
    return Op(partial(space_to_depth, **_blocks(node)))  # type: ignore[arg-type]


OPS: Table = {
    "Concat": _concat,
    "DepthToSpace": _depth_to_space,
    "Expand": _expand,
    "Flatten": lambda node: Op(partial(flatten, axis=attribute(node, "axis", 1))),
    "Gather": _gather,
    "Pad": _pad,
    "Reshape": _reshape,
    "Slice": _slice,
    "SpaceToDepth": _space_to_depth,
    "Split": _split,
    "Squeeze": lambda node: Op(partial(squeeze, axes=numbers(node, 1, "axes"))),
    "Tile": _tile,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
