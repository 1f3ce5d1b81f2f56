"""The published latencies as data sets, one per device, engine, version, precision and thread count, and their fits."""

from __future__ import annotations

import csv
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import latency_models
import numpy as np

from edgec.graph.cost import ModelCost, cost
from edgec.targets.estimator.features import FEATURES, Vector, features
from edgec.targets.estimator.fit import (
    PRIOR,
    PRIOR_SPREAD,
    TRANSFER_SPREAD,
    Data,
    Shared,
    find_switch,
    fit_set,
    fit_shared,
    without_switch,
)
from edgec.targets.estimator.switch import Switch

SHARED = Path(os.environ.get("EDGEC_SHARED", Path(__file__).resolve().parents[2] / "shared"))
# Engines whose kernels are of one make share what they know of the ratios between kinds of cost.
ENGINES = {
    "TFLite (ruy)": "tflite-ruy",
    "TFLite (XNNPACK)": "xnnpack",
    "XNNPACK": "xnnpack",
    "TFLite+XNNPACK": "xnnpack",
    "ExecuTorch XNNPACK": "xnnpack",
    "ArmNN Neon": "armnn",
    "ncnn": "ncnn",
    "ONNX Runtime": "onnxruntime",
}
_LEAST = 4  # networks: fewer are used for checks only


class Key(NamedTuple):
    """What identifies a set."""

    device: str
    engine: str
    version: str
    precision: str
    threads: str


@dataclass(frozen=True)
class Published:
    """All sets, with the cost of every network in them."""

    ms: Mapping[Key, Mapping[str, float]]
    costs: Mapping[str, ModelCost]
    x: Mapping[str, Vector]
    soc: Mapping[Key, str]

    def fitted_keys(self) -> list[Key]:
        """Sets that are large enough to be fitted."""
        return sorted(k for k, rows in self.ms.items() if len(rows) >= _LEAST)


def published(path: Path | None = None) -> Published:
    """Read the table. Several rows of one network in a set (fan on and off, two builds) count as their median."""
    rows: dict[Key, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    soc: dict[Key, str] = {}
    with (path or SHARED / "data/latency/device_latency.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if (
                row["runtime"] not in ENGINES
                or not latency_models.known(row["model"])
                or row["threads"] == "gpu"
            ):
                continue
            if "armv7" in row["soc"] and row["device"] == "Raspberry Pi 4B":
                continue  # the arm64 build of the same table is the one that edgec deploys
            key = Key(
                row["device"],
                ENGINES[row["runtime"]],
                row["runtime_version"],
                row["precision"],
                row["threads"],
            )
            rows[key][row["model"]].append(float(row["latency_ms"]))
            soc[key] = row["soc"]
    ms = {key: {m: float(np.median(v)) for m, v in models.items()} for key, models in rows.items()}
    costs = {m: cost(latency_models.build(m)) for m in sorted({m for models in ms.values() for m in models})}
    return Published(ms, costs, {m: features(c) for m, c in costs.items()}, soc)


class Fit(NamedTuple):
    """Coefficients of a set, and the step in its latencies where it has one."""

    coefficients: Vector
    switch: Switch | None

    def ms(self, x: Vector) -> float:
        """The estimate for a network with these features."""
        return float((1.0 if self.switch is None else self.switch.at(x)) * (x @ self.coefficients))


def fit(data: Data, common: Shared) -> Fit:
    """One set, given what its relatives share."""
    switch = find_switch(data, common)
    return Fit(fit_set(without_switch(data, switch), common), switch)


def parent(key: Key, keys: Iterable[Key]) -> Key | None:
    """The float set of the same device, engine, version and threads, that an int8 set departs from."""
    for precision in ("fp32", "fp16"):
        found = key._replace(precision=precision)
        if found in keys:
            return found
    return None


def fit_all(data: Published, without: str | None = None) -> dict[Key, Fit]:
    """Fits of every set, from all networks but those of the family ``without``."""
    sets = {key: _data(data, key, without) for key in data.fitted_keys()}
    present = {key: d for key, d in sets.items() if d is not None}
    fits: dict[Key, Fit] = {}
    prior = Shared(PRIOR, PRIOR_SPREAD)
    shared: dict[str, Shared] = {}
    for engine in ("tflite-ruy", "xnnpack", "armnn", "ncnn"):
        start = Shared(shared["tflite-ruy"].mean, PRIOR_SPREAD) if engine == "xnnpack" else prior
        for precision in ("fp32", "fp16"):
            floats = [k for k in present if k.engine == engine and k.precision == precision]
            if not floats:
                continue
            common = fit_shared([present[k] for k in floats], start)
            shared.setdefault(engine, common)
            fits |= {k: fit(present[k], common) for k in floats}
            small = [k for k in present if k.engine == engine and k.precision == "int8" and parent(k, floats)]
            departures = {k: _from(present[k], fits[parent(k, floats) or k].coefficients) for k in small}
            if departures:
                none = Shared(np.zeros(len(FEATURES)), TRANSFER_SPREAD)
                moved = fit_shared(list(departures.values()), none)
                fits |= {k: fit(d, moved) for k, d in departures.items()}
    return fits


def held_out(data: Published) -> dict[Key, dict[str, float]]:
    """Estimated over measured latency of every network, by fits that saw nothing of its family on any device."""
    ratios: dict[Key, dict[str, float]] = defaultdict(dict)
    for family in sorted({latency_models.family(m) for m in data.costs}):
        for key, found in fit_all(data, without=family).items():
            for model, ms in data.ms[key].items():
                if latency_models.family(model) == family:
                    ratios[key][model] = found.ms(data.x[model]) / ms
    return dict(ratios)


def _data(data: Published, key: Key, without: str | None) -> Data | None:
    models = [m for m in data.ms[key] if latency_models.family(m) != without]
    if len(models) < 2:
        return None
    return Data(np.array([data.x[m] for m in models]), np.array([data.ms[key][m] for m in models]))


def _from(data: Data, coefficients: Vector) -> Data:
    return Data(data.x, data.ms, np.log(coefficients))
