"""Resize by sizes of some axes -> by scales of all axes: the form that engines take on codes.

onnxruntime's layout step refuses the attribute ``axes`` behind a QLinearConv, and sizes of all axes would fix the batch.
The scales are those that the standard derives from the sizes, where they give the sizes back.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgec.graph.views import add_initializer, attribute, constant, shape_of


def use_scales(model: ir.Model) -> int:
    """In place; the number of nodes changed."""
    return sum(_use_scales(model.graph, node) for node in model.graph if node.op_type == "Resize")


def _use_scales(graph: ir.Graph, node: ir.Node) -> bool:
    source, result = node.inputs[0], node.outputs[0]
    if "axes" not in node.attributes or source is None or source.shape is None or result.shape is None:
        return False
    crops = attribute(node, "coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize"
    if crops or attribute(node, "keep_aspect_ratio_policy", "stretch") != "stretch":
        return False
    rank = len(source.shape)
    axes = [int(axis) % rank for axis in attribute(node, "axes", ())]
    scales = np.ones(rank, np.float32)
    given = constant(node.inputs[2]) if len(node.inputs) > 2 else None
    before, after = shape_of(source), shape_of(result)
    for index, axis in enumerate(axes):
        old, new = before[axis], after[axis]
        if old is None or new is None:
            return False
        by_sizes = given is None or not given.size
        scales[axis] = _scale(old, new) if by_sizes else given[index]  # type: ignore[index]
    node.resize_inputs(3)
    node.replace_input_with(2, add_initializer(graph, f"{node.name}_scales", scales))
    del node.attributes["axes"]
    return True


def _scale(old: int, new: int) -> np.float32:
    """``new / old``, one step up where engines would round the size it gives down."""
    scale = np.float32(new) / np.float32(old)
    while int(np.floor(np.float32(old) * scale)) < new:
        scale = np.nextafter(scale, np.float32(np.inf))
    return np.float32(scale)
