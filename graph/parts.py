"""Which parts an output is made of: a head that joins boxes and scores in one tensor is judged as boxes and as scores.

An error is a share of what it is an error of. In a tensor that holds coordinates up to 640 beside scores up to 1, the scores
can be lost while the sum looks right. So the joins at the end of a graph are traced back: a Concat along features makes
parts, a Concat along positions (the levels of a pyramid, the rows of a list of anchors) joins what is alike, and layout,
activations by element, and arithmetic with constants keep the parts of what they read.

Positions are the axes that a convolution's pixels come to lie on (`positions`). Where no convolution is found they are taken
to lie on the longest axis of three or more.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir

from edgec.graph.compare import by_sample
from edgec.graph.views import attribute, constant, is_constant

Array = np.ndarray[Any, np.dtype[Any]]

LONGEST = 64
"""Nodes in a row that a trace goes back: heads are shorter, and what lies further back is no part of them."""
_SHAPES = ("Reshape", "Flatten", "Squeeze", "Unsqueeze")
_BY_ELEMENT = (
    "Identity", "Sigmoid", "HardSigmoid", "Tanh", "Exp", "Log", "Sqrt", "Abs", "Neg", "Relu", "LeakyRelu", "Clip", "Softplus",
    "Cast", "QuantizeLinear", "DequantizeLinear",
)  # fmt: skip
_ARITHMETIC = ("Add", "Sub", "Mul", "Div", "Pow", "Max", "Min")
_SOFTMAX = ("Softmax", "LogSoftmax")
_CUTS = ("Slice", "Split")


@dataclass(frozen=True)
class Part:
    """Values of one output that are of one kind. ``name`` is that of the output, with its range where it is not the whole."""

    name: str
    output: int
    """Position of the output."""
    source: str = ""
    """The node that computes it, not one that only moves it; the first of several."""
    mask: Array | None = field(default=None, compare=False, repr=False)
    """Of the values of one sample, flat; None: all of them."""

    def of(self, outputs: Sequence[Array], samples: int | None = None) -> Array:
        """(samples, values of the part), from the arrays of all outputs; ``samples`` where their leading axis may not say it."""
        rows = by_sample(outputs[self.output], samples)
        return rows if self.mask is None else rows[:, self.mask]


def parts_of(model: ir.Model) -> tuple[Part, ...]:
    """The parts of every output, in order; an output that joins nothing is one part."""
    return tuple(part for index, value in enumerate(model.graph.outputs) for part in _parts(value, index))


def _parts(value: ir.Value, index: int) -> tuple[Part, ...]:
    name = value.name or ""
    traced = _trace(value, 0)
    if len(traced.sources) < 2 or traced.labels is None:
        return (Part(name, index, traced.sources[0]),)
    masks = [traced.labels == label for label in range(len(traced.sources))]
    return tuple(
        Part(_named(name, mask, source), index, source, mask.ravel())
        for mask, source in zip(masks, traced.sources, strict=True)
    )


def _named(output: str, mask: Array, source: str) -> str:
    """``output[:, 0:4]`` where the part is a range of the output, as numpy writes it; else the node that computes it."""
    ranges = [(int(np.min(found)), int(np.max(found)) + 1) for found in np.nonzero(mask)]
    if math.prod(stop - start for start, stop in ranges) != int(mask.sum()):
        return f"{output} ({source})"
    whole = [(0, size) for size in mask.shape]
    texts = [":" if one == all_ else f"{one[0]}:{one[1]}" for one, all_ in zip(ranges, whole, strict=True)]
    while texts[-1] == ":":
        texts.pop()
    return f"{output}[{', '.join((':', *texts))}]"


@dataclass(frozen=True)
class _Traced:
    """Of the values of one sample, the number of the source that each comes from; None: all from one."""

    sources: tuple[str, ...]
    labels: Array | None = None


def _trace(value: ir.Value, depth: int) -> _Traced:
    node, shape = value.producer(), sample_shape(value)
    leaf = _Traced(((node.name if node is not None else value.name) or "",))
    if node is None or node.domain not in ("", "ai.onnx") or shape is None or depth > LONGEST:
        return leaf
    if node.op_type == "Concat":
        return _joined(node, shape, depth) or leaf
    source = _moved_from(node)
    before = None if source is None else sample_shape(source)
    if source is None or before is None or math.prod(before) != math.prod(shape):
        return leaf
    found = _trace(source, depth + 1)
    if found.labels is None:
        return found if node.op_type in (*_SHAPES, "Transpose", "Identity") else leaf
    labels = _moved(node, found.labels, shape)
    return leaf if labels is None else _Traced(found.sources, labels)


def _joined(node: ir.Node, shape: tuple[int, ...], depth: int) -> _Traced | None:
    """What a Concat joins; None where it joins the batch, or where one kind lies at all its positions."""
    axis = attribute(node, "axis", 0) % (len(shape) + 1)
    inputs = [value for value in node.inputs if value is not None]
    shapes = [sample_shape(value) for value in inputs]
    if axis == 0 or any(one is None for one in shapes):
        return None
    found = [_trace(value, depth + 1) for value in inputs]
    known = [places for places in (positions(value) for value in inputs) if places is not None]
    places = frozenset.intersection(*known) if known else _longest(shape)
    alike = axis in places and len({len(one.sources) for one in found}) == 1
    labels, sources = [], list(found[0].sources) if alike else []
    for one, size in zip(found, shapes, strict=True):
        mine = np.zeros(size or (), np.int32) if one.labels is None else one.labels
        labels.append(mine if alike else mine + len(sources))
        sources += [] if alike else one.sources
    if len(sources) < 2:
        return None
    return _Traced(tuple(sources), np.concatenate(labels, axis=axis - 1))


def _moved_from(node: ir.Node) -> ir.Value | None:
    """The input whose parts the node keeps, if it is of that sort."""
    if node.op_type in (*_SHAPES, *_BY_ELEMENT, *_SOFTMAX, "Transpose"):
        return node.inputs[0]
    if node.op_type in _ARITHMETIC:
        data = [value for value in node.inputs if value is not None and not is_constant(value)]
        return data[0] if len(data) == 1 else None
    return None


def _moved(node: ir.Node, labels: Array, shape: tuple[int, ...]) -> Array | None:
    """Labels behind a node; None where it mixes parts or moves the batch."""
    if node.op_type == "Transpose":
        perm = attribute(node, "perm", tuple(reversed(range(labels.ndim + 1))))
        return labels.transpose([axis - 1 for axis in perm[1:]]) if perm[0] == 0 else None
    if node.op_type in _SOFTMAX:
        axis = attribute(node, "axis", -1) % (labels.ndim + 1) - 1
        return labels if axis >= 0 and (labels == labels.take([0], axis=axis)).all() else None
    return labels.reshape(shape)


def positions(value: ir.Value | None, depth: int = 0) -> frozenset[int] | None:
    """The axes of ``value`` on which the pixels of a convolution lie; None where no convolution is found."""
    node = None if value is None else value.producer()
    if value is None or node is None or value.shape is None or depth > LONGEST:
        return None
    op, rank = node.op_type, len(value.shape)
    if op in ("Conv", "ConvTranspose"):
        weight = constant(node.inputs[1])
        pixels = frozenset(range(2, rank))
        pointwise = weight is not None and math.prod(weight.shape[2:]) == 1
        before = positions(node.inputs[0], depth + 1) if pointwise else None
        return pixels if before is None else before & pixels
    if op == "Transpose":
        before = positions(node.inputs[0], depth + 1)
        perm = attribute(node, "perm", tuple(reversed(range(rank))))
        return None if before is None else frozenset(perm.index(axis) for axis in before)
    if op in _SHAPES:
        before = positions(node.inputs[0], depth + 1)
        return None if before is None else _reshaped(before, node.inputs[0], value)
    if op in (*_BY_ELEMENT, *_SOFTMAX, *_CUTS, *_ARITHMETIC, "Concat"):
        count = 1 if op in _CUTS else len(node.inputs)
        data = [one for one in node.inputs[:count] if one is not None and not is_constant(one)]
        same = [positions(one, depth + 1) for one in data if one.shape is not None and len(one.shape) == rank]
        known = [one for one in same if one is not None]
        return frozenset.intersection(*known) if known else None
    return None


def _reshaped(before: frozenset[int], source: ir.Value | None, value: ir.Value) -> frozenset[int] | None:
    """Where positions come to lie: an axis holds them if its strides overlap with those of an axis that did."""
    old = None if source is None else sample_shape(source)
    new = sample_shape(value)
    if old is None or new is None or math.prod(old) != math.prod(new):
        return None
    held = [span for axis, span in enumerate(_spans(old), 1) if axis in before]
    return frozenset(
        axis
        for axis, (low, high) in enumerate(_spans(new), 1)
        if any(max(low, start) < min(high, stop) for start, stop in held)
    )


def _spans(shape: tuple[int, ...]) -> list[tuple[int, int]]:
    """Of every axis, from its stride to that of the axis in front of it."""
    strides = [math.prod(shape[axis:]) for axis in range(len(shape) + 1)]
    return [(strides[axis + 1], strides[axis]) for axis in range(len(shape))]


def _longest(shape: tuple[int, ...]) -> frozenset[int]:
    return frozenset((1 + shape.index(max(shape)),)) if len(shape) > 1 else frozenset()


def sample_shape(value: ir.Value) -> tuple[int, ...] | None:
    """The shape without the batch axis; None where it is not known."""
    if value.shape is None or not len(value.shape):
        return None
    sizes = list(value.shape)[1:]
    known = tuple(size for size in sizes if isinstance(size, int))
    return known if len(known) == len(sizes) else None
