"""A graph for another size of its picture: what forbids it, and the graph itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgec.graph.batch import sample_shape
from edgec.graph.errors import ModelError, UnsupportedError
from edgec.graph.execute import Executor
from edgec.graph.inputs import InputSpec, noise
from edgec.graph.provenance import place
from edgec.graph.resolution import layout, pointwise, windows
from edgec.graph.resolution.axes import SizeError
from edgec.graph.resolution.trace import Rule, Size, Walk, places, walk
from edgec.graph.tidy import infer_shapes
from edgec.graph.views import own_constant, set_attribute

RULES: dict[str, Rule] = {**pointwise.RULES, **windows.RULES, **layout.RULES}
LEAST = 8
"""Pixels of a side below which no size is tried."""


def picture_of(model: ir.Model) -> ir.Value:
    """The input that is a picture. Raises SizeError where there is none, or more than one."""
    found = [value for value in model.graph.inputs if len(sample_shape(value)) == 3]
    if len(found) == 1:
        return found[0]
    names = ", ".join(value.name or "" for value in (found or model.graph.inputs))
    why = f"{len(found)} inputs have channels, height and width: {names}" if found else "it has none of them"
    raise SizeError("no input is known to be the picture", where=f"inputs {names}", why=why)


def size_of(model: ir.Model) -> Size:
    """Height and width of the picture. Raises SizeError where there is none."""
    picture = picture_of(model)
    tall, wide = places(picture)
    shape = picture.shape
    assert shape is not None  # canonical graphs have shapes
    return int(shape[tall]), int(shape[wide])  # type: ignore[arg-type]  # only the batch is open


def why_not(model: ir.Model, size: Size) -> SizeError | None:
    """What forbids ``size``, by the node's name; None where nothing does."""
    try:
        walk(model, picture_of(model), size, RULES)
    except SizeError as error:
        return error
    return None


def total_stride(model: ir.Model) -> int:
    """Pixels between two places of the coarsest map. Raises SizeError where sizes cannot be followed at all."""
    found = walk(model, picture_of(model), size_of(model), RULES)
    return max(int(stride) for stride in found.strides)


def resized(model: ir.Model, size: Size) -> ir.Model:
    """A copy of ``model`` for pictures of ``size``, with the same weights. Raises SizeError, naming the node that forbids it."""
    copy = model.clone()
    picture = picture_of(copy)
    found = walk(copy, picture, size, RULES)
    _apply(copy, picture, found)
    infer_shapes(copy)
    _check(copy, found)
    return copy


def _apply(model: ir.Model, picture: ir.Value, found: Walk) -> None:
    shape = list(picture.shape or ())
    for at, side in zip(places(picture), found.size, strict=True):
        shape[at] = side
    picture.shape = ir.Shape(shape)
    for edit in found.edits:
        if edit.name:
            set_attribute(edit.node, edit.name, edit.value)
        else:
            own_constant(model.graph, edit.node, edit.index, edit.value)


def _check(model: ir.Model, found: Walk) -> None:
    """Shape inference and the runtime must agree with the walk. Raises SizeError."""
    for node in model.graph:
        for value in node.outputs:
            axes = found.known.get(value.name or "")
            if axes is None or value.shape is None:
                continue
            told = [axis.new for axis in axes if not axis.batch]
            inferred = [one for one in value.shape if isinstance(one, int)]
            if len(inferred) == len(told) and inferred != told:
                why = f"its sizes would be {told}, and shape inference says {inferred}"
                raise SizeError("the network cannot take this size", where=place(node), why=why)
    rng = np.random.default_rng(0)
    feeds = {spec.name: noise(rng, (1, *spec.shape), spec.dtype) for spec in InputSpec.of(model)}
    try:
        Executor(model).run(feeds)
    except (ModelError, UnsupportedError) as error:
        raise SizeError("the network cannot take this size", why=error.why) from error


@dataclass(frozen=True)
class Legality:
    """Sizes that a network can take, and for those that it cannot, why not."""

    source: Size
    stride: int
    legal: tuple[Size, ...]
    refused: tuple[tuple[Size, SizeError], ...]


def legality(model: ir.Model, sizes: Sequence[Size]) -> Legality:
    """Which of ``sizes`` are legal. Raises SizeError where none can be, whatever it is."""
    refusals = {size: why_not(model, size) for size in sizes}
    return Legality(
        size_of(model),
        total_stride(model),
        tuple(size for size, error in refusals.items() if error is None),
        tuple((size, error) for size, error in refusals.items() if error is not None),
    )
