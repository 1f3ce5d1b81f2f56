"""Residual blocks in a file: which input of an Add is the branch, and whether its last layer is on codes."""

from __future__ import annotations

from dataclasses import dataclass

import onnx

from edgec.compiler.check.onnx_view import OnnxView
from edgec.compiler.check.pairs import on_codes
from edgec.graph.spec import LAYERS

_WITH_LAYER = frozenset(
    {"Relu", "Clip", "LeakyRelu", "PRelu", "HardSwish", "Swish", "Sigmoid", "Tanh", "Gelu", "Mish", "Elu", "BatchNormalization"}
)  # fmt: skip
_ROUNDING = frozenset({"QuantizeLinear", "DequantizeLinear"})


@dataclass(frozen=True)
class Fork:
    """``branch`` is the index of the input that the longer way leads to; ``quantised``: its last layer is on codes."""

    branch: int
    quantised: bool


def branch_of(view: OnnxView, add: onnx.NodeProto) -> Fork | None:
    """Of an Add of two computed tensors of one shape; None where no layer ends either."""
    if len(add.input) != 2 or add.input[0] == add.input[1] or any(name in view.stored for name in add.input):
        return None
    shapes = [view.shape(name) for name in add.input]
    if shapes[0] != shapes[1]:
        return None
    layers = [_layer(view, name) for name in add.input]
    if layers[0] is layers[1]:
        return None
    ways = _ways(view, *add.input)
    known = [index for index in (0, 1) if layers[index] is not None]
    if not known:
        return None
    branch = known[0] if len(known) == 1 else (0 if ways[0] > ways[1] else 1)
    layer = layers[branch]
    if layer is None or ways[branch] == 0:
        return None
    return Fork(branch, on_codes(view, layer))


def _layer(view: OnnxView, name: str) -> onnx.NodeProto | None:
    """The layer that makes a tensor, through activations and pairs."""
    while True:
        node = view.makers.get(name)
        if node is None or node.op_type in LAYERS:
            return node
        if node.op_type == "Mul":
            gates = [view.makers.get(one) for one in node.input]
            found = [
                i
                for i, gate in enumerate(gates)
                if gate is not None and gate.op_type in ("Sigmoid", "HardSigmoid")
            ]
            if not found:
                return None
            name = node.input[1 - found[0]]
            gate = gates[found[0]]
            if gate is None or gate.input[0] != name:
                return None
        elif node.op_type in _WITH_LAYER or node.op_type in _ROUNDING:
            name = node.input[0]
        else:
            return None


def _ways(view: OnnxView, first: str, second: str) -> tuple[int, int]:
    """Nodes on the way from either tensor up to where both come from; pairs do not count."""
    a, b = _distances(view, first), _distances(view, second)
    common = [(a[name] + b[name], a[name], b[name]) for name in a if name in b]
    return min(common)[1:] if common else (1, 1)


def _distances(view: OnnxView, name: str) -> dict[str, int]:
    found = {name: 0}
    row = [name]
    while row:
        after = []
        for one in row:
            node = view.makers.get(one)
            step = 0 if node is not None and node.op_type in _ROUNDING else 1
            for before in () if node is None else node.input:
                if before and before not in view.stored and found.get(before, 1 << 30) > found[one] + step:
                    found[before] = found[one] + step
                    after.append(before)
        row = after
    return found
