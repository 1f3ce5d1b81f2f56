"""The networks of the latency tables cost what their papers say."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

from edgec.graph.cost import cost


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[2] / "bench"))
    import latency_models

    return latency_models


@pytest.mark.parametrize(
    ("name", "million_macs", "million_params"),
    [
        ("mobilenet_v1_1.0_224", 569, 4.2),
        ("mobilenet_v1_0.25_128", 13.6, 0.47),
        ("mobilenet_v2_1.0_224", 300, 3.5),
        ("mobilenet_v2_1.4_224", 582, 6.1),
        ("mobilenet_v3_large_1.0_224", 217, 5.5),
        ("mobilenet_v3_small_1.0_224", 56, 2.5),
        ("resnet50_v1.5_224", 4089, 25.5),
        ("resnet18_224", 1814, 11.7),
        ("vgg16_224", 15470, 138.4),
        ("alexnet_227", 724, 61.0),
        ("squeezenet_1.1_227", 388, 1.24),
        ("efficientnet_b0_224", 386, 5.3),
        ("mnasnet_224", 314, 4.4),
        ("shufflenet_v2_1.0_224", 145, 2.3),
    ],
)
def test_costs_are_the_published_ones(
    models: ModuleType, name: str, million_macs: float, million_params: float
) -> None:
    found = cost(models.build(name))
    assert found.macs / 1e6 == pytest.approx(million_macs, rel=0.02)
    assert found.params / 1e6 == pytest.approx(million_params, rel=0.03)


def test_unknown_networks_and_families(models: ModuleType) -> None:
    assert not models.known("yolo11n_640")
    assert models.family("resnet50_v1.5_224") == models.family("resnet18_224")
    assert models.family("shufflenet_v1_224") != models.family("shufflenet_v2_1.0_224")
