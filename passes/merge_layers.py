"""`merge-layers`: branches, rows and twins of layers that are one layer become one; the function stays.

Networks are trained with more layers than they need: RepVGG and MobileOne with parallel branches, others with convolutions in a
row, exporters write heads twice. What is linear in between is one layer. The cases are in `merging.parallel` (branches of one
sum), `merging.chain` (layers in a row) and `merging.twins`; between two rounds the canonical rewrites fold what they leave
(scales behind a merged sum). It costs no more multiplications than before, and is exact but for float rounding.

A run takes it by itself, in front of all other passes, where it finds something.

A program before and after::

    a = Conv3x3(x, w3)      ->   y = Conv3x3(x, w)   # w = w3 + w1 and the batch norm at the middle tap
    b = Conv1x1(x, w1)
    c = BatchNormalization(x, ...)
    s = Add(a, b)
    y = Add(s, c)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from edgec.graph.cost import cost
from edgec.graph.fuse import fuse
from edgec.graph.tidy import tidy
from edgec.passes.base import NUMBER_FORMATS, Context, Note, Pass, PassResult
from edgec.passes.merging.chain import merge_chains
from edgec.passes.merging.parallel import merge_parallel
from edgec.passes.merging.twins import merge_twins


@dataclass(frozen=True)
class MergeLayers(Pass):
    """Parallel branches, layers in a row and twins become one layer, exactly."""

    name: ClassVar[str] = "merge-layers"
    summary: ClassVar[str] = "merge branches, rows and twins of layers that are one layer, exactly"
    changes_function: ClassVar[bool] = False
    never_after: ClassVar[frozenset[str]] = NUMBER_FORMATS

    def run(self, model: ir.Model, context: Context) -> PassResult:
        before = cost(model).macs
        merged = merge_layers(model)
        if not merged:
            return PassResult(model, modified=False, notes=(Note("no layers are one layer"),))
        after = cost(model).macs
        head = Note(f"{len(merged)} merged: {before:,} -> {after:,} MACs")
        return PassResult(
            model,
            modified=True,
            notes=(head, *(Note(f"takes the place of {parts}", node=name) for name, parts in merged)),
            data={"macs_before": before, "macs_after": after, "merged": len(merged)},
        )


def merge_layers(model: ir.Model) -> list[tuple[str, str]]:
    """Merge in place until nothing is left to merge; name and parts of every merged layer, in the order of the work."""
    found: list[str] = []
    while True:
        merged = [*merge_twins(model), *merge_parallel(model)]
        if merged:
            tidy(model)
        merged += merge_chains(model)
        if not merged:
            break
        found += merged
        fuse(model)
        tidy(model)
    split = (text.partition(": ") for text in found)
    return [(name, parts) for name, _, parts in split]


def has_layers_to_merge(model: ir.Model) -> bool:
    """Whether a run would find something; ``model`` stays as it is."""
    trial = model.clone()
    return bool(merge_twins(trial) or merge_parallel(trial) or merge_chains(trial))
