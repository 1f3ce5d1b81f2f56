"""Channel rules of plug-ins: for ops of ONNX that edgec has no rule for."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from edgec.graph.channels.atoms import UntraceableError
from edgec.graph.channels.trace import Rule, Trace
from edgec.graph.errors import EdgecError
from edgec.graph.plugins import CHANNEL_RULES, Plugin, plugin


def with_plugins(rules: Mapping[str, Rule], model: ir.Model) -> Mapping[str, Rule]:
    """``rules``, and those of plug-ins for further ops that ``model`` holds. Raises UsageError for one that cannot be taken."""
    lacking = sorted({node.op_type for node in model.graph if node.op_type not in rules})
    found = {op: brought for op in lacking if (brought := plugin(CHANNEL_RULES, op)) is not None}
    return {**rules, **{op: plugin_rule(brought) for op, brought in found.items()}}


def plugin_rule(brought: Plugin) -> Rule:
    """The rule of a plug-in; what goes wrong in it names the plug-in."""
    rule = brought.load()
    if not callable(rule) or isinstance(rule, type):
        raise brought.unusable(f"{brought.entry.value} is not a function of a trace and a node")

    def run(trace: Trace, node: ir.Node) -> None:
        try:
            rule(trace, node)
        except (UntraceableError, EdgecError):
            raise
        except Exception as error:  # a plug-in's code raises what it likes
            raise brought.failed(error) from error

    return run
