"""Write ``auto_pad`` out as explicit ``pads``, so that nobody behind the loader has to know it."""

from __future__ import annotations

import onnx_ir as ir

from edgec.graph.views import attribute, set_attribute, shape_of

WINDOWED = ("Conv", "MaxPool", "AveragePool")


def write_out_pads(model: ir.Model) -> int:
    """Replace auto_pad of convolutions and poolings in place; the number of nodes changed."""
    count = 0
    for node in model.graph:
        mode = attribute(node, "auto_pad", "NOTSET")
        if node.op_type not in WINDOWED:
            continue
        if mode == "NOTSET":
            node.attributes.pop("auto_pad", None)
            continue
        pads = _pads(node, mode)
        if pads is None:
            continue
        set_attribute(node, "pads", pads)
        node.attributes.pop("auto_pad")
        count += 1
    return count


def _pads(node: ir.Node, mode: str) -> tuple[int, ...] | None:
    """Begin of every spatial axis, then end; None where a size is not known."""
    value, window = node.inputs[0], node.inputs[1] if node.op_type == "Conv" else None
    if (
        value is None
        or value.shape is None
        or (node.op_type == "Conv" and (window is None or window.shape is None))
    ):
        return None
    sizes = shape_of(value)[2:]
    kernel = attribute(node, "kernel_shape", None) or (shape_of(window)[2:] if window is not None else ())
    strides = attribute(node, "strides", (1,) * len(kernel))
    dilations = attribute(node, "dilations", (1,) * len(kernel))
    if mode == "VALID":
        return (0,) * 2 * len(kernel)
    begins, ends = [], []
    for size, k, stride, dilation in zip(sizes, kernel, strides, dilations, strict=True):
        if size is None or k is None:
            return None
        total = max(0, (-(-size // stride) - 1) * stride + dilation * (k - 1) + 1 - size)
        small, large = total // 2, total - total // 2
        begins.append(small if mode == "SAME_UPPER" else large)
        ends.append(large if mode == "SAME_UPPER" else small)
    return (*begins, *ends)
