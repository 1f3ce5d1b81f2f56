"""How far class probabilities are from others, whatever the scale of the logits."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgec.graph.compare import by_sample

Array = np.ndarray[Any, np.dtype[Any]]
TINY = 1e-12
TEMPERATURES = np.geomspace(0.25, 4.0, 65)


def calibrated_divergence(reference: Array, value: Array) -> Array:
    """(samples,) of logits or probabilities (samples, classes), in nats; the temperature is one for all samples."""
    p = np.exp(_log_probabilities(reference))
    logs = _log_probabilities(value)
    entropy = (p * np.log(p + TINY)).sum(axis=1)

    def at(temperature: float) -> Array:
        scaled = logs / temperature
        shifted = scaled - scaled.max(axis=1, keepdims=True)
        normal = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        return np.asarray(entropy - (p * normal).sum(axis=1))

    tried: list[Array] = [at(float(one)) for one in TEMPERATURES]
    return min(tried, key=lambda one: float(one.mean()))


def probabilities(scores: Array) -> Array:
    """(samples, classes) of logits or probabilities; one column is that of a yes."""
    return np.asarray(np.exp(_log_probabilities(by_sample(scores))))


def _log_probabilities(scores: Array) -> Array:
    wide = scores.astype(np.float64)
    if (wide >= 0).all() and np.allclose(wide.sum(axis=1), 1.0, atol=1e-3):
        return np.asarray(np.log(wide + TINY))
    shifted = wide - wide.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))
