"""Channel groups: what a trace means for a person who wants to remove channels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import onnx_ir as ir

from edgec.graph.channels.atoms import Labels
from edgec.graph.channels.trace import Role, Trace
from edgec.graph.text import visible


@dataclass(frozen=True, eq=False)
class Member:
    """One axis of one tensor, as far as a group reaches.

    ``index`` is (units, positions per unit): row u holds the positions along ``axis`` that go with unit u.
    ``value`` names the tensor; ``node`` the node that reads it as its operand ``operand``, or for an
    activation the node that makes it (empty for graph inputs; ``operand`` is then the number of the output).
    """

    node: str
    op: str
    operand: int
    value: str
    axis: int
    role: Role
    index: Labels


@dataclass(frozen=True, eq=False)
class ChannelGroup:
    """Channels that can only be removed together, unit by unit.

    ``producers`` are the output axes of weights, ``consumers`` the input axes, ``parameters`` what lies in
    between (biases, depthwise kernels, PRelu slopes, per-channel constants), ``activations`` the feature
    maps. All units reach the same tensors with the same number of positions each, so they cost the same, and
    every tensor keeps a channel as long as every group keeps a unit.
    """

    name: str
    size: int
    members: tuple[Member, ...]
    prunable: bool
    reason: str
    """Why the group is not prunable; empty when it is."""

    @cached_property
    def producers(self) -> tuple[Member, ...]:
        return self.of_role("producer")

    @cached_property
    def consumers(self) -> tuple[Member, ...]:
        return self.of_role("consumer")

    @cached_property
    def parameters(self) -> tuple[Member, ...]:
        return self.of_role("parameter")

    @cached_property
    def activations(self) -> tuple[Member, ...]:
        return self.of_role("activation")

    def of_role(self, role: Role) -> tuple[Member, ...]:
        return tuple(member for member in self.members if member.role == role)

    @property
    def has_weights(self) -> bool:
        """False for values inside that no weight reads or makes, such as the scores of an attention: nothing to say of them."""
        return any(member.role != "activation" for member in self.members)

    def describe(self) -> str:
        """The group in a sentence or two, on one line whatever the names in it."""
        head = f"{self.name}: {self.size} unit{'s' * (self.size != 1)}"
        if not self.prunable:
            head += f", not prunable: {self.reason}"
        parts = [head]
        for title, members in (("made by", self.producers), ("read by", self.consumers)):
            if members:
                parts.append(f"{title} {_listed(_layer(m) for m in members)}")
        between = [m for m in self.parameters if not _is_bias(m)]
        if between:
            parts.append(f"through {_listed(_layer(m) for m in between)}")
        return visible("; ".join(parts))

    def as_json(self) -> dict[str, Any]:
        """JSON types only; indices are left out."""
        return {
            "name": self.name,
            "size": self.size,
            "prunable": self.prunable,
            "reason": self.reason,
            **{
                role + "s": [
                    {
                        "node": m.node,
                        "op": m.op,
                        "tensor": m.value,
                        "axis": m.axis,
                        "per_unit": m.index.shape[1],
                    }
                    for m in self.of_role(role)
                ]
                for role in ("producer", "consumer", "parameter")
            },
        }


def describe(groups: Iterable[ChannelGroup]) -> str:
    """All groups that have weights, one per line: the prunable ones first, then the others with their reasons."""
    listed = [group for group in groups if group.has_weights]
    prunable = [group.describe() for group in listed if group.prunable]
    stuck = [group.describe() for group in listed if not group.prunable]
    return "\n".join(prunable + stuck)


def _is_bias(member: Member) -> bool:
    return member.op in ("Conv", "ConvTranspose", "Gemm") and member.operand == 2


def _layer(member: Member) -> str:
    count = member.index.shape[1]
    times = "" if count == 1 else f" ({count} each)"
    return f"{member.op} {member.node!r}{times}"


def _listed(words: Iterable[str], most: int = 6) -> str:
    found = list(dict.fromkeys(words))
    if len(found) > most:
        return ", ".join(found[: most - 1]) + f" and {len(found) - most + 1} more"
    return ", ".join(found)


@dataclass(frozen=True, eq=False)
class Clusters:
    """The groups of a trace, and where each of its atoms went."""

    groups: tuple[ChannelGroup, ...]
    group_of: Labels
    """Atom -> number of its group; -1 for atoms that no tensor holds any more."""
    unit_of: Labels
    """Atom -> unit inside its group."""


@dataclass(frozen=True, eq=False)
class _Touch:
    """One labelled axis of one tensor."""

    node: ir.Node | None
    operand: int
    value: ir.Value
    axis: int
    role: Role
    labels: Labels


def cluster(trace: Trace) -> Clusters:
    """Components of united atoms that reach the same tensors, equally often, are units of one group."""
    roots, frozen = trace.atoms.solve()
    touches = _touches(trace)
    places = [roots[touch.labels] for touch in touches]
    group_of_root, unit_of_root, reasons = _signatures(places, frozen, trace.atoms.count)
    members: list[list[Member]] = [[] for _ in reasons]
    for touch, place in zip(touches, places, strict=True):
        for number, index in _positions(group_of_root[place], unit_of_root[place]):
            members[number].append(_member(touch, index))
    sizes = np.bincount(group_of_root[np.unique(roots[group_of_root[roots] >= 0])], minlength=len(reasons))
    found = [
        _finish(tuple(members[n]), int(sizes[n]), trace.atoms.reasons[reason] if reason >= 0 else "")
        for n, reason in enumerate(reasons)
    ]
    return Clusters(_named(found), group_of_root[roots], unit_of_root[roots])


def _touches(trace: Trace) -> list[_Touch]:
    touches = []
    for value, labels in trace.values.items():
        node = value.producer()
        axis = int(np.argmax(labels.shape)) if labels.ndim else 0
        touches.append(_Touch(node, value.index() or 0, value, axis, "activation", labels.ravel()))
    for slot in trace.slots:
        constant = slot.node.inputs[slot.operand]
        if constant is not None:
            touches.append(_Touch(slot.node, slot.operand, constant, slot.axis, slot.role, slot.labels))
    return touches


def _signatures(
    places: Sequence[Labels], frozen: dict[int, int], count: int
) -> tuple[Labels, Labels, list[int]]:
    """Group and unit of every component, and the reason (or -1) of every group; groups in order of first
    atoms.
    """
    component = np.concatenate(places) if places else np.empty(0, np.int64)
    touch = np.repeat(np.arange(len(places)), [len(place) for place in places])
    pairs, counts = np.unique(component * len(places) + touch, return_counts=True)
    owners = pairs // max(len(places), 1)
    facts = np.stack([pairs % max(len(places), 1), counts], 1)
    starts = np.flatnonzero(np.r_[True, owners[1:] != owners[:-1]]) if len(owners) else np.empty(0, np.int64)
    group_of, unit_of = np.full(count, -1, np.int64), np.zeros(count, np.int64)
    numbers: dict[tuple[bytes, int], int] = {}
    sizes: list[int] = []
    for start, end in zip(starts, np.r_[starts[1:], len(owners)], strict=True):
        root = int(owners[start])
        key = (facts[start:end].tobytes(), frozen.get(root, -1))
        number = numbers.setdefault(key, len(numbers))
        if number == len(sizes):
            sizes.append(0)
        group_of[root], unit_of[root] = number, sizes[number]
        sizes[number] += 1
    return group_of, unit_of, [reason for _, reason in numbers]


def _positions(groups: Labels, units: Labels) -> Iterable[tuple[int, Labels]]:
    """For each group on this axis: (units, positions per unit)."""
    for number in np.unique(groups).tolist():
        where = np.flatnonzero(groups == number)
        order = where[np.argsort(units[where], kind="stable")]
        size = len(np.unique(units[where]))
        yield number, order.reshape(size, -1)


def _member(touch: _Touch, index: Labels) -> Member:
    node, value = touch.node, touch.value
    name = "" if node is None else node.name or ""
    return Member(
        name,
        "" if node is None else node.op_type,
        touch.operand,
        value.name or "",
        touch.axis,
        touch.role,
        index,
    )


def _finish(members: tuple[Member, ...], size: int, reason: str) -> ChannelGroup:
    """Name the group after its first producer, else after the first tensor that holds it."""
    producers = [m for m in members if m.role == "producer"]
    first = (producers or list(members))[0]
    if not reason and not producers:
        reason = "no layer makes these channels"
    elif not reason and size == 1:
        reason = "it is a single unit, which must stay"
    return ChannelGroup(first.node or first.value, size, members, not reason, reason)


def _named(groups: Sequence[ChannelGroup]) -> tuple[ChannelGroup, ...]:
    """Unique names: a second group of the same layer is ``name:2``."""
    seen: dict[str, int] = {}
    named = []
    for group in groups:
        seen[group.name] = number = seen.get(group.name, 0) + 1
        name = group.name if number == 1 else f"{group.name}:{number}"
        named.append(ChannelGroup(name, group.size, group.members, group.prunable, group.reason))
    return tuple(named)
