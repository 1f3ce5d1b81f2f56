"""The fitted coefficients of a target, as stored in ``targets/coefficients/<target>.json`` and in a person's cache.

An :class:`Entry` is one combination of engine, version, precision and threads: coefficients in milliseconds per unit of
each amount (nine for published tables, three dozen for a machine's own measurements), how wrong they were on networks
that they had not seen, and where they come from.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import numpy as np

from edgec.graph.cost import ModelCost, NodeCost
from edgec.graph.errors import DataError
from edgec.graph.files import read_text
from edgec.targets.engines import Precision
from edgec.targets.estimator.features import FEATURES, features, node_features
from edgec.targets.estimator.fine import FINE, fine_features, fine_node
from edgec.targets.estimator.switch import Switch
from edgec.targets.probe import host_fields

# Which engines of the published tables stand for an engine of edgec: the first that a target has entries of.
ENGINES: Mapping[str, tuple[str, ...]] = {
    "onnxruntime": ("onnxruntime",),
    "ai-edge-litert": ("ai-edge-litert", "xnnpack"),
    "tflite-runtime": ("tflite-runtime", "xnnpack"),
    "tflite": ("tflite-ruy", "xnnpack", "ai-edge-litert"),
    "armnn": ("armnn",),
    "ncnn": ("ncnn",),
    "xnnpack": ("xnnpack",),
    "tflite-ruy": ("tflite-ruy",),
}
_MOST_BYTES = 1 << 24
"""Of a coefficient file; one has some 20 kB."""
_SPELLINGS = {
    "litert": "ai-edge-litert",
    "ort": "onnxruntime",
    "onnx runtime": "onnxruntime",
    "tflite (ruy)": "tflite-ruy",
    "tflite (xnnpack)": "xnnpack",
    "tensorflow lite": "tflite",
    "armnn neon": "armnn",
}


def engine_key(name: str) -> str:
    """The key of an engine as a person or a table may spell it: ``TFLite (ruy)`` -> ``tflite-ruy``."""
    word = name.strip().lower()
    return _SPELLINGS.get(word, word)


@dataclass(frozen=True)
class Entry:
    """One combination. ``low`` and ``high`` bound measured/estimated for 80 % of unseen networks.

    ``kind`` is ``fitted`` (latencies of this combination), ``scaled`` (borrowed from another device or engine) or
    ``measured`` (fitted on the machine itself). ``error`` is the mean absolute relative error on families left out; None
    when it could not be checked.
    """

    runtime: str
    version: str
    precision: Precision
    threads: int
    ms: tuple[float, ...]
    low: float
    high: float
    kind: Literal["fitted", "scaled", "measured"]
    basis: str
    error: float | None = None
    networks: int = 0
    counter: Literal["coarse", "fine"] = "coarse"
    switch: Switch | None = None
    """Where the latency of whole networks has a step; nodes are priced as in a large network."""

    def node_ms(self, node: NodeCost) -> float:
        """Milliseconds of one node."""
        if self.counter == "fine":
            return float(fine_node(node, self._item_bytes) @ np.array(self.ms))
        return float(node_features(node) @ np.array(self.ms))

    def model_ms(self, cost: ModelCost | Iterable[NodeCost]) -> float:
        """Milliseconds of a model, or of some nodes together: the sum over the nodes, and for a model the step."""
        if self.counter == "fine":
            return float(fine_features(cost, self._item_bytes) @ np.array(self.ms))
        found = features(cost)
        step = self.switch.at(found) if self.switch is not None and isinstance(cost, ModelCost) else 1.0
        return float(step * (found @ np.array(self.ms)))

    @property
    def _item_bytes(self) -> int:
        return {"fp32": 4, "fp16": 2, "int8": 1}[self.precision]

    def scaled(self, factor: float, spread: float, reason: str) -> Entry:
        """This entry times ``factor``. Its range and ``spread`` (>= 1) are independent errors: their logarithms add squared."""
        return replace(
            self,
            ms=tuple(factor * c for c in self.ms),
            low=math.exp(-math.hypot(math.log(self.low), math.log(spread))),
            high=math.exp(math.hypot(math.log(self.high), math.log(spread))),
            kind="scaled",
            basis=f"{reason}; {self.basis}",
            error=None,
        )

    def to_dict(self) -> dict[str, Any]:
        """A mapping for JSON; :func:`read` is its inverse."""
        values = {k: getattr(self, k) for k in self.__dataclass_fields__ if k not in ("ms", "switch")}
        step = {} if self.switch is None else {"switch": [float(f"{v:.5g}") for v in self.switch]}
        return (
            values
            | step
            | {"ms": {name: float(f"{c:.5g}") for name, c in zip(_names(self.counter), self.ms, strict=True)}}
        )


@dataclass(frozen=True)
class Coefficients:
    """All entries of one target, and how its latency changes with the number of threads.

    ``threads`` maps a precision to the speed-up over one thread at other counts: ``{"fp32": {4: (1.7, 1.5, 2.0)}}`` gives
    the median and the range that 80 % of networks were in.
    """

    target: str
    entries: tuple[Entry, ...]
    threads: Mapping[str, Mapping[int, tuple[float, float, float]]]
    threads_basis: str = ""
    machine: str = ""


def load_coefficients(name: str) -> Coefficients | None:
    """Coefficients of the target ``name``: those that ship with edgec, or those measured on this machine for ``host``.

    None when there are none. Raises DataError for a damaged file among those that ship.
    """
    if name == "host":
        return _own()
    found = resources.files("edgec.targets") / "coefficients" / f"{name}.json"
    return read(found.read_text(encoding="utf-8"), f"{name}.json") if found.is_file() else None


def host_file() -> Path:
    """Where the coefficients of this machine are kept: in the cache folder, they can be measured again."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "edgec" / "latency" / "host.json"


def _own() -> Coefficients | None:
    path = host_file()
    try:
        found = read(read_text(path, _MOST_BYTES, "a coefficient file"), str(path))
    except DataError:
        return None  # absent, or of another version of edgec: a cache is measured again, not repaired
    return found if found.machine == this_machine() else None  # a home folder may be shared by machines


def this_machine() -> str:
    """The processor that coefficients of ``host`` belong to."""
    return str(host_fields()["soc"])


def read(text: str, where: str) -> Coefficients:
    """Parse a coefficient file."""
    try:
        values = json.loads(text)
        entries = tuple(
            Entry(
                **(
                    e
                    | {"ms": tuple(float(e["ms"][n]) for n in _names(e.get("counter", "coarse")))}
                    | _step(e)
                )
            )
            for e in values["entries"]
        )
        threads = {
            precision: {int(n): (float(m), float(low), float(high)) for n, (m, low, high) in table.items()}
            for precision, table in values["threads"].items()
        }
        return Coefficients(
            values["target"], entries, threads, values.get("threads_basis", ""), values.get("machine", "")
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(
            "damaged coefficient file", where=where, why=repr(error), hint="Delete it, and calibrate again."
        ) from error


def _step(entry: Mapping[str, Any]) -> dict[str, Switch]:
    return {"switch": Switch(*map(float, entry["switch"]))} if "switch" in entry else {}


def write(coefficients: Coefficients) -> str:
    """The text of a coefficient file; the same coefficients give the same bytes."""
    values = {
        "target": coefficients.target,
        "threads": {p: {str(n): list(v) for n, v in t.items()} for p, t in coefficients.threads.items()},
        "threads_basis": coefficients.threads_basis,
        "machine": coefficients.machine,
        "entries": [entry.to_dict() for entry in coefficients.entries],
    }
    return json.dumps(values, indent=1) + "\n"


def _names(counter: str) -> tuple[str, ...]:
    return FINE if counter == "fine" else FEATURES
