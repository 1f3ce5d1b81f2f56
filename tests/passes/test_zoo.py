"""Networks of the field (`bench/zoo.py`) as both exporters write them: int8 through both emitters, run by both engines.

A few run with every `make test`, one of a kind each; all of them, under both exporters, are marked slow.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from edgec.compiler.emit import onnx as onnx_file
from edgec.compiler.emit.tflite import api as tflite_file
from edgec.graph.data import open_data
from edgec.graph.load import load
from edgec.graph.verify import verify
from edgec.passes.base import Context
from edgec.passes.quantize.quantiser import Quantize

pytest.importorskip("torch", reason="the extra torch is not installed")
pytest.importorskip("ai_edge_litert", reason="the extra tflite is not installed")

# A response norm, a narrow map from the other exporter, gates with a product.
FAST = [("alexnet", "torchscript"), ("keyword", "dynamo"), ("mobilenet_v3", "torchscript")]
LEAST = 18.0
"""dB of the worst output."""


def int8_is_near(name: str, exporter: str, folder: Path, fitted: int) -> None:
    import numpy as np

    from bench.zoo import by_litert, by_onnxruntime, export, quality, samples

    source = folder / "net.onnx"
    shape = export(name, exporter, source)
    np.save(folder / "data.npy", samples(fitted, shape, 1))
    model = load(source)
    context = Context(teacher=model, scratch=folder, data=open_data(folder / "data.npy", model))
    made = Quantize().run(model.clone(), context).model
    verify(made)
    (folder / "int8.onnx").write_bytes(onnx_file.emit(made))
    (folder / "int8.tflite").write_bytes(tflite_file.emit(made, precision="int8"))
    unseen = samples(8, shape, 2)
    wanted = by_onnxruntime(source, unseen)
    assert quality(by_onnxruntime(folder / "int8.onnx", unseen), wanted) > LEAST
    assert quality(by_litert(folder / "int8.tflite", unseen, wanted)[0], wanted) > LEAST


@pytest.mark.parametrize(("name", "exporter"), FAST)
def test_int8_is_near_its_source(name: str, exporter: str, tmp_path: Path) -> None:
    int8_is_near(name, exporter, tmp_path, 32)


def _all() -> list[tuple[str, str]]:
    from bench.zoo import EXPORTERS, networks

    return [(name, exporter) for name in networks() for exporter in EXPORTERS if (name, exporter) not in FAST]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "exporter"), _all())
def test_int8_of_every_network_is_near_its_source(name: str, exporter: str, tmp_path: Path) -> None:
    int8_is_near(name, exporter, tmp_path, 96)
