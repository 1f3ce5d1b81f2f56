"""Operators that keep channels where they are: activations, broadcasting arithmetic, pooling, reductions,
softmax.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgec.graph.channels.atoms import Dims, Labels, UntraceableError, as_ints, varying
from edgec.graph.channels.trace import Rule, Spread, Trace, parameter_slots
from edgec.graph.families import ARITHMETIC, REDUCTIONS, UNARY
from edgec.graph.views import attribute, constant, is_constant

POOLS = (
    "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool", "LpPool", "MaxPool",
)  # fmt: skip
SUMS = frozenset({"ReduceMean", "ReduceSum", "ReduceL1", "ReduceL2", "ReduceSumSquare"})
MAKING_ZEROS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
KEEPING_ZEROS = SUMS | {
    "Abs", "AveragePool", "Elu", "Flatten", "Gelu", "GlobalAveragePool", "GlobalMaxPool", "HardSwish", "Identity",
    "LeakyRelu", "MaxPool", "Mish", "Neg", "PRelu", "Relu", "Reshape", "Sqrt", "Squeeze", "Swish", "Tanh", "Transpose",
    "Unsqueeze",
}  # fmt: skip
"""Of one operand that is zero they make zero."""


def _unary(trace: Trace, node: ir.Node) -> None:
    """Further operands (the bounds of Clip, the ratio of Dropout) are scalars."""
    labels = trace.labels(node.inputs[0])
    for value in node.inputs[1:]:
        if value is not None and not is_constant(value):
            raise UntraceableError("one of its settings is computed")
    for value in node.outputs:
        trace.set(value, labels)


def _arithmetic(trace: Trace, node: ir.Node) -> None:
    """Numpy broadcasting. Constants are sliced along; computed operands have their channels united."""
    out_dims = trace.dims(node.outputs[0])
    rank = len(out_dims)
    operands: list[tuple[int, Labels, Dims]] = []
    for index, value in enumerate(node.inputs):
        if value is not None and not is_constant(value):
            dims = trace.dims(value)
            pad = (1,) * (rank - len(dims))
            operands.append((index, trace.labels(value).reshape(pad + trace.labels(value).shape), pad + dims))
    if not operands:
        raise UntraceableError("all of its inputs are constant")
    _, labels, dims = operands[0]
    for _, other, other_dims in operands[1:]:
        labels, dims = _join(trace, node, (labels, dims), (other, other_dims))
    for index, value in enumerate(node.inputs):
        if value is not None and is_constant(value):
            if len(varying(labels)) > 1:
                trace.spread.append(Spread(node, index, labels))
            else:
                trace.slots.extend(parameter_slots(node, index, labels))
    trace.set(node.outputs[0], labels)


def _join(
    trace: Trace, node: ir.Node, one: tuple[Labels, Dims], two: tuple[Labels, Dims]
) -> tuple[Labels, Dims]:
    """Unite the atoms of two computed operands, and freeze an operand that is broadcast over channels."""
    (a, a_dims), (b, b_dims) = one, two
    dims = tuple(q if p == 1 else p for p, q in zip(a_dims, b_dims, strict=True))
    a_over_b = any(a_dims[axis] == 1 != b_dims[axis] for axis in varying(b))
    b_over_a = any(b_dims[axis] == 1 != a_dims[axis] for axis in varying(a))
    if a_over_b:
        trace.freeze(a, node, "broadcasts it over channels")
        if b_over_a:
            trace.freeze(b, node, "broadcasts it over channels")
            raise UntraceableError("its inputs are broadcast over each other")
        return b, dims
    if b_over_a:
        trace.freeze(b, node, "broadcasts it over channels")
        return a, dims
    axes, others = set(varying(a)), set(varying(b))
    if not (axes <= others or others <= axes):
        raise UntraceableError("its inputs have channels on different axes")
    trace.atoms.unite(a, b)
    return (a if axes >= others else b), dims


def _pool(trace: Trace, node: ir.Node) -> None:
    """Pools work on axes 2 and up, each channel for itself."""
    if len(node.outputs) > 1:
        raise UntraceableError("its second output holds positions")
    labels = trace.labels(node.inputs[0])
    trace.set(
        node.outputs[0], trace.whole(labels, range(2, labels.ndim), "channels lie on an axis that it pools")
    )


def _reduce(trace: Trace, node: ir.Node) -> None:
    labels, rank = trace.labels(node.inputs[0]), len(trace.dims(node.inputs[0]))
    axes = attribute(node, "axes", None)
    if axes is None and len(node.inputs) > 1 and node.inputs[1] is not None:
        given = constant(node.inputs[1])
        if given is None:
            raise UntraceableError("its axes are computed")
        axes = as_ints(given)
    if not axes:
        axes = () if attribute(node, "noop_with_empty_axes", 0) else tuple(range(rank))
    axes = {axis % rank for axis in axes}
    channels = set(varying(labels))
    if channels and channels <= axes and node.op_type in SUMS and stays_zero(node.inputs[0]):
        # What is gone adds nothing to a sum; a mean goes on dividing by the number that there were (`remove`).
        labels = trace.blank(rank, f"{node.op_type} {node.name!r} sums over channels")
    labels = trace.whole(labels, axes, "it sums over channels")
    if not attribute(node, "keepdims", 1):
        labels = labels.reshape([size for axis, size in enumerate(labels.shape) if axis not in axes])
    trace.set(node.outputs[0], labels)


def stays_zero(value: ir.Value | None) -> bool:
    """True where a channel whose layer makes nothing is zero at ``value`` as well.

    Sums over channels can then lose it. Behind the mean of all channels that a layer norm takes away it is not zero any more.
    """
    node = None if value is None else value.producer()
    if value is None or node is None:
        return False
    if node.op_type in MAKING_ZEROS:
        return True
    if node.op_type == "Mul":
        return any(stays_zero(factor) for factor in node.inputs)
    if node.op_type == "Add":  # a constant per channel goes with its channel
        return all(v is not None and (_is_vector(v) or stays_zero(v)) for v in node.inputs)
    return node.op_type in KEEPING_ZEROS and stays_zero(node.inputs[0])


def _is_vector(value: ir.Value) -> bool:
    array = constant(value)
    return array is not None and array.size > 1


def _normalise_axis(trace: Trace, node: ir.Node) -> None:
    """Softmax and its kin: every element along the axis depends on all others."""
    labels, rank = trace.labels(node.inputs[0]), len(trace.dims(node.inputs[0]))
    axis = attribute(node, "axis", -1) % rank
    trace.set(node.outputs[0], trace.whole(labels, (axis,), "it mixes channels"))


def _layer_norm(trace: Trace, node: ir.Node) -> None:
    """Channels that are normalised together stay.

    Without one of them the mean and the variance of the others, taken over fewer values, would not be what they are with
    its weights at zero.
    """
    labels, rank = trace.labels(node.inputs[0]), len(trace.dims(node.inputs[0]))
    axes = range(attribute(node, "axis", -1) % rank, rank)
    if len(node.outputs) > 1:
        raise UntraceableError("its statistics are read")
    if set(varying(labels)) & set(axes):
        trace.freeze(labels, node, "takes mean and variance over these channels: fewer would change both")
    for operand in range(1, len(node.inputs)):
        if not is_constant(node.inputs[operand]):
            raise UntraceableError("its scale or shift is computed")
    trace.set(node.outputs[0], labels)


def _resize(trace: Trace, node: ir.Node) -> None:
    """The channel axis keeps its size; a ``sizes`` operand that names it is rewritten on removal."""
    labels = trace.labels(node.inputs[0])
    old, new = trace.dims(node.inputs[0]), trace.dims(node.outputs[0])
    for value in node.inputs[1:]:
        if value is not None and not is_constant(value):
            raise UntraceableError("its size is computed")
    if any(old[axis] != new[axis] for axis in varying(labels)) or len(old) != len(new):
        raise UntraceableError("it resizes the channel axis")
    trace.set(node.outputs[0], labels)


def _expand(trace: Trace, node: ir.Node) -> None:
    labels, new = trace.labels(node.inputs[0]), trace.dims(node.outputs[0])
    if constant(node.inputs[1]) is None:
        raise UntraceableError("its shape is computed")
    trace.set(node.outputs[0], labels.reshape((1,) * (len(new) - labels.ndim) + labels.shape))


def _tile(trace: Trace, node: ir.Node) -> None:
    repeats = constant(node.inputs[1])
    if repeats is None:
        raise UntraceableError("its repeats are computed")
    labels = trace.labels(node.inputs[0])
    times = [int(r) if size > 1 else 1 for r, size in zip(repeats, labels.shape, strict=True)]
    trace.set(node.outputs[0], np.tile(labels, times))


RULES: dict[str, Rule] = {
    **dict.fromkeys(UNARY, _unary),
    **dict.fromkeys(ARITHMETIC, _arithmetic),
    **dict.fromkeys(POOLS, _pool),
    **dict.fromkeys(REDUCTIONS, _reduce),
    **dict.fromkeys(("Softmax", "LogSoftmax", "Hardmax", "LpNormalization"), _normalise_axis),
    "LayerNormalization": _layer_norm,
    "Resize": _resize,
    "Expand": _expand,
    "Tile": _tile,
}
