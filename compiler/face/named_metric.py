"""Metrics of plug-ins, by name (entry points `edgec.metrics`, docs/plugins.md)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edgec.graph import plugins
from edgec.graph.plugins import METRICS, Plugin

MetricFunction = Callable[..., Any]


def metric_names() -> tuple[str, ...]:
    """Names of all metrics that plug-ins bring; nothing is imported."""
    return tuple(dict.fromkeys(one.name for one in plugins.plugins(METRICS)))


def find_metric(name: str) -> MetricFunction | None:
    """The function that a plug-in brings under ``name``, None where none does. Raises UsageError for one that cannot be used."""
    brought = plugins.plugin(METRICS, name)
    return None if brought is None else plugin_metric(brought)


def plugin_metric(brought: Plugin) -> MetricFunction:
    """The function that a plug-in brings. Raises UsageError where it is none."""
    found = brought.load()
    if not callable(found) or isinstance(found, type):
        raise brought.unusable(f"{brought.entry.value} is not a function of predict and samples")
    function: MetricFunction = found
    return function
