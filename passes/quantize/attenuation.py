"""Scores that rounding noise has pulled down are put back to their level: one number for each layer that scores come from.

Noise in the inputs of a layer attenuates what it makes of them (errors in variables: Fuller, "Measurement error models", 1987):
the strongest answers become weaker, and a re-fit to noisy inputs keeps them so, since that is where its error is least. The
correction of biases does not see it. It makes the mean over all positions right, and nearly all of them are background, where a
Sigmoid is flat. YOLOv8n's logits of objects lay 0.1 below the float network's, at a spread of 0.15 to 0.25: it lost 22 boxes and
found 3 new ones; put back, 11 and 11 (docs/results.md).

So of a layer whose outputs become scores by a Sigmoid, with nothing but moves (`LAYOUT`) before and behind, what the logits lack
where a score answers to them (`solvers.level`) goes into the bias: one number for all channels, since objects are rare. Which
channels become scores is asked of the graph: numbers that name them are sent through the moves. Each sample judges what the
others say, and the guard decides (`solvers.guard`): layer by layer, in sums, where samples with objects count for what they hold.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from edgec.graph.data import Dataset
from edgec.graph.execute import Executor
from edgec.graph.spec import LAYOUT
from edgec.graph.views import is_constant
from edgec.passes.base import Context
from edgec.passes.quantize.layer import QuantisedLayer, layers
from edgec.passes.solvers.guard import Verdict, weigh
from edgec.passes.solvers.level import level, score_sums

Array = np.ndarray[Any, np.dtype[Any]]

BATCH = 8


@dataclass(frozen=True)
class Shift:
    """What the logits of ``layer`` lack, and what the samples say of adding it."""

    layer: str
    logits: float
    verdict: Verdict


def restore_scores(model: ir.Model, original: ir.Model, data: Dataset, context: Context) -> tuple[Shift, ...]:
    """Shift the biases of the layers of the quantised ``model`` that scores come from, in place, where the verdict is for it.

    ``original`` is the float graph that the model was made from. Empty where no score comes from a layer.
    """
    able = [one for one in layers(model, original) if one.b is not None and not one.origin.channels_last]
    scored = scored_channels(original, [one.origin.y for one in able])
    found = [one for one in able if one.target_name in scored]
    if not found:
        return ()
    teacher = Executor(original, outputs=[one.target_name for one in found], threads=context.threads)
    student = Executor(model, outputs=[_made(one) for one in found], threads=context.threads)
    seen: list[list[Array]] = [[] for _ in found]
    for feeds in data.batches(BATCH):
        wanted, made, samples = teacher.run(feeds), student.run(feeds), len(next(iter(feeds.values())))
        for layer, sums in zip(found, seen, strict=True):
            logits = (wanted[layer.target_name], made[_made(layer)])
            # A sample may take several entries of the first axis, its windows.
            scores = (layer.targets(one)[:, scored[layer.target_name]].reshape(samples, -1) for one in logits)
            sums.append(score_sums(*scores))
    shifts = tuple(_judged(layer.name, np.concatenate(sums)) for layer, sums in zip(found, seen, strict=True))
    for layer, shift in zip(found, shifts, strict=True):
        if shift.verdict.kept:
            lacking = np.where(scored[layer.target_name], shift.logits, 0.0).reshape(layer.outputs)
            layer.store(None, None, layer.quantised()[2] + lacking)
    return shifts


def _judged(layer: str, sums: Array) -> Shift:
    lacking, gains = level(sums)
    return Shift(layer, lacking, weigh(gains, 0.0, alone=np.inf, drawn=True))


def _made(layer: QuantisedLayer) -> str:
    return layer.node.outputs[0].name or ""


def scored_channels(model: ir.Model, values: Sequence[ir.Value]) -> dict[str, Array]:
    """By the name of one of ``values`` (channels on axis 1): which of its channels become scores, where any does, as bools."""
    names, first = {}, 1
    for value in values:
        shape = _shape(value)
        if shape is not None and len(shape) > 1:
            numbers = np.arange(first, first + shape[1], dtype=np.float32)
            names[value.name or ""] = numbers.reshape(1, -1, *[1] * (len(shape) - 2))
            first += shape[1]
    last = {source for output in model.graph.outputs for source in _sources(output)}
    behind = {
        node.outputs[0].name or "": named
        for node in model.graph
        if node.op_type == "Sigmoid" and node.outputs[0] in last  # not the many of SiLU
        if (named := _moved(model, node.inputs[0], names)) is not None
    }
    given = [_moved(model, output, behind) for output in model.graph.outputs]
    arrived = np.unique(np.concatenate([np.zeros(1), *(one.ravel() for one in given if one is not None)]))
    found = {name: np.isin(numbers, arrived).ravel() for name, numbers in names.items()}
    return {name: scored for name, scored in found.items() if scored.any()}


def _moved(model: ir.Model, value: ir.Value | None, named: Mapping[str, Array]) -> Array | None:
    """The numbers that arrive at ``value`` where nothing but moves lies behind what is ``named``: 0 for all else, None where none
    can arrive."""
    sources = {} if value is None else {one.name or "": _shape(one) for one in _sources(value)}
    if value is None or not sources.keys() & named.keys() or None in sources.values():
        return None
    feeds = {
        name: np.broadcast_to(named.get(name, np.float32(0)), shape or ()).astype(np.float32)
        for name, shape in sources.items()
    }
    made = Executor(model, inputs=list(feeds), outputs=[value.name or ""]).run(feeds)
    arrived: Array = made[value.name or ""]
    return arrived


def _sources(value: ir.Value) -> Iterator[ir.Value]:
    """What ``value`` is moved from."""
    node = value.producer()
    if node is None or node.op_type not in LAYOUT:
        yield value
        return
    joined = node.inputs if node.op_type == "Concat" else node.inputs[:1]
    for one in joined:
        if one is not None and not is_constant(one):
            yield from _sources(one)


def _shape(value: ir.Value) -> tuple[int, ...] | None:
    """Of one sample, with its batch axis; None where a size is not known."""
    if value.shape is None or value.dtype != ir.DataType.FLOAT:
        return None
    sizes = [size if isinstance(size, int) else None for size in value.shape]
    sizes[:1] = [sizes[0] or 1] if sizes else []
    return None if None in sizes else tuple(size or 0 for size in sizes)
