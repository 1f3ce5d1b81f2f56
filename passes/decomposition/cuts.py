"""The ways to cut one layer: five forms, each at a ladder of ranks, with what it costs and loses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import numpy as np

from edgec.passes.decomposition.pieces import Piece
from edgec.passes.refit.layers import Layer
from edgec.passes.solvers.allocate import allowed_widths
from edgec.passes.solvers.factorise import LowRank, Response
from edgec.passes.solvers.kernel_factors import Decoupled, Separable, Tucker, TuckerOutputs

Array = np.ndarray[Any, np.dtype[Any]]
Rank = tuple[int, ...]
Factors = tuple[tuple[Array, ...], Array]
"""One array (taps, inputs, outputs) per piece, and the body (n, out) that they make together."""
Pays = Callable[[tuple[Piece, ...]], bool]

LADDER = 64
"""Ranks of one form that are looked at, where each costs nothing."""
SHORT_LADDER = 16
"""Where each is a least-squares fit."""
SHORTEST_LADDER = 5
"""Per side, where two ranks are chosen."""
MANY = 1_000_000
"""No limit to the depthwise kernels of a channel but that of the form."""


class Shape(Protocol):
    """One layer in one form, at any rank."""

    def ranks(self, multiple: int, pays: Pays) -> Iterator[Rank]:
        """A ladder of those that are multiples and pay."""

    def pieces(self, rank: Rank) -> tuple[Piece, ...]:
        """What stands in the layer's place."""

    def factors(self, rank: Rank) -> Factors:
        """Their weights. Ranks above the full one count as that."""

    def error(self, rank: Rank) -> float:
        """Mean squared error per row, summed over outputs."""


@dataclass(frozen=True)
class Form:
    """``why_not`` tells why a layer cannot take this form, or None."""

    name: str
    why_not: Callable[[Layer], str | None]
    shape: Callable[[Layer, Response], Shape]


@dataclass(frozen=True)
class Cut:
    """One layer in one form at one rank; ``error`` as `Shape.error` gives it."""

    form: Form
    shape: Shape
    rank: Rank
    error: float

    @property
    def pieces(self) -> tuple[Piece, ...]:
        return self.shape.pieces(self.rank)

    def factors(self) -> Factors:
        return self.shape.factors(self.rank)

    @property
    def label(self) -> str:
        return f"{self.form.name} of rank {'x'.join(str(rank) for rank in self.rank)}"

    def on(self, layer: Layer, response: Response) -> Cut:
        """The same cut of a layer that has become narrower."""
        shape = self.form.shape(layer, response)
        return Cut(self.form, shape, self.rank, shape.error(self.rank))


def cuts_of(layer: Layer, response: Response, form: Form, multiple: int, pays: Pays) -> Iterator[Cut]:
    """Those of ``form`` that pay."""
    shape = form.shape(layer, response)
    for rank in shape.ranks(multiple, pays):
        yield Cut(form, shape, rank, shape.error(rank))


@dataclass(frozen=True)
class _LowRank:
    layer: Layer
    solved: LowRank

    def ranks(self, multiple: int, pays: Pays) -> Iterator[Rank]:
        full = self.solved.full
        yield from ((r,) for r in _ladder(full - 1, multiple, LADDER, lambda r: pays(self.pieces((r,)))))

    def pieces(self, rank: Rank) -> tuple[Piece, ...]:
        channels, outputs = self.layer.patches.channels, self.layer.view.out_channels
        kept = min(rank[0], self.solved.full)
        return Piece(_axes(self.layer), channels, kept), Piece((), kept, outputs)

    def factors(self, rank: Rank) -> Factors:
        return self.solved.at(min(rank[0], self.solved.full))

    def error(self, rank: Rank) -> float:
        return float(self.solved.errors[min(rank[0], self.solved.full)])


@dataclass(frozen=True)
class _Spatial:
    layer: Layer
    solved: Separable

    def ranks(self, multiple: int, pays: Pays) -> Iterator[Rank]:
        full = self.solved.full
        yield from ((r,) for r in _ladder(full, multiple, SHORT_LADDER, lambda r: pays(self.pieces((r,)))))

    def pieces(self, rank: Rank) -> tuple[Piece, ...]:
        channels, outputs = self.layer.patches.channels, self.layer.view.out_channels
        along, kept = self.solved.along, min(rank[0], self.solved.full)
        return Piece((along,), channels, kept), Piece((1 - along,), kept, outputs)

    def factors(self, rank: Rank) -> Factors:
        return self.solved.at(min(rank[0], self.solved.full))

    def error(self, rank: Rank) -> float:
        return self.solved.response.error(self.factors(rank)[1])


@dataclass(frozen=True)
class _Tucker:
    layer: Layer
    solved: Tucker
    _known: dict[int, TuckerOutputs] = field(default_factory=dict)

    def ranks(self, multiple: int, pays: Pays) -> Iterator[Rank]:
        outputs = self.layer.view.out_channels

        def pays_at(inner: int, outer: int) -> bool:
            return pays(self.pieces((inner, outer)))

        for inner in _ladder(self.solved.channels - 1, multiple, SHORTEST_LADDER, lambda r: pays_at(r, 1)):
            ladder = _ladder(outputs - 1, multiple, SHORTEST_LADDER, partial(pays_at, inner))
            yield from ((inner, outer) for outer in ladder)

    def pieces(self, rank: Rank) -> tuple[Piece, ...]:
        channels, outputs = self.layer.patches.channels, self.layer.view.out_channels
        inner, outer = self._within(rank)
        return Piece((), channels, inner), Piece(_axes(self.layer), inner, outer), Piece((), outer, outputs)

    def factors(self, rank: Rank) -> Factors:
        inner, outer = self._within(rank)
        return self._inner(inner).at(outer)

    def error(self, rank: Rank) -> float:
        return self.solved.response.error(self.factors(rank)[1])

    def _inner(self, rank: int) -> TuckerOutputs:
        if rank not in self._known:
            self._known[rank] = self.solved.inner(rank)
        return self._known[rank]

    def _within(self, rank: Rank) -> tuple[int, int]:
        inner = min(rank[0], self.solved.channels)
        return inner, min(rank[1], self.solved.taps * inner, self.layer.view.out_channels)


@dataclass(frozen=True)
class _Decoupled:
    layer: Layer
    solved: Decoupled
    most: int

    def ranks(self, multiple: int, pays: Pays) -> Iterator[Rank]:
        for pairs in range(1, min(self.most, self.solved.full) + 1):
            if not pays(self.pieces((pairs,))):
                return
            yield (pairs,)

    def pieces(self, rank: Rank) -> tuple[Piece, ...]:
        channels, outputs = self.layer.patches.channels, self.layer.view.out_channels
        middle = channels * min(rank[0], self.solved.full)
        return Piece(_axes(self.layer), channels, middle, channels), Piece((), middle, outputs)

    def factors(self, rank: Rank) -> Factors:
        return self.solved.at(min(rank[0], self.solved.full))

    def error(self, rank: Rank) -> float:
        return self.solved.response.error(self.factors(rank)[1])


def _axes(layer: Layer) -> tuple[int, ...]:
    return tuple(range(len(layer.patches.kernel)))


def _ladder(full: int, multiple: int, steps: int, pays: Callable[[int], bool]) -> list[int]:
    """At most ``steps`` ranks of 1 ... full that are multiples and pay; costs rise with the rank."""
    ranks = [rank for rank in allowed_widths(full, multiple) if pays(rank)] if full > 0 else []
    if len(ranks) <= steps:
        return ranks
    return [ranks[round(i)] for i in np.linspace(0, len(ranks) - 1, steps)]


def _pointwise(layer: Layer) -> str | None:
    return "its kernel is not 1x1: see decompose-channel" if len(layer.patches.taps) > 1 else None


def _wide_kernel(layer: Layer) -> str | None:
    return "its kernel is 1x1: see decompose-svd" if len(layer.patches.taps) == 1 else None


def _square_kernel(layer: Layer) -> str | None:
    kernel = layer.patches.kernel
    if len(kernel) == 2 and min(kernel) < 2:
        return _wide_kernel(layer) or "its kernel has one axis already"
    return None if len(kernel) == 2 else "its kernel has no two axes"


def _several_channels(layer: Layer) -> str | None:
    return _wide_kernel(layer) or ("it reads one channel" if layer.patches.channels == 1 else None)


def _low_rank(layer: Layer, response: Response) -> Shape:
    return _LowRank(layer, LowRank(response, len(layer.patches.taps)))


def _spatial(layer: Layer, response: Response, along: int) -> Shape:
    height, width = layer.patches.kernel
    return _Spatial(layer, Separable(response, (height, width), along))


def _decoupled(layer: Layer, response: Response, most: int) -> Shape:
    return _Decoupled(layer, Decoupled(response, len(layer.patches.taps)), most)


SVD = Form("svd", _pointwise, _low_rank)
"""1x1 and fully connected layers: two of lower rank."""
CHANNEL = Form("channel", _wide_kernel, _low_rank)
"""k x k: fewer filters, and 1x1 behind."""
SPATIAL = (
    Form("spatial, k x 1 first,", _square_kernel, partial(_spatial, along=0)),
    Form("spatial, 1 x k first,", _square_kernel, partial(_spatial, along=1)),
)
"""k x k: k x 1 and 1 x k, in either order."""
TUCKER = Form(
    "tucker", _wide_kernel, lambda layer, response: _Tucker(layer, Tucker(response, len(layer.patches.taps)))
)
"""k x k: 1x1, k x k, 1x1."""
DEPTHWISE = Form("depthwise", _several_channels, partial(_decoupled, most=MANY))
"""k x k: several depthwise kernels per channel, and 1x1 behind."""
SEPARABLE = Form("depthwise", _several_channels, partial(_decoupled, most=1))
"""k x k: one depthwise kernel per channel, and 1x1 behind. Engines are slow at several."""
