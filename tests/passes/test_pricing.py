"""What a budget is spent in: the same amounts for every pass and search."""

from __future__ import annotations

import onnx_ir as ir
import pytest

from edgec.graph.cost import cost
from edgec.graph.errors import UsageError
from edgec.passes.base import LatencyModel
from edgec.passes.budget import parse_budget
from edgec.passes.pricing import known_milliseconds, milliseconds, network_price, price_of, source_price
from edgec.targets import target
from edgec.targets.estimator import latency_table

NET = (
    "net (float[N,3,8,8] x) => (float[N,4,8,8] y) <float[8,3,3,3] v, float[4,8,1,1] w>"
    "{ h = Conv<pads=[1,1,1,1]>(x, v)  y = Conv(h, w) }"
)


@pytest.fixture
def network(canonical) -> ir.Model:
    return canonical(NET)


@pytest.fixture
def given() -> LatencyModel:
    return LatencyModel(latency_table(target("rpi3")), source_ms=7.0)


def test_units(network: ir.Model, given: LatencyModel) -> None:
    nodes = cost(network).nodes
    macs, params = 8 * 27 * 64 + 4 * 8 * 64, 8 * 27 + 4 * 8
    price = {text: price_of(parse_budget(text), target("rpi4"), given, 2.0)(nodes) for text in
             ("macs=50%", "params=50%", "size=50%", "latency=50%")}  # fmt: skip
    assert (price["macs=50%"], price["params=50%"], price["size=50%"]) == (macs, params, 2.0 * params)
    assert price["latency=50%"] == pytest.approx(sum(given.table.node_ms(node) for node in nodes))
    assert network_price(None)(network) == macs
    assert network_price(given.table)(network) == given.table.model_ms(cost(network))


def test_what_the_run_was_given_stands_before_the_target(given: LatencyModel) -> None:
    assert milliseconds(target("rpi4"), given) is given.table
    assert milliseconds(target("rpi4"), None).target == "rpi4"
    with pytest.raises(UsageError, match="a latency budget needs a target"):
        milliseconds(None, None)


def test_prices_of_another_machine_are_no_milliseconds_of_this_one(given: LatencyModel) -> None:
    typical = LatencyModel(given.table, given.source_ms, typical=True)
    assert known_milliseconds(None, typical) is None
    assert known_milliseconds(None, None) is None
    known = known_milliseconds(target("rpi4"), typical)
    assert known is not None
    assert known.target == "rpi4"
    assert known_milliseconds(target("rpi4"), given) is given.table


def test_the_source_costs_what_it_was_measured_at(network: ir.Model, given: LatencyModel) -> None:
    def price(model: ir.Model) -> float:
        return float(cost(model).macs)

    assert source_price(parse_budget("latency=50%"), given, network, price) == 7.0
    assert source_price(parse_budget("latency=50%"), None, network, price) == price(network)
    assert source_price(parse_budget("macs=50%"), given, network, price) == price(network)
