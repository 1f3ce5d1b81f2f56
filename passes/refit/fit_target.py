"""What a layer of the student is fitted to.

1. Its own output in the teacher, cut to the channels that the student kept.
2. Where that output goes into Adds only (the last convolution of a residual branch), and what it is added to is computed before
   it: the teacher's sum minus what the student adds, so that the branch makes up for the error of the skip.
3. Where Relu or Clip reads the result, the fit may count errors behind the activation (`solvers.rectified`).
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from edgec.graph.views import constant, is_constant, sole_consumer
from edgec.passes.refit.layers import Layer
from edgec.passes.solvers.rectified import Clipping


@dataclass(frozen=True)
class FitTarget:
    """``value`` is the teacher's tensor; ``others`` the student's tensors that are added to the layer's output on the way to it;
    ``clipping`` the activation that reads it, if that is the only reader."""

    value: str
    others: tuple[str, ...] = ()
    clipping: Clipping | None = None


def fit_target_of(layer: Layer, position: dict[ir.Node, int]) -> FitTarget:
    """The goal of ``layer``; ``position`` numbers the nodes in running order."""
    value, others = layer.y, []
    here = position[layer.node]
    while (reader := sole_consumer(value)) is not None and reader.op_type == "Add":
        other = next((v for v in reader.inputs if v is not value), None)
        if (
            other is None
            or is_constant(other)
            or other.shape != value.shape
            or not _before(other, here, position)
        ):
            break
        others.append(other.name or "")
        value = reader.outputs[0]
    return FitTarget(value.name or "", tuple(others), clipping_of(sole_consumer(value)))


@dataclass(frozen=True)
class Inner:
    """A layer in front of another, with nothing but an activation between (None: not even that)."""

    layer: Layer
    clipping: Clipping | None


def chain_before(layer: Layer, depth: int) -> tuple[Inner, ...]:
    """Up to ``depth`` layers that only ``layer`` depends on, through activations that clip; the nearest last.

    Depthwise layers do not count: they sit between two others that belong together. Transposed convolutions have no chains.
    """
    if layer.patches.is_spread:
        return ()
    found: list[Inner] = []
    while depth > 0:
        value = layer.view.x
        reader, clipping = value.producer(), None
        if sole_consumer(value) is not layer.node or reader is None:
            break
        if reader.op_type in ("Relu", "Clip"):
            clipping, behind = clipping_of(reader), reader.inputs[0]
            if clipping is None or behind is None or sole_consumer(behind) is not reader:
                break
            value = behind
        before = Layer.of(value.producer())
        if before is None or before.channels_last or before.patches.is_spread or not before.patches.kernel:
            break
        found.insert(0, Inner(before, clipping))
        depth -= not before.is_depthwise
        layer = before
    while found and found[0].layer.is_depthwise:
        found.pop(0)
    return tuple(found)


def clipping_of(node: ir.Node | None) -> Clipping | None:
    """The bounds of a Relu or of a Clip with constant bounds."""
    if node is None:
        return None
    if node.op_type == "Relu":
        return Clipping(0.0, None)
    if node.op_type == "Clip" and all(v is None or is_constant(v) for v in node.inputs[1:]):
        bounds = [constant(v) for v in (*node.inputs[1:], None, None)][:2]
        low, high = (None if bound is None else float(bound) for bound in bounds)
        return None if low is None and high is None else Clipping(low, high)
    return None


def _before(value: ir.Value, here: int, position: dict[ir.Node, int]) -> bool:
    producer = value.producer()
    return producer is None or position[producer] < here
