"""A plan and its numbers, as data: which nodes and tensors of a graph are quantised, and with what parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edgec.passes.quantize.qparams import QParams
from edgec.passes.quantize.rules import Rule
from edgec.passes.quantize.tails import ALL

Edge = tuple[str, int]
"""(node name, input index)."""


@dataclass(frozen=True)
class Group:
    """Tensors that share parameters; the ranges of ``sources`` decide, the others pass codes on."""

    members: tuple[str, ...]
    sources: tuple[str, ...]
    fixed: QParams | None = None
    is_output: bool = False
    """A graph output is among the members."""
    useful: tuple[float, float] = ALL
    """The range outside of which it makes no difference how far values lie."""


@dataclass(frozen=True)
class Plan:
    """The quantised part of one graph."""

    nodes: Mapping[str, Rule]
    """Quantised nodes by name, in graph order."""
    floats: Mapping[str, str]
    """Nodes that stay float and why, in graph order."""
    groups: tuple[Group, ...]
    absorbed: Mapping[str, str]
    """Relu or Clip node -> the tensor before it, without parameters as long as the activation is void."""
    conversions: Mapping[Edge, str]
    """Inputs of a JOINT node with fixed parameters -> the tensor to whose parameters they are converted."""
    constants: Mapping[Edge, str | None]
    """Constant operands of quantised nodes -> the tensor whose parameters they take (None: their own)."""
    edges: frozenset[Edge] | None = None
    """Inputs that read codes, where a dialect quantises inputs; None: everything that reads a quantised tensor does."""

    @property
    def tensors(self) -> tuple[str, ...]:
        """Every tensor that gets a Q/DQ pair."""
        return tuple(name for group in self.groups for name in group.members)

    @property
    def sources(self) -> tuple[str, ...]:
        """The tensors whose ranges must be known."""
        return tuple(name for group in self.groups if group.fixed is None for name in group.sources)


@dataclass(frozen=True)
class Table:
    """The numbers of a plan: parameters by tensor, and the activations that the quantiser makes void."""

    tensors: Mapping[str, QParams]
    void: frozenset[str]
    """Relu and Clip nodes that are void behind their quantiser."""
