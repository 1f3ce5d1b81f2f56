"""The region to replace, and its parts: one for every gated block."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from edgec.graph.errors import UnsupportedError, UsageError, did_you_mean
from edgec.graph.regions import Region, between, region, regions
from edgec.graph.spec import ACTIVATION
from edgec.graph.views import ConvView, is_constant, shape_of, sole_consumer


@dataclass(frozen=True)
class Geometry:
    """Channels in and out, and the stride of the block's 3x3 convolutions."""

    channels: int
    outputs: int
    stride: int


@dataclass(frozen=True)
class Part:
    """Nodes that one gated block replaces.

    ``skip`` are the nodes that stay as its skip: none for an identity; None where there is no skip in the place of the
    first block, or where ``projected`` (a 1x1 convolution is fitted in the place of several skips). ``firsts`` are
    convolutions that read the residual stream: their filters may serve as gates.
    """

    name: str
    nodes: tuple[str, ...]
    input: str
    output: str
    geometry: Geometry
    skip: tuple[str, ...] | None
    projected: bool
    firsts: tuple[str, ...]


def parts_of(model: ir.Model, text: str, count: int) -> tuple[Part, ...]:
    """``text`` (a residual block, ``block3..block5``, or two values or nodes ``a..b``) cut at residual sums into ``count``.

    Raises UsageError where the region does not exist, has several inputs or outputs, or fewer blocks than ``count``, and
    UnsupportedError where its ends are no feature maps that a 3x3 convolution could connect.
    """
    whole = _reached(model, _without_activation(model, _region(model, text)))
    blocks = _blocks_inside(model, whole)
    if count > max(len(blocks), 1):
        why = f"it holds {len(blocks)} residual blocks to cut it at"
        raise UsageError(
            f"cannot put {count} gated blocks in its place", where=f"region {text!r}", why=why,
            hint=f"Use blocks={max(len(blocks), 1)} or fewer.",
        )  # fmt: skip
    if count == 1:
        return (_part(model, whole, blocks),)
    ends = [round((number + 1) * len(blocks) / count) for number in range(count)]
    parts = []
    for begin, end in zip([0, *ends[:-1]], ends, strict=True):
        start = whole.input if begin == 0 else blocks[begin].input
        stop = whole.output if end == len(blocks) else blocks[end - 1].output
        name = blocks[begin].name if end - begin == 1 else f"{blocks[begin].name}..{blocks[end - 1].name}"
        parts.append(_part(model, between(model, start, stop, name=name), blocks[begin:end]))
    return tuple(parts)


def _region(model: ir.Model, text: str) -> Region:
    first, dots, last = text.partition("..")
    nodes = {node.name or "": node for node in model.graph}
    if not dots:
        return region(model, text)
    blocks = {block.name for block in regions(model)}
    values = {v.name for v in model.graph.inputs} | {v.name for n in model.graph for v in n.outputs}
    known = blocks | values
    if first not in known and first in nodes:
        first = next(
            (v.name or "" for v in nodes[first].inputs if v is not None and not is_constant(v)), first
        )
    if last not in known and last in nodes:
        last = nodes[last].outputs[0].name or ""
    for end in (first, last):
        if end not in known:
            hint = did_you_mean(end, blocks or {name or "" for name in known} | set(nodes))
            raise UsageError(f"no block, value or node {end!r}", where=f"region {text!r}", hint=hint)
    return region(model, f"{first}..{last}")


def _without_activation(model: ir.Model, whole: Region) -> Region:
    """Without an activation at its end: the error is counted behind that, and the sum keeps its name."""
    nodes = {node.name: node for node in model.graph}
    while len(whole.nodes) > 1:
        last = nodes[whole.nodes[-1]]
        before = last.inputs[0]
        if last.op_type not in ACTIVATION or before is None or sole_consumer(before) is not last:
            break
        whole = Region(whole.name, whole.nodes[:-1], whole.input, before.name or "")
    return whole


def _reached(model: ir.Model, whole: Region) -> Region:
    """Raise UsageError where data does not pass through the region on its way to an output."""
    useful = set(model.graph.outputs)
    for node in reversed(model.graph):
        if any(value in useful for value in node.outputs):
            useful.update(value for value in node.inputs if value is not None)
    fed = set(model.graph.inputs)
    for node in model.graph:
        if any(value in fed for value in node.inputs):
            fed.update(node.outputs)
    named = {value.name: value for value in useful & fed}
    for name in (whole.input, whole.output):
        if name not in named:
            why = f"{name!r} is not on the way from the network's inputs to its outputs"
            raise UsageError("no data reaches it", where=f"region {whole.name!r}", why=why)
    return whole


def _blocks_inside(model: ir.Model, whole: Region) -> list[Region]:
    """The outermost residual blocks in the region, in order."""
    members = set(whole.nodes)
    inside = [block for block in regions(model) if set(block.nodes) <= members]
    return [block for block in inside if not any(set(block.nodes) < set(other.nodes) for other in inside)]


def _part(model: ir.Model, piece: Region, blocks: Sequence[Region]) -> Part:
    values = {v.name: v for v in model.graph.inputs} | {v.name: v for n in model.graph for v in n.outputs}
    geometry = _geometry(values[piece.input], values[piece.output], piece.name)
    same = geometry.channels == geometry.outputs and geometry.stride == 1
    residual = bool(blocks) and blocks[0].input == piece.input and blocks[-1].output == piece.output
    skip: tuple[str, ...] | None = None
    if residual and same:
        skip = ()
    elif residual and all(block.has_identity for block in blocks[1:]):
        skip = blocks[0].skip
    return Part(
        name=piece.name.replace("..", "-"),
        nodes=piece.nodes,
        input=piece.input,
        output=piece.output,
        geometry=geometry,
        skip=skip,
        projected=residual and skip is None,
        firsts=_firsts(model, piece, blocks, geometry.channels),
    )


def _geometry(start: ir.Value, end: ir.Value, name: str) -> Geometry:
    where = f"region {name!r}"
    before, after = shape_of(start), shape_of(end)
    if len(before) != 4 or len(after) != 4 or None in before[1:] or None in after[1:]:
        why = f"{start.name!r} has the shape {before}, {end.name!r} {after}"
        raise UnsupportedError("its ends are no feature maps", where=where, why=why)
    sizes = [(int(a or 0), int(b or 0)) for a, b in zip(before[2:], after[2:], strict=True)]
    strides = {-(-a // b) if b else 0 for a, b in sizes}
    stride = strides.pop() if len(strides) == 1 else 0
    if stride < 1 or any(-(-a // stride) != b for a, b in sizes):
        why = f"{sizes[0][0]} x {sizes[1][0]} pixels go in, {sizes[0][1]} x {sizes[1][1]} come out"
        raise UnsupportedError("no 3x3 convolution leads from its input to its output", where=where, why=why)
    return Geometry(int(before[1] or 0), int(after[1] or 0), stride)


def _firsts(model: ir.Model, piece: Region, blocks: Sequence[Region], channels: int) -> tuple[str, ...]:
    """Dense 3x3 convolutions on the residual stream (or on the region's input), with as many channels as the input."""
    streams = {piece.input, *(block.input for block in blocks)}
    members = set(piece.nodes)
    found = []
    for node in model.graph:
        view = ConvView.of(node) if node.name in members else None
        if view is not None and view.kernel == (3, 3) and view.group == 1 and view.x.name in streams:
            found += [node.name or ""] if view.in_channels == channels else []
    return tuple(found)
