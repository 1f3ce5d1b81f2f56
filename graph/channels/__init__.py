"""Which channels of which tensors must go together, and how to remove them.

The vocabulary (group, producer, consumer, index mapping) is that of dependency graphs for structural pruning:
Fang et al., "DepGraph: Towards Any Structural Pruning", CVPR 2023, arXiv 2301.12900. The derivation is
edgec's own: see `atoms`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx_ir as ir

from edgec.graph.channels import rules_layers, rules_layout, rules_pointwise, rules_products
from edgec.graph.channels.group import ChannelGroup, Member, cluster, describe
from edgec.graph.channels.own_rules import with_plugins
from edgec.graph.channels.remove import Removal, atoms_to_remove
from edgec.graph.channels.trace import Rule, Trace
from edgec.graph.channels.trace import trace as _trace
from edgec.graph.channels.widths import Axis, CostModel, LayerCost
from edgec.graph.channels.widths import cost_model as _cost_model

RULES: Mapping[str, Rule] = {
    **rules_layers.RULES,
    **rules_layout.RULES,
    **rules_pointwise.RULES,
    **rules_products.RULES,
}
"""The rules that come with edgec, by op; plug-ins bring further ones (docs/plugins.md)."""


def trace(model: ir.Model) -> Trace:
    """Label every tensor of ``model`` by the rules of edgec and, for ops that these lack, of plug-ins."""
    return _trace(model, with_plugins(RULES, model))


def groups(model: ir.Model) -> tuple[ChannelGroup, ...]:
    """All channel groups of ``model``, in the order of the layers that make them, prunable or not."""
    return cluster(trace(model)).groups


def remove(model: ir.Model, removals: Mapping[str, Sequence[int]]) -> None:
    """Remove units (group name -> unit numbers) from ``model``, in place: weights, shapes, and what counts
    channels.

    The result computes what ``model`` would if all that reads the removed channels (weights, and products of two
    computed tensors) read zeros.
    Raises UsageError for unknown groups and units and where nothing would be left, UnsupportedError for a
    group that is not prunable.
    """
    found = trace(model)
    gone = atoms_to_remove(cluster(found), removals)
    if gone.any():
        Removal(found, gone).run()


def cost_model(model: ir.Model) -> CostModel:
    """MACs and parameters of ``model`` as a function of the widths of its groups."""
    found = trace(model)
    return _cost_model(found, cluster(found))


__all__ = [
    "Axis",
    "ChannelGroup",
    "CostModel",
    "LayerCost",
    "Member",
    "cost_model",
    "describe",
    "groups",
    "remove",
]
