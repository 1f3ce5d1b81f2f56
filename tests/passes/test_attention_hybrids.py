"""Attention hybrids as both exporters write them: default int8 through both emitters, and how near it is to the source."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgec.compiler.emit import onnx as onnx_file
from edgec.compiler.emit.tflite import api as tflite_file
from edgec.graph.compare import sqnr_db
from edgec.graph.data import open_data
from edgec.graph.execute import session
from edgec.graph.load import load
from edgec.graph.verify import verify
from edgec.passes.base import Context
from edgec.passes.quantize.quantiser import Quantize

pytest.importorskip("torch", reason="the extra torch is not installed")

# One whose batch moves and one whose GELU stands before convolutions; the zoo under both exporters is marked slow.
FAST = [("tokens_first", "legacy"), ("poolformer", "legacy")]


def pictures(count: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    coarse = rng.standard_normal((count, 3, 8, 8)).astype(np.float32).repeat(4, 2).repeat(4, 3)
    return np.asarray(coarse + 0.3 * rng.standard_normal(coarse.shape), np.float32)


def exported(name: str, exporter: str, path: Path) -> Path:
    import torch

    from bench.zoo_nets.nets_attention import build

    options = (
        {"dynamo": True, "verbose": False} if exporter == "dynamo" else {"dynamo": False, "opset_version": 17}
    )
    example = torch.from_numpy(pictures(1, 0))
    torch.onnx.export(build(name), (example,), path, input_names=["x"], output_names=["y"], **options)
    return path


def int8_is_near(name: str, exporter: str, folder: Path) -> None:
    path = exported(name, exporter, folder / "net.onnx")
    np.save(folder / "data.npy", pictures(24, 1))
    model = load(path)
    data = open_data(folder / "data.npy", model)
    context = Context(teacher=model, scratch=folder, data=data)
    made = Quantize(correct="none", equalize="no").run(model.clone(), context).model
    verify(made)
    assert tflite_file.emit(made, precision="int8")
    (folder / "int8.onnx").write_bytes(onnx_file.emit(made))
    unseen, answers = pictures(16, 2), []
    for file in (path, folder / "int8.onnx"):
        runner = session(file.read_bytes())  # which keeps int8 exact on processors that saturate
        answers.append(np.concatenate([runner.run(None, {"x": one[None]})[0] for one in unseen]))
    assert sqnr_db(*answers) > 18


@pytest.mark.parametrize(("name", "exporter"), FAST)
def test_int8_of_a_hybrid_is_near_its_source(name: str, exporter: str, tmp_path: Path) -> None:
    int8_is_near(name, exporter, tmp_path)


def _all() -> list[tuple[str, str]]:
    from bench.zoo_nets.nets_attention import ATTENTION

    return [
        (name, exporter)
        for name in ATTENTION
        for exporter in ("legacy", "dynamo")
        if (name, exporter) not in FAST
    ]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "exporter"), _all())
def test_int8_of_every_hybrid_is_near_its_source(name: str, exporter: str, tmp_path: Path) -> None:
    int8_is_near(name, exporter, tmp_path)
