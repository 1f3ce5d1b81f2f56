"""Free a batch axis that an exporter fixed at 1, where the graph allows it.

Files fixed at batch 1 are common, and calibrating them image by image is several times slower. Three things bake the
batch in: the inputs' leading axis, constant Reshape targets, and constant Resize sizes. They are rewritten; whether the
result treats samples independently is then a question for numbers (`equivalence.Reference`), not for rules.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgec.graph.views import attribute, constant, own_constant, set_attribute

BATCH = "batch"


def can_free(model: ir.Model) -> bool:
    """True when every input has a leading axis of 1, or an open one, and at least one further axis."""
    shapes = [value.shape for value in model.graph.inputs]
    if not shapes:
        return False
    return all(
        shape is not None and len(shape) >= 2 and (shape[0] == 1 or not isinstance(shape[0], int))
        for shape in shapes
    )


def free_batch(model: ir.Model) -> None:
    """Make the leading axis symbolic throughout; in place. The caller checks the result by numbers."""
    for value in model.graph.inputs:
        if value.shape is not None:
            value.shape = ir.Shape([BATCH, *list(value.shape)[1:]])
    for node in list(model.graph):
        if node.op_type == "Reshape":
            _free_reshape(model.graph, node)
        elif node.op_type == "Resize":
            _free_resize(model.graph, node)
    for value in model.graph.outputs:
        if value.shape is not None and len(value.shape):
            value.shape = ir.Shape([BATCH, *list(value.shape)[1:]])


def fix_batch(model: ir.Model) -> None:
    """Make the leading axis 1 again; in place."""
    for value in (*model.graph.inputs, *model.graph.outputs):
        if value.shape is not None and len(value.shape):
            value.shape = ir.Shape([1, *list(value.shape)[1:]])


def _free_reshape(graph: ir.Graph, node: ir.Node) -> None:
    """[1, 512] -> [-1, 512], or [0, ...] where a -1 already stands elsewhere."""
    target = constant(node.inputs[1])
    if target is None or target.ndim != 1 or not len(target) or target[0] != 1:
        return
    free = target.copy()
    if -1 in target[1:]:
        if attribute(node, "allowzero", 0):
            return
        free[0] = 0
    else:
        free[0] = -1
    own_constant(graph, node, 1, free)


def _free_resize(graph: ir.Graph, node: ir.Node) -> None:
    """Sizes of all axes -> sizes of the spatial axes only (the ``axes`` attribute of opset 18)."""
    sizes = constant(node.inputs[3]) if len(node.inputs) > 3 else None
    if sizes is None or "axes" in node.attributes or len(sizes) < 3 or sizes[0] != 1:
        return
    set_attribute(node, "axes", tuple(range(2, len(sizes))))
    own_constant(graph, node, 3, np.asarray(sizes[2:]))
