"""Fit a layer together with those in front of it to what is wanted behind the last of them, and keep that only if it helps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgec.graph.memory import give_back
from edgec.passes.refit.layer_fits import LayerFit, Sample
from edgec.passes.refit.layers import Layer
from edgec.passes.solvers.chain import Link, Target, chain_errors, refine
from edgec.passes.solvers.guard import CLEAR, Verdict, judge

Array = np.ndarray[Any, np.dtype[Any]]

ROWS_PER_UNKNOWN = 60
FEWEST_IMAGES = 64
MAP_BYTES = 250e6
"""Maps of one chain that are held in memory."""


@dataclass
class Maps:
    """Whole maps of some images, for the fit and for its judge. A joint fit cannot take single pixels: kernels overlap."""

    share: float
    fit: list[Target] = field(default_factory=list)
    held: list[Target] = field(default_factory=list)
    seen: dict[bool, int] = field(default_factory=lambda: {True: 0, False: 0})
    """Images offered so far, by whether they are held out."""

    @staticmethod
    def of(site: LayerFit, images: int) -> Maps:
        """Room for as many of ``images`` as the unknowns call for, and memory allows."""
        layers = [*(inner.layer for inner in site.chain), site.layer]
        pixels = max(site.rows / max(images, 1), 1.0)
        wanted = maps_wanted(layers)
        # A generous count of inputs, outputs, target and its bounds; which images take part depends on it.
        channels = (
            layers[0].patches.channels
            + 2 * sum(one.view.out_channels for one in layers)
            + layers[-1].view.out_channels
        )
        return Maps(min(1.0, wanted / max(images, 1), MAP_BYTES / (4 * pixels * channels * max(images, 1))))

    def add(self, sample: Sample) -> None:
        """Keep the first of a batch, such that ``share`` of all images are kept; the very first always."""
        before, after = self.seen[sample.held], self.seen[sample.held] + len(sample.x)
        self.seen[sample.held] = after
        count = math.ceil(self.share * after) - math.ceil(self.share * before)
        if not count:
            return

        def first(array: Array) -> Array:
            # Always a copy: a slice would keep the whole batch in memory.
            return np.array(np.moveaxis(array[:count], 1, -1), np.float32, order="C")

        assert sample.start is not None  # maps are gathered for chains
        offset = None if sample.offset is None else first(sample.offset)
        kept = Target(first(sample.start), first(sample.target), offset)
        (self.held if sample.held else self.fit).append(kept)


def maps_wanted(layers: Sequence[Layer]) -> float:
    """Images whose whole maps a joint fit of ``layers`` calls for."""
    unknowns = max(one.patches.unknowns for one in layers)
    return max(ROWS_PER_UNKNOWN * unknowns / max(layers[-1].rows, 1), FEWEST_IMAGES)


@dataclass(frozen=True)
class Joint:
    """What a joint fit came to; ``ratio`` of the errors after and before it on the judge's maps, 1 where it was not kept."""

    verdict: Verdict
    ratio: float


def fit_chain(site: LayerFit, maps: Maps, lam: float, iterations: int, threads: int = 1) -> Joint:
    """Refine the chain of ``site`` in place, where that helps on the judge's maps. ``maps`` are used up."""
    links = [Link(inner.layer.patches, inner.layer.columns(), inner.clipping) for inner in site.chain]
    links.append(Link(site.layer.patches, site.layer.columns(), site.goal.clipping))
    wanted = joined(maps.fit)
    judged = joined(maps.held) if maps.held else wanted
    give_back(wanted.x.nbytes + wanted.value.nbytes)  # the pieces of which they were made
    before, energy = chain_errors(links, judged, threads)
    unknowns = sum(link.patches.unknowns for link in links)

    def verdict_of(chain: Sequence[Link], condition: float) -> Verdict:
        after, _ = chain_errors(chain, judged, threads)
        return judge(before, after, energy, unknowns=unknowns, condition=condition)

    def perfect(condition: float) -> bool:
        best = judge(before, np.zeros_like(before), energy, unknowns=unknowns, condition=condition)
        return best.gain <= best.noise

    def hopeless(chain: Sequence[Link], condition: float, steps: int) -> bool:
        found = verdict_of(chain, condition)
        return found.margin < (-CLEAR if steps == 1 else 0.0) or CLEAR * abs(found.gain) < found.noise

    # Margins moved by up to 2 from the first step to the last: what is worse by more than `CLEAR` is not made good; nor is what
    # is worse at all after two steps, for each gains about half as much as the one before it. So all of them gain less than
    # `CLEAR` times the first, and what that leaves within the noise of the arithmetic stays there.
    fitted = refine(
        links,
        wanted,
        lam,
        iterations,
        threads,
        hopeless=hopeless,
        perfect=perfect,
    )
    verdict = verdict_of(fitted.links, fitted.condition)
    if not verdict.kept:
        return Joint(verdict, 1.0)
    for layer, link in zip([*(inner.layer for inner in site.chain), site.layer], fitted.links, strict=True):
        layer.set_columns(link.columns)
    return Joint(verdict, 1.0 - verdict.gain / float(before.sum()))


def joined(pieces: list[Target]) -> Target:
    """All of them as one problem. ``pieces`` is empty then: each goes as soon as it is copied."""
    rooms = [
        None if one is None else np.empty((sum(len(piece.x) for piece in pieces), *one.shape[1:]), np.float32)
        for one in (pieces[0].x, pieces[0].value, pieces[0].offset)
    ]
    start = 0
    while pieces:
        piece = pieces.pop(0)
        for room, one in zip(rooms, (piece.x, piece.value, piece.offset), strict=True):
            if room is not None and one is not None:
                room[start : start + len(one)] = one
        start += len(piece.x)
    x, value, offset = rooms
    assert x is not None
    assert value is not None
    return Target(x, value, offset)
