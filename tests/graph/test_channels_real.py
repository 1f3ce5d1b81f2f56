"""Channel groups of real networks: random removals equal masking, costs are foretold."""

from __future__ import annotations

import pytest

from edgec.graph.channels import cost_model, groups
from edgec.graph.cost import cost
from edgec.graph.load import load

NETWORKS = {
    # file: prunable groups
    "resnet8_cifar10": 6,
    "resnet20_cifar10": 12,
    "resnet56_cifar10": 30,
    "nin_cifar10": 8,
    "kws_dscnn": 5,
    "vww_mobilenet_v1_0.25_96": 14,
    "mobilenet_v1_0.75_224": 14,
    "mobilenet_v2_1.0_224_dequantised": 25,
    "ultraface_rfb320": 25,
    "yolox_nano": 67,
}


@pytest.mark.parametrize("name", NETWORKS)
def test_real_networks(name, shared, assert_exact, some_removals):
    model = load(shared / "data" / "models" / f"{name}.onnx")
    found = groups(model)
    assert sum(group.prunable for group in found) == NETWORKS[name]
    assert len({group.name for group in found}) == len(found)
    assert all(group.reason for group in found if not group.prunable)
    removals = some_removals(model, 1)
    pruned = assert_exact(model, removals)
    left = {group.name: group.size - len(removals.get(group.name, ())) for group in found}
    priced, real = cost_model(model), cost(pruned)
    assert priced.macs({}) == cost(model).macs
    assert (priced.macs(left), priced.params(left)) == (real.macs, real.params)


def test_option_a_shortcuts_couple_the_stages(shared):
    """Stage 1 goes through both Pads, stage 2 through one: three residual groups of 16, 16 and 32 units."""
    model = load(shared / "data" / "models" / "resnet20_cifar10.onnx")
    streams = [group for group in groups(model) if len(group.producers) > 1]
    assert [(group.size, len(group.producers)) for group in streams] == [(16, 10), (16, 6), (32, 3)]


def test_saved_is_the_difference_of_two_prices(shared):
    priced = cost_model(load(shared / "data" / "models" / "resnet8_cifar10.onnx"))
    left = {name: width - 1 for name, width in priced.full.items()}
    for name in priced.full:
        macs, params = priced.saved(name, 2, left)
        fewer = {**left, name: left[name] - 2}
        assert macs == priced.macs(left) - priced.macs(fewer)
        assert params == priced.params(left) - priced.params(fewer)
