"""What scores lack on the whole: one number to add to their logits, and what each sample says of it.

For scores s = sigmoid(z) whose logits lack e, adding d takes ``w (2 d e - d^2)`` off the squared error, with w = (s (1 - s))^2
(a Gauss-Newton step): the best d is the mean of e weighted by w. It is shrunk by n / (n + `SHRINK`) for n = (sum w)^2 / sum w^2
values that have a say.
"""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

SHRINK = 20.0
"""Values whose say is as much as the belief that nothing is lacking."""
_TINY = 1e-300


def score_sums(wanted: Array, made: Array) -> Array:
    """(samples, 3): sums of the weights, of their squares, and of the weighted errors, from logits (samples, values)."""
    wanted = wanted.astype(np.float64)
    score = 1 / (1 + np.exp(-np.clip(wanted, -500, 500)))
    weight = np.square(score * (1 - score))
    return np.stack(
        [one.sum(axis=1) for one in (weight, np.square(weight), weight * (wanted - made))], axis=1
    )


def level(sums: Array) -> tuple[float, Array]:
    """(what all samples lack, what each gains by what the others lack), from `score_sums` (samples, 3)."""
    whole = sums.sum(axis=0)
    others = _shift(whole - sums)
    weight, _, error = sums.T
    return float(_shift(whole)), others * (2 * error - others * weight)


def _shift(sums: Array) -> Array:
    weight, square, error = np.moveaxis(sums, -1, 0)
    say = weight**2 / np.maximum(square, _TINY)
    found: Array = error / np.maximum(weight, _TINY) * say / (say + SHRINK)
    return found
