"""Which nodes and tensors of a graph are quantised, and which tensors share one set of parameters.

The plan knows no numbers: it is the rule table of a dialect applied to one graph. `Plan.sources` names the
tensors whose ranges calibration has to find; `parameters` turns ranges into the table of scales and zero
points.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import onnx_ir as ir

from edgec.graph.views import constant, is_constant, sole_consumer
from edgec.passes.joined import Joined
from edgec.passes.quantize.dialects import Dialect
from edgec.passes.quantize.placement import plan_inputs
from edgec.passes.quantize.planned import Edge, Group, Plan, Table
from edgec.passes.quantize.qparams import QParams
from edgec.passes.quantize.rules import Kind, Rule, activation_bounds, data_inputs, rule_for
from edgec.passes.quantize.tails import output_joins, useful

_FLOAT_INPUT = "an input of it is float"


def make_plan(
    model: ir.Model, dialect: Dialect, excluded: Callable[[str], bool] = lambda name: False
) -> Plan:
    """Apply the rules of ``dialect`` to ``model``; nodes for whose name ``excluded`` is true stay float."""
    if dialect.inputs_only:
        return plan_inputs(model, dialect, excluded)
    rules: dict[str, Rule] = {}
    floats: dict[str, str] = {}
    for node in model.graph:
        name = node.name or ""
        verdict = rule_for(node, dialect.rules)
        if excluded(name):
            floats[name] = "excluded"
        elif verdict.rule is None:
            floats[name] = verdict.reason
        else:
            rules[name] = verdict.rule
    _prune_region(model, rules, floats)
    sigmoid = dialect.rules.get("Sigmoid")
    return _Builder(model, rules, None if sigmoid is None else sigmoid.fixed).build(floats)


def _prune_region(model: ir.Model, rules: dict[str, Rule], floats: dict[str, str]) -> None:
    """Leave cheap ops float where quantising them would only add Q/DQ pairs.

    A node that is no anchor stays quantised if a quantised region feeds it and it leads, through quantised
    nodes, to an anchor or straight to a graph output, or is the activation of a quantised node. A SAME node
    behind a float one stays quantised where all its readers lead to anchors: the same codes, one node earlier.
    A JOINT node behind which nothing heavy follows, up to the outputs, stays float: it would put outputs of
    different kinds (boxes and scores) on one scale (`tails`).
    """
    nodes = list(model.graph)
    for name in output_joins(nodes, rules):
        joins = rules[name].kind is Kind.JOINT
        floats[name] = "it joins outputs" if joins else "it takes the mean of a distribution"
        del rules[name]
    fed: set[str] = set()
    lifted: set[str] = set()
    for node in nodes:
        rule = rules.get(node.name or "")
        if rule is None:
            continue
        data = [node.inputs[index] for index in data_inputs(node, rule)]
        producers = [value.producer() for value in data if value is not None and not is_constant(value)]
        if rule.anchor or (producers and all(p is None or p.name in fed for p in producers)):
            fed.add(node.name or "")
        elif producers and rule.kind is Kind.SAME:
            lifted.add(node.name or "")
        else:
            floats[node.name or ""] = _FLOAT_INPUT
    useful: set[str] = set()
    for node in reversed(nodes):
        name = node.name or ""
        if name not in fed and name not in lifted:
            continue
        uses = [use for value in node.outputs for use in value.uses()]
        codes = [
            use.node.name in useful and use.idx in data_inputs(use.node, rules[use.node.name or ""])
            for use in uses
        ]
        is_output = any(value.is_graph_output() for value in node.outputs)
        if name in lifted:
            if codes and all(codes) and not is_output:
                useful.add(name)
            else:
                floats[name] = _FLOAT_INPUT
        elif rules[name].anchor or is_output or any(codes) or _is_absorbable(node, rules, fed):
            useful.add(name)
        else:
            floats[name] = "it only feeds float nodes"
    for name in [name for name in rules if name not in useful]:
        del rules[name]
    order = {node.name or "": index for index, node in enumerate(nodes)}
    for name in sorted(floats, key=lambda name: order[name]):
        floats[name] = floats.pop(name)


def _is_absorbable(node: ir.Node, rules: Mapping[str, Rule], fed: set[str]) -> bool:
    """True for an activation that the quantiser of the node before it makes void."""
    value = node.inputs[0] if node.inputs else None
    producer = None if value is None else value.producer()
    if value is None or producer is None or rules[node.name or ""].kind is not Kind.ACT:
        return False
    before = producer.name or ""
    return before in fed and rules[before].kind is Kind.OWN and sole_consumer(value) is node


@dataclass
class _Builder:
    """Works out which tensors share parameters."""

    model: ir.Model
    rules: dict[str, Rule]
    sigmoid: QParams | None
    joined: Joined = field(default_factory=Joined)
    fixed: dict[str, QParams] = field(default_factory=dict)
    own: dict[str, bool] = field(default_factory=dict)
    absorbed: dict[str, str] = field(default_factory=dict)
    conversions: dict[Edge, str] = field(default_factory=dict)
    constants: dict[Edge, str | None] = field(default_factory=dict)

    def build(self, floats: Mapping[str, str]) -> Plan:
        quantised = [node for node in self.model.graph if node.name in self.rules]
        hidden = self._absorb(quantised)
        for node in quantised:
            rule = self.rules[node.name or ""]
            inputs = self._inputs(node, rule, hidden)
            for value in node.outputs:
                if value.name and id(value) not in hidden:
                    self._add(value.name, source=rule.kind not in (Kind.SAME, Kind.JOINT))
            if rule.kind is Kind.FIXED and rule.fixed is not None:
                self.fixed[self.joined.root(node.outputs[0].name or "")] = rule.fixed
            elif rule.kind is Kind.SAME:
                for value in node.outputs:
                    if value.name and id(value) not in hidden:
                        self._union(inputs[0][1], value.name)
            elif rule.kind is Kind.JOINT:
                self._join(node, inputs)
        outputs = {value.name for value in self.model.graph.outputs}
        made = (value for node in self.model.graph for value in node.outputs)
        values = {value.name: value for value in (*self.model.graph.inputs, *made)}
        groups = tuple(
            Group(
                tuple(names),
                tuple(name for name in names if self.own[name]),
                self.fixed.get(root),
                not outputs.isdisjoint(names),
                useful([values[name] for name in names], self.rules, self.sigmoid),
            )
            for root, names in self.joined.sets().items()
        )
        return Plan(dict(self.rules), dict(floats), groups, self.absorbed, self.conversions, self.constants)

    def _absorb(self, quantised: list[ir.Node]) -> set[int]:
        """Tensors between a node and the activation behind it that nothing else reads."""
        hidden: set[int] = set()
        for node in quantised:
            value = node.inputs[0] if node.inputs else None
            producer = None if value is None else value.producer()
            if value is None or producer is None or self.rules[node.name or ""].kind is not Kind.ACT:
                continue
            before = self.rules.get(producer.name or "")
            if before is not None and before.kind is Kind.OWN and sole_consumer(value) is node:
                hidden.add(id(value))
                self.absorbed[node.name or ""] = value.name or ""
        return hidden

    def _inputs(self, node: ir.Node, rule: Rule, hidden: set[int]) -> list[tuple[int, str]]:
        """Register the activation inputs of ``node``; (index, name) of those that are not constants."""
        found: list[tuple[int, str]] = []
        for index in data_inputs(node, rule):
            value = node.inputs[index]
            if value is None or id(value) in hidden:
                continue
            if is_constant(value):
                joint = rule.kind is Kind.JOINT
                self.constants[(node.name or "", index)] = node.outputs[0].name if joint else None
            else:
                self._add(value.name or "", source=True)
                found.append((index, value.name or ""))
        return found

    def _join(self, node: ir.Node, inputs: list[tuple[int, str]]) -> None:
        output = node.outputs[0].name or ""
        fixed = [self.fixed.get(self.joined.root(name)) for _, name in inputs]
        if inputs and fixed[0] is not None and all(params == fixed[0] for params in fixed):
            for _, name in inputs:
                self._union(name, output)
            return
        for (index, name), params in zip(inputs, fixed, strict=True):
            if params is None:
                self._union(name, output)
            else:
                self.conversions[(node.name or "", index)] = output
                self.own[output] = True

    def _add(self, name: str, *, source: bool) -> None:
        self.joined.add(name)
        self.own.setdefault(name, source)

    def _union(self, first: str, second: str) -> None:
        a, b = self.joined.root(first), self.joined.root(second)
        if a == b:
            return
        fixed = self.fixed.get(a) or self.fixed.get(b)
        self.joined.join(a, b)
        if fixed is not None:
            self.fixed[a] = fixed


def parameters(
    plan: Plan, model: ir.Model, ranges: Mapping[str, tuple[float, float]], dialect: Dialect
) -> Table:
    """Turn ranges of `Plan.sources` into parameters for every tensor of the plan.

    A group's range is the hull of its sources' and of the constants that must take its parameters. The tensor
    in front of an activation that is not void gets the parameters of the tensor behind it: codes that
    saturate there lie outside the activation's bounds anyway.
    """
    nodes = {node.name or "": node for node in model.graph}
    pinned: dict[str, list[float]] = {}
    for (node_name, index), target in plan.constants.items():
        array = constant(nodes[node_name].inputs[index])
        if target is not None and array is not None and array.size:
            pinned.setdefault(target, []).extend((float(array.min()), float(array.max())))
    tensors: dict[str, QParams] = {}
    for group in plan.groups:
        params = group.fixed
        if params is None:
            ends = [end for name in group.sources for end in ranges[name]]
            ends += [end for name in group.members for end in pinned.get(name, ())]
            params = dialect.parameters(min(ends), max(ends))
        for name in group.members:
            tensors[name] = params
    void: set[str] = set()
    for name, before in plan.absorbed.items():
        low, high = activation_bounds(nodes[name])
        params = tensors[nodes[name].outputs[0].name or ""]
        if low <= params.low and params.high <= high:
            void.add(name)
        else:
            tensors[before] = params
    return Table(tensors, frozenset(void))
