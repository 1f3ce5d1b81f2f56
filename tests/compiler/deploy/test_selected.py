"""Outputs whose number the data decides (boxes behind a suppression) are recorded and compared sample by sample."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import pytest

from edgec.compiler.api import compile as compile_model
from edgec.compiler.deploy.bundle import DeployOptions, make_bundle
from tests.compiler.test_selecting import detector


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of a detector that suppresses its own boxes."""
    place = tmp_path_factory.mktemp("selected")
    onnx.save(detector(), place / "net.onnx")
    x = np.random.default_rng(0).standard_normal((40, 3, 16, 16)).astype(np.float32)
    np.savez(place / "data.npz", x=x)
    made = {"data": place / "data.npz", "precision": "int8", "measure": False, "threads": 1, "quiet": True}
    compile_model(place / "net.onnx", place / "run", **made)
    return make_bundle(place / "run", place / "bundle", DeployOptions(target="rpi4")).path


def test_the_self_test_gives_the_same_boxes(folder: Path) -> None:
    with np.load(folder / "selftest.npz") as recorded:
        counts = recorded["model.int8.onnx/rows/found"]
        assert len(set(counts.tolist())) > 1
        assert counts.sum() == len(recorded["model.int8.onnx/out/found"])
    done = subprocess.run(
        [sys.executable, folder / "selftest.py", "--json"], capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = json.loads(done.stdout)["artifacts"]
    assert [(line["passed"], line["bit_equal"]) for line in lines] == [(True, True)] * 2


@pytest.fixture(scope="module")
def program(folder: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("bundled_selftest", folder / "selftest.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


WANT = np.array(
    [[0, 0, 10, 10], [50, 50, 70, 80], [5, 90, 30, 100], [60, 0, 90, 20], [1, 2, 3, 4]], np.float32
)


@pytest.mark.parametrize(
    ("made", "gap"),
    [
        (WANT + np.float32(0.5), 0.005),
        (WANT[[1, 0, 2, 3, 4]], 0.0),
        (WANT[:4], 0.0),
        (np.concatenate([WANT, [[40, 40, 45, 45]]]).astype(np.float32), 0.0),
        (WANT[:3], np.inf),
        (WANT + np.float32(20), 0.2),
        (WANT[:0], np.inf),
    ],
    ids=["moved a little", "another order", "one gone", "one more", "two gone", "moved far", "all gone"],
)
def test_one_box_in_four_may_be_another_on_other_kernels(program: ModuleType, made, gap: float) -> None:
    found = program.distance(program.in_order_of(made, WANT), WANT)
    assert found == pytest.approx(gap, abs=1e-6)
