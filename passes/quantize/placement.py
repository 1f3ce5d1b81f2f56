"""Which inputs read codes where a runtime quantises inputs of operators and nothing behind them: TensorRT's explicit form.

The rules are those of NVIDIA's own placement (nvidia-modelopt, ``onnx/quantization``) and of its importer:

============  =====================================================================================================
layers        Conv, ConvTranspose, Gemm and MatMul by constant weights read codes, unless `too_small` says that no int8
              kernel gains there
Add           of a residual block: only the skip reads codes. The branch (the longer way to the fork) stays float between
              its last layer and the Add, so that both and the activation behind them are one kernel
Concat        in front of a layer on codes: all its inputs, and its output, with one scale
Pad           in front of layers on codes: the pair stands before it
Resize        between a layer and one on codes
MaxPool       where everything behind it reads codes, with one scale for input and output
averages      where nothing else would have to read their input as floats
============  =====================================================================================================
"""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir

from edgec.graph.views import is_constant
from edgec.passes.joined import Joined
from edgec.passes.quantize.branches import fused_behind, layer_behind, skip_input
from edgec.passes.quantize.dialects import Dialect
from edgec.passes.quantize.planned import Edge, Group, Plan
from edgec.passes.quantize.rules import Kind, Rule, data_inputs, rule_for
from edgec.passes.quantize.small_layers import why_float

_AVERAGES = frozenset({"AveragePool", "GlobalAveragePool"})
_IDLE = "nothing behind it reads codes"


def plan_inputs(model: ir.Model, dialect: Dialect, excluded: Callable[[str], bool]) -> Plan:
    """The plan of ``model`` in a dialect that quantises inputs; nodes for whose name ``excluded`` is true stay float."""
    rules: dict[str, Rule] = {}
    floats: dict[str, str] = {}
    for node in model.graph:
        verdict = rule_for(node, dialect.rules)
        reason = "excluded" if excluded(node.name or "") else verdict.reason
        if verdict.rule is not None and not reason:
            reason = why_float(node, dialect)
        if verdict.rule is None or reason:
            floats[node.name or ""] = reason
        else:
            rules[node.name or ""] = verdict.rule
    return _Placement(model, rules, floats).plan()


class _Placement:
    """``edges`` grows from the layers outwards; its order is that of the graph only in the end."""

    def __init__(self, model: ir.Model, rules: dict[str, Rule], floats: dict[str, str]) -> None:
        self.nodes = list(model.graph)
        self.rules = rules
        self.floats = floats
        self.edges: set[Edge] = set()
        self.shared: list[tuple[str, str]] = []
        """Tensors with one scale, in pairs."""

    def plan(self) -> Plan:
        for node in self._of(Kind.OWN):
            if self.rules[node.name or ""].anchor:
                self.edges.add((node.name or "", 0))
        for node in self._of(Kind.OWN):
            if node.op_type == "Add":
                self._add(node)
        for node in reversed(self._of(Kind.SAME, Kind.JOINT)):
            self._mover(node)
        for node in self._of(Kind.OWN):
            if node.op_type in _AVERAGES:
                self._average(node)
        on_codes = {name for name, _ in self.edges}
        for node in self.nodes:
            if fused_behind(node, self._on_codes):
                self.floats.pop(node.name or "", None)
        for name in self.rules:
            if name not in on_codes:
                self.floats.setdefault(name, _IDLE)
        order = {node.name or "": index for index, node in enumerate(self.nodes)}
        floats = {name: self.floats[name] for name in sorted(self.floats, key=lambda name: order[name])}
        chosen = {name: rule for name, rule in self.rules.items() if name in on_codes}
        return Plan(chosen, floats, self._groups(), {}, {}, {}, frozenset(self.edges))

    def _of(self, *kinds: Kind) -> list[ir.Node]:
        found = ((node, self.rules.get(node.name or "")) for node in self.nodes)
        return [node for node, rule in found if rule is not None and rule.kind in kinds]

    def _readers(self, value: ir.Value) -> list[bool]:
        """For every reader of ``value`` whether it reads codes; a graph output does not."""
        found = [(use.node.name, use.idx) in self.edges for use in value.uses()]
        return [*found, False] if value.is_graph_output() else found

    def _add(self, node: ir.Node) -> None:
        index = skip_input(node, self._on_codes)
        if index is None:
            self.floats[node.name or ""] = "it ends no residual branch"
        else:
            self.edges.add((node.name or "", index))

    def _on_codes(self, node: ir.Node) -> bool:
        return (node.name or "", 0) in self.edges

    def _mover(self, node: ir.Node) -> None:
        """Concat, Pad, Resize, MaxPool: codes are moved where they are wanted behind."""
        rule, name, output = self.rules[node.name or ""], node.name or "", node.outputs[0]
        inputs = [(index, node.inputs[index]) for index in data_inputs(node, rule)]
        readers = self._readers(output)
        if not readers or not (any(readers) if rule.kind is Kind.JOINT else all(readers)):
            return
        if any(value is None or is_constant(value) for _, value in inputs):
            self.floats[name] = "an input of it is constant"
            return
        source = node.inputs[0]
        if node.op_type == "Resize" and (source is None or layer_behind(source) is None):
            self.floats[name] = "no layer feeds it"
            return
        for index, value in inputs:
            self.edges.add((name, index))
            if value is not None:
                self.shared.append((value.name or "", output.name or ""))

    def _average(self, node: ir.Node) -> None:
        value, name = node.inputs[0], node.name or ""
        if value is None or layer_behind(value) is None:
            self.floats[name] = "no layer feeds it"
            return
        others = self._readers(value)
        if len(others) - sum(others) > 1:
            self.floats[name] = "its input is read as floats too"
        else:
            self.edges.add((name, 0))

    def _groups(self) -> tuple[Group, ...]:
        values: dict[str, ir.Value] = {}
        for node in self.nodes:
            for index, value in enumerate(node.inputs):
                if value is not None and (node.name or "", index) in self.edges:
                    values[value.name or ""] = value
        joined = Joined(values)
        for first, second in self.shared:
            joined.join(first, second)
        found = []
        for names in joined.sets().values():
            sources = [name for name in names if not self._moved(values[name])]
            found.append(Group(tuple(names), tuple(sources or names)))
        return tuple(found)

    def _moved(self, value: ir.Value) -> bool:
        """Its codes are those of another tensor of its group."""
        maker = value.producer()
        rule = None if maker is None else self.rules.get(maker.name or "")
        if maker is None or rule is None or rule.kind not in (Kind.SAME, Kind.JOINT):
            return False
        return (maker.name or "", 0) in self.edges
