"""The end of a network, and the gates in it: where one scale must not serve two kinds, and which values make no difference.

A Concat behind which nothing heavy follows joins what a network answers: the coordinates of boxes with the scores of classes.
On one scale the smaller kind is lost, and nothing is won, since what follows computes little. It stays float, and each part
keeps the parameters of the layer that computes it.

What a Sigmoid reads need not be told apart where its answers are the same code. For ``x`` below ``-log(511)`` it rounds to 0,
and ``x * Sigmoid(x)`` with it, so the codes of ``x`` need not reach further, however far its values do. A HardSwish is 0 from -3
on downwards.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import onnx_ir as ir

from edgec.graph.views import constant
from edgec.passes.quantize.qparams import QParams
from edgec.passes.quantize.rules import Kind, Rule

Range = tuple[float, float]
ALL: Range = (-math.inf, math.inf)
_LIGHT = (Kind.SAME, Kind.JOINT, Kind.FIXED, Kind.ACT, Kind.OWN)


def output_joins(nodes: Sequence[ir.Node], rules: Mapping[str, Rule]) -> list[str]:
    """JOINT nodes from which nothing but light nodes lead to outputs, and the convolutions among these that take a mean."""
    tail: set[str] = set()
    for node in reversed(nodes):
        rule = rules.get(node.name or "")
        uses = [use.node.name for value in node.outputs for use in value.uses()]
        light = rule is None or not rule.anchor or is_mean(node)
        if light and all(name in tail for name in uses):
            tail.add(node.name or "")
    joins = [name for name in tail if name in rules and rules[name].kind is Kind.JOINT]
    means = [node.name or "" for node in nodes if node.name in tail and node.name in rules and is_mean(node)]
    return [*joins, *means]


def is_mean(node: ir.Node) -> bool:
    """A pointwise convolution that makes one number of a Softmax: the mean of a distribution (DFL), whose every step counts."""
    value = node.inputs[0] if node.op_type == "Conv" else None
    before = None if value is None else value.producer()
    weight = constant(node.inputs[1]) if before is not None and before.op_type == "Softmax" else None
    return weight is not None and weight.shape[0] == 1 and math.prod(weight.shape[2:]) == 1


def useful(values: Iterable[ir.Value], rules: Mapping[str, Rule], sigmoid: QParams | None) -> Range:
    """The range outside of which it makes no difference how far ``values``, which share parameters, lie."""
    low, high = math.inf, -math.inf
    members = list(values)
    names = {value.name for value in members}
    for value in members:
        if value.is_graph_output():
            return ALL
        for use in value.uses():
            rule = rules.get(use.node.name or "")
            moves = rule is not None and rule.kind in (Kind.SAME, Kind.JOINT)
            if moves and all(out.name in names for out in use.node.outputs):
                continue
            found = _told_apart(use.node, value, sigmoid)
            low, high = min(low, found[0]), max(high, found[1])
    return (low, high) if low < high else ALL


def _told_apart(node: ir.Node, value: ir.Value, sigmoid: QParams | None) -> Range:
    """What ``node`` tells apart of ``value``."""
    if node.op_type == "HardSwish":
        return -3.0, math.inf
    if sigmoid is None:
        return ALL
    limit = math.log(2.0 / sigmoid.scale - 1.0)
    if node.op_type == "Sigmoid":
        return -limit, limit
    if node.op_type == "Mul" and any(_is_gate(other, value) for other in node.inputs):
        return -limit, math.inf
    return ALL


def _is_gate(gate: ir.Value | None, value: ir.Value) -> bool:
    node = None if gate is None else gate.producer()
    return node is not None and node.op_type == "Sigmoid" and node.inputs[0] is value
