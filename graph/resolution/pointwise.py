"""What works place by place: activations, arithmetic that broadcasts, norms, reductions, products."""

from __future__ import annotations

import onnx_ir as ir

from edgec.graph.families import ARITHMETIC, REDUCTIONS, UNARY
from edgec.graph.resolution.axes import Axes, Axis, fixed, refused
from edgec.graph.resolution.grids import in_pictures, regrown
from edgec.graph.resolution.trace import Rule, Walk, integers
from edgec.graph.views import attribute, constant, is_constant

LIKE_FIRST = (
    *UNARY, "CumSum", "DequantizeLinear", "GroupNormalization", "InstanceNormalization", "LRN", "LogSoftmax", "LpNormalization",
    "MeanVarianceNormalization", "QuantizeLinear", "Softmax",
)  # fmt: skip
BROADCAST = (*ARITHMETIC, "BitwiseAnd", "BitwiseOr")


def _like_first(walk: Walk, node: ir.Node) -> None:
    for value in node.outputs:
        if value.name:
            walk.set(value, walk.axes(node.inputs[0]))


def _normalised(walk: Walk, node: ir.Node) -> None:
    """Weights go along the channels, or along the last axes."""
    axes = walk.axes(node.inputs[0])
    start = attribute(node, "axis", -1) % len(axes) if node.op_type == "LayerNormalization" else 1
    weighed = axes[start:] if node.op_type == "LayerNormalization" else axes[1:2]
    if any(axis.follows for axis in weighed):
        raise refused(node, "it has weights for every place of the map")
    walk.set(node.outputs[0], axes)


def joined(node: ir.Node, operands: list[Axes]) -> Axes:
    """The axes of values that broadcast with one another. Raises SizeError."""
    rank = max(map(len, operands))
    padded = [(*(Axis.of(fixed(1)),) * (rank - len(one)), *one) for one in operands]
    result = []
    for axes in zip(*padded, strict=True):
        varied = [axis for axis in axes if axis.batch or axis.follows or axis.old != 1]
        if not varied:
            result.append(axes[0])
            continue
        first = max(varied, key=lambda axis: (axis.batch, axis.follows))
        for other in varied:
            if not first.batch and not other.batch and other.sizes != first.sizes:
                why = f"maps of {first.new} and {other.new} meet here ({first.old} and {other.old} before)"
                raise refused(node, why)
        result.append(first)
    return tuple(result)


def _broadcast(walk: Walk, node: ir.Node) -> None:
    operands = [walk.axes(value) for value in node.inputs if value is not None and not is_constant(value)]
    axes = joined(node, operands)
    for index, value in enumerate(node.inputs):
        array = constant(value)
        if array is None:
            continue
        rank = max(len(axes), array.ndim)
        axes = (*(Axis.of(fixed(1)),) * (rank - len(axes)), *axes)
        fitting = axes[rank - array.ndim :]
        new = regrown(walk, node, array, fitting)
        if new is None:
            new = in_pictures(walk, node, array, axes)
        if new is not None:
            walk.edit(node, index, new)
        grown = zip(fitting, array.shape, strict=True)
        widened = [
            Axis.of(fixed(size)) if axis.sizes == (1, 1) and not axis.batch else axis for axis, size in grown
        ]
        axes = (*axes[: rank - array.ndim], *widened)
    walk.set(node.outputs[0], axes)


def _reduce(walk: Walk, node: ir.Node) -> None:
    axes = walk.axes(node.inputs[0])
    given = attribute(node, "axes", None) or integers(node, 1)
    if not given and attribute(node, "noop_with_empty_axes", 0):
        walk.set(node.outputs[0], axes)
        return
    over = {axis % len(axes) for axis in (given or range(len(axes)))}
    _reduced(walk, node, over)


def _reduced(walk: Walk, node: ir.Node, over: set[int]) -> None:
    axes = walk.axes(node.inputs[0])
    keep = attribute(node, "keepdims", 1)
    one = Axis.of(fixed(1))
    found = [one if i in over else axis for i, axis in enumerate(axes) if keep or i not in over]
    walk.set(node.outputs[0], tuple(found))


def _arg(walk: Walk, node: ir.Node) -> None:
    _reduced(walk, node, {attribute(node, "axis", 0) % len(walk.axes(node.inputs[0]))})


def _top(walk: Walk, node: ir.Node) -> None:
    axes, count = list(walk.axes(node.inputs[0])), integers(node, 1) or [0]
    at = attribute(node, "axis", -1) % len(axes)
    if axes[at].new < count[0]:
        raise refused(node, f"it takes the {count[0]} best of {axes[at].new}")
    axes[at] = Axis.of(fixed(count[0]))
    for value in node.outputs:
        walk.set(value, tuple(axes))


def _product(walk: Walk, node: ir.Node) -> None:
    left, right = (list(walk.axes(value)) for value in node.inputs[:2])
    if node.op_type == "Gemm":
        left = left[::-1] if attribute(node, "transA", 0) else left
        right = right[::-1] if attribute(node, "transB", 0) else right
    if len(left) < 2 or len(right) < 2:
        raise refused(node, "it multiplies vectors")
    ours, theirs = left[-1], right[-2]
    constants = any(is_constant(value) for value in node.inputs[:2])
    if constants and (ours.follows or theirs.follows):
        raise refused(
            node, f"its weights are for the {ours.old} values of a flattened map{_made_of(ours, theirs)}"
        )
    if ours.sizes != theirs.sizes:
        raise refused(node, f"products of {ours.new} and {theirs.new} values meet here")
    lead = joined(node, [tuple(left[:-2]), tuple(right[:-2])]) if len(left) > 2 or len(right) > 2 else ()
    axes = (*lead, left[-2], right[-1])
    if len(node.inputs) > 2 and node.inputs[2] is not None and not is_constant(node.inputs[2]):
        axes = joined(node, [axes, walk.axes(node.inputs[2])])
    walk.set(node.outputs[0], axes)


def _made_of(*axes: Axis) -> str:
    """``512 x 7 x 7``, of the axis that was a map."""
    run = next((one.runs[0] for one in axes if one.follows and len(one.runs) == 1), ())
    return f": {' x '.join(str(one.old) for one in run)}" if len(run) > 1 else ""


RULES: dict[str, Rule] = {
    **dict.fromkeys(LIKE_FIRST, _like_first),
    **dict.fromkeys(("BatchNormalization", "LayerNormalization"), _normalised),
    **dict.fromkeys(BROADCAST, _broadcast),
    **dict.fromkeys(REDUCTIONS, _reduce),
    **dict.fromkeys(("ArgMax", "ArgMin"), _arg),
    "TopK": _top,
    **dict.fromkeys(("MatMul", "Gemm"), _product),
}
