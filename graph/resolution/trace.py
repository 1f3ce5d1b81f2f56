"""One walk through a graph: what every axis becomes at another size of the picture, and what has to change for it.

Nothing is changed here: constants and attributes that follow the size are noted as edits. A node whose rule is not known, or that
holds something made for the source's size, ends the walk with a `SizeError` that names it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir

from edgec.graph.inputs import is_channels_last
from edgec.graph.resolution.axes import Axes, Axis, Factor, Side, plain, refused
from edgec.graph.views import constant

Array = np.ndarray[Any, np.dtype[Any]]
Size = tuple[int, int]
"""Height and width."""


@dataclass(frozen=True)
class Edit:
    """A new value for a constant operand (``index``), or for an attribute (``name``)."""

    node: ir.Node
    value: Any
    index: int = -1
    name: str = ""


@dataclass
class Walk:
    """What is known behind the nodes that were walked through."""

    source: Size
    """Of the picture, as the graph stands."""
    size: Size
    """The one that is asked about."""
    known: dict[str, Axes] = field(default_factory=dict)
    """Axes of the values that follow the picture's size, or did before a pool."""
    edits: list[Edit] = field(default_factory=list)
    levels: dict[tuple[Side, int], set[int]] = field(default_factory=dict)
    """Sizes of maps at the source's size, by side, and what they become."""
    strides: set[Any] = field(default_factory=set)
    """Pixels from one entry to the next, of all maps."""

    def axes(self, value: ir.Value | None) -> Axes:
        """Of ``value``; those that nothing changes where it does not depend on the picture."""
        if value is None:
            return ()
        found = self.known.get(value.name or "")
        return plain(value.shape or ()) if found is None else found

    def follows(self, value: ir.Value | None) -> bool:
        """Whether an axis of ``value`` has another size at another size of the picture."""
        return any(axis.follows for axis in self.axes(value))

    def set(self, value: ir.Value, axes: Axes) -> None:
        """Note the axes of ``value``."""
        self.known[value.name or ""] = axes
        for axis in axes:
            for factor in (one for run in axis.runs for one in run if one.side):
                self.levels.setdefault((factor.side, factor.old), set()).add(factor.new)
                self.strides.add(factor.stride)

    def edit(self, node: ir.Node, index: int, value: Any) -> None:
        """Operand ``index`` of ``node`` becomes ``value`` (int64 where it is a list)."""
        array = np.asarray(value, np.int64) if isinstance(value, list) else value
        self.edits.append(Edit(node, array, index))

    def edit_attribute(self, node: ir.Node, name: str, value: Any) -> None:
        """Attribute ``name`` of ``node`` becomes ``value``."""
        self.edits.append(Edit(node, value, name=name))

    def side(self, side: Side) -> tuple[int, int]:
        """(old, new) of the picture's height or width."""
        return (self.source[1], self.size[1]) if side == "w" else (self.source[0], self.size[0])

    def level(self, side: Side, old: int) -> Axis | None:
        """A map's axis of ``old`` entries that was met already, where all that were met become alike."""
        sides: tuple[Side, ...] = (side,) if side else ("h", "w")
        found = {(one, new) for one in sides for new in self.levels.get((one, old), ())}
        if len({new for _, new in found}) != 1:
            return None
        one, new = sorted(found)[0]
        return Axis.of(Factor(old, new, one))


Rule = Callable[[Walk, ir.Node], None]
"""Sets the axes of the node's outputs. Raises SizeError."""


SPREADING = ("Resize", "Expand", "Tile")
"""They may give what a pool left of the picture the size of a map again."""


def walk(model: ir.Model, picture: ir.Value, size: Size, rules: Mapping[str, Rule]) -> Walk:
    """Walk through ``model`` with ``picture`` (batch, channels, height, width) at ``size``. Raises SizeError."""
    axes = plain(picture.shape or ())
    tall, wide = places(picture)
    source = (axes[tall].old, axes[wide].old)
    given = list(axes)
    given[tall], given[wide] = (
        Axis.of(Factor(source[0], size[0], "h")),
        Axis.of(Factor(source[1], size[1], "w")),
    )
    found = Walk(source, size)
    found.set(picture, tuple(given))
    for node in model.graph:
        if not any(value is not None and value.name in found.known for value in node.inputs):
            continue
        if node.op_type not in SPREADING and not any(found.follows(value) for value in node.inputs):
            for value in node.outputs:
                found.set(value, plain(value.shape or ()))
            continue
        rule = rules.get(node.op_type) if node.domain in ("", "ai.onnx") else None
        if rule is None:
            raise refused(node, f"how sizes pass through {node.op_type} is not known")
        rule(found, node)
        for value in node.outputs:
            _check(node, value, found)
    return found


def places(picture: ir.Value) -> tuple[int, int]:
    """Where height and width stand in a picture's axes."""
    rank = len(picture.shape or ())
    return (rank - 3, rank - 2) if is_channels_last(picture) else (rank - 2, rank - 1)


def side_at(axis: int, rank: int) -> Side:
    """The side that axis ``axis`` of a map would be; empty in front of the last two."""
    return "h" if axis == rank - 2 else "w" if axis == rank - 1 else ""


def _check(node: ir.Node, value: ir.Value, found: Walk) -> None:
    """At the source's size a rule must give what shape inference gave; and no map may vanish."""
    axes, inferred = found.axes(value), list(value.shape or ())
    pairs = zip(axes, inferred, strict=False)
    wrong = any(isinstance(size, int) and not axis.batch and axis.old != size for axis, size in pairs)
    if value.shape is not None and (wrong or len(axes) != len(inferred)):
        sizes = [axis.old for axis in axes]
        raise refused(node, f"its sizes {inferred} are others than its rule says, {sizes}")
    if any(axis.new < 1 for axis in axes):
        raise refused(node, "nothing of the map is left")


def integers(node: ir.Node, index: int) -> list[int] | None:
    """A constant operand of whole numbers; None where it is absent. Raises SizeError where it is computed."""
    value = node.inputs[index] if index < len(node.inputs) else None
    if value is None:
        return None
    array = constant(value)
    if array is None:
        raise refused(node, "one of its settings is computed from sizes")
    return [int(one) for one in array.reshape(-1)]
