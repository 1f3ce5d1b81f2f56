"""Channel rules of plug-ins: for ops of ONNX that edgec has no rule for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import onnx_ir as ir

from edgec.graph.channels.atoms import UntraceableError
from edgec.graph.channels.trace import Rule, Trace
from edgec.graph.plugins import CHANNEL_RULES, Plugin, blamed, plugin


def with_plugins(rules: Mapping[str, Rule], model: ir.Model) -> Mapping[str, Rule]:
    """``rules``, and those of plug-ins for further ops that ``model`` holds. Raises UsageError for one that cannot be taken."""
    lacking = sorted({node.op_type for node in model.graph if node.op_type not in rules})
    found = {op: brought for op in lacking if (brought := plugin(CHANNEL_RULES, op)) is not None}
    return {**rules, **{op: plugin_rule(brought) for op, brought in found.items()}}


def plugin_rule(brought: Plugin) -> Rule:
    """The rule of a plug-in; what goes wrong in it names the plug-in."""
    rule = brought.load(_fault)

    def run(trace: Trace, node: ir.Node) -> None:
        with blamed(brought, let=(UntraceableError,)):
            rule(trace, node)

    return run


def _fault(brought: Plugin, rule: Any) -> str | None:
    if callable(rule) and not isinstance(rule, type):
        return None
    return f"{brought.entry.value} is not a function of a trace and a node"
