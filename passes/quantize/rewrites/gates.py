"""Gates that int8 kernels have: a HardSigmoid is a line and a Clip, and the quantiser clips for nothing.

1. ``HardSigmoid(layer)`` where nothing else reads the Conv or Gemm -> the line goes into its weights, ``Clip`` stays;
2. ``HardSigmoid(x)`` of another map -> the line is a depthwise ``Conv`` of kernel 1, then ``Clip``;
3. written out: ``Clip(x + 3, 0, 6) / 6`` (by now a Mul: `products`) -> a HardSigmoid, then case 1 or 2; times
   ``x`` -> ``HardSwish``.

``Clip(0, 1)`` in front of a quantiser whose codes end there costs nothing, so that the gate of a squeeze-excite block is the
convolution before it, and its product with the map is on codes too.
"""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from edgec.graph.views import add_initializer, attribute, constant, fresh_name, is_constant
from edgec.passes.quantize.rewrites.replace import (
    channels_of,
    depthwise,
    new_node,
    only_reader,
    replace,
    scale_layer,
)
from edgec.passes.quantize.rules import activation_bounds


def use_clips(model: ir.Model) -> int:
    """In place; the number of gates changed."""
    count = 0
    for node in list(model.graph):
        if node.graph is not None and node.op_type == "Mul":
            count += _spell_hard_sigmoid(model.graph, node)
    for node in list(model.graph):
        if node.graph is not None and node.op_type == "Mul":
            count += _use_hard_swish(model.graph, node)
    for node in list(model.graph):
        if node.op_type == "HardSigmoid":
            count += _use_clip(model.graph, node)
    return count


def _spell_hard_sigmoid(graph: ir.Graph, node: ir.Node) -> bool:
    """``Clip(x + b, 0, 1/a) * a`` -> ``HardSigmoid(x)``; the slope is ``a``, the offset ``a b``.

    A factor may stand between Clip and slope: ``a * (f * Clip(...))`` -> ``f * HardSigmoid(x)``.
    """
    value, slope = _scalar_beside(node)
    if value is None or not slope:
        return False
    product = value.producer()
    if product is None or product.op_type != "Mul" or not only_reader(value, node):
        return _spell(graph, node, node, value, slope, None)
    a, b = product.inputs
    return _spell(graph, node, product, a, slope, b) or _spell(graph, node, product, b, slope, a)


def _spell(
    graph: ir.Graph,
    last: ir.Node,
    reader: ir.Node,
    clipped: ir.Value | None,
    slope: float,
    factor: ir.Value | None,
) -> bool:
    clip = None if clipped is None else clipped.producer()
    if clip is None or clip.op_type != "Clip" or not all(is_constant(v) for v in clip.inputs[1:] if v):
        return False
    low, high = activation_bounds(clip)
    shifted = clip.inputs[0]
    if low != 0.0 or not math.isclose(high * slope, 1.0, rel_tol=1e-5) or not only_reader(clipped, reader):
        return False
    add = None if shifted is None else shifted.producer()
    if add is None or add.op_type != "Add" or not only_reader(shifted, clip):
        return False
    x, offset = _scalar_beside(add)
    if x is None or offset is None:
        return False
    gate = new_node(
        graph, last, "HardSigmoid", [x], f"{last.name}_gate", x.shape,
        alpha=float(slope), beta=float(slope * offset),
    )  # fmt: skip
    if factor is not None:
        inputs = [factor, gate.outputs[0]]
        gate = new_node(graph, last, "Mul", inputs, f"{last.name}_product", last.outputs[0].shape)
    replace(graph, last, gate)
    graph.remove([clip, add] if factor is None else [reader, clip, add], safe=True)
    return True


def _scalar_beside(node: ir.Node) -> tuple[ir.Value | None, float | None]:
    """(the computed operand, the constant one) where the constant is one number."""
    pairs = [(node.inputs[0], node.inputs[1]), (node.inputs[1], node.inputs[0])]
    for x, other in pairs:
        array = constant(other)
        if array is not None and array.size == 1 and array.dtype == np.float32 and constant(x) is None:
            return x, float(array.reshape(()))
    return None, None


def _use_hard_swish(graph: ir.Graph, node: ir.Node) -> bool:
    """``x * HardSigmoid(x)`` with the slope 1/6 and the offset 1/2."""
    for gate, x in ((node.inputs[0], node.inputs[1]), (node.inputs[1], node.inputs[0])):
        made = None if gate is None else gate.producer()
        if made is None or made.op_type != "HardSigmoid" or made.inputs[0] is not x:
            continue
        if not only_reader(gate, node):
            continue
        usual = math.isclose(attribute(made, "alpha", 0.2), 1 / 6, rel_tol=1e-5)
        if not usual or not math.isclose(attribute(made, "beta", 0.5), 0.5, rel_tol=1e-5):
            continue
        swish = new_node(graph, node, "HardSwish", [x], f"{node.name}_swish", node.outputs[0].shape)
        replace(graph, node, swish)
        graph.remove(made, safe=True)
        return True
    return False


def _use_clip(graph: ir.Graph, node: ir.Node) -> bool:
    x, name = node.inputs[0], node.name or "gate"
    if x is None:
        return False
    scale = np.asarray([float(attribute(node, "alpha", 0.2))])
    shift = np.asarray([float(attribute(node, "beta", 0.5))])
    layer, channels = x.producer(), channels_of(x)
    if only_reader(x, node) and layer is not None and layer.op_type in ("Conv", "Gemm"):
        if not scale_layer(layer, scale, shift):
            return False
        x.name = fresh_name(graph, f"{x.name}_line")  # it is another number now
    elif channels is None:
        return False
    else:
        line = depthwise(
            graph, node, x, np.repeat(scale, channels), np.repeat(shift, channels), f"{name}_line"
        )
        x = line.outputs[0]
    low = add_initializer(graph, f"{name}_low", np.asarray(0.0, np.float32))
    high = add_initializer(graph, f"{name}_high", np.asarray(1.0, np.float32))
    replace(graph, node, new_node(graph, node, "Clip", [x, low, high], f"{name}_clip", x.shape))
    return True
