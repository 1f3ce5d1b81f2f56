"""By which factors one network's channels differ from another's without a difference in what the network does.

Equalisation multiplies the channels of a feature map by ``f > 0`` and divides the weights that read them by the same
(`passes.equalize`). Values of both networks are comparable once the factors are known. They are found from the weights alone, so
that a layer whose weights are wrong does not pass for a rescaled one: a layer's weights in ``b`` are those in ``a`` times
``f_out[o] / f_in[c]``. From the inputs forward this gives the factors that are *made*, from the outputs backward those that are
*undone*. Where both agree the map is rescaled. Where they do not, a layer is wrong; then the biases decide, which hold ``f_out``
too, and else the map is taken to be rescaled as little as may be.

A program before and after::

    h = Relu(Conv(x, w, b))   ->   h = Relu(Conv(x, s w, s b))     factors of h: s
    y = Conv(h, v)                 y = Conv(h, v / s)
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import onnx_ir as ir

from edgec.compiler.verify.weights import LayerPair, pairs_of
from edgec.graph.channels import Member, groups
from edgec.passes.equalize import segments

Array = np.ndarray[Any, np.dtype[Any]]

ALIKE = 0.1
"""Two factors whose logarithms differ by less are one; a map whose factors all differ from 1 by less is not rescaled."""
Known = Literal["made", "undone", "biased"]


@dataclass(frozen=True)
class Rescaled:
    """A value that ``b`` holds as ``factors`` times that of ``a``, by position of ``axis``."""

    axis: int
    factors: Array

    def of(self, value: Array) -> Array:
        """``value`` of ``a`` as ``b`` holds it."""
        shape = [-1 if axis == self.axis else 1 for axis in range(value.ndim)]
        return np.asarray(value * self.factors.reshape(shape), value.dtype)

    def back(self, value: Array) -> Array:
        """``value`` of ``b`` as ``a`` holds it."""
        shape = [-1 if axis == self.axis else 1 for axis in range(value.ndim)]
        return np.asarray(value / self.factors.reshape(shape), value.dtype)


def rescaled(a: ir.Model, b: ir.Model) -> dict[str, Rescaled]:
    """The values of ``a`` that ``b`` holds rescaled, by name; what nothing tells of is not among them."""
    maps = [_Map.of(one.activations, one.group.size) for one in segments(a, groups(a)) if not one.pinned]
    found = _Search(maps)
    pairs = pairs_of(a, b)
    for pair in pairs:
        found.forward(pair)
    for pair in reversed(pairs):
        found.backward(pair)
    for one in maps:
        one.settle()
    names = {member.value: member.axis for one in maps if one.factors.any() for member in one.members}
    sizes = {value.name: value.shape for node in a.graph for value in node.outputs}
    made: dict[str, Rescaled] = {}
    for name, axis in names.items():
        shape = sizes[name]
        size = None if shape is None else shape[axis]
        if isinstance(size, int):
            made[name] = Rescaled(axis, np.exp(found.at(name, size, "settled")))
    return made


@dataclass
class _Map:
    """Feature maps that share factors; logarithms of them per unit, nan where nothing is known."""

    members: Sequence[Member]
    made: Array
    undone: Array
    biased: Array
    factors: Array

    @staticmethod
    def of(members: Sequence[Member], size: int) -> _Map:
        made, undone, biased = (np.full(size, np.nan) for _ in range(3))
        return _Map(members, made, undone, biased, np.zeros(size))

    def learn(self, known: Known, member: Member, by_position: Array) -> None:
        """What a layer says of one member's positions; what is known already stays."""
        table: Array = getattr(self, known)
        units = _median(by_position[member.index], axis=1)
        np.copyto(table, units, where=np.isnan(table))

    def settle(self) -> None:
        """Decide on one factor per unit."""
        gap = self.made - self.undone
        both = ~np.isnan(gap)
        whole = float(np.median(gap[both])) if both.any() else 0.0
        if abs(whole) > ALIKE:  # a layer before or behind is wrong as a whole
            chosen = self._likelier(self.made, self.undone)
        else:
            one = np.where(np.isnan(self.undone), self.made, self.undone)
            other = np.where(np.isnan(self.made), self.undone, self.made)
            apart = np.abs(one - other) > ALIKE
            made = np.abs(other - self.biased) < np.abs(one - self.biased)
            less = np.where(np.isnan(self.biased), np.abs(other) < np.abs(one), made)
            chosen = np.where(apart & less, other, one)
        chosen = np.nan_to_num(np.where(np.isnan(chosen), self.biased, chosen))
        self.factors = chosen if (np.abs(chosen) > ALIKE).any() else np.zeros(len(chosen))

    def _likelier(self, made: Array, undone: Array) -> Array:
        """The one that the biases hold too; without biases the one whose least rescaled channel is nearer to 1."""
        off = [float(_median(np.abs(one - self.biased), axis=0)) for one in (made, undone)]
        if np.isnan(off).any() or abs(off[0] - off[1]) < ALIKE:
            off = [float(np.nanmin(np.abs(one))) for one in (made, undone)]
        return made if off[0] < off[1] else undone


class _Search:
    """All maps by the values that they are made of."""

    def __init__(self, maps: Sequence[_Map]) -> None:
        self.by_value: dict[str, list[tuple[_Map, Member]]] = {}
        for one in maps:
            for member in one.members:
                self.by_value.setdefault(member.value, []).append((one, member))

    def at(self, value: str, size: int, known: Known | Literal["settled"]) -> Array:
        """Logarithms by position; 0 where no map rescales it, nan where nothing is known."""
        spread = np.zeros(size)
        for one, member in self.by_value.get(value, ()):
            table = one.factors if known == "settled" else getattr(one, known)
            spread[member.index] = table[:, None]
        return spread

    def forward(self, pair: LayerPair) -> None:
        """From what a layer reads to what it makes."""
        before = self.at(pair.source, pair.inputs, "made")
        told = np.nan_to_num(self.at(pair.source, pair.inputs, "biased"))
        before = np.where(np.isnan(before), told, before)
        self._learn("made", pair.result, pair.made_from(before))
        if pair.bias is not None:
            self._learn("biased", pair.result, pair.bias)

    def backward(self, pair: LayerPair) -> None:
        """From what a layer makes to what it reads."""
        behind = self.at(pair.result, pair.outputs, "undone")
        self._learn("undone", pair.source, pair.undone_for(behind))

    def _learn(self, known: Known, value: str, by_position: Array) -> None:
        for one, member in self.by_value.get(value, ()):
            one.learn(known, member, by_position)


def _median(values: Array, axis: int) -> Array:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a row of nothing but nan stays nan
        return np.asarray(np.nanmedian(values, axis=axis))
