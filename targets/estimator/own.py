"""Coefficients of the machine at hand, from its own measurements of the probe networks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.optimize import nnls

from edgec.graph.cost import ModelCost
from edgec.graph.disk import disk_errors, write_whole
from edgec.targets.engines import Precision
from edgec.targets.estimator.coefficients import (
    Coefficients,
    Entry,
    host_file,
    load_coefficients,
    this_machine,
    write,
)
from edgec.targets.estimator.features import Vector
from edgec.targets.estimator.fine import fine_features

_FOLDS = 8
_RIDGE = 1e-3  # of the mean squared relative contribution: decides between amounts that always come together
_OUTLIER = 0.05  # relative errors above this weigh as their absolute value, not as their square
_ROUNDS = 10


def fit_own(
    costs: Sequence[ModelCost],
    ms: Sequence[float],
    runtime: str,
    version: str,
    precision: Precision,
    machine: str,
    threads: int = 1,
) -> Entry:
    """One entry: non-negative least squares on relative errors, robust, judged by eight-fold cross-validation.

    ``costs`` and ``ms`` are of the same networks, in the same order; at least 40 of them.
    """
    x = np.array([fine_features(cost, {"fp32": 4, "fp16": 2, "int8": 1}[precision]) for cost in costs])
    y = np.asarray(ms, dtype=np.float64)
    held_out = np.empty(len(y))
    order = np.random.default_rng(0).permutation(len(y))
    for fold in range(_FOLDS):
        test = order[fold::_FOLDS]
        train = np.setdiff1d(order, test)
        held_out[test] = x[test] @ non_negative(x[train], y[train])
    ratio = y / held_out
    return Entry(
        runtime=runtime,
        version=version,
        precision=precision,
        threads=threads,
        ms=tuple(float(c) for c in non_negative(x, y)),
        low=float(min(0.95, np.quantile(ratio, 0.1))),
        high=float(max(1.05, np.quantile(ratio, 0.9))),
        kind="measured",
        error=float(np.mean(np.abs(1 / ratio - 1))),
        networks=len(y),
        basis=f"measured on {len(y)} probe networks, {runtime} {version}, {threads} thread, {machine}",
        counter="fine",
    )


def non_negative(x: Vector, ms: Vector) -> Vector:
    """Coefficients >= 0 that minimise relative errors; large errors count linearly (iteratively reweighted)."""
    relative = x / ms[:, None]
    scale = np.sqrt((relative**2).mean(0)) + 1e-12
    weight = np.ones(len(ms))
    ridge = np.sqrt(_RIDGE * len(ms)) * np.eye(x.shape[1])
    found = np.zeros(x.shape[1])
    for _ in range(_ROUNDS):
        rows = np.vstack([relative * weight[:, None] / scale, ridge])
        solution, _ = nnls(rows, np.concatenate([weight, np.zeros(x.shape[1])]))
        found = solution / scale
        weight = 1 / np.sqrt(np.maximum(np.abs(relative @ found - 1), _OUTLIER))
        weight /= weight.mean()
    return found


def save_host(entries: Sequence[Entry]) -> Coefficients:
    """Put ``entries`` into this machine's file, in place of those of the same engine, precision and threads."""
    known = load_coefficients("host")
    new = {(e.runtime, e.precision, e.threads) for e in entries}
    kept = [e for e in (known.entries if known else ()) if (e.runtime, e.precision, e.threads) not in new]
    found = Coefficients("host", (*kept, *entries), {}, machine=this_machine())
    path = host_file()
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, write(found))
    return found
