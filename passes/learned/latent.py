"""Quantised weights that can be learned: real numbers behind the codes, rounded again in every step.

`latent_form` gives a quantised graph a float constant in the place of the codes of every layer's weight and bias::

    wq = DequantizeLinear(codes, s)   ->   wq = DequantizeLinear(QuantizeLinear(c, 1), s)   # c = codes at first

which is for the executor alone: biases have no such form in ONNX. `write_codes` rounds what was learned into the codes of the
graph that it was made of. Scales and zero points stay; no code leaves the range that the quantiser used.

What moves is measured in codes, whatever a channel's scale: folded batch norms leave channels of a thousandth of another's size
in one kernel, and a step that is a share of the kernel's size would turn all their codes over.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from edgec.graph.spec import LAYERS
from edgec.graph.views import Names, constant, set_constant
from edgec.passes.learned.executor import GraphModule
from edgec.passes.learned.ops.rounded import LIMIT

Array = np.ndarray[Any, np.dtype[Any]]

MOST = 1 << 30
"""The largest code of a bias: half of the accumulator (`quantize.weights`)."""
TYPICAL = 32
"""Code of an activation behind a ReLU: its root mean square is about a quarter of the largest."""


@dataclass(frozen=True)
class Latent:
    """One constant: ``codes`` as they were, the largest code, and of how many codes a step is a share."""

    name: str
    codes: Array
    limit: int
    size: float

    @property
    def real(self) -> Array:
        """What is learned at first."""
        return self.codes.astype(np.float32)

    def rounded(self, learned: Array) -> Array:
        """Codes of what was learned; those of numbers that did not move stay, whatever float32 makes of large ones."""
        codes = np.clip(np.rint(learned.astype(np.float64)), -self.limit, self.limit)
        return np.where(learned == self.real, self.codes, codes.astype(self.codes.dtype))


def latent_form(model: ir.Model) -> tuple[ir.Model, tuple[Latent, ...]]:
    """A copy of ``model`` for the executor, and its constants that can be learned."""
    made = model.clone()
    names = Names(made.graph)
    stored = list(_of_layers(made.graph))
    latents: dict[str, Latent] = {}
    for node, value in stored:
        latents.setdefault(value.name or "", _latent(node, value))
    one = names.initializer("one_code", np.ones((), np.float32))
    pairs: dict[str, ir.Value] = {}
    for node, value in stored:
        name = value.name or ""
        if name not in pairs:
            found = latents[name]
            set_constant(value, found.real)
            attributes = {LIMIT: found.limit}
            quantise = ir.node("QuantizeLinear", [value, one], attributes, name=names.fresh(f"{name}_Q"))
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


def _of_layers(graph: ir.Graph) -> Iterator[tuple[ir.Node, ir.Value]]:
    """The DequantizeLinears of symmetric constants that layers read as weights and biases, and these constants."""
    for node in graph:
        stored = node.inputs[0] if node.op_type == "DequantizeLinear" else None
        codes = constant(stored)
        if stored is None or codes is None:
            continue
        zero = constant(node.inputs[2]) if len(node.inputs) > 2 else None
        uses = tuple(node.outputs[0].uses())
        reads = bool(uses) and all(use.node.op_type in LAYERS and use.idx >= 1 for use in uses)
        if reads and codes.dtype.kind == "i" and (zero is None or not zero.any()):
            yield node, stored


def _latent(node: ir.Node, stored: ir.Value) -> Latent:
    codes = constant(stored)
    assert codes is not None
    name = stored.name or ""
    if codes.dtype.itemsize > 2:
        return Latent(name, codes, MOST, _sum_size(node, codes))
    return Latent(name, codes, max(int(np.abs(codes.astype(np.int64)).max(initial=1)), 1), _size(codes))


def _sum_size(node: ir.Node, bias: Array) -> float:
    """How large the sums of products are that a bias is added to, in codes, from those of the weights beside it.

    Its own codes say nothing: where a channel's weights are next to nothing, so is its scale, and its bias takes millions.
    """
    found = []
    for use in node.outputs[0].uses():
        weight = use.node.inputs[1] if use.idx > 1 else None
        pair = None if weight is None else weight.producer()
        codes = None if pair is None else constant(pair.inputs[0])
        if codes is not None:
            found.append(_size(codes) * TYPICAL * (codes.size / bias.size) ** 0.5)
    return min(found, default=1.0)


def _size(codes: Array) -> float:
    """Root mean square, one at least."""
    return max(float(np.sqrt(np.mean(np.square(codes, dtype=np.float64)))), 1.0)
