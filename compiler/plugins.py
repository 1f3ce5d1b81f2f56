"""What plug-ins are installed, and whether each can be used."""

from __future__ import annotations

from dataclasses import dataclass

from edgec.compiler.face import named_metric
from edgec.compiler.tasks.names import METRIC_NAMES
from edgec.graph.channels import RULES
from edgec.graph.channels.own_rules import plugin_rule
from edgec.graph.errors import UsageError
from edgec.graph.plugins import CHANNEL_RULES, KINDS, METRICS, PASSES, TARGETS, Plugin, plugin, plugins
from edgec.passes import table
from edgec.targets import target
from edgec.targets.registry import shipped_names


@dataclass(frozen=True)
class Found:
    """One entry point; ``problem`` says why it cannot be used, empty where it can."""

    plugin: Plugin
    problem: str

    def to_dict(self) -> dict[str, str]:
        """For JSON."""
        one = self.plugin
        return {
            "kind": KINDS[one.group],
            "name": one.name,
            "distribution": one.distribution,
            "version": one.version,
            "problem": self.problem,
        }


def survey() -> tuple[Found, ...]:
    """Every plug-in, imported and checked."""
    return tuple(Found(one, _problem(one)) for group in KINDS for one in plugins(group))


def _problem(one: Plugin) -> str:
    if one.name in _own_names(one.group):
        return f"{one.name!r} is the name of edgec's own, which is the one that is used"
    try:
        plugin(one.group, one.name)
        _use(one)
    except UsageError as error:
        return ": ".join(part for part in (error.what, error.why) if part)
    return ""


def _own_names(group: str) -> frozenset[str]:
    own = {PASSES: table.PASSES, TARGETS: shipped_names(), CHANNEL_RULES: RULES, METRICS: METRIC_NAMES}
    return frozenset(own[group])


def _use(one: Plugin) -> None:
    """Raise UsageError where it cannot be used."""
    if one.group == PASSES:
        one.load(table.fault)
    elif one.group == TARGETS:
        target(one.name)
    elif one.group == CHANNEL_RULES:
        plugin_rule(one)
    else:
        one.load(named_metric.fault)
