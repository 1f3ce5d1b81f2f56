"""Metrics of plug-ins, by name (entry points `edgec.metrics`, docs/plugins.md).

A metric is ``func(predict, samples) -> float | dict | (float, per sample)``; higher is better unless
``func.lower_is_better``. This module only finds it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edgec.graph import plugins
from edgec.graph.errors import UsageError
from edgec.graph.plugins import METRICS, Plugin

Metric = Callable[..., Any]


def metric_names() -> tuple[str, ...]:
    """Names of all metrics that plug-ins bring; nothing is imported."""
    return tuple(dict.fromkeys(one.name for one in plugins.plugins(METRICS)))


def find_metric(name: str) -> Metric:
    """The function behind a name. Raises UsageError for an unknown name, and for a plug-in that cannot be used."""
    brought = plugins.plugin(METRICS, name)
    if brought is None:
        known = ", ".join(metric_names()) or "no plug-in brings one"
        raise UsageError(f"unknown metric {name!r}", why=f"known: {known}", hint="See docs/plugins.md.")
    return plugin_metric(brought)


def plugin_metric(brought: Plugin) -> Metric:
    """The function that a plug-in brings. Raises UsageError where it is none."""
    found = brought.load()
    if not callable(found) or isinstance(found, type):
        raise brought.unusable(f"{brought.entry.value} is not a function of predict and samples")
    metric: Metric = found
    return metric
