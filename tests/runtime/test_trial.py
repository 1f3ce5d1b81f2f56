"""The first run of a foreign artifact, in a child: what cannot be run, or reaches outside its folder, is a ModelError."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from edgec.graph.errors import ModelError
from edgec.graph.foreign import Loading
from edgec.graph.listener import Listener
from edgec.runtime.agent.worker import Worker
from edgec.runtime.trial import run, try_file
from tests.conftest import parse

NET = "net (float[1,3,8,8] x) => (float[1,4,6,6] y) <float[4,3,3,3] w> { y = Conv(x, w) }"


def trial(path: Path) -> None:
    run({"path": str(path), "engine": None}, Listener())


def test_a_sound_file_passes(tmp_path: Path) -> None:
    onnx.save(parse(NET), tmp_path / "m.onnx")
    trial(tmp_path / "m.onnx")


def test_data_outside_is_refused_before_the_engine_opens_it(tmp_path: Path) -> None:
    made, folder = parse(NET), tmp_path / "inside"
    folder.mkdir()
    (tmp_path / "w.bin").write_bytes(np.ones((4, 3, 3, 3), np.float32).tobytes())
    tensor = made.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../w.bin")
    (folder / "m.onnx").write_bytes(made.SerializeToString())
    with pytest.raises(ModelError, match="outside"):
        trial(folder / "m.onnx")


def test_a_stride_of_0_reaches_no_engine(tmp_path: Path) -> None:
    made = parse(NET)
    made.graph.node[0].attribute.append(onnx.helper.make_attribute("strides", [0, 0]))
    (tmp_path / "m.onnx").write_bytes(made.SerializeToString())
    with pytest.raises(ModelError, match="strides = 0"):
        trial(tmp_path / "m.onnx")


@pytest.mark.parametrize("content", [b"", b"\x1c\0\0\0TFL3" + bytes(60), b"text"])
def test_what_no_engine_loads(content: bytes, tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert")
    (tmp_path / "m.tflite").write_bytes(content)
    with pytest.raises(ModelError, match=r"m\.tflite"):
        trial(tmp_path / "m.tflite")


@pytest.mark.foreign
def test_the_child_s_error_is_raised_here(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"text")
    with pytest.raises(ModelError, match="not an ONNX file"):
        try_file(tmp_path / "m.onnx", None, Loading())
    try_file(tmp_path / "m.onnx", None, Loading(isolated=False))


@pytest.mark.parametrize(("number", "kind"), [(11, "model"), (8, "model"), (6, "model"), (9, "worker")])
def test_a_worker_that_crashes_blames_the_model_and_one_that_is_killed_does_not(
    number: int, kind: str
) -> None:
    worker = Worker.__new__(Worker)
    code = f"import os, resource; resource.setrlimit(resource.RLIMIT_CORE, (0, 0)); os.kill(os.getpid(), {number})"
    worker._process = subprocess.Popen([sys.executable, "-c", code])
    with tempfile.TemporaryFile() as log:
        worker._log = log
        error = worker._failed()
    assert (error.kind, f"signal {number}" in str(error)) == (kind, True)
