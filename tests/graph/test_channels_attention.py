"""Attention as exporters write it: dims of queries with those of keys, of values with the projection's inputs, hidden units."""

from __future__ import annotations

import io

import onnx
import pytest

from edgec.graph.canonicalise import canonicalise
from edgec.graph.channels import ChannelGroup, cost_model, groups
from edgec.graph.cost import cost

torch = pytest.importorskip("torch")

from tests.graph.attention_nets import NETWORKS  # noqa: E402  # needs torch

QUICK = {("unbind", False), ("unbind", True), ("mobilevit", False)}
CASES = [
    pytest.param(
        name,
        dynamo,
        marks=() if (name, dynamo) in QUICK else pytest.mark.slow,
        id=f"{name}-{'dynamo' if dynamo else 'script'}",
    )
    for name in NETWORKS
    for dynamo in (False, True)
]


def exported(name: str, dynamo: bool) -> onnx.ModelProto:
    torch.manual_seed(0)
    module, x, file = NETWORKS[name][0]().eval(), torch.randn(1, 3, 16, 16), io.BytesIO()
    if dynamo:
        program = torch.onnx.export(module, (x,), dynamo=True, verbose=False)
        return program.model_proto
    torch.onnx.export(module, (x,), file, opset_version=17, dynamo=False)
    return onnx.load_from_string(file.getvalue())


def producers(group: ChannelGroup) -> set[str]:
    return {member.node for member in group.producers}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "dynamo"), CASES)
def test_heads_and_hidden_units_can_go(name, dynamo, assert_exact, some_removals):
    model = canonicalise(exported(name, dynamo))
    found = groups(model)
    prunable = [group for group in found if group.prunable]
    assert {group.size for group in prunable} == NETWORKS[name][1]
    products = [group for group in prunable if not group.consumers]
    assert [group.size for group in products] == [8]  # what only the product of queries and keys reads
    values = [g for g in prunable if g.consumers and producers(g) & producers(products[0])]
    assert len(values) == (0 if len(products[0].producers) > 1 else 1)
    for seed in range(2):
        removals = some_removals(model, seed)
        pruned = assert_exact(model, removals)
        left = {group.name: group.size - len(removals.get(group.name, ())) for group in found}
        priced, real = cost_model(model), cost(pruned)
        assert (priced.macs({}), priced.params({})) == (cost(model).macs, cost(model).params)
        assert (priced.macs(left), priced.params(left)) == (real.macs, real.params)
