"""Pools as int8 kernels have them.

1. ``ReduceMean`` over all spatial axes -> ``GlobalAveragePool`` (and ``Flatten`` where the axes are dropped):
   engines fuse the pool into one int8 kernel and leave ReduceMean in float between a DequantizeLinear and a
   QuantizeLinear.
2. ``AveragePool`` over the whole of its input -> ``GlobalAveragePool``: its output may then have a range of
   its own, which is far narrower than that of the input.
3. ``AveragePool`` that counts its padding and rounds its size up -> ``Pad`` and a plain ``AveragePool``: onnxruntime's
   int8 kernel counts what lies beyond the padding too.
4. ``AveragePool`` with dilations -> a depthwise ``Conv`` of equal weights, and a Mul where not every window counts all
   its cells: onnxruntime's int8 kernel has no dilations, and fails.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgec.graph.views import add_initializer, attribute, constant, fresh_name, shape_of
from edgec.passes.quantize.rewrites.replace import Array, channels_of, new_node, replace


def use_pools(model: ir.Model) -> int:
    """All of them in place; the number of nodes replaced."""
    count = use_global_pools(model)
    for node in list(model.graph):
        if node.op_type == "AveragePool":
            count += _use_padded(model.graph, node) or _use_conv(model.graph, node)
    return count


def _use_padded(graph: ir.Graph, node: ir.Node) -> bool:
    """Case 3. Every axis is padded to the last cell that counts; what windows reach beyond it never does."""
    x, result = node.inputs[0], node.outputs[0]
    counts = attribute(node, "ceil_mode", 0) and attribute(node, "count_include_pad", 0)
    if not counts or x is None or x.shape is None or result.shape is None or _dilated(node):
        return False
    if attribute(node, "auto_pad", "NOTSET") not in ("NOTSET", ""):
        return False
    found = [_Axis.of(node, axis) for axis in range(len(attribute(node, "kernel_shape", ())))]
    axes = [axis for axis in found if axis is not None]
    ends = [min(axis.end, axis.reach) for axis in axes]
    if len(axes) < len(found) or any(_rounded_up(a, e) != a.out for a, e in zip(axes, ends, strict=True)):
        return False
    name, begins = node.name or "pool", [axis.begin for axis in axes]
    if any((*begins, *ends)):
        amount = add_initializer(graph, f"{name}_pads", np.asarray([0, 0, *begins, 0, 0, *ends], np.int64))
        zero = add_initializer(graph, f"{name}_zero", np.asarray(0.0, np.float32))
        shape = [*list(x.shape)[:2], *(a.begin + a.size + e for a, e in zip(axes, ends, strict=True))]
        x = new_node(graph, node, "Pad", [x, amount, zero], f"{name}_padded", shape).outputs[0]
    beyond = any(axis.reach > axis.end for axis in axes)
    plain = new_node(
        graph, node, "AveragePool", [x], f"{name}_plain", result.shape, ceil_mode=int(beyond),
        kernel_shape=[axis.kernel for axis in axes], strides=[axis.stride for axis in axes],
    )  # fmt: skip
    replace(graph, node, plain)
    return True


def _rounded_up(axis: _Axis, end: int) -> int:
    """The size of the result where the map is padded beforehand, by ``end`` behind it."""
    return -(-max(axis.size + axis.begin + end - axis.kernel, 0) // axis.stride) + 1


def _dilated(node: ir.Node) -> bool:
    return any(d != 1 for d in attribute(node, "dilations", (1,)))


def _use_conv(graph: ir.Graph, node: ir.Node) -> bool:
    """Case 4."""
    x, result, channels = node.inputs[0], node.outputs[0], channels_of(node.inputs[0])
    automatic = attribute(node, "auto_pad", "NOTSET") not in ("NOTSET", "")
    if not _dilated(node) or channels is None or automatic or result.shape is None:
        return False
    found = [_Axis.of(node, axis) for axis in range(len(attribute(node, "kernel_shape", ())))]
    axes = [axis for axis in found if axis is not None]
    if len(axes) < len(found):
        return False
    name, kernel = node.name or "pool", [axis.kernel for axis in axes]
    share = np.full((channels, 1, *kernel), 1.0 / math.prod(kernel), np.float32)
    weight = add_initializer(graph, f"{name}_share", share)
    last = new_node(
        graph, node, "Conv", [x, weight], f"{name}_conv", result.shape, group=channels, kernel_shape=kernel,
        strides=[axis.stride for axis in axes], dilations=[axis.dilation for axis in axes],
        pads=[*(axis.begin for axis in axes), *(axis.reach for axis in axes)],
    )  # fmt: skip
    counts = np.ones((1, 1), np.float64)
    for axis in axes:
        counts = counts[..., None] * axis.counts(bool(attribute(node, "count_include_pad", 0)))
    factor = (math.prod(kernel) / counts).astype(np.float32)
    if np.any(factor != 1.0):
        more = add_initializer(graph, f"{name}_counts", factor)
        last = new_node(graph, node, "Mul", [last.outputs[0], more], f"{name}_share", result.shape)
    replace(graph, node, last)
    return True


@dataclass(frozen=True)
class _Axis:
    """One spatial axis of a pool."""

    size: int
    out: int
    kernel: int
    stride: int
    dilation: int
    begin: int
    end: int

    @staticmethod
    def of(node: ir.Node, axis: int) -> _Axis | None:
        """Axis ``axis`` of the pool ``node``; None where a size is open."""
        kernel = attribute(node, "kernel_shape", ())
        rank = len(kernel)
        size, out = shape_of(node.inputs[0])[2 + axis], shape_of(node.outputs[0])[2 + axis]
        if size is None or out is None:
            return None
        pads = attribute(node, "pads", (0,) * 2 * rank)
        stride = attribute(node, "strides", (1,) * rank)[axis]
        dilation = attribute(node, "dilations", (1,) * rank)[axis]
        return _Axis(size, out, kernel[axis], stride, dilation, pads[axis], pads[rank + axis])

    @property
    def reach(self) -> int:
        """How far the last window goes beyond the map."""
        extent = self.dilation * (self.kernel - 1) + 1
        return max(0, (self.out - 1) * self.stride + extent - self.size - self.begin)

    def counts(self, padding: bool) -> Array:
        """How many cells of every window count; those of the stated padding only if ``padding`` says so."""
        low, high = (-self.begin, self.size + self.end) if padding else (0, self.size)
        first = np.arange(self.out)[:, None] * self.stride - self.begin
        cells = first + self.dilation * np.arange(self.kernel)[None]
        found: Array = np.sum((cells >= low) & (cells < high), axis=1)
        return found


def use_global_pools(model: ir.Model) -> int:
    """Cases 1 and 2, in place; the number of nodes replaced."""
    count = 0
    for node in list(model.graph):
        if node.op_type == "ReduceMean" and _reduces_space(node):
            _replace(model.graph, node, flatten=not attribute(node, "keepdims", 1))
        elif node.op_type == "AveragePool" and _covers_input(node):
            _replace(model.graph, node, flatten=False)
        else:
            continue
        count += 1
    return count


def _rank_and_space(node: ir.Node) -> tuple[int, tuple[int | None, ...]]:
    value = node.inputs[0]
    if value is None or value.shape is None:
        return 0, ()
    sizes = tuple(d if isinstance(d, int) else None for d in value.shape)
    return len(sizes), sizes[2:]


def _reduces_space(node: ir.Node) -> bool:
    axes = constant(node.inputs[1]) if len(node.inputs) > 1 else None
    rank, _ = _rank_and_space(node)
    if axes is None or rank != 4:
        return False
    return sorted(int(a) % rank for a in axes.reshape(-1)) == [2, 3]


def _covers_input(node: ir.Node) -> bool:
    rank, space = _rank_and_space(node)
    plain = not any(attribute(node, "pads", (0,))) and not attribute(node, "ceil_mode", 0)
    return rank == 4 and plain and tuple(attribute(node, "kernel_shape", ())) == space


def _replace(graph: ir.Graph, node: ir.Node, *, flatten: bool) -> None:
    source, result, name = node.inputs[0], node.outputs[0], node.name
    pool = ir.node("GlobalAveragePool", inputs=[source], name=name)
    new = [pool]
    shape = None if source is None or source.shape is None else ir.Shape([*list(source.shape)[:2], 1, 1])
    if flatten:
        pool.outputs[0].name = fresh_name(graph, f"{result.name}_pooled")
        pool.outputs[0].shape = shape
        pool.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
        new.append(
            ir.node(
                "Flatten", inputs=pool.outputs, attributes={"axis": 1}, name=fresh_name(graph, f"{name}_flat")
            )
        )
    last = new[-1].outputs[0]
    last.shape, last.type = result.shape, result.type
    ir.convenience.replace_nodes_and_values(graph, node, [node], new, [result], [last])
