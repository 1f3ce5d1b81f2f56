"""The ways to cut one layer: every form at a ladder of ranks, with what it costs and loses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from edgec.passes.decomposition.pieces import Piece
from edgec.passes.recovery.layers import Layer
from edgec.passes.solvers.allocate import allowed_widths
from edgec.passes.solvers.factorise import LowRank, Response
from edgec.passes.solvers.kernel_factors import Decoupled, Separable, Tucker

Array = np.ndarray[Any, np.dtype[Any]]
Factors = tuple[tuple[Array, ...], Array]
"""One array (taps, inputs, outputs) per piece, and the body (n, out) that they make together."""

LADDER = 64
"""Ranks of one form that are looked at, where each costs nothing."""
SHORT_LADDER = 16
"""Where each is a least-squares fit."""
SHORTEST_LADDER = 5
"""Per side, where two ranks are chosen."""


@dataclass(frozen=True)
class Cut:
    """One layer as ``pieces``. ``error``: mean squared error per row, summed over outputs. ``make`` computes the factors."""

    form: str
    rank: tuple[int, ...]
    pieces: tuple[Piece, ...]
    error: float
    make: Callable[[], Factors]


Pays = Callable[[tuple[Piece, ...]], bool]


@dataclass(frozen=True)
class Form:
    """``why_not`` tells why a layer cannot take this form, or None. ``cuts`` takes (layer, response, multiple of ranks, whether
    pieces pay) and gives the cuts that do."""

    why_not: Callable[[Layer], str | None]
    cuts: Callable[[Layer, Response, int, Pays], Iterator[Cut]]


def _svd(layer: Layer, response: Response, multiple: int, pays: Pays) -> Iterator[Cut]:
    """1x1 and fully connected layers: two of lower rank."""
    return _low_rank("svd", layer, response, multiple, pays)


def _channel(layer: Layer, response: Response, multiple: int, pays: Pays) -> Iterator[Cut]:
    """k x k: fewer filters, and 1x1 behind."""
    return _low_rank("channel", layer, response, multiple, pays)


def _spatial(layer: Layer, response: Response, multiple: int, pays: Pays) -> Iterator[Cut]:
    """k x k: k x 1 and 1 x k, in both orders."""
    kernel = layer.patches.kernel
    channels, outputs = layer.patches.channels, len(response.bias)
    for along in (0, 1):
        form = Separable(response, (kernel[0], kernel[1]), along)

        def pieces(rank: int, along: int = along) -> tuple[Piece, ...]:
            return Piece((along,), channels, rank), Piece((1 - along,), rank, outputs)

        for rank in _ladder(form.full, multiple, SHORT_LADDER, lambda rank: pays(pieces(rank))):
            _, body = form.at(rank)
            yield Cut("spatial", (rank,), pieces(rank), response.error(body), partial(form.at, rank))


def _tucker(layer: Layer, response: Response, multiple: int, pays: Pays) -> Iterator[Cut]:
    """k x k: 1x1, k x k, 1x1."""
    taps, axes = len(layer.patches.taps), _axes(layer)
    form, outputs = Tucker(response, taps), len(response.bias)

    def pieces(inner: int, outer: int) -> tuple[Piece, ...]:
        return Piece((), form.channels, inner), Piece(axes, inner, outer), Piece((), outer, outputs)

    for inner in _ladder(form.channels - 1, multiple, SHORTEST_LADDER, lambda rank: pays(pieces(rank, 1))):
        behind = form.inner(inner)
        cheap = partial(_second_pays, pays, pieces, inner)
        for outer in _ladder(min(behind.full, outputs - 1), multiple, SHORTEST_LADDER, cheap):
            _, body = behind.at(outer)
            yield Cut(
                "tucker",
                (inner, outer),
                pieces(inner, outer),
                response.error(body),
                partial(behind.at, outer),
            )


def _depthwise(layer: Layer, response: Response, multiple: int, pays: Pays) -> Iterator[Cut]:
    """k x k: several depthwise kernels per channel, and 1x1 behind."""
    taps, axes = len(layer.patches.taps), _axes(layer)
    channels, outputs = layer.patches.channels, len(response.bias)
    form = Decoupled(response, taps)
    for pairs in range(1, form.full + 1):
        pieces = (Piece(axes, channels, channels * pairs, channels), Piece((), channels * pairs, outputs))
        if not pays(pieces):
            return
        _, body = form.at(pairs)
        yield Cut("depthwise", (pairs,), pieces, response.error(body), partial(form.at, pairs))


def _low_rank(name: str, layer: Layer, response: Response, multiple: int, pays: Pays) -> Iterator[Cut]:
    form = LowRank(response, len(layer.patches.taps))

    def pieces(rank: int) -> tuple[Piece, ...]:
        return Piece(_axes(layer), layer.patches.channels, rank), Piece((), rank, len(response.bias))

    for rank in _ladder(form.full - 1, multiple, LADDER, lambda rank: pays(pieces(rank))):
        yield Cut(name, (rank,), pieces(rank), float(form.errors[rank]), partial(form.at, rank))


def _second_pays(pays: Pays, pieces: Callable[[int, int], tuple[Piece, ...]], inner: int, outer: int) -> bool:
    return pays(pieces(inner, outer))


def _axes(layer: Layer) -> tuple[int, ...]:
    return tuple(range(len(layer.patches.kernel)))


def _ladder(full: int, multiple: int, steps: int, pays: Callable[[int], bool]) -> list[int]:
    """At most ``steps`` ranks of 1 ... full that are multiples and pay; costs rise with the rank."""
    ranks = [rank for rank in allowed_widths(full, multiple) if pays(rank)] if full > 0 else []
    if len(ranks) <= steps:
        return ranks
    return [ranks[round(i)] for i in np.linspace(0, len(ranks) - 1, steps)]


def _wide_kernel(layer: Layer) -> str | None:
    return "its kernel is 1x1: see decompose-svd" if len(layer.patches.taps) == 1 else None


def _square_kernel(layer: Layer) -> str | None:
    kernel = layer.patches.kernel
    if len(kernel) == 2 and min(kernel) < 2:
        return _wide_kernel(layer) or "its kernel has one axis already"
    return None if len(kernel) == 2 else "its kernel has no two axes"


def _several_channels(layer: Layer) -> str | None:
    return _wide_kernel(layer) or ("it reads one channel" if layer.patches.channels == 1 else None)


def _pointwise(layer: Layer) -> str | None:
    return "its kernel is not 1x1: see decompose-channel" if len(layer.patches.taps) > 1 else None


SVD = Form(_pointwise, _svd)
CHANNEL = Form(_wide_kernel, _channel)
SPATIAL = Form(_square_kernel, _spatial)
TUCKER = Form(_wide_kernel, _tucker)
DEPTHWISE = Form(_several_channels, _depthwise)
