"""Write ``auto_pad``, and ``output_shape`` of transposed convolutions, out as ``pads``: nobody behind the loader knows them."""

from __future__ import annotations

import onnx_ir as ir

from edgec.graph.views import attribute, set_attribute, shape_of

WINDOWED = ("Conv", "MaxPool", "AveragePool")


def write_out_pads(model: ir.Model) -> int:
    """Replace auto_pad of convolutions and poolings, and output_shape, in place; the number of nodes changed."""
    count = 0
    for node in model.graph:
        mode = attribute(node, "auto_pad", "NOTSET")
        if node.op_type == "ConvTranspose":
            count += _write_out_cuts(node, mode)
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


def _write_out_cuts(node: ir.Node, mode: str) -> bool:
    """``pads`` of a ConvTranspose: what its output's size cuts off of the whole result, as the operator's definition parts it.

    One whose output is larger than the whole result stays as it is, and so does one of unknown size.
    """
    if mode == "NOTSET" and "output_shape" not in node.attributes:
        node.attributes.pop("auto_pad", None)
        return False
    value, weight = node.inputs[0], node.inputs[1]
    if value is None or value.shape is None or weight is None or weight.shape is None:
        return False
    kernel = attribute(node, "kernel_shape", None) or shape_of(weight)[2:]
    rank = len(kernel)
    sizes, taps = ([one for one in found if one is not None] for found in (shape_of(value)[2:], kernel))
    if len(sizes) < rank or len(taps) < rank:
        return False
    strides, dilations = (attribute(node, name, (1,) * rank) for name in ("strides", "dilations"))
    more = attribute(node, "output_padding", (0,) * rank)
    whole = [
        (size - 1) * stride + dilation * (k - 1) + 1 + extra
        for size, k, stride, dilation, extra in zip(sizes, taps, strides, dilations, more, strict=True)
    ]
    given = tuple(attribute(node, "output_shape", ()))
    wanted = given or (whole if mode == "VALID" else [a * b for a, b in zip(sizes, strides, strict=True)])
    cut = [a - b for a, b in zip(whole, wanted, strict=True)]
    if min(cut) < 0:
        return False
    small, large = [one // 2 for one in cut], [one - one // 2 for one in cut]
    set_attribute(node, "pads", (*small, *large) if mode == "SAME_UPPER" else (*large, *small))
    node.attributes.pop("auto_pad", None)
    node.attributes.pop("output_shape", None)
    return True
