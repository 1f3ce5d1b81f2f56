"""Fit a layer together with those in front of it to what is wanted behind the last of them, and keep that only if it helps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgec.passes.refit.layer_fits import LayerFit, Sample
from edgec.passes.solvers.chain import Link, Target, chain_errors, refine
from edgec.passes.solvers.guard import Verdict, judge

Array = np.ndarray[Any, np.dtype[Any]]

ROWS_PER_UNKNOWN = 60
FEWEST_IMAGES = 64
MAP_BYTES = 250e6
"""Maps of one chain that are held in memory."""


@dataclass
class Maps:
    """Whole maps of some images, for the fit and for its judge. A joint fit cannot take single pixels: kernels overlap."""

    share: float
    fit: list[Sample] = field(default_factory=list)
    held: list[Sample] = field(default_factory=list)
    seen: dict[bool, int] = field(default_factory=lambda: {True: 0, False: 0})
    """Images offered so far, by whether they are held out."""

    @staticmethod
    def of(site: LayerFit, images: int) -> Maps:
        """Room for as many of ``images`` as the unknowns call for, and memory allows."""
        layers = [*(inner.layer for inner in site.chain), site.layer]
        pixels = max(site.rows / max(images, 1), 1.0)
        wanted = max(ROWS_PER_UNKNOWN * max(one.patches.unknowns for one in layers) / pixels, FEWEST_IMAGES)
        # Inputs, and every layer's output before and behind its activation, the last twice more: target and residual.
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
            # A slice would keep the whole batch in memory.
            return array[:count].copy()

        kept = Sample(
            x=first(sample.x[:, :0]),
            target=first(sample.target),
            offset=None if sample.offset is None else first(sample.offset),
            held=sample.held,
            images=count,
            start=None if sample.start is None else first(sample.start),
        )
        (self.held if sample.held else self.fit).append(kept)


@dataclass(frozen=True)
class Joint:
    """What a joint fit came to; ``ratio`` of the errors after and before it on the judge's maps, 1 where it was not kept."""

    verdict: Verdict
    ratio: float


def fit_chain(site: LayerFit, maps: Maps, lam: float, iterations: int, threads: int = 1) -> Joint:
    """Refine the chain of ``site`` in place, where that helps on the judge's maps."""
    links = [Link(inner.layer.patches, inner.layer.columns(), inner.clipping) for inner in site.chain]
    links.append(Link(site.layer.patches, site.layer.columns(), site.goal.clipping))
    judged = target_of(maps.held or maps.fit)
    before, energy = chain_errors(links, judged, threads)
    unknowns = sum(link.patches.unknowns for link in links)

    def verdict_of(chain: Sequence[Link], condition: float) -> Verdict:
        after, _ = chain_errors(chain, judged, threads)
        return judge(before, after, energy, unknowns=unknowns, condition=condition)

    # A step that makes the judge's maps worse, above all doubt, is not made good by further ones.
    fitted = refine(
        links,
        target_of(maps.fit),
        lam,
        iterations,
        threads,
        hopeless=lambda chain, condition: verdict_of(chain, condition).worse,
    )
    verdict = verdict_of(fitted.links, fitted.condition)
    if not verdict.kept:
        return Joint(verdict, 1.0)
    for layer, link in zip([*(inner.layer for inner in site.chain), site.layer], fitted.links, strict=True):
        layer.set_columns(link.columns)
    return Joint(verdict, 1.0 - verdict.gain / float(before.sum()))


def target_of(samples: Sequence[Sample]) -> Target:
    """All samples as one problem, channels last."""
    offsets = [last(sample.offset) for sample in samples if sample.offset is not None]
    return Target(
        np.concatenate([last(sample.start) for sample in samples if sample.start is not None]),
        np.concatenate([last(sample.target) for sample in samples]),
        np.concatenate(offsets) if offsets else None,
    )


def last(array: Array) -> Array:
    """Channels from axis 1 to the end, in one piece."""
    return np.ascontiguousarray(np.moveaxis(array, 1, -1), np.float32)
