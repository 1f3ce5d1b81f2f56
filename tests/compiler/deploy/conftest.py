"""A compiled network and its bundle."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from edgec.compiler.api import compile as compile_model
from edgec.compiler.deploy.bundle import Bundle, DeployOptions, make_bundle

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A compiled network with four artifacts, two of them int8."""
    out = tmp_path_factory.mktemp("deploy") / "run"
    compile_model(
        EXAMPLES / "digits.onnx",
        out,
        data=EXAMPLES / "digits" / "calib.npz",
        samples=16,
        precision="int8",
        formats=("onnx", "tflite"),
        target="rpi4",
        measure=False,
        threads=1,
    )
    return out


@pytest.fixture(scope="session")
def bundle(run: Path) -> Bundle:
    labels = run.parent / "labels.txt"
    labels.write_text("\n".join(f"digit {i}" for i in range(10)), encoding="utf-8")
    return make_bundle(run, run.parent / "bundle", DeployOptions(labels=labels))


@pytest.fixture
def copy(bundle: Bundle, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(bundle.path, tmp_path / "copy"))
