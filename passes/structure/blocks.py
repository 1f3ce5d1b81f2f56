"""Blocks by name: the nodes whose own name, or the name of whose weights, begins with it.

``layer3`` is all of ``layer3.0.conv1.weight`` and of ``/layer3/layer3.0/conv1/Conv``; the name of a channel group, as reports
print it, is the layer that makes the group. A node without weights belongs to what feeds it.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from edgec.graph.errors import UsageError, did_you_mean
from edgec.graph.views import is_constant
from edgec.passes.budget import Budget, parse_budget

SEPARATORS = "./:"
"""What ends a part of a name."""
MOST_LISTED = 12


@dataclass(frozen=True)
class BlockBudget:
    """``budget`` of the nodes of ``block``."""

    block: str
    budget: Budget

    @property
    def text(self) -> str:
        return f"{self.block}:{self.budget.text}"


def parse_block_budget(text: str) -> BlockBudget:
    """``layer3: macs=40%``. Raises UsageError."""
    head, _, amount = text.partition("=")
    block, sign, unit = (part.strip() for part in head.rpartition(":"))
    if not sign or not block:
        raise UsageError(f"not a block's budget: {text!r}", hint="Write layer3:macs=40%.")
    return BlockBudget(block, parse_budget(f"{unit}={amount}"))


def read_block_budget(text: str) -> str:
    """The same, as it is kept."""
    return parse_block_budget(text).text


def nodes_of(model: ir.Model, block: str) -> frozenset[str]:
    """Names of the block's nodes. Raises UsageError for one that is not there, with those that are."""
    found: set[str] = set()
    makers: dict[ir.Value, str] = {}
    for node in model.graph:
        name = node.name or ""
        own = _weights(node)
        fed = [makers[value] for value in node.inputs if value in makers] if not own else []
        if any(_within(one, block) for one in (name, *own)) or (fed and fed[0] in found):
            found.add(name)
        makers.update(dict.fromkeys(node.outputs, name))
    if not found:
        known = block_names(model)
        listed = ", ".join(known[:MOST_LISTED]) + (", ..." if len(known) > MOST_LISTED else "")
        hint = f"{did_you_mean(block, known)} Known: {listed}; also any longer beginning of a weight's or a node's name."
        raise UsageError(f"no block {block!r}", hint=hint.strip())
    return frozenset(found)


def block_names(model: ir.Model) -> list[str]:
    """First parts of the names of weights and, where those have several parts, of nodes; in order."""
    layers = [(node, weights) for node in model.graph if (weights := _weights(node))]
    names = [*(name for _, weights in layers for name in weights), *(node.name or "" for node, _ in layers)]
    heads = dict.fromkeys(_parts(name)[0] for name in names if len(_parts(name)) > 1)
    return list(heads) or list(dict.fromkeys(node.name or "" for node, _ in layers))


def _weights(node: ir.Node) -> list[str]:
    """Names of the constants that it computes with."""
    return [
        value.name or ""
        for value in node.inputs
        if value is not None
        and is_constant(value)
        and value.dtype is not None
        and value.dtype.is_floating_point()
    ]


def _within(name: str, block: str) -> bool:
    name, block = name.lstrip("/"), block.lstrip("/").rstrip(SEPARATORS)
    return (
        bool(block) and name.startswith(block) and (len(name) == len(block) or name[len(block)] in SEPARATORS)
    )


def _parts(name: str) -> list[str]:
    for separator in SEPARATORS:
        name = name.replace(separator, ".")
    return [part for part in name.split(".") if part] or [""]
