"""Networks that take one sample without a batch axis: they get one, in front of their inputs and outputs.

A program before and after::

    x (3, 32, 32)    -> Unsqueeze 0 -> Conv ... Squeeze 0 -> y (10)
    x (1, 3, 32, 32)                -> Conv ...           -> y (1, 10)
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgec.graph.views import add_initializer, attribute, constant, fresh_name, shape_of


def lacks_batch(model: ir.Model) -> bool:
    """True where no input has a leading axis that is open or 1, or where everything that reads the inputs gives them one."""
    inputs = [value for value in model.graph.inputs if value.shape is not None and len(value.shape)]
    if len(inputs) < len(model.graph.inputs):
        return False
    led = [value for value in inputs if value.shape is not None and value.shape[0] == 1]
    if not led:
        return all(isinstance(size, int) for value in inputs for size in (value.shape or ()))
    return all(_is_led(use.node, 1) for value in inputs for use in value.uses()) and all(
        value.uses() for value in inputs
    )


def add_batch(model: ir.Model) -> None:
    """Give every input and output a leading axis of 1; in place. Shapes behind are to be inferred anew."""
    graph = model.graph
    for value in graph.inputs:
        sizes = shape_of(value)
        readers = [use.node for use in value.uses()]
        leading = [node for node in readers if _is_led(node, 1) and not node.outputs[0].is_graph_output()]
        value.shape = ir.Shape([1, *sizes])
        for node in leading:
            ir.convenience.replace_all_uses_with(node.outputs[0], value)
            graph.remove(node, safe=True)
        rest = [node for node in readers if node not in leading]
        if rest:
            inner = _view(graph, "Squeeze", value, before=next(iter(graph)))
            inner.shape = ir.Shape(list(sizes))
            for node in rest:
                for index, source in enumerate(node.inputs):
                    if source is value:
                        node.replace_input_with(index, inner)
    for number, value in enumerate(list(graph.outputs)):
        name = value.name or ""
        maker = value.producer()
        source = None if maker is None or not _is_led(maker, -1) else maker.inputs[0]
        if source is None or source.is_graph_input() or source.is_graph_output():
            source = _view(graph, "Unsqueeze", value, before=None)
        value.name = fresh_name(graph, f"{name}_of_one")
        source.name = name
        graph.outputs[number] = source


def _is_led(node: ir.Node, step: int) -> bool:
    """Does ``node`` only put an axis of 1 in front (``step`` 1), or take it away (-1)?"""
    second = constant(node.inputs[1]) if len(node.inputs) > 1 else None
    if second is None:
        return False
    if node.op_type == ("Unsqueeze" if step > 0 else "Squeeze"):
        return bool(second.ravel().tolist() == [0])
    source, made = node.inputs[0], node.outputs[0]
    if node.op_type != "Reshape" or source is None or attribute(node, "allowzero", 0) or made.shape is None:
        return False
    few, many = (source, made) if step > 0 else (made, source)
    return (1, *shape_of(few)) == shape_of(many)


def _view(graph: ir.Graph, op: str, value: ir.Value, before: ir.Node | None) -> ir.Value:
    """``value`` without, or with, a leading axis of 1; the new node stands in front of ``before``, or last."""
    stem = f"{value.name}_{'sample' if op == 'Squeeze' else 'batch'}"
    axes = add_initializer(graph, f"{stem}_axes", np.array([0], np.int64))
    name = fresh_name(graph, stem)
    out = ir.Value(name=name, type=value.type)
    node = ir.node(op, [value, axes], outputs=[out], name=name)
    if before is None:
        graph.append(node)
    else:
        graph.insert_before(before, node)
    return out
