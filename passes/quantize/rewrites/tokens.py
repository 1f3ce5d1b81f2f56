"""A linear layer on tokens as one layer with a bias: engines have one int8 kernel for it.

    MatMul (N, T, K) x (K, C) [-> Add (C)]   ->   Reshape (-1, K) -> Gemm -> Reshape (-1, T, C)

The sum of MatMul and bias would otherwise be rounded twice, and the bias to eight bits at one scale for all channels.
On two axes the Reshapes are not needed; there a MatMul without a bias behind it stays.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgec.graph.views import add_initializer, constant, shape_of, sole_consumer
from edgec.passes.quantize.rewrites.replace import Array, drop, new_node, replace


def use_gemms(model: ir.Model) -> int:
    """In place; the number of layers changed."""
    return sum(_use_gemm(model.graph, node) for node in list(model.graph) if node.op_type == "MatMul")


def _use_gemm(graph: ir.Graph, node: ir.Node) -> bool:
    x, weight = node.inputs[0], constant(node.inputs[1])
    result = node.outputs[0]
    if weight is None or weight.ndim != 2 or weight.dtype != np.float32 or x is None or x.shape is None:
        return False
    add, bias = _bias(node, int(weight.shape[1]))
    rank = len(x.shape)
    if rank < 2 or (rank == 2 and bias is None):
        return False
    inner = shape_of(x)[1:-1]
    outs = [*(size for size in inner if size is not None), int(weight.shape[1])]
    if len(outs) <= len(inner):
        return False
    name = node.name or "linear"
    flat = x if rank == 2 else _reshape(graph, node, x, [-1, int(weight.shape[0])], f"{name}_flat")
    inputs = [flat, node.inputs[1]]
    if bias is not None:
        inputs.append(add_initializer(graph, f"{name}_bias", bias))
    head = None if flat.shape is None else flat.shape[0]
    gemm = new_node(graph, node, "Gemm", inputs, name, [head, outs[-1]])
    last = gemm
    if rank > 2:
        made = _reshape(graph, node, gemm.outputs[0], [-1, *outs], f"{name}_tokens")
        made.shape = result.shape
        last = made.producer()  # type: ignore[assignment]
    replace(graph, node, last)
    if last is not gemm:
        last.name, gemm.name = gemm.name, last.name
    if add is not None:
        drop(graph, add, last.outputs[0])
    return True


def _bias(node: ir.Node, outs: int) -> tuple[ir.Node | None, Array | None]:
    """The Add of one constant per output behind a MatMul, where nothing else reads in between."""
    add = sole_consumer(node.outputs[0])
    if add is None or add.op_type != "Add":
        return None, None
    other = add.inputs[1] if add.inputs[0] is node.outputs[0] else add.inputs[0]
    array = constant(other)
    shape = node.outputs[0].shape
    if array is None or array.dtype != np.float32 or shape is None or array.ndim > len(shape):
        return None, None
    if array.size not in (1, outs) or (array.ndim and array.shape[-1] != array.size):
        return None, None
    return add, np.broadcast_to(array.reshape(-1), (outs,)).copy()


def _reshape(graph: ir.Graph, before: ir.Node, x: ir.Value, target: list[int], name: str) -> ir.Value:
    sizes = add_initializer(graph, f"{name}_shape", np.asarray(target, np.int64))
    lead = None if x.shape is None else x.shape[0]
    static = [] if x.shape is None else [size for size in x.shape if isinstance(size, int)]
    if x.shape is not None and len(static) == len(x.shape):
        rest = int(np.prod(target[1:]))
        lead = int(np.prod(static)) // rest
    node = new_node(graph, before, "Reshape", [x, sizes], name, [lead, *target[1:]])
    return node.outputs[0]
