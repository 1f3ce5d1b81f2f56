"""Quantised weights that can be learned: real numbers behind the codes, rounded again in every step.

`latent_form` gives a quantised graph a float constant in front of a pair in the place of the codes of every layer's weight and
bias::

    wq = DequantizeLinear(codes, s)   ->   wq = DequantizeLinear(QuantizeLinear(w, s), s)   # w = s * codes at first

which is for the executor alone: biases have no such form in ONNX. `write_codes` rounds what was learned into the codes of the
graph that it was made of. Scales and zero points stay; no code leaves the range that the quantiser used.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from edgec.graph.read.codes import spread
from edgec.graph.spec import LAYERS
from edgec.graph.views import Names, attribute, constant, set_constant
from edgec.passes.learned.executor import GraphModule
from edgec.passes.learned.ops.rounded import LIMIT

Array = np.ndarray[Any, np.dtype[Any]]

MOST = 1 << 30
"""The largest code of a bias: half of the accumulator (`quantize.weights`)."""


@dataclass(frozen=True)
class Latent:
    """One constant: ``codes`` as they were, ``scales`` that broadcast against them, and the largest code."""

    name: str
    codes: Array
    scales: Array
    limit: int

    @property
    def real(self) -> Array:
        return (self.codes.astype(np.float32) * self.scales).astype(np.float32)

    def rounded(self, learned: Array) -> Array:
        """Codes of what was learned; those of numbers that did not move stay, whatever float32 makes of them."""
        codes = np.rint(learned.astype(np.float64) / self.scales.astype(np.float64))
        codes = np.clip(codes, -self.limit, self.limit).astype(self.codes.dtype)
        return np.where(learned == self.real, self.codes, codes)


def latent_form(model: ir.Model) -> tuple[ir.Model, tuple[Latent, ...]]:
    """A copy of ``model`` for the executor, and its constants that can be learned."""
    made = model.clone()
    names = Names(made.graph)
    latents: dict[str, Latent] = {}
    pairs: dict[str, ir.Value] = {}
    for node in list(_of_layers(made.graph)):
        stored, scale = node.inputs[0], node.inputs[1]
        name = "" if stored is None else stored.name or ""
        if name not in latents:
            found = _latent(node, name)
            latents[name] = found
            set_constant(stored, found.real)  # type: ignore[arg-type]
            attributes = {"axis": int(attribute(node, "axis", 1)), LIMIT: found.limit}
            quantise = ir.node("QuantizeLinear", [stored, scale], attributes, name=names.fresh(f"{name}_Q"))
            pairs[name] = quantise.outputs[0]
            pairs[name].name = names.fresh(f"{name}_latent")
            made.graph.insert_before(node, quantise)
        node.replace_input_with(0, pairs[name])
    return made, tuple(latents.values())


def write_codes(module: GraphModule, latents: Sequence[Latent], model: ir.Model) -> int:
    """Take what ``module``, of the latent form of ``model``, learned into its codes, in place; how many changed."""
    held = dict(module.named_parameters())
    changed = 0
    for one in latents:
        codes = one.rounded(held[module.homes[one.name]].detach().cpu().numpy())
        changed += int((codes != one.codes).sum())
        set_constant(model.graph.initializers[one.name], codes)
    return changed


def _of_layers(graph: ir.Graph) -> Iterator[ir.Node]:
    """The DequantizeLinears of symmetric constants that layers read as weights and biases."""
    for node in graph:
        if node.op_type != "DequantizeLinear" or (codes := constant(node.inputs[0])) is None:
            continue
        zero = constant(node.inputs[2]) if len(node.inputs) > 2 else None
        uses = tuple(node.outputs[0].uses())
        reads = bool(uses) and all(use.node.op_type in LAYERS and use.idx >= 1 for use in uses)
        if reads and codes.dtype.kind == "i" and (zero is None or not zero.any()):
            yield node


def _latent(node: ir.Node, name: str) -> Latent:
    codes, scale = constant(node.inputs[0]), constant(node.inputs[1])
    assert codes is not None
    assert scale is not None
    axis = int(attribute(node, "axis", 1)) if scale.ndim else None
    wide = spread(scale.astype(np.float32), axis, codes.ndim)
    most = MOST if codes.dtype.itemsize > 2 else int(np.abs(codes.astype(np.int64)).max(initial=1))
    return Latent(name, codes, wide, max(most, 1))
