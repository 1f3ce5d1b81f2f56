"""Metrics by name: edgec's own, ``file.py:function``, and those of plug-ins (entry points `edgec.metrics`, docs/plugins.md)."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from edgec.compiler.read.fields import is_code
from edgec.compiler.tasks.names import METRIC_NAMES
from edgec.graph import plugins
from edgec.graph.plugins import METRICS, Plugin
from edgec.graph.user_code import in_words, user_function

MetricFunction = Callable[..., Any]


def metric_names() -> tuple[str, ...]:
    """Names of all metrics that plug-ins bring; nothing is imported."""
    return tuple(dict.fromkeys(one.name for one in plugins.plugins(METRICS)))


def resolved(metric: str | MetricFunction | None) -> str | MetricFunction | None:
    """The function behind ``file.py:function`` or the name of a plug-in's metric; everything else as it is.

    Edgec's own names stay its own. Raises UsageError for a file without such a function, and a plug-in that cannot be used.
    """
    if not isinstance(metric, str) or metric in METRIC_NAMES:
        return metric
    if is_code(metric):
        return _explained(user_function(metric), metric)
    brought = plugins.plugin(METRICS, metric)
    if brought is None:
        return metric
    found: MetricFunction = brought.load(fault)
    return found


def fault(brought: Plugin, found: Any) -> str | None:
    """Why what a plug-in brings is no metric; None where it is."""
    if callable(found) and not isinstance(found, type):
        return None
    return f"{brought.entry.value} is not a function of predict and samples"


def _explained(function: MetricFunction, source: str) -> MetricFunction:
    """The user's function, whose errors name its line. ``lower_is_better`` stays with it."""

    @wraps(function)
    def judged(predict: Callable[[Any], Any], samples: Any) -> Any:
        with in_words("the metric failed", source):
            return function(predict, samples)

    return judged
