"""Which of the teacher's channels a pruned tensor still has: the student's memory of where its channels come from.

It lives in the model's metadata, so it survives saving, the pass cache, and further pruning.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from edgec.graph.channels import ChannelGroup

Array = np.ndarray[Any, np.dtype[Any]]

KEY = "edgec.kept"


@dataclass(frozen=True)
class ChannelMap:
    """Positions along ``axis`` of the teacher's tensor that the student's has, ascending."""

    axis: int
    positions: tuple[int, ...]

    def of(self, array: Array) -> Array:
        """The teacher's array cut to them."""
        return np.take(array, np.array(self.positions, np.int64), axis=self.axis)


def channel_maps(model: ir.Model) -> dict[str, ChannelMap]:
    """Tensor name -> what it kept; tensors that kept everything are not listed."""
    raw = json.loads(model.metadata_props.get(KEY, "{}"))
    return {name: ChannelMap(int(axis), tuple(positions)) for name, (axis, positions) in raw.items()}


def record_removal(
    model: ir.Model, groups: Sequence[ChannelGroup], removals: Mapping[str, Sequence[int]]
) -> None:
    """Note what is about to go: ``groups`` are all those of ``model`` before, ``removals`` units by group name."""
    sizes: dict[str, int] = {}
    gone: dict[str, tuple[int, set[int]]] = {}
    for group in groups:
        units = np.array(sorted(removals.get(group.name, ())), np.int64)
        for member in group.activations:
            sizes[member.value] = sizes.get(member.value, 0) + member.index.size
            if len(units):
                _, positions = gone.setdefault(member.value, (member.axis, set()))
                positions.update(member.index[units].ravel().tolist())
    known = channel_maps(model)
    for name, (axis, positions) in gone.items():
        before = known[name].positions if name in known else tuple(range(sizes[name]))
        known[name] = ChannelMap(axis, tuple(old for now, old in enumerate(before) if now not in positions))
    model.metadata_props[KEY] = json.dumps(
        {name: [k.axis, list(k.positions)] for name, k in sorted(known.items())}
    )
