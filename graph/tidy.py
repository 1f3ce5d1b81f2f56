"""A graph in order: names, topological order, nothing unused, shapes inferred afresh."""

from __future__ import annotations

import onnx_ir as ir
import onnx_ir.passes.common as common

from edgec.graph.batch import BATCH
from edgec.graph.ceil_mode import drop_idle_ceil
from edgec.graph.names import free_name
from edgec.graph.quiet import LIBRARIES, quiet_log


def tidy(model: ir.Model) -> None:
    """Names, topological order, unused things removed, shapes inferred afresh; in place."""
    from onnx_ir.passes import Sequential

    with quiet_log(*LIBRARIES):
        Sequential(
            common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
            common.RemoveUnusedNodesPass(),
            common.TopologicalSortPass(),
            common.NameFixPass(),
        )(model)
    _name_ir_nodes(model)
    infer_shapes(model)


def infer_shapes(model: ir.Model) -> None:
    """Forget the shapes of inner values and infer them again; in place."""
    outputs = {id(value) for value in model.graph.outputs}
    for node in model.graph:
        for value in node.outputs:
            value.shape = None
            if id(value) not in outputs:
                value.type = None
    with quiet_log(*LIBRARIES):
        common.ShapeInferencePass(data_prop=True)(model)
    _name_batch_axis(model)
    if drop_idle_ceil(model):
        infer_shapes(model)


def _name_batch_axis(model: ir.Model) -> None:
    """Inference invents a symbol wherever a Reshape hides the batch; they all are the one batch axis."""
    if not all(v.shape is not None and len(v.shape) and v.shape[0] == BATCH for v in model.graph.inputs):
        return
    for value in (*model.graph.outputs, *(v for node in model.graph for v in node.outputs)):
        if value.shape is not None and len(value.shape) and not isinstance(value.shape[0], int):
            value.shape = ir.Shape([BATCH, *list(value.shape)[1:]])


def _name_ir_nodes(model: ir.Model) -> None:
    """Nodes made by rewriting get the name of what they write, which comes from the source model."""
    taken: set[str] = set()
    for node in model.graph:
        node.name = free_name(node.name or node.outputs[0].name or node.op_type, taken)
