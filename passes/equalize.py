"""Cross-layer equalisation: give the channels of a feature map like ranges, without changing the function.

Between a layer that makes channels and the layers that read them, channel ``c`` may be multiplied by any
``s_c > 0`` and the readers' weights divided by it, as long as everything in between commutes with a positive
factor (Relu, pools, residual sums, concatenation...). One scale per tensor then serves all channels (Nagel et
al., Data-Free Quantization Through Weight Equalization and Bias Correction, arXiv 1906.04721). The factors
come from the observed activation ranges, moderated by the exponent ``strength``, because readers with dense
weights pay for what the feature map gains (as in SmoothQuant, arXiv 2211.10438); where all readers are
depthwise they pay nothing, and the ranges become equal.

Unlike the original, factors are found for whole channel groups (`graph.channels`), so that residual streams
are equalised too. A depthwise convolution reads with one factor and writes with another. A Clip takes part as
far as its bound allows: a channel that reached the bound on calibration data keeps its scale, another may
grow up to it.

A program before and after::

    h = Relu(Conv(x, w, b))   ->   h = Relu(Conv(x, s w, s b))   # s > 0 for each channel
    y = Conv(h, v)                 y = Conv(h, v / s)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir

from edgec.graph.batch import as_inside
from edgec.graph.channels import ChannelGroup, Member, groups
from edgec.graph.errors import DataError
from edgec.graph.execute import Executor
from edgec.graph.read.codes import spread
from edgec.graph.sharing import shares_weight
from edgec.graph.spec import LAYERS
from edgec.graph.values import SHARE
from edgec.graph.views import attribute, constant, own_constant, per_input, sole_consumer
from edgec.passes.base import NUMBER_FORMATS, Context, Need, Note, Pass, PassResult, option
from edgec.passes.joined import Joined

Array = np.ndarray[Any, np.dtype[Any]]

HOMOGENEOUS = frozenset(
    {
        "Relu", "LeakyRelu", "PRelu", "MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool",
        "ReduceMean", "ReduceMax", "ReduceSum", "Add", "Sub", "Concat", "Slice", "Split", "Pad", "Reshape",
        "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Resize", "Identity", "Max", "Min",
    }
)  # fmt: skip
OFFSETS = ("Add", "Sub", "Max", "Min", "Concat")
"""Homogeneous as long as no operand is constant."""
LARGEST = 64.0
"""No factor leaves [1/LARGEST, LARGEST]."""
BOUND_MARGIN = 0.7
"""A channel grows to this share of a Clip's bound at most: other data may bring larger values."""
GROWN = 1.001
"""By so much a range may grow and be the same."""


@dataclass
class Segment:
    """Feature maps of one group that share factors: those between two layers."""

    group: ChannelGroup
    activations: list[Member] = field(default_factory=list)
    hidden: set[str] = field(default_factory=set)
    """Feature maps that only an activation reads: no quantiser ever sees them."""
    bounds: list[tuple[Member, float]] = field(default_factory=list)
    """Feature maps in front of a Clip, and its upper bound."""
    pinned: bool = False
    dense_readers: bool = False

    def is_costless(self, peaks: Mapping[str, Array], strength: float) -> bool:
        """Whether nothing is coarser for it: all readers are depthwise, whose weights have a scale for each channel, and no map's
        range grows, as it may where maps of several ranges share factors."""
        factors = self.factors(peaks, strength)
        if self.dense_readers or np.allclose(factors, 1.0):
            return False
        shown = [
            unit_peaks(peaks[one.value], one) for one in self.activations if one.value not in self.hidden
        ]
        return all(float((factors * peak).max()) <= GROWN * float(peak.max()) for peak in shown)

    def factors(self, peaks: Mapping[str, Array], strength: float) -> Array:
        """One factor per unit, 1 on the geometric mean of what the map can use."""
        peak = np.zeros(self.group.size)
        for member in self.activations:
            if member.value in self.hidden:
                continue
            peak = np.maximum(peak, unit_peaks(peaks[member.value], member))
        if self.pinned or not np.max(peak):
            return np.ones(self.group.size)
        live = peak > 0
        power = strength if self.dense_readers else 1.0
        factor = np.ones(self.group.size)
        factor[live] = (np.max(peak) / peak[live]) ** power
        factor = np.clip(factor, 1.0 / LARGEST, LARGEST)
        for member, bound in self.bounds:
            before = unit_peaks(peaks[member.value], member)
            room = np.where(before > 0, BOUND_MARGIN * bound / np.maximum(before, 1e-30), LARGEST)
            factor = np.where(before >= bound, 1.0, np.minimum(factor, np.maximum(room, 1.0)))
        return factor


def unit_peaks(channel_peaks: Array, member: Member) -> Array:
    """From one peak per position of the channel axis to one per unit."""
    peaks: Array = channel_peaks[member.index].max(axis=1)
    return peaks


def segments(model: ir.Model, found: Iterable[ChannelGroup]) -> list[Segment]:
    """Cut every group at its depthwise convolutions. Groups of weights that several layers read are left out: no factors suit
    all of their inputs."""
    nodes = {node.name or "": node for node in model.graph}
    shared = {name for name, node in nodes.items() if shares_weight(node)}
    result: list[Segment] = []
    for group in found:
        if group.prunable and not shared & {one.node for one in (*group.producers, *group.consumers)}:
            result.extend(_cut(group, nodes))
    return result


def _cut(group: ChannelGroup, nodes: dict[str, ir.Node]) -> list[Segment]:
    members = {member.value: member for member in group.activations}
    joined = Joined(members)
    touching = [
        node for node in nodes.values() if any(v is not None and v.name in members for v in node.inputs)
    ]
    for node in touching:
        if node.op_type in LAYERS:
            continue
        names = [v.name or "" for v in (*node.inputs, *node.outputs) if v is not None and v.name in members]
        for other in names[1:]:
            joined.join(names[0], other)
    cut: dict[str, Segment] = {}
    for name, member in members.items():
        cut.setdefault(joined.root(name), Segment(group)).activations.append(member)
    for node in touching:
        for value in node.inputs:
            if value is not None and value.name in members:
                segment = cut[joined.root(value.name)]
                _judge(node, segment, members[value.name])
                if node.op_type in ("Relu", "Clip") and sole_consumer(value) is node:
                    segment.hidden.add(value.name)
    for member in members.values():
        if nodes.get(member.node) is not None and nodes[member.node].op_type not in (
            *LAYERS,
            *HOMOGENEOUS,
            "Clip",
        ):
            cut[joined.root(member.value)].pinned = True
        if member.axis >= 0 and not member.node:
            cut[joined.root(member.value)].pinned = True
    return list(cut.values())


def _judge(node: ir.Node, segment: Segment, member: Member) -> None:
    """What a reader of one of the segment's maps means for its factors."""
    if node.op_type in LAYERS:
        weight = constant(node.inputs[1])
        depthwise = node.op_type == "Conv" and weight is not None and weight.shape[1] == 1
        segment.dense_readers |= not (depthwise and attribute(node, "group", 1) > 1)
        segment.pinned |= weight is None
    elif node.op_type == "Clip":
        low = constant(node.inputs[1]) if len(node.inputs) > 1 else None
        high = constant(node.inputs[2]) if len(node.inputs) > 2 else None
        if low is None or float(low) != 0.0 or (len(node.inputs) > 2 and high is None):
            segment.pinned = True
        elif high is not None:
            segment.bounds.append((member, float(high)))
    else:
        offset = node.op_type in OFFSETS and any(constant(value) is not None for value in node.inputs)
        segment.pinned |= offset or node.op_type not in HOMOGENEOUS


class Peaks:
    """Largest magnitude per position of the channel axis (``axes``: by name) of some values of ``model``, batch by batch."""

    def __init__(self, model: ir.Model, axes: Mapping[str, int]) -> None:
        values = (*model.graph.inputs, *(value for node in model.graph for value in node.outputs))
        self.axes = axes
        self.ranks = {v.name: len(v.shape) for v in values if v.name in axes and v.shape is not None}
        self.found: dict[str, Array] = {}

    def add(self, made: Mapping[str, Array], samples: int) -> None:
        """What a batch of so many samples makes of them, among other values."""
        for name, axis in self.axes.items():
            values = as_inside(made[name], self.ranks[name])
            others = tuple(other for other in range(values.ndim) if other != axis)
            peak = np.abs(values).max(axis=others)
            if axis == 0:  # one sample's channels behind the other's
                peak = peak.reshape(samples, -1).max(axis=0)
            self.found[name] = np.maximum(self.found[name], peak) if name in self.found else peak


def channel_peaks(
    model: ir.Model, wanted: Mapping[str, int], context: Context, batch: int = 8
) -> dict[str, Array]:
    """`Peaks` (name -> axis) over the calibration data."""
    if context.data is None:
        raise DataError("no calibration data", where="equalize")
    executor, peaks = Executor(model, outputs=list(wanted), threads=context.threads), Peaks(model, wanted)
    count = -(-len(context.data) // batch)
    for feeds in context.progress.over("equalize", context.data.batches(batch), count):
        peaks.add(executor.run(feeds), len(next(iter(feeds.values()))))
    return peaks.found


@dataclass(frozen=True)
class Equalize(Pass):
    """Cross-layer equalisation over channel groups."""

    name: ClassVar[str] = "equalize"
    summary: ClassVar[str] = "bring the channels of each feature map to like ranges, the function unchanged"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.DATA})
    never_after: ClassVar[frozenset[str]] = NUMBER_FORMATS
    changes_function: ClassVar[bool] = True
    recovers: ClassVar[bool] = True

    strength: float = option(
        0.5, "0 leaves maps read by dense layers alone, 1 makes their ranges equal", SHARE
    )

    def run(self, model: ir.Model, context: Context) -> PassResult:
        cut = segments(model, groups(model))
        wanted = {member.value: member.axis for segment in cut for member in segment.activations}
        if not wanted:
            return PassResult(model, False, (Note("no channels to equalise"),))
        peaks = channel_peaks(model, wanted, context)
        count = equalise(model, cut, peaks, self.strength)
        return PassResult(model, count > 0, (Note(f"{count} of {len(cut)} feature map segments equalised"),))


def equalise(model: ir.Model, cut: Sequence[Segment], peaks: Mapping[str, Array], strength: float) -> int:
    """Scale weights in place; the number of segments that changed."""
    maps: dict[str, Array] = {}
    count = 0
    for segment in cut:
        factors = segment.factors(peaks, strength)
        if np.allclose(factors, 1.0):
            continue
        count += 1
        for member in segment.activations:
            # A map that several groups share (Concat) collects the factors of each.
            positions = maps.setdefault(member.value, np.ones(len(peaks[member.value])))
            positions[member.index] = factors[:, None]
    for node in list(model.graph):
        if node.op_type not in LAYERS:
            continue
        source, result = node.inputs[0], node.outputs[0].name or ""
        if source is not None and source.name in maps:
            _scale_inputs(model.graph, node, 1.0 / maps[source.name])
        if result in maps:
            _scale_outputs(model.graph, node, maps[result])
    return count


def _scale_outputs(graph: ir.Graph, node: ir.Node, factors: Array) -> None:
    weight = constant(node.inputs[1])
    if weight is None:
        return
    scaled = weight * _per_output(node, factors, weight.shape)
    own_constant(graph, node, 1, scaled.astype(np.float32))
    bias = constant(node.inputs[2]) if len(node.inputs) > 2 else None
    if bias is not None:
        own_constant(graph, node, 2, (bias * factors).astype(np.float32))


def _per_output(node: ir.Node, factors: Array, shape: tuple[int, ...]) -> Array:
    """Factors of output channels laid out for the weight; a ConvTranspose counts them per group."""
    if node.op_type == "ConvTranspose":
        group = attribute(node, "group", 1)
        table = factors.reshape(group, 1, shape[1])
        wide = np.broadcast_to(table, (group, shape[0] // group, shape[1]))
        return wide.reshape(shape[0], shape[1], *[1] * (len(shape) - 2))
    axis = {"Conv": 0, "MatMul": 1}.get(node.op_type, 0 if attribute(node, "transB", 0) else 1)
    return spread(factors, axis, len(shape))


def _scale_inputs(graph: ir.Graph, node: ir.Node, factors: Array) -> None:
    weight = constant(node.inputs[1])
    if weight is None:
        return
    if node.op_type == "Conv":
        group = attribute(node, "group", 1)
        scaled = weight * per_input(factors, group, weight.shape)
    elif node.op_type == "ConvTranspose":
        scaled = weight * factors.reshape(-1, *[1] * (weight.ndim - 1))
    else:
        transposed = node.op_type == "Gemm" and attribute(node, "transB", 0)
        scaled = weight * (factors[None, :] if transposed else factors[:, None])
    own_constant(graph, node, 1, scaled.astype(np.float32))
