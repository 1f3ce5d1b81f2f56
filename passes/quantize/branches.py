"""Residual blocks as fused kernels see them: which layer a tensor comes from, and which input of an Add is the skip."""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir

from edgec.graph.spec import LAYERS
from edgec.graph.views import is_constant

_FUSED = frozenset(
    {"Relu", "Clip", "LeakyRelu", "PRelu", "HardSwish", "HardSigmoid", "Sigmoid", "Tanh", "Gelu", "Mish", "Elu", "Swish"}
)  # fmt: skip
"""Activations that a layer's kernel computes with it."""


def gated(node: ir.Node) -> ir.Value | None:
    """``x`` of a Mul that is ``x * gate(x)``, else None."""
    if node.op_type != "Mul":
        return None
    for gate, x in ((node.inputs[0], node.inputs[1]), (node.inputs[1], node.inputs[0])):
        maker = None if gate is None else gate.producer()
        if maker is not None and maker.op_type in ("Sigmoid", "HardSigmoid") and maker.inputs[0] is x:
            return x
    return None


def layer_behind(value: ir.Value) -> ir.Node | None:
    """The layer that computes ``value``, activations (written out ones too) between them included; None: none does."""
    while True:
        node = value.producer()
        if node is None or node.op_type in LAYERS:
            return node
        x = gated(node) if node.op_type == "Mul" else node.inputs[0]
        if x is None or (node.op_type != "Mul" and node.op_type not in _FUSED):
            return None
        value = x


def fused_behind(node: ir.Node, on_codes: Callable[[ir.Node], bool]) -> bool:
    """An activation, or a part of one, that is computed with a layer on codes."""
    if node.op_type not in _FUSED and gated(node) is None:
        return False
    layer = layer_behind(node.outputs[0])
    return layer is not None and on_codes(layer)


def skip_input(node: ir.Node, on_codes: Callable[[ir.Node], bool]) -> int | None:
    """Which input of an Add is the skip around a branch that ends in a layer on codes; None where there is no such block.

    Where both inputs come from layers, the branch is the longer way to where they fork.
    """
    a, b = node.inputs[0], node.inputs[1]
    if a is None or b is None or a is b or is_constant(a) or is_constant(b):
        return None
    if not _same_shape(a, b):
        return None
    ends = [layer_behind(value) for value in (a, b)]
    ways = _ways_to_fork(a, b)
    if ends[0] is ends[1]:
        return None
    if ends[0] is not None and ends[1] is not None:
        branch = 0 if ways[0] > ways[1] else 1
    elif ends[0] is not None or ends[1] is not None:
        branch = 0 if ends[0] is not None else 1
    else:
        return None
    end = ends[branch]
    if end is None or not on_codes(end) or ways[branch] == 0:
        return None
    return 1 - branch


def _same_shape(a: ir.Value, b: ir.Value) -> bool:
    if a.shape is None or b.shape is None:
        return False
    return list(a.shape) == list(b.shape)


def _ways_to_fork(a: ir.Value, b: ir.Value) -> tuple[int, int]:
    """How many nodes lie between either value and their nearest common ancestor; zeros where they have none in common."""
    first, second = _ancestors(a), _ancestors(b)
    common = [(first[key] + second[key], first[key], second[key]) for key in first if key in second]
    return min(common)[1:] if common else (1, 1)


def _ancestors(value: ir.Value) -> dict[int, int]:
    """Distance, in nodes, to every value that this one is computed from."""
    found = {id(value): 0}
    row = [value]
    while row:
        after = []
        for one in row:
            maker = one.producer()
            for before in () if maker is None else maker.inputs:
                if before is not None and id(before) not in found and not is_constant(before):
                    found[id(before)] = found[id(one)] + 1
                    after.append(before)
        row = after
    return found
