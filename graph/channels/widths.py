"""Cost as a function of widths: exact MACs and parameters of the pruned model before it is made.

Every constant's size is a product over its axes, and an axis is as long as the groups on it are wide. So the
cost of a layer is bilinear in the widths of the groups on its input and on its output, and a whole network
costs O(nodes) to price.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from edgec.graph.channels.atoms import Labels, varying
from edgec.graph.channels.group import Clusters
from edgec.graph.channels.trace import Slot, Trace
from edgec.graph.cost import macs_of
from edgec.graph.spec import LAYERS, LAYOUT, QUANTISATION
from edgec.graph.views import is_constant

Widths = Mapping[str, int]


@dataclass(frozen=True)
class Axis:
    """The length of one axis: the sum over groups of units times positions per unit."""

    terms: tuple[tuple[str, int], ...]
    """(group name, positions per unit)."""

    def length(self, widths: Widths) -> int:
        return sum(widths[name] * count for name, count in self.terms)

    def share(self, group: str) -> int:
        """Positions per unit of ``group`` on this axis."""
        return sum(count for name, count in self.terms if name == group)


@dataclass(frozen=True)
class Product:
    """``fixed`` times the lengths of the axes that groups own: elements of a constant, or MACs of a node."""

    fixed: int
    axes: tuple[Axis, ...]

    def value(self, widths: Widths) -> int:
        return self.fixed * math.prod(axis.length(widths) for axis in self.axes)


@dataclass(frozen=True)
class LayerCost:
    """MACs and parameters of one node at any widths.

    ``work`` are its MACs for one image; ``constants`` the elements of its weight, bias and other parameters.
    ``inputs`` and ``outputs`` are the axes of a layer's weight that groups own: a depthwise kernel has
    outputs only.
    """

    node: str
    op: str
    work: Product
    constants: tuple[Product, ...]
    inputs: Axis | None
    outputs: Axis | None

    def macs(self, widths: Widths) -> int:
        return self.work.value(widths)

    def params(self, widths: Widths) -> int:
        return sum(size.value(widths) for size in self.constants)


@dataclass(frozen=True)
class CostModel:
    """Cost of a model at any widths (units left, per group name). At the full widths it equals
    `edgec.graph.cost`.
    """

    layers: tuple[LayerCost, ...]
    full: Widths
    """Widths now, of all groups, prunable or not."""
    constant_params: int
    """Parameters that no group touches."""
    readers: Mapping[str, tuple[int, ...]] = field(repr=False)
    """Group name -> numbers of the layers whose cost depends on it."""

    def widths(self, left: Widths) -> dict[str, int]:
        """All widths, given those that differ from the full ones."""
        return {**self.full, **left}

    def macs(self, left: Widths) -> int:
        """Multiply-accumulates per image with ``left`` units in the groups named."""
        widths = self.widths(left)
        return sum(layer.macs(widths) for layer in self.layers)

    def params(self, left: Widths) -> int:
        """Elements of all floating-point parameters."""
        widths = self.widths(left)
        return self.constant_params + sum(layer.params(widths) for layer in self.layers)

    def saved(self, group: str, units: int, left: Widths) -> tuple[int, int]:
        """(MACs, parameters) that go when ``group`` loses ``units`` more, starting at the widths ``left``."""
        before = self.widths(left)
        after = {**before, group: before[group] - units}
        layers = [self.layers[i] for i in self.readers.get(group, ())]
        macs = sum(layer.macs(before) - layer.macs(after) for layer in layers)
        return macs, sum(layer.params(before) - layer.params(after) for layer in layers)


def cost_model(trace: Trace, clusters: Clusters) -> CostModel:
    """Price the traced model for every choice of widths."""
    slots: dict[ir.Node, dict[int, dict[int, Slot]]] = {}
    for slot in trace.slots:
        slots.setdefault(slot.node, {}).setdefault(slot.operand, {})[slot.axis] = slot
    counted: set[ir.Value] = set()
    layers = []
    for node in trace.graph:
        constants = _constants(node, slots.get(node, {}), clusters, counted)
        work, weight = _work(trace, node, slots.get(node, {}).get(1, {}), clusters)
        if work.fixed or constants:
            inputs = next((s for s in weight.values() if s.role == "consumer"), None)
            outputs = next((s for s in weight.values() if s is not inputs), None)
            axes = [None if slot is None else _axis(slot.labels, clusters) for slot in (inputs, outputs)]
            layers.append(LayerCost(node.name or "", node.op_type, work, constants, axes[0], axes[1]))
    readers: dict[str, list[int]] = {}
    for number, layer in enumerate(layers):
        axes = [axis for product in (layer.work, *layer.constants) for axis in product.axes]
        for name in dict.fromkeys(name for axis in axes if axis is not None for name, _ in axis.terms):
            readers.setdefault(name, []).append(number)
    full = {group.name: group.size for group in clusters.groups}
    rest = _untouched_params(trace.graph, counted)
    return CostModel(tuple(layers), full, rest, {name: tuple(found) for name, found in readers.items()})


def _constants(
    node: ir.Node, slots: Mapping[int, Mapping[int, Slot]], clusters: Clusters, counted: set[ir.Value]
) -> tuple[Product, ...]:
    """Sizes of the parameters that follow channels; a constant that several nodes read counts once."""
    sizes = []
    for operand, axes in slots.items():
        value = node.inputs[operand]
        if value is None or value in counted or not _is_parameter(node, value):
            continue
        counted.add(value)
        dims = _static(value)
        fixed = math.prod(size for axis, size in enumerate(dims) if axis not in axes)
        sizes.append(Product(fixed, tuple(_axis(slot.labels, clusters) for slot in axes.values())))
    return tuple(sizes)


def _work(
    trace: Trace, node: ir.Node, weight: Mapping[int, Slot], clusters: Clusters
) -> tuple[Product, Mapping[int, Slot]]:
    """The node's MACs as a product, and the slots of its weight when it is a layer."""
    macs = macs_of(node)
    if not macs:
        return Product(0, ()), {}
    if node.op_type in LAYERS and weight:
        axes = tuple(_axis(slot.labels, clusters) for slot in weight.values())
        return Product(macs // math.prod(len(slot.labels) for slot in weight.values()), axes), weight
    labels = trace.values.get(node.outputs[0])
    if labels is None or not varying(labels):
        labels = _summed(trace, node)
    if labels is None:
        return Product(macs, ()), {}
    return Product(macs // labels.size, (_axis(labels.ravel(), clusters),)), {}


def _summed(trace: Trace, node: ir.Node) -> Labels | None:
    """Labels of the axis that a product of two computed tensors sums over; None where no channels lie on it."""
    labels = trace.values.get(node.inputs[0]) if node.op_type == "MatMul" and node.inputs[0] else None
    return labels if labels is not None and labels.ndim - 1 in varying(labels) else None


def _untouched_params(graph: ir.Graph, counted: set[ir.Value]) -> int:
    total = 0
    for node in graph:
        for value in node.inputs:
            if (
                value is not None
                and is_constant(value)
                and value not in counted
                and _is_parameter(node, value)
            ):
                total += math.prod(_static(value))
                counted.add(value)
    return total


def _is_parameter(node: ir.Node, value: ir.Value) -> bool:
    """Floating-point constants of anything that computes; shapes, bounds and padding values are none."""
    if node.op_type in LAYOUT or node.op_type in QUANTISATION or node.op_type == "Clip":
        return False
    return value.dtype is not None and value.dtype.is_floating_point()


def _static(value: ir.Value) -> list[int]:
    return [] if value.shape is None else [int(d) for d in value.shape if isinstance(d, int)]


def _axis(labels: Labels, clusters: Clusters) -> Axis:
    """Positions per unit of each group along a labelled axis (equal for all units of a group)."""
    numbers, counts = np.unique(clusters.group_of[labels], return_counts=True)
    groups = [clusters.groups[number] for number in numbers.tolist()]
    return Axis(
        tuple((group.name, count // group.size) for group, count in zip(groups, counts.tolist(), strict=True))
    )
