"""Local response normalisation as torch writes it out, kept whole: onnxruntime has a kernel for it, TFLite no pool over channels.

torch pools the squares over channels that it has made a third axis of the picture::

    x / (squeeze(average_pool(unsqueeze(x * x, 1), kernel (size, 1, 1))) * alpha + bias) ^ beta    ->    LRN(x)

Cases: pictures, of which onnxruntime has a kernel (signals stay, two axes are no matter); odd sizes (of an even one torch has
the longer half before the channel, ONNX behind it: left as it is); alpha and bias left out where they are 1 and 0.
"""

from __future__ import annotations

import onnx_ir as ir

from edgec.graph.edit import take_over
from edgec.graph.views import attribute, constant, shape_of, sole_consumer

_ALONG = frozenset({"Reshape", "Squeeze", "Unsqueeze"})


def keep_lrns_whole(model: ir.Model) -> int:
    """Rewrite in place; the number of pools that went."""
    count = 0
    for node in list(model.graph):
        if node.op_type == "AveragePool" and _rewrite(model.graph, node):
            count += 1
    return count


def _rewrite(graph: ir.Graph, pool: ir.Node) -> bool:
    size, x = _size(pool), _squared(pool)
    mean = None if size is None else _behind(pool.outputs[0], _ALONG)
    if size is None or x is None or mean is None or shape_of(mean.outputs[0]) != shape_of(x):
        return False
    value, numbers = mean.outputs[0], []
    for op_type, otherwise in (("Mul", 1.0), ("Add", 0.0), ("Pow", 1.0)):
        node = sole_consumer(value)
        number = None if node is None or node.op_type != op_type else _number(node, value)
        if node is not None and number is not None:
            value = node.outputs[0]
        elif op_type == "Pow" or (node is not None and node.op_type == op_type):
            return False
        numbers.append(otherwise if number is None else number)
    last = sole_consumer(value)
    if last is None or last.op_type != "Div" or last.inputs[0] is not x or last.inputs[1] is not value:
        return False
    alpha, bias, beta = numbers
    whole = ir.node("LRN", [x], {"alpha": alpha, "beta": beta, "bias": bias, "size": size}, name=last.name)
    whole.outputs[0].shape, whole.outputs[0].type = last.outputs[0].shape, last.outputs[0].type
    graph.insert_before(last, whole)
    take_over(graph, last.outputs[0], whole.outputs[0])
    graph.remove(last, safe=True)
    return True


def _size(pool: ir.Node) -> int | None:
    """How many neighbours the pool takes along the first of its axes; None where it does anything else."""
    kernel = tuple(attribute(pool, "kernel_shape", ()))
    size, rank = kernel[0], len(kernel)
    plain = all(step == 1 for step in (*attribute(pool, "strides", ()), *attribute(pool, "dilations", ())))
    if rank != 3 or not plain or any(k != 1 for k in kernel[1:]) or size % 2 == 0:
        return None
    half = (size - 1) // 2
    ends = tuple(attribute(pool, "pads", (0,) * 2 * rank))
    whole = ends == (half, *[0] * (rank - 1)) * 2 and (size == 1 or attribute(pool, "count_include_pad", 0))
    return size if whole and not attribute(pool, "ceil_mode", 0) else None


def _squared(pool: ir.Node) -> ir.Value | None:
    """The value whose squares the pool takes, its channels moved to the first of the axes."""
    moved = pool.inputs[0]
    node = None if moved is None else moved.producer()
    if moved is None or node is None or node.op_type not in _ALONG or sole_consumer(moved) is not pool:
        return None
    squares = node.inputs[0]
    square = None if squares is None else squares.producer()
    if squares is None or square is None or sole_consumer(squares) is not node:
        return None
    x = square.inputs[0]
    alike = square.op_type == "Mul" and x is square.inputs[1]
    if x is None or not (alike or (square.op_type == "Pow" and _number(square, x) == 2.0)):
        return None
    batch, *rest = shape_of(x)
    return x if shape_of(moved) == (batch, 1, *rest) else None


def _behind(value: ir.Value, kinds: frozenset[str]) -> ir.Node | None:
    node = sole_consumer(value)
    return node if node is not None and node.op_type in kinds and node.inputs[0] is value else None


def _number(node: ir.Node, value: ir.Value) -> float | None:
    """The one number beside ``value``; behind it for a power."""
    first, second = node.inputs[0], node.inputs[1]
    array = constant(second if first is value else first)
    if array is None or array.size != 1 or (node.op_type == "Pow" and first is not value):
        return None
    return float(array.reshape(()))
