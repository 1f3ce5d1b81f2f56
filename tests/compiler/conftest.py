"""A small network with its data, and commands run in this process."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from edgec.compiler import cli
from edgec.graph.execute import session
from tests.conftest import parse

NET = (
    "net (float[N,3,16,16] x) => (float[N,10] y) "
    "<float[8,3,3,3] w1, float[8] b1, float[16,8,3,3] w2, float[16] b2, float[10,16] g, float[10] c>"
    "{ t = Conv<pads=[1,1,1,1]>(x, w1, b1)  r = Relu(t)  u = Conv<pads=[1,1,1,1], strides=[2,2]>(r, w2, b2)  s = Relu(u)"
    "  p = GlobalAveragePool(s)  f = Flatten(p)  y = Gemm<transB=1>(f, g, c) }"
)


@pytest.fixture
def edgec(monkeypatch, capsys):
    """Run a command in this process; (exit code, stdout, stderr)."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["edgec", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        code = caught.value.code
        return (0 if code is None else int(code)), out, err

    return run


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder with a model, calibration and evaluation data."""
    write_files(tmp_path)
    return tmp_path


def write_files(folder: Path) -> None:
    """What `files` holds."""
    onnx.save(parse(NET), folder / "net.onnx")
    rng = np.random.default_rng(0)
    np.savez(folder / "calib.npz", x=rng.standard_normal((24, 3, 16, 16)).astype(np.float32))
    x = rng.standard_normal((16, 3, 16, 16)).astype(np.float32)
    answers = session(parse(NET)).run(None, {"x": x})[0].argmax(axis=1)
    np.savez(folder / "eval.npz", x=x, y=answers)


def compile_args(files: Path, *more: object) -> list[object]:
    return [
        "compile", files / "net.onnx", "--data", files / "calib.npz", "--eval", files / "eval.npz", "-o", files / "out",
        "--no-bench", *more,
    ]  # fmt: skip
