"""Fit latencies to features: positive coefficients, relative errors, and what other devices teach about the ratios.

A data set is one device, engine, version, precision and thread count with the latencies of some networks. Its model is
``ms = sum_k exp(s + b_k + u_k) * x_k``: a scale ``s`` of its own, an offset ``b`` that says how the kinds of cost compare
on related sets, and departures ``u_k ~ N(0, tau_k)``. The data is judged in logarithms, so every network weighs the same
whatever its size, and a coefficient can never be negative. ``b`` and ``tau`` are themselves fitted to all sets of one
engine (an empirical-Bayes hierarchy): a set with five networks borrows what forty sets agree on, and where it has data
of its own it departs from them. int8 sets take the fp32 fit of the same device as their offset.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from scipy.optimize import least_squares

from edgec.targets.estimator.features import FEATURES, Vector
from edgec.targets.estimator.switch import Switch, work_of

# Where nothing is known: costs relative to one multiplication. A memory-bound element costs a few multiplications of
# a vector unit, a node some twenty thousand of them; the spreads are wide enough for data to overrule all of it.
PRIOR = np.log(np.array([1.0, 0.8, 4.0, 6.0, 4.0, 3.0, 8.0, 4.0, 20.0]))
PRIOR_SPREAD = np.array([0.7, 0.4, 0.7, 1.0, 1.0, 0.7, 1.0, 1.0, 1.5])
# int8 against fp32 on one device: no idea which way, but all kinds within a factor of about two of each other.
TRANSFER_SPREAD = np.full(len(FEATURES), 0.8)
# Relative error of one published latency, at least. Sets with enough networks tell their own.
NOISE = 0.03
_ENOUGH = 20
_UNDESCRIBED = (
    0.15  # a set that the model misses by more than this has another cause of latency: it teaches nothing
)
# A step in latency is believed where it explains that much of what a sum of nodes does not.
_EXPLAINED = 0.75
_FACTORS = (1.25, 1.5, 1.75, 2.0, 2.25, 2.5, 2.75, 3.0)
_SIDE = 4  # networks on either side of a step, at least
_ROUNDS = 6
_NARROWEST = 0.15  # of the prior's spread: sets are never forced to agree fully


@dataclass(frozen=True)
class Data:
    """Latencies of one set: ``x`` (networks, features), ``ms`` (networks,), and the offset of its coefficients."""

    x: Vector
    ms: Vector
    offset: Vector = field(default_factory=lambda: np.zeros(len(FEATURES)))


@dataclass(frozen=True)
class Shared:
    """What the sets of one engine have in common: mean and spread of the logarithms of their coefficients."""

    mean: Vector
    spread: Vector


def fit_shared(sets: Sequence[Data], prior: Shared, noise: float = NOISE) -> Shared:
    """Mean and spread over ``sets``, drawn towards ``prior``. Alternates between the sets' fits and their moments."""
    mean, spread = prior.mean.copy(), prior.spread.copy()
    for round_ in range(_ROUNDS):
        shared = Shared(mean, spread)
        if round_:
            sets = [
                data for data in sets if _misfit(data, fit_set(data, shared, noise)) < _UNDESCRIBED
            ] or sets
        fits = np.array([_departures(data, shared, noise)[1] + mean for data in sets])
        weight = len(sets) / spread**2
        updated = (fits.sum(0) / spread**2 + prior.mean / prior.spread**2) / (weight + 1 / prior.spread**2)
        variance = ((fits - updated) ** 2).sum(0) + 2 * (0.3 * prior.spread) ** 2
        spread = np.clip(np.sqrt(variance / (len(sets) + 2)), _NARROWEST * prior.spread, prior.spread)
        mean = updated
    return Shared(mean, spread)


def fit_set(data: Data, shared: Shared, noise: float = NOISE) -> Vector:
    """Coefficients of one set in milliseconds per unit of each feature, given what its relatives share."""
    scale, departures = _departures(data, shared, noise)
    return _coefficients(data, shared, scale, departures)


def find_switch(data: Data, shared: Shared, noise: float = NOISE) -> Switch | None:
    """The step in the latencies of a set that a sum over nodes does not describe, or None where that does."""
    if len(data.ms) < _ENOUGH:
        return None
    plain = _misfit(data, fit_set(data, shared, noise))
    if plain < _UNDESCRIBED:
        return None

    def misfit(switch: Switch) -> float:
        level = without_switch(data, switch)
        return _misfit(level, fit_set(level, shared, noise))

    work = np.sort(work_of(data.x))
    places = [float(p) for p in np.sqrt(work[_SIDE:-_SIDE] * work[_SIDE + 1 : len(work) - _SIDE + 1])]
    first = min(places, key=lambda place: misfit(Switch(place, 2.0)))
    factor = min(_FACTORS, key=lambda factor: misfit(Switch(first, factor)))
    best = min((Switch(place, factor) for place in places if 0.6 < place / first < 1.7), key=misfit)
    return best if misfit(best) < _EXPLAINED * plain else None


def without_switch(data: Data, switch: Switch | None) -> Data:
    """The set as it would be if all its networks were on the fast side."""
    return data if switch is None else replace(data, ms=data.ms / switch.at(data.x))


def _coefficients(data: Data, shared: Shared, scale: float, departures: Vector) -> Vector:
    found: Vector = np.exp(scale + shared.mean + data.offset + departures)
    return found


def _misfit(data: Data, coefficients: Vector) -> float:
    return float(np.sqrt(np.mean((np.log(data.x @ coefficients) - np.log(data.ms)) ** 2)))


def _departures(data: Data, shared: Shared, noise: float) -> tuple[float, Vector]:
    scale, departures = _solve(data, shared, noise)
    if len(data.ms) >= _ENOUGH:
        own = 1.3 * _misfit(data, _coefficients(data, shared, scale, departures))
        if own > noise:
            return _solve(data, shared, own)
    return scale, departures


def _solve(data: Data, shared: Shared, noise: float) -> tuple[float, Vector]:
    size = data.x.shape[1]
    base = shared.mean + data.offset
    log_ms = np.log(data.ms)

    def residuals(p: Vector) -> Vector:
        predicted = data.x @ np.exp(p[0] + base + p[1:])
        return np.concatenate([(np.log(predicted) - log_ms) / noise, p[1:] / shared.spread])

    def jacobian(p: Vector) -> Vector:
        terms = data.x * np.exp(p[0] + base + p[1:])
        rows = terms / terms.sum(1, keepdims=True) / noise
        top = np.hstack([np.full((len(log_ms), 1), 1 / noise), rows])
        return np.vstack([top, np.hstack([np.zeros((size, 1)), np.diag(1 / shared.spread)])])

    start = np.zeros(size + 1)
    start[0] = np.median(log_ms - np.log(data.x @ np.exp(base)))
    found = least_squares(residuals, start, jacobian, method="lm", max_nfev=200).x
    return float(found[0]), found[1:]
