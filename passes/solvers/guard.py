"""Whether one set of weights is really better than another: the one guard behind every fit that is kept or taken back.

Errors are sums of squared residuals, prediction minus target, image by image, of images that the fit did not see. (The expanded
quadratic ``W'HW - 2 W'S + T'T`` of `gram.Gram` loses all its digits where the error is small.) A fit is kept only where what it
gains exceeds two things:

1. **The noise of the arithmetic.** A prediction is a sum of ``n`` products of float32 numbers. Rounding errors of unit
   ``u = 2^-24`` add up like a random walk (Higham and Mary, "A new approach to probabilistic rounding error analysis", SIAM J.
   Sci. Comput. 41, 2019): about ``u sqrt(n)`` of the prediction. A solution of normal equations made of float32 numbers errs by
   more: perturbed by ``u |H|`` it loses at most ``u^2 cond(H)`` of the target's energy. Together both move a
   residual by a share ``a = u sqrt(n + cond)`` of the target, so a sum of squares ``e`` by no more than ``2 a sqrt(e E) + a^2 E``
   (Cauchy and Schwarz), E being the energy of the target. Differences below that depend on the order in which a machine adds.
   Where values are rounded to codes on the way, what moves them by ``a`` turns that share of the codes over (`amplitude`).
2. **The standard error** of the sum of paired differences. Rows of one image are alike, so an image is one observation:
   ``sqrt(n) s`` for n images whose differences have the standard deviation s. One image has none, and says nothing about others:
   then the gain has to be `CLEAR` times the error that is left.

The gain over the larger of the two is the ``margin``: above 1 is kept. It tells how near a decision was, so that runs on two
machines can be compared.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

UNIT = 2.0**-24
"""Rounding unit of float32."""
FEWEST_HELD = 8
"""Images that judge, at least, where that leaves three times as many to fit on: with half as many, squeeze-excite networks pruned
with 32 images recovered 0.3 dB on average instead of 0.7, since most true gains were within the standard error."""
CLEAR = 3.0
"""What a single image must show: a gain of so many times what is left, as if that were the standard error, and three of them."""
STEP = 2.0**-8
"""Of a code, relative to its range."""
TIE = 2.0**-20
"""Modelled errors that come from float32 numbers are equal within this share: order decides, not the last digits."""
MOST = 1e6
"""Margins are cut off here."""


@dataclass(frozen=True)
class Verdict:
    """``gain``, ``noise`` and ``standard_error`` in units of the squared error; ``images`` that judged.

    ``drawn``: the codes were rounded one after the other, each with the errors of those before it, each layer to what the
    quantised ones before it give. One code that the last digits turn over moves all that follow by far more than last digits
    do, and they are drawn anew; so is a range that a search over a histogram chose. Another draw is like another set of images:
    it moves the gain by about the standard error.
    """

    gain: float
    noise: float
    standard_error: float
    images: int
    drawn: bool = False

    @property
    def threshold(self) -> float:
        return max(self.noise, self.standard_error)

    @property
    def kept(self) -> bool:
        """The candidate is better than what there was, above all doubt that is known of.

        Where one image alone decides, gain and standard error are the same number but for its last digits: no evidence.
        """
        return self.gain > (1 + TIE) * self.threshold

    @property
    def worse(self) -> bool:
        """The candidate is worse than what there was, above the same doubt."""
        return -self.gain > (1 + TIE) * self.threshold

    @property
    def doubt(self) -> str:
        """For a person: why a gain was not believed; empty where it was, or where there was none."""
        if self.kept or self.gain <= 0:
            return ""
        if self.noise >= self.standard_error:
            return ", no more than rounding may do"
        return f", no more than chance may do on {self.images} samples"

    @property
    def margin(self) -> float:
        """The gain in units of the threshold, within +-`MOST`."""
        if self.gain == 0:
            return 0.0
        ratio = self.gain / self.threshold if self.threshold > 0 else math.copysign(MOST, self.gain)
        return float(np.clip(ratio, -MOST, MOST))

    @property
    def floor(self) -> float:
        """The noise of the arithmetic in units of the threshold. Only where the margin is within this of 1 (or of -1) may another
        order of additions decide otherwise."""
        noise = self.threshold if self.drawn else self.noise
        return noise / self.threshold if self.threshold > 0 else 0.0


def judge(
    before: Array,
    after: Array,
    energy: float,
    *,
    unknowns: float = 1.0,
    condition: float = 1.0,
    codes: bool = False,
) -> Verdict:
    """Compare two sums of squared residuals per image, both (images,), of a target with ``energy`` over all of them.

    ``unknowns`` is how many products make one prediction, ``condition`` belongs to the normal equations that were solved (1:
    none were), ``codes`` says that 8-bit codes are on the way. Errors that are no numbers are never better than others.
    """
    before, after = np.asarray(before, np.float64), np.asarray(after, np.float64)
    images = len(before)
    if not images:
        return Verdict(0.0, 0.0, 0.0, 0)
    if not (np.isfinite(before).all() and np.isfinite(after).all()):
        finite = np.isfinite(before).all()
        return Verdict(-math.inf if finite else 0.0, 0.0, 0.0, images)
    noise = noise_floor(float(before.sum()), energy, amplitude(unknowns, condition, codes=codes))
    return weigh(before - after, noise, alone=CLEAR * float(after.sum()), drawn=codes)


def weigh(gains: Array, noise: float, *, alone: float, drawn: bool = False) -> Verdict:
    """The verdict on paired gains, one per image; ``alone`` is the standard error of a single one."""
    images = len(gains)
    spread = alone if images == 1 else math.sqrt(images) * float(gains.std(ddof=1)) if images else 0.0
    return Verdict(float(gains.sum()), noise, spread, images, drawn)


def amplitude(unknowns: float, condition: float = 1.0, *, codes: bool = False) -> float:
    """Share of the target by which rounding moves a prediction of ``unknowns`` products, fitted at ``condition``.

    Behind ``codes`` of 8 bits more: a share ``a`` of a step flips as many of them to the next one, which moves the prediction as
    noise of ``sqrt(a)`` steps, each `STEP` of the range.
    """
    share = UNIT * math.sqrt(unknowns + condition)
    return math.sqrt(share * STEP) if codes else share


def noise_floor(error: float, energy: float, share: float) -> float:
    """By how much a squared ``error`` moves where its residuals move by ``share`` of a target with ``energy``."""
    return 2 * share * math.sqrt(max(error, 0.0) * energy) + share**2 * energy


def first_least(values: Array, absolute: float = 0.0) -> int:
    """The number of the least value, of the first where several are as small within `TIE` of it, or within ``absolute``."""
    least = float(np.min(values))
    return int(np.flatnonzero(values <= least + TIE * abs(least) + absolute)[0])


def choose(
    first: Array,
    others: Sequence[Array],
    energy: float,
    *,
    unknowns: float,
    conditions: Sequence[float],
    codes: bool = False,
) -> tuple[int, tuple[Verdict, ...]]:
    """The best of several, the simplest first: 0 for ``first``, else 1 + the number of one of ``others``.

    One after the other takes the place of the best so far only where `judge` keeps it, so that ties go to the earlier. The
    verdicts belong to ``others``, each against what was the best then.
    """
    best, standing, verdicts = 0, first, []
    for number, errors in enumerate(others):
        condition = conditions[number]
        verdict = judge(standing, errors, energy, unknowns=unknowns, condition=condition, codes=codes)
        verdicts.append(verdict)
        if verdict.kept:
            best, standing = number + 1, errors
    return best, tuple(verdicts)


def held_count(images: int, share: float) -> int:
    """How many of ``images`` judge instead of fitting: ``share`` of them, `FEWEST_HELD` where a quarter is as many, at least 1.

    0 where there are not two, or nothing is to be held out.
    """
    if share <= 0 or images < 2:
        return 0
    return min(max(round(share * images), min(FEWEST_HELD, images // 4), 1), images - 1)


def per_image(residual: Array, images: Array, count: int) -> Array:
    """Sums of squares by image: residual (group, rows, out), the image of every row; (count,) float64."""
    rows = np.square(residual, dtype=np.float64).sum(axis=(0, 2))
    return np.bincount(images, weights=rows, minlength=count)
