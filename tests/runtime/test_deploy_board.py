"""From a run folder to numbers from a board, with the commands that a person types, on emulated boards.

Every board starts from nothing: what runs the network there is what the bundle installed. That takes minutes for each board, so all are
slow (`make boards`); the suite has the whole way to a stand-in of a board (`test_ssh_standin.py`) and to an emulated Jetson.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edgec.compiler.api import compile as compile_model

from .emulated import Board, start_board

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
INT8 = ("model.int8.onnx", "model.int8.tflite")
BOARDS = [("pi4", "rpi4", 22422), ("pi5", "rpi5", 22425), ("nano", "jetson-nano", 22426)]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("boards") / "run"
    digits = EXAMPLES / "digits" / "calib.npz"
    compile_model(
        EXAMPLES / "digits.onnx", out, data=digits, samples=16, precision="int8", formats=("onnx", "tflite"),
        target="rpi4", measure=False, threads=1,
    )  # fmt: skip
    return out


@pytest.fixture(scope="module", params=BOARDS, ids=lambda p: p[0])
def board(request: pytest.FixtureRequest, shared: Path) -> Iterator[tuple[Board, str]]:
    profile, target, port = request.param
    started = start_board(shared, profile, port, engines=False)
    if isinstance(started, str):
        pytest.skip(started)
    started.sh("rm -rf .cache/edgec edgec-bundles")
    yield started, target
    started.sh("rm -rf .cache/edgec edgec-bundles")
    started.stop()


def edgec(board: Board, *words: object) -> subprocess.CompletedProcess[str]:
    around = {**os.environ, "EDGEC_SSH_COMMAND": board.ssh_command(), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "edgec", *map(str, words)]
    return subprocess.run(command, env=around, capture_output=True, text=True, check=False, timeout=1800)


def test_from_a_run_to_numbers_from_the_board(run: Path, board: tuple[Board, str], tmp_path: Path) -> None:
    there, target = board
    bundle = tmp_path / "bundle"
    only = [word for name in INT8 for word in ("--artifact", name)]
    done = edgec(
        there, "deploy", run, "--target", target, "-o", bundle, "--device", there.address, *only, "--json"
    )
    if "cannot fetch the wheels" in done.stderr:
        pytest.skip(f"no network: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    # The recommended artifact comes first, and which one that is depends on the host's int8 kernels.
    results = {line["artifact"]: line["result"] for line in found["selftest"]["artifacts"]}
    assert results == dict.fromkeys(INT8, "bit-equal")
    measured = found["measurements"]
    assert len(measured) >= 2
    assert all(m["emulated"] and m["runs"] >= 50 and m["valid"] for m in measured)
    assert "install: installing" in done.stderr

    shown = edgec(there, "report", run).stdout
    assert shown.count("emulated: not a latency") >= 2
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "emulated: not a latency" in page
    assert there.address in page

    with np.load(EXAMPLES / "digits" / "eval.npz") as archive:
        x, y = archive["x"], archive["y"]
    np.save(tmp_path / "one.npy", x[0])
    folder = found["folder"]
    copy = [*there.ssh_command().split(), "-p", str(there.port), "pi@127.0.0.1", f"cat > {folder}/one.npy"]
    subprocess.run(copy, input=(tmp_path / "one.npy").read_bytes(), check=True, timeout=60)
    said = there.sh(f"cd {folder} && .venv/bin/python run.py one.npy --json")
    assert json.loads(said)["top"][0]["class"] == y[0]

    # The engine that the bundle installed also serves a later bench; nothing is left behind.
    again = edgec(
        there, "bench", run / INT8[0], "--device", there.address, "--runs", "5", "--seconds", "0.2", "--json"
    )
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["measurements"][0]["emulated"]
    assert there.left_behind() == ([], [])


def test_check_says_what_differs(board: tuple[Board, str]) -> None:
    there, target = board
    done = edgec(there, "targets", "check", target, "--device", there.address, "--json")
    found = {line["what"]: line for line in json.loads(done.stdout)["differences"]}
    assert found["hardware"]["device"] == "emulated"
    assert "board" not in found
    wrong = edgec(there, "targets", "check", "rpi3", "--device", there.address, "--json")
    assert "board" in {line["what"] for line in json.loads(wrong.stdout)["differences"]}
