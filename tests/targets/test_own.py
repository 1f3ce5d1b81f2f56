"""Coefficients of the machine at hand: the probe networks, the finer amounts, the fit, and where it is kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from edgec.graph.cost import ModelCost, NodeCost, cost
from edgec.graph.errors import UsageError
from edgec.targets import target
from edgec.targets.estimator import estimate, has_estimates
from edgec.targets.estimator.coefficients import host_file, load_coefficients, write
from edgec.targets.estimator.fine import FINE, fine_features, fine_node
from edgec.targets.estimator.own import fit_own, non_negative, save_host
from edgec.targets.estimator.probes import probes


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


@pytest.fixture(scope="module")
def costs() -> list[ModelCost]:
    return [cost(model) for _, model in probes(60)]


def pointwise(cin: int, cout: int, pixels: int = 64) -> NodeCost:
    params = cout * (cin + 1)
    return NodeCost(
        "conv", "Conv", "pointwise", pixels * cin * cout, params, 4 * params, cin * pixels, cout * pixels, 0, (1, 1), (1, 1)
    )  # fmt: skip


def amount(node: NodeCost, name: str) -> float:
    return round(1e6 * float(fine_node(node, 4)[FINE.index(name)]))


def test_output_channels_round_up_to_a_register() -> None:
    assert amount(pointwise(16, 17), "pointwise_macs") == amount(pointwise(16, 32), "pointwise_macs")
    assert amount(pointwise(16, 32), "pointwise_macs") == 64 * 16 * 32


def test_caches_count_only_what_exceeds_them() -> None:
    assert amount(pointwise(16, 16, 64), "l2") == 0
    assert amount(pointwise(64, 64, 64 * 64), "l2") == 64 * 64 * 128


def test_probes_are_reproducible_and_small() -> None:
    first, again = ([cost(m).macs for _, m in probes(6, seed=3)] for _ in range(2))
    assert first == again
    assert first != [cost(m).macs for _, m in probes(6, seed=4)]
    for _, model in probes(6):
        assert cost(model).params < 12_000_000
        assert all(v.dtype == ir.DataType.FLOAT for v in model.graph.inputs)


def test_fit_finds_what_made_the_times(costs: list[ModelCost]) -> None:
    rng = np.random.default_rng(1)
    true = rng.exponential(1, len(FINE)) * 0.05
    x = np.array([fine_features(c, 4) for c in costs])
    ms = x @ true * rng.normal(1, 0.02, len(x))
    entry = fit_own(costs, list(ms), "onnxruntime", "1.0", "fp32", "box")
    assert entry.error is not None
    assert entry.error < 0.15
    assert min(entry.ms) >= 0
    assert np.abs(np.array([entry.model_ms(c) for c in costs]) / ms - 1).mean() < 0.05


def test_one_wild_measurement_does_not_matter() -> None:
    rng = np.random.default_rng(2)
    x = rng.exponential(1, (80, 4))
    true = np.array([1.0, 0.5, 0.0, 2.0])
    ms = x @ true
    ms[7] *= 30
    assert np.allclose(non_negative(x, ms), true, atol=0.05)


def test_saved_coefficients_serve_the_host(costs: list[ModelCost]) -> None:
    assert not has_estimates(target("host"))
    times = [0.1 + c.macs / 1e8 for c in costs]
    for precision in ("fp32", "int8"):
        save_host([fit_own(costs, times, "onnxruntime", "1.0", precision, "box")])  # type: ignore[arg-type]
    found = estimate(costs[0], target("host"), precision="int8")
    assert found.kind == "measured"
    assert "60 probe networks" in found.basis
    assert found.low_ms < found.ms < found.high_ms
    text = host_file().read_text(encoding="utf-8")
    known = load_coefficients("host")
    assert known is not None
    assert len(known.entries) == 2
    assert write(known) == text
    assert [p.name for p in host_file().parent.iterdir()] == ["host.json"]


def test_a_cache_of_another_version_is_measured_again(costs: list[ModelCost]) -> None:
    host_file().parent.mkdir(parents=True)
    host_file().write_text(
        '{"target": "host", "entries": [{"ms": {"macs": 1}}], "threads": {}}', encoding="utf-8"
    )
    assert load_coefficients("host") is None
    save_host([fit_own(costs, [1.0] * len(costs), "onnxruntime", "1.0", "fp32", "box")])
    assert load_coefficients("host") is not None


def test_coefficients_of_another_machine_are_not_used(costs: list[ModelCost]) -> None:
    save_host([fit_own(costs, [1.0] * len(costs), "onnxruntime", "1.0", "fp32", "box")])
    path = host_file()
    path.write_text(
        path.read_text(encoding="utf-8").replace('"machine": "', '"machine": "other '), encoding="utf-8"
    )
    with pytest.raises(UsageError, match="not been calibrated"):
        estimate(costs[0], target("host"))
