"""`fold-pointwise`: a 1x1 convolution goes into its neighbour where that is exact and costs no more.

This is how the corrective convolutions of FSKD (Li et al., arXiv 1812.01839, theorem 1) disappear after they are fitted. With a
1x1 convolution (Q, q) and its neighbour (W, b):

Legal, into the convolution before:
1. dense convolution, any stride, padding and dilation: ``W' = Q W``, ``b' = Q b + q``;
2. grouped or depthwise convolution, where Q is block-diagonal with the groups (diagonal for depthwise);
3. an unpadded average pooling may stand between (it commutes with Q and, being unpadded, with q);
4. an Add of two such convolutions may stand between: both take Q, one takes q.
Legal, into the convolution behind:
5. Q without bias, any padding: ``W'[o, i] = sum_c W[o, c] Q[c, i]``;
6. Q with bias before an unpadded convolution: in addition ``b' = b + sum W q``.

Refused, each with its reason in the notes of the pass:
a. an activation, a max-pooling, or a padded average pooling stands between;
b. Q mixes channels of different groups;
c. the tensor between has another reader, or is an output;
d. one side of an Add is no convolution (an identity skip);
e. Q has a bias and the convolution behind pads (its border would see the bias);
f. the merged convolution would cost more than the two (a bottleneck stays a bottleneck);
g. weights are not constant floats (a quantised graph).

A program before and after::

    h = Conv3x3(x, w, b)   ->   y = Conv3x3(x, Q w, Q b + q)
    y = Conv1x1(h, Q, q)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir

from edgec.graph.cost import macs_of
from edgec.graph.edit import take_over
from edgec.graph.tidy import tidy
from edgec.graph.views import ConvView, attribute, sole_consumer
from edgec.passes.base import Context, Note, Pass, PassResult

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Refusal:
    """Why a 1x1 convolution stays."""

    why: str


@dataclass(frozen=True)
class FoldPointwise(Pass):
    """Merge 1x1 convolutions into the convolutions beside them, exactly."""

    name: ClassVar[str] = "fold-pointwise"
    summary: ClassVar[str] = "merge 1x1 convolutions into the convolutions beside them, exactly"
    changes_function: ClassVar[bool] = False

    def run(self, model: ir.Model, context: Context) -> PassResult:
        notes: list[Note] = []
        folded = 0
        for node in list(model.graph):
            if node.graph is None or not _is_candidate(node):
                continue
            reason = fold_one(node)
            if reason is None:
                folded += 1
            else:
                notes.append(Note(f"{node.name} stays: {reason.why}", node=node.name))
        if folded:
            tidy(model)
        notes.insert(0, Note(f"{folded} 1x1 convolutions folded, {len(notes)} stay"))
        return PassResult(model, modified=folded > 0, notes=tuple(notes))


def fold_one(node: ir.Node) -> Refusal | None:
    """Fold one 1x1 convolution into a neighbour, in place; the reason where that is not possible."""
    before = _fold_before(node)
    if before is None:
        return None
    behind = _fold_behind(node)
    if behind is None:
        return None
    return Refusal(f"{before.why}; {behind.why}")


def _is_candidate(node: ir.Node) -> bool:
    """1x1, stride 1, no padding; dense or grouped; float weights."""
    view = ConvView.of(node)
    if view is None or view.weight.dtype != np.float32:
        return False
    return all(k == 1 for k in view.kernel) and all(s == 1 for s in view.strides) and not any(view.pads)


def dense_matrix(view: ConvView) -> Array:
    """The (out, in) matrix of a 1x1 convolution, zeros between groups."""
    weight = view.weight.reshape(view.out_channels, -1).astype(np.float64)
    full = np.zeros((view.out_channels, view.in_channels))
    rows, columns = view.out_channels // view.group, view.in_channels // view.group
    for g in range(view.group):
        full[g * rows : (g + 1) * rows, g * columns : (g + 1) * columns] = weight[g * rows : (g + 1) * rows]
    return full


def bias_of(view: ConvView) -> Array:
    """The bias, zeros where there is none."""
    return np.zeros(view.out_channels) if view.bias is None else view.bias.astype(np.float64)


# --- into the convolution before -------------------------------------------------------------------------------------


def _fold_before(node: ir.Node) -> Refusal | None:
    pointwise = ConvView(node)
    value = pointwise.x
    producer = value.producer()
    pool = None
    if producer is not None and _averages_plainly(producer):
        pool, value = producer, _input(producer)
        if sole_consumer(producer.outputs[0]) is not node:
            return Refusal(f"{producer.outputs[0].name} has another reader")
        producer = value.producer()
    if producer is None:
        return Refusal("nothing computes its input")
    reader = pool or node
    if sole_consumer(value) is not reader:
        return Refusal(f"{value.name} has another reader or is an output")
    if producer.op_type == "Add":
        return _fold_into_add(producer, node, pool)
    if producer.op_type != "Conv":
        return Refusal(f"{producer.op_type} {producer.name} stands before it")
    merged = _merged(producer, pointwise)
    if isinstance(merged, Refusal):
        return merged
    if pool is None and merged[0].size * _pixels(node.outputs[0]) > macs_of(producer) + macs_of(node):
        return Refusal("merged it would cost more")
    if pool is not None and pointwise.out_channels > pointwise.in_channels:
        return Refusal("merged it would cost more")
    _apply(producer, *merged)
    _bypass(node)
    return None


def _fold_into_add(add: ir.Node, node: ir.Node, pool: ir.Node | None) -> Refusal | None:
    pointwise = ConvView(node)
    branches = []
    for value in add.inputs:
        producer = None if value is None else value.producer()
        if value is None or producer is None or producer.op_type != "Conv":
            return Refusal(f"one side of {add.name} is no convolution")
        if sole_consumer(value) is not add:
            return Refusal(f"{value.name} has another reader")
        branches.append(producer)
    if branches[0] is branches[1]:
        return Refusal(f"both sides of {add.name} are one tensor")
    if pointwise.out_channels > pointwise.in_channels:
        return Refusal("merged it would cost more")
    merged = [_merged(branch, pointwise) for branch in branches]
    for one in merged:
        if isinstance(one, Refusal):
            return one
    for index, (branch, one) in enumerate(zip(branches, merged, strict=True)):
        if not isinstance(one, Refusal):
            weight, bias = one
            # q stands once in the sum: the second branch takes Q alone.
            _apply(branch, weight, bias - bias_of(pointwise) if index else bias)
    _bypass(node)
    return None


def _merged(conv: ir.Node, pointwise: ConvView) -> tuple[Array, Array] | Refusal:
    """Weight and bias of the convolution followed by Q, or why there are none."""
    view = ConvView.of(conv)
    if view is None or view.weight.dtype != np.float32:
        return Refusal(f"the weights of {conv.name} are not constant floats")
    matrix, weight = dense_matrix(pointwise), view.weight.astype(np.float64)
    if view.group == 1:
        merged = np.tensordot(matrix, weight, axes=(1, 0))
    else:
        groups = _blocks(matrix, view)
        if groups is None:
            return Refusal(f"it mixes channels of different groups of {conv.name}")
        per_group = weight.reshape(view.group, view.out_channels // view.group, *weight.shape[1:])
        merged = np.concatenate(
            [np.tensordot(q, w, axes=(1, 0)) for q, w in zip(groups, per_group, strict=True)], axis=0
        )
    return merged, matrix @ bias_of(view) + bias_of(pointwise)


def _blocks(matrix: Array, view: ConvView) -> list[Array] | None:
    """The diagonal blocks of Q, one per group; None where Q has entries outside, or does not divide."""
    if matrix.shape[0] % view.group:
        return None
    rows, columns = matrix.shape[0] // view.group, view.out_channels // view.group
    mask = np.kron(np.eye(view.group), np.ones((rows, columns))).astype(bool)
    if matrix[~mask].any():
        return None
    return [matrix[g * rows : (g + 1) * rows, g * columns : (g + 1) * columns] for g in range(view.group)]


def _averages_plainly(node: ir.Node) -> bool:
    """An average pooling in which every output averages the same number of true pixels."""
    if node.op_type == "GlobalAveragePool":
        return True
    padded = any(attribute(node, "pads", ())) or attribute(node, "auto_pad", "NOTSET") not in (
        "NOTSET",
        "VALID",
    )
    return node.op_type == "AveragePool" and not padded and not attribute(node, "ceil_mode", 0)


# --- into the convolution behind -------------------------------------------------------------------------------------


def _fold_behind(node: ir.Node) -> Refusal | None:
    pointwise = ConvView(node)
    reader = sole_consumer(node.outputs[0])
    if reader is None:
        return Refusal(f"{node.outputs[0].name} has several readers or is an output")
    view = ConvView.of(reader)
    if view is None:
        return Refusal(f"{reader.op_type} {reader.name} stands behind it")
    if view.x is not node.outputs[0]:
        return Refusal(f"{reader.name} uses it as a weight")
    if view.group != 1 or pointwise.group != 1:
        return Refusal(f"{reader.name} behind it is grouped")
    if any(view.pads) and bias_of(pointwise).any():
        return Refusal(f"it has a bias and {reader.name} behind it pads")
    matrix, weight = dense_matrix(pointwise), view.weight.astype(np.float64)
    merged = np.einsum("oc...,ci->oi...", weight, matrix)
    if merged.size * _pixels(reader.outputs[0]) > macs_of(reader) + macs_of(node):
        return Refusal("merged it would cost more")
    shift = weight.sum(axis=tuple(range(2, weight.ndim))) @ bias_of(pointwise)
    _apply(reader, merged, bias_of(view) + shift)
    reader.replace_input_with(0, pointwise.x)
    _drop(node)
    return None


# --- edits -----------------------------------------------------------------------------------------------------------


def _apply(conv: ir.Node, weight: Array, bias: Array) -> None:
    view = ConvView(conv)
    keeps_none = view.bias is None and not bias.any()
    view.set(weight=weight.astype(np.float32), bias=None if keeps_none else bias.astype(np.float32))
    conv.outputs[0].shape = None


def _bypass(node: ir.Node) -> None:
    """Let the readers of ``node`` read its input, which keeps its name unless ``node`` wrote an output of the graph."""
    value = _input(node)
    output = node.outputs[0]
    if output.is_graph_output():
        value.type, value.shape = output.type, output.shape
        assert isinstance(node.graph, ir.Graph)  # only the graph's own nodes are folded
        take_over(node.graph, output, value)
    else:
        output.replace_all_uses_with(value)
    _drop(node)


def _drop(node: ir.Node) -> None:
    graph = node.graph
    if isinstance(graph, ir.Graph):
        graph.remove(node, safe=True)


def _input(node: ir.Node) -> ir.Value:
    value = node.inputs[0]
    if value is None:
        raise ValueError(f"node {node.name!r} has no input")
    return value


def _pixels(value: ir.Value) -> int:
    """Output pixels of a convolution for one sample."""
    shape = value.shape
    sizes = list(shape)[2:] if shape is not None else []
    return int(np.prod([size for size in sizes if isinstance(size, int)], initial=1))
