"""Answers that an exact comparison picks are judged in front of it.

A heatmap's peaks are where it equals its own maximum over a window (``h * (h == MaxPool(h))``: CenterNet, arXiv 1904.07850,
M-LSD). Real numbers are equal to the last bit or not at all, so another rounding picks other places: by what is picked every
layer looks ruinous, and M-LSD stayed float as a whole. What is picked from is a value like any other.

1. behind is everything that depends on an Equal of two real numbers, both of which depend on the inputs;
2. an output behind is judged by the real numbers that what lies behind reads and the network makes; the other outputs, and those
   that the inputs alone decide, are judged as they are.
"""

from __future__ import annotations

import onnx_ir as ir


def judged(model: ir.Model) -> ir.Model:
    """``model``, or a copy whose outputs are the values to judge it by."""
    behind = _behind(model)
    if not any(value.producer() in behind for value in model.graph.outputs):
        return model
    ends: dict[str, None] = {}
    for value in model.graph.outputs:
        read = _read(value, behind) if value.producer() in behind else []
        ends.update(dict.fromkeys(read or [value.name or ""]))
    copy = model.clone()
    named = {value.name: value for node in copy.graph for value in node.outputs}
    named.update({value.name: value for value in copy.graph.inputs})
    copy.graph.outputs[:] = [named[name] for name in ends]
    return copy


def _behind(model: ir.Model) -> set[ir.Node]:
    varying = set(model.graph.inputs)
    behind: set[ir.Node] = set()
    for node in model.graph:
        moved = [value for value in node.inputs if value in varying]
        if moved:
            varying.update(node.outputs)
        exact = node.op_type == "Equal" and len(moved) == 2 and all(map(_is_real, moved))
        if exact or any(value is not None and value.producer() in behind for value in node.inputs):
            behind.add(node)
    return behind


def _read(output: ir.Value, behind: set[ir.Node]) -> list[str]:
    """The real numbers in front that ``output`` comes from."""
    found: dict[str, None] = {}
    pending, seen = [output], set[ir.Value]()
    while pending:
        value = pending.pop()
        node = value.producer()
        if value in seen or node is None:
            continue
        seen.add(value)
        if node in behind:
            pending.extend(one for one in node.inputs if one is not None)
        elif _is_real(value):
            found[value.name or ""] = None
    return list(found)


def _is_real(value: ir.Value | None) -> bool:
    return value is not None and value.dtype is not None and value.dtype.is_floating_point()
