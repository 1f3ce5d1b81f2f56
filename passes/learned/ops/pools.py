"""Pools, over windows and over the whole map.

A window may reach behind the padding where the size is rounded up; a last window that would start there is dropped, as ONNX
drops it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import onnx_ir as ir
import torch
import torch.nn.functional as F
from torch import Tensor

from edgec.graph.views import attribute
from edgec.passes.learned.ops.layers import around
from edgec.passes.learned.ops.op import Op, Table, only_result, refuse


@dataclass(frozen=True)
class Windows:
    """Where the windows of a pool lie."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    begins: tuple[int, ...]
    ends: tuple[int, ...]
    dilations: tuple[int, ...]
    rounds_up: bool

    @staticmethod
    def of(node: ir.Node) -> Windows:
        if attribute(node, "auto_pad", "NOTSET") not in ("NOTSET", "", "VALID"):
            refuse(node, "its padding follows from the size of the input (auto_pad)")
        kernel = tuple(attribute(node, "kernel_shape", ()))
        rank = len(kernel)
        pads = tuple(attribute(node, "pads", (0,) * 2 * rank))
        return Windows(
            kernel,
            tuple(attribute(node, "strides", (1,) * rank)),
            pads[:rank],
            pads[rank:],
            tuple(attribute(node, "dilations", (1,) * rank)),
            bool(attribute(node, "ceil_mode", 0)),
        )

    def reach(self, sizes: tuple[int, ...]) -> tuple[int, ...]:
        """How far the windows reach behind a map of ``sizes``, along each axis; negative where they end before it."""
        found = []
        for axis, size in enumerate(sizes):
            extent = self.dilations[axis] * (self.kernel[axis] - 1) + 1
            begin, stride = self.begins[axis], self.strides[axis]
            room = size + begin + self.ends[axis] - extent
            last = -(-room // stride) if self.rounds_up else room // stride
            if self.rounds_up and last * stride >= size + begin:
                last -= 1
            found.append(last * stride + extent - begin - size)
        return tuple(found)

    def padded(self, x: Tensor, value: float) -> Tensor:
        """``x`` with all that the windows see around it, and nothing else."""
        return around(x, self.begins, self.reach(tuple(x.shape[2:])), value)

    def sums(self, x: Tensor) -> Tensor:
        """Sums over the windows of ``x``, which is padded."""
        rank = len(self.kernel)
        if rank <= 3 and self.dilations == (1,) * rank:
            pool = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[rank - 1]
            return pool(x, self.kernel, self.strides) * math.prod(self.kernel)
        channels = x.shape[1]
        ones = x.new_ones((channels, 1, *self.kernel))
        return torch.convolution(
            x, ones, None, self.strides, (0,) * rank, self.dilations, False, (0,) * rank, channels
        )


def max_pool(x: Tensor, *, windows: Windows) -> Tensor:
    rank = len(windows.kernel)
    pool = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[rank - 1]
    begins, reach = windows.begins, windows.reach(tuple(x.shape[2:]))
    inside = begins == windows.ends and all(
        0 <= 2 * begin <= size for begin, size in zip(begins, windows.kernel, strict=True)
    )
    if inside and all(have <= want for have, want in zip(reach, windows.ends, strict=True)):
        return pool(x, windows.kernel, windows.strides, begins, windows.dilations)
    return pool(windows.padded(x, -math.inf), windows.kernel, windows.strides, 0, windows.dilations)


def average_pool(x: Tensor, *, windows: Windows, counts_padding: bool) -> Tensor:
    """The mean over those cells of a window that count: all within the map, and its padding where ``counts_padding``."""
    sums = windows.sums(windows.padded(x, 0.0))
    sizes = tuple(x.shape[2:])
    reach = windows.reach(sizes)
    ends = windows.ends if counts_padding else (0,) * len(sizes)
    beyond = any(have > end for have, end in zip(reach, ends, strict=True))
    if not beyond and (counts_padding or not any(windows.begins)):
        return sums / math.prod(windows.kernel)
    cells = x.new_ones((1, 1, *sizes))
    if counts_padding:
        cells = around(cells, windows.begins, windows.ends, 1.0)
        rest = [have - end for have, end in zip(reach, windows.ends, strict=True)]
        counted = around(cells, (0,) * len(sizes), rest)
    else:
        counted = windows.padded(cells, 0.0)
    return sums / windows.sums(counted)


def lp_pool(x: Tensor, *, windows: Windows, p: int) -> Tensor:
    powers = windows.padded(x.abs() ** p, 0.0)
    return torch.clamp(windows.sums(powers), min=0.0) ** (1.0 / p)


def global_average(x: Tensor) -> Tensor:
    return x.mean(tuple(range(2, x.ndim)), keepdim=True)


def global_max(x: Tensor) -> Tensor:
    return x.amax(tuple(range(2, x.ndim)), keepdim=True)


def global_lp(x: Tensor, *, p: int) -> Tensor:
    made: Tensor = torch.linalg.vector_norm(x, p, tuple(range(2, x.ndim)), keepdim=True)
    return made


def _max_pool(node: ir.Node) -> Op:
    only_result(node)
    windows = Windows.of(node)
    if not 1 <= len(windows.kernel) <= 3:
        refuse(node, f"its windows have {len(windows.kernel)} axes")
    return Op(partial(max_pool, windows=windows))


def _average_pool(node: ir.Node) -> Op:
    counts = bool(attribute(node, "count_include_pad", 0))
    return Op(partial(average_pool, windows=Windows.of(node), counts_padding=counts))


def _lp_pool(node: ir.Node) -> Op:
    return Op(partial(lp_pool, windows=Windows.of(node), p=attribute(node, "p", 2)))


OPS: Table = {
    "AveragePool": _average_pool,
    "GlobalAveragePool": lambda node: Op(global_average),
    "GlobalLpPool": lambda node: Op(partial(global_lp, p=attribute(node, "p", 2))),
    "GlobalMaxPool": lambda node: Op(global_max),
    "LpPool": _lp_pool,
    "MaxPool": _max_pool,
}
