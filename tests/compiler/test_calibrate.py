"""Calibration: which files are made, and that every engine and precision gets its entry."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from edgec.compiler.latency import calibrate as module
from edgec.graph.errors import DeviceError
from edgec.targets.estimator.coefficients import load_coefficients
from edgec.targets.estimator.probes import probes
from tests.told import Told


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_each_network_becomes_files_that_run(tmp_path: Path) -> None:
    ((name, model),) = probes(1, seed=5)
    made = module.artifacts(name, model, ("onnxruntime",), tmp_path)
    assert sorted(p.name for p in made.values()) == [f"{name}.fp32.onnx", f"{name}.int8.onnx"]
    times = list(module.measure(list(made.values())))
    assert len(times) == 2
    assert all(0 < ms < 1000 for ms in times)


def test_calibrate_keeps_an_entry_per_engine_and_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    def fake(paths: Sequence[Path], progress: object) -> Iterator[float]:
        return (float(1 + i % 7) for i in range(len(paths)))

    monkeypatch.setattr(module, "measure", fake)
    monkeypatch.setattr(module, "artifacts", lambda name, model, engines, folder, precisions: {
        (engine, precision): folder / name for engine in engines for precision in precisions
    })  # fmt: skip
    told = Told()
    found = module.calibrate(40, ("onnxruntime",), told)
    assert {(e.runtime, e.precision, e.networks) for e in found.entries} == {
        ("onnxruntime", "fp32", 40),
        ("onnxruntime", "int8", 40),
    }
    assert load_coefficients("host") is not None
    told.check()
    assert told.totals() == {
        "preparing probe networks": {40},
        "measuring onnxruntime fp32": {1},
        "measuring onnxruntime int8": {1},
    }


def test_no_engine_is_said() -> None:
    with pytest.raises(DeviceError, match="no inference engine"):
        module.calibrate(40, ("not-an-engine",))
