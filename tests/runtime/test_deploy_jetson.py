"""The whole way to a Jetson with TensorRT, on an emulated Orin over real SSH, with stand-ins for what NVIDIA's JetPack installs.

Slow: `make boards`. What the stand-ins check and replay is described in `tests/runtime/jetson`.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edgec.compiler.api import compile as compile_model
from edgec.runtime.bench import Artifact, BenchOptions, bench
from edgec.runtime.devices.ssh import SshDevice

from .emulated import Board, FaultyLink, start_board
from .jetson.board import IMPLEMENTATION, Jetson, set_up
from .standin import HASTE
from .test_deploy_board import EXAMPLES, edgec

pytestmark = pytest.mark.slow
FILES = ("model.int8.onnx", "model.onnx")
ONLY = [word for name in FILES for word in ("--artifact", name)]
HOME = "/home/pi/jetson"
# The emulated board has Debian's Python, which JetPack does not.
TARGET = "extends: jetson-orin-nano\nname: orin-with-debian\nsystems: [debian-12-arm64]\n"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("jetson")
    (folder / "orin-with-debian.yaml").write_text(TARGET)
    compile_model(
        EXAMPLES / "digits.onnx", folder / "run", data=EXAMPLES / "digits" / "calib.npz", samples=16, precision="int8",
        formats=("onnx",), target=str(folder / "orin-with-debian.yaml"), measure=False, threads=1,
    )  # fmt: skip
    return folder / "run"


@pytest.fixture(scope="module")
def orin(shared: Path) -> Iterator[Board]:
    started = start_board(shared, "orin", 22427, engines=False)
    if isinstance(started, str):
        pytest.skip(started)
    started.sh("rm -rf .cache/edgec edgec-bundles")
    yield started
    started.sh("rm -rf .cache/edgec edgec-bundles jetson")
    install(started, None)
    started.stop()


def install(board: Board, jetson: Jetson | None) -> None:
    """Put the stand-ins where JetPack has what they stand for, or take them away."""
    root = board.folder / "root"
    places = {
        "bin/trtexec": "usr/src/tensorrt/bin/trtexec",
        "bin/dpkg-query": "usr/local/bin/dpkg-query",
        "lib/tensorrt": "usr/lib/python3/dist-packages/tensorrt",
        "lib/cuda": "usr/lib/python3/dist-packages/cuda",
    }
    for source, place in places.items():
        to = root / place
        shutil.rmtree(to) if to.is_dir() else to.unlink(missing_ok=True)
        if jetson is not None:
            to.parent.mkdir(parents=True, exist_ok=True)
            made = jetson.folder / source
            shutil.copytree(made, to) if made.is_dir() else shutil.copy(made, to)


def behave(board: Board, **how: object) -> None:
    board.sh(f"mkdir -p {HOME} && cat > {HOME}/behaviour.json <<'X'\n{json.dumps(how)}\nX")


@pytest.fixture
def jetson(orin: Board, tmp_path: Path) -> Jetson:
    made = set_up(tmp_path / "jetson", (10, 3, 0), there=HOME, python="/usr/bin/python3")
    install(orin, made)
    behave(orin)
    return made


def test_from_a_run_to_numbers_of_the_gpu(run: Path, orin: Board, jetson: Jetson, tmp_path: Path) -> None:
    words = ["deploy", run, "-o", tmp_path / "bundle", "--device", orin.address, *ONLY]
    done = edgec(orin, *words, "--target", run.parent / "orin-with-debian.yaml", "--json")
    if "cannot fetch the wheels" in done.stderr:
        pytest.skip(f"no network: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert {row["artifact"]: row["kind"] for row in found["engines"]["rows"]} == {
        "model.int8.onnx": "int8 + fp16",
        "model.onnx": "fp16",
    }
    tested = {(line["artifact"], line["accelerated"]): line for line in found["selftest"]["artifacts"]}
    assert set(tested) == {(name, gpu) for name in FILES for gpu in (False, True)}
    assert all(line["passed"] and not line["skipped"] for line in tested.values())
    assert tested["model.int8.onnx", True]["engine"] == "tensorrt 10.3.0"
    assert [m["engine"] for m in found["measurements"]] == ["onnxruntime"] * 2 + ["tensorrt"] * 2
    assert all(m["emulated"] for m in found["measurements"])
    assert edgec(orin, "report", run).stdout.count("tensorrt 10.3.0 (GPU") >= 2

    folder = found["folder"]
    with np.load(EXAMPLES / "digits" / "eval.npz") as archive:
        label = int(archive["y"][0])
        np.save(tmp_path / "one.npy", archive["x"][0])
    shutil.copy(tmp_path / "one.npy", orin.folder / f"root{HOME}/one.npy")
    said = orin.sh(f"cd {folder} && .venv/bin/python run.py {HOME}/one.npy --json 2>&1")
    assert json.loads(said)["top"][0]["class"] == label
    assert orin.sh(f"cd {folder} && ./build.sh 2>&1").count("is there already") == 2

    # One engine does not build; then there is no TensorRT: the rest serves all the same.
    orin.sh(f"rm -rf {folder}/engines")
    behave(orin, unsupported=["int8"], errors=IMPLEMENTATION)
    said = orin.sh(f"cd {folder} && ./build.sh 2>&1; echo code $?")
    assert "no engine at node depthwise + PWN(PWN(gate), mul)" in said
    assert "model.onnx: fp16 engine built" in said
    assert said.endswith("code 0\n")
    install(orin, None)
    words = f".venv/bin/python run.py {HOME}/one.npy"
    said = orin.sh(f"cd {folder} && ./build.sh 2>&1; echo code $?; {words} 2>&1")
    assert "no TensorRT here" in said
    assert "code 3\n" in said
    assert "note: not on the GPU: no tensorrt module for Python 3." in said
    assert f"class {label}" in said
    assert orin.left_behind() == ([], [])


@pytest.mark.parametrize("fault", ["drop", "refuse 1"])
def test_a_link_that_breaks_while_an_engine_is_built(
    run: Path, orin: Board, jetson: Jetson, shared: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    monkeypatch.setenv("EDGEC_SSH_COMMAND", orin.ssh_command())
    orin.sh("rm -rf .cache/edgec")
    behave(orin, seconds=4)
    link = FaultyLink(shared, orin)
    done: list[str] = []

    def notify(text: str) -> None:
        if "building" in text and not done:
            done.append(text)
            link.do(fault)
            link.do("drop")
            link.do("refuse 0")

    try:
        with SshDevice.at(link.address, times=HASTE) as device:
            (found,) = bench([Artifact(run / FILES[0], "tensorrt")], BenchOptions(seconds=1), device, notify)
    finally:
        link.close()
    assert done
    assert (found.engine, found.engine_version, found.emulated) == ("tensorrt", "10.3.0", True)
    assert orin.left_behind() == ([], [])
