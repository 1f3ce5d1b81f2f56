"""The latency estimator: milliseconds of a model on a target, with the error of the estimate beside it.

    >>> estimate(cost(model), target("rpi4"), runtime="ai-edge-litert", precision="int8").text

Everything is imported on first use: numpy is not needed to list targets.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgec.targets.estimator.predict import (
        Comparison,
        Estimate,
        LatencyTable,
        estimate,
        has_estimates,
        latency_table,
        typical_table,
    )

__all__ = [
    "Comparison",
    "Estimate",
    "LatencyTable",
    "estimate",
    "has_estimates",
    "latency_table",
    "typical_table",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'edgec.targets.estimator' has no attribute {name!r}")
    return getattr(import_module("edgec.targets.estimator.predict"), name)
