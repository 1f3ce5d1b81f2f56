"""Pools that round their output size up.

ONNX drops a last window that would start behind the input and its leading padding; shape inference before opset 22 does
not know that and counts it. Where rounding up gains no window that stays, the flag is taken away, which changes nothing
that is computed and lets every opset infer the right shape.
"""

from __future__ import annotations

import onnx_ir as ir

from edgec.graph.views import attribute, set_attribute

POOLS = ("MaxPool", "AveragePool")


def drop_idle_ceil(model: ir.Model) -> bool:
    """Clear ``ceil_mode`` where it has no effect; in place. True when anything changed."""
    changed = False
    for node in model.graph:
        if node.op_type in POOLS and attribute(node, "ceil_mode", 0) and _is_idle(node):
            set_attribute(node, "ceil_mode", 0)
            changed = True
    return changed


def _is_idle(node: ir.Node) -> bool:
    x = node.inputs[0]
    if x is None or x.shape is None:
        return False
    kernel = attribute(node, "kernel_shape", ())
    rank = len(kernel)
    strides = attribute(node, "strides", (1,) * rank)
    dilations = attribute(node, "dilations", (1,) * rank)
    pads = attribute(node, "pads", (0,) * 2 * rank)
    for axis, size in enumerate(list(x.shape)[2:]):
        if not isinstance(size, int):
            return False
        extent = dilations[axis] * (kernel[axis] - 1) + 1
        room = size + pads[axis] + pads[axis + rank] - extent
        rest = room % strides[axis]
        last_start = (room // strides[axis] + 1) * strides[axis]
        if rest and last_start < size + pads[axis]:
            return False
    return True
