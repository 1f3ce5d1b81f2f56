"""Equivalent forms that have better int8 kernels; each computes the same function as what it replaces.

1. ``ReduceMean`` over all spatial axes -> ``GlobalAveragePool`` (and ``Flatten`` where the axes are dropped):
   engines fuse the pool into one int8 kernel and leave ReduceMean in float between a DequantizeLinear and a
   QuantizeLinear.
2. ``AveragePool`` over the whole of its input -> ``GlobalAveragePool``: its output may then have a range of
   its own, which is far narrower than that of the input.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgec.graph.views import attribute, constant, fresh_name, own_constant


def prepare(model: ir.Model) -> int:
    """All rewrites in place; the number of nodes changed."""
    return use_global_pools(model) + add_biases(model)


def add_biases(model: ir.Model) -> int:
    """Rewrite 3, in place; the number of biases added."""
    count = 0
    for node in model.graph:
        if node.op_type not in ("Conv", "Gemm") or (len(node.inputs) > 2 and node.inputs[2] is not None):
            continue
        weight = constant(node.inputs[1])
        if weight is not None:
            axis = 0 if node.op_type == "Conv" or attribute(node, "transB", 0) else 1
            own_constant(model.graph, node, 2, np.zeros(weight.shape[axis], np.float32), "_bias")
            count += 1
    return count


def use_global_pools(model: ir.Model) -> int:
    """Rewrites 1 and 2, in place; the number of nodes replaced."""
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
