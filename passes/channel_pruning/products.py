"""Channels that only a product of two computed tensors reads: the dims of queries and keys, summed over in ``q k'``.

No weight reads them, so nothing is re-fitted. Dim j adds ``q_j k_j'`` to the scores of its head; without it that much is
missing, so a unit's error is the energy of these terms over all heads, ``sum |q_j|^2 |k_j|^2``, measured on the calibration
data. What its loss does to the network's output is measured as for every other group (`sensitivity`), with what makes the dims
at zero.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import onnx_ir as ir

from edgec.graph.channels import ChannelGroup, Member
from edgec.graph.execute import stream
from edgec.graph.views import constant, is_constant, own_constant
from edgec.passes.base import Context
from edgec.passes.channel_pruning.criteria import score_curve
from edgec.passes.sensitivity.measure import Subject, Trial
from edgec.passes.solvers.obs import Curve

Array = np.ndarray[Any, np.dtype[Any]]

MOST_SAMPLES = 64
SHIFTS = ("Conv", "Gemm", "Add")
"""Ops whose constants are added to what a layer makes."""


@dataclass(frozen=True)
class Product:
    """A MatMul that sums over the units of a group: its two factors, and the units' places on the summed axis (units, n)."""

    left: str
    right: str
    places: Array


def products_of(model: ir.Model, group: ChannelGroup) -> list[Product]:
    """The products that sum over the group."""
    places = {member.value: member for member in group.activations}
    found = []
    for node in model.graph:
        if node.op_type != "MatMul" or any(value is None or is_constant(value) for value in node.inputs):
            continue
        left, right = (value.name or "" for value in node.inputs if value is not None)
        if left in places and right in places and _sums(node, places[left], places[right]):
            found.append(Product(left, right, places[left].index))
    return found


def _sums(node: ir.Node, left: Member, right: Member) -> bool:
    ranks = [0 if value is None or value.shape is None else len(value.shape) for value in node.inputs]
    return left.axis == ranks[0] - 1 and right.axis == ranks[1] - 2


def product_curves(model: ir.Model, groups: Sequence[ChannelGroup], context: Context) -> dict[str, Curve]:
    """Error curves of those of ``groups`` that only products read; nothing without data."""
    products = {group.name: products_of(model, group) for group in groups if not group.consumers}
    names = sorted({name for found in products.values() for one in found for name in (one.left, one.right)})
    if context.data is None or not names:
        return {}
    scores = {group.name: np.zeros(group.size) for group in groups if products.get(group.name)}
    data = context.data.take(min(len(context.data), MOST_SAMPLES), context.seed)
    for values in stream(model, data, names, threads=context.threads):
        for name, score in scores.items():
            for one in products[name]:
                score += _energy(values[one.left], values[one.right])[one.places].sum(axis=1)
    return {name: score_curve(score) for name, score in scores.items()}


def _energy(left: Array, right: Array) -> Array:
    """Of every term of the sum in ``left @ right``, over all samples and heads: (summed axis,)."""
    one = np.square(left, dtype=np.float64).sum(axis=-2)
    two = np.square(right, dtype=np.float64).sum(axis=-1)
    both = one * two
    return np.asarray(both.reshape(-1, both.shape[-1]).sum(axis=0))


def makers_of(group: ChannelGroup) -> tuple[Member, ...]:
    """What makes the units: without it they are zero."""
    return tuple(
        m for m in group.members if m.role == "producer" or (m.role == "parameter" and m.op in SHIFTS)
    )


def of_product(model: ir.Model, group: ChannelGroup, curve: Curve, widths: Sequence[int]) -> Subject:
    """The group at ``widths``, with what makes the missing units at zero."""
    nodes = {node.name or "": node for node in model.graph}
    makers = makers_of(group)
    kept = {(m.node, m.operand): constant(nodes[m.node].inputs[m.operand]) for m in makers}

    def narrow(gone: Array) -> None:
        arrays = {key: np.array(array) for key, array in kept.items() if array is not None}
        for member in makers:
            places = (slice(None),) * member.axis + (member.index[gone].ravel(),)
            arrays[member.node, member.operand][places] = 0
        write(arrays)

    def write(arrays: Mapping[tuple[str, int], Array]) -> None:
        for (node, operand), array in arrays.items():
            own_constant(model.graph, nodes[node], operand, array)

    trials = []
    for width in widths:
        gone = np.setdiff1d(np.arange(group.size), curve.kept(width))
        trials.append(Trial(float(curve.errors[group.size - width]), partial(narrow, gone)))
    whole = {key: array for key, array in kept.items() if array is not None}
    first = min((m.node for m in makers), key=lambda name: list(nodes).index(name))
    return Subject(group.name, first, tuple(trials), partial(write, whole))
