"""Bundles for boards with TensorRT: engines built there, used where they fit, tested within the tolerance, and the CPU otherwise."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from edgec.compiler.deploy.accelerator import Engines, build_engines, measure_engines
from edgec.compiler.deploy.bundle import DeployOptions, make_bundle
from edgec.graph.errors import UsageError
from edgec.runtime.bench import BenchOptions
from edgec.runtime.devices.local import LocalDevice
from edgec.runtime.report import read
from edgec.runtime.report.facts import remarks
from edgec.targets import target
from edgec.targets.estimator.predict import latency_table
from tests.runtime.jetson.board import IMPLEMENTATION, Jetson, set_up

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"
FILES = ("model.int8.onnx", "model.onnx")


class Place(NamedTuple):
    """A bundle with a Python in it, and TensorRT beside it."""

    folder: Path
    jetson: Jetson
    around: dict[str, str]

    def sh(self, *words: str) -> tuple[int, str, str]:
        done = subprocess.run(
            words, cwd=self.folder, env=self.around, capture_output=True, text=True, check=False, timeout=120
        )
        return done.returncode, done.stdout, done.stderr

    def python(self, *words: str) -> tuple[int, str, str]:
        return self.sh(sys.executable, *words)


@pytest.fixture(scope="module")
def made(run: Path) -> Path:
    return make_bundle(
        run, run.parent / "jetson-bundle", DeployOptions(target="jetson-orin-nano", artifacts=FILES)
    ).path


def place(made: Path, folder: Path, version: tuple[int, int, int]) -> Place:
    copy = Path(shutil.copytree(made, folder / "bundle"))
    (copy / ".venv/bin").mkdir(parents=True)
    program = copy / ".venv/bin/python"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    program.chmod(0o755)
    jetson = set_up(folder / "jetson", version)
    around = {**os.environ, "PATH": f"{jetson.bin}:{os.environ['PATH']}", "PYTHONPATH": str(jetson.lib)}
    return Place(copy, jetson, around)


@pytest.fixture
def here(made: Path, tmp_path: Path) -> Place:
    return place(made, tmp_path, (8, 5, 2))


def verdicts(at: Place) -> dict[tuple[str, bool], tuple[str, str]]:
    """Of the self-test: by artifact and whether it is the GPU's."""
    code, out, err = at.python("selftest.py", "--json")
    assert code in (0, 1), err
    answer = json.loads(out)
    assert answer["passed"] is (code == 0)
    word = {(True, True): "skipped", (True, False): "ok", (False, False): "FAILED"}
    return {
        (line["artifact"], line["accelerated"]): (word[line["passed"], line["skipped"]], line["result"])
        for line in answer["artifacts"]
    }


@pytest.mark.parametrize(
    "version",
    [pytest.param((8, 2, 1), id="8.2"), pytest.param((10, 13, 3), id="10.13", marks=pytest.mark.slow)],
)
def test_a_bundle_on_its_board(made: Path, tmp_path: Path, version: tuple[int, int, int]) -> None:
    at, name = place(made, tmp_path, version), ".".join(map(str, version))
    with np.load(EXAMPLES / "digits" / "eval.npz") as archive:
        np.save(tmp_path / "one.npy", archive["x"][0])
        label = int(archive["y"][0])
    code, out, err = at.python("run.py", str(tmp_path / "one.npy"), "--json")
    assert "note: not on the GPU: no TensorRT engine of" in err
    assert (code, json.loads(out)["top"][0]["class"]) == (0, label)
    assert {key: word for key, (word, _) in verdicts(at).items()} == {
        **{(file, False): "ok" for file in FILES}, **{(file, True): "skipped" for file in FILES},
    }  # fmt: skip

    code, _, err = at.sh("sh", "build.sh")
    assert code == 0, err
    assert err.count("engine built") == 2
    code, out, err = at.python("run.py", str(tmp_path / "one.npy"), "--json")
    assert (code, json.loads(out)["top"][0]["class"], err) == (0, label, "")
    assert all(word == "ok" for word, _ in verdicts(at).values())
    at.jetson.behave(error=0.05)  # of the largest value: too much for a float file, and not for int8
    found = verdicts(at)
    assert {file for (file, gpu), (word, _) in found.items() if word == "FAILED" and gpu} == {"model.onnx"}
    assert "(allowed 0.02 on the GPU)" in found["model.onnx", True][1]
    at.jetson.behave()
    code, out, err = at.sh("sh", "bench.sh", "--seconds", "1", "--warmup", "0.2")
    assert code == 0, err
    assert out.count(f"tensorrt {name} (GPU") == 2
    code, out, _ = at.sh("sh", "bench.sh", "--layers")
    assert (code, out.count("conv1 + relu1")) == (0, 4)
    assert at.sh("sh", "build.sh", "--frce")[0] == 2


def test_an_old_engine_of_another_version_is_not_used(made: Path, tmp_path: Path) -> None:
    at = place(made, tmp_path, (8, 5, 2))
    assert at.sh("sh", "build.sh")[0] == 0
    shutil.rmtree(at.jetson.folder)
    set_up(at.jetson.folder, (8, 6, 2))
    results = verdicts(at)
    assert results["model.onnx", True][0] == "skipped"
    assert "built by TensorRT 8.5.2, here is 8.6.2): run ./build.sh" in results["model.onnx", True][1]
    assert at.sh("sh", "build.sh")[0] == 0
    assert verdicts(at)["model.onnx", True][0] == "ok"
    assert len(list((at.folder / "engines").glob("*.engine"))) == 2


def test_asked_for_by_name_it_is_the_gpu_or_an_error(here: Place, tmp_path: Path) -> None:
    np.save(tmp_path / "one.npy", np.zeros((1, 8, 8), np.float32))
    code, _, err = here.python("run.py", str(tmp_path / "one.npy"), "--engine", "tensorrt")
    assert (code, "no TensorRT engine" in err) == (3, True)
    code, _, err = here.python("run.py", str(tmp_path / "one.npy"), "--engine", "onnxruntime")
    assert (code, err) == (0, "")


def test_build_engines_over_a_device(made: Path, here: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", here.around["PATH"])
    with LocalDevice() as device:
        here.jetson.behave(unsupported=["int8"], errors=IMPLEMENTATION)
        found = build_engines(str(here.folder), FILES, device, lambda text: None)
        assert found.built == ("model.onnx",)
        assert (
            "no engine of model.int8.onnx: model.int8.onnx: TensorRT 8.5.2 builds no engine at node"
            in found.lines()[0]
        )
        here.jetson.behave()
        found = build_engines(str(here.folder), FILES, device, lambda text: None)
        assert [line.partition(", ")[0] for line in found.lines()] == [
            "engine model.int8.onnx: int8 + fp16",
            "engine model.onnx: fp16",
        ]
        said: list[str] = []
        here.jetson.behave(unsupported=["digits"], errors=["Unsupported"])
        paths = [made / name for name in found.built]
        source = Path(shutil.copy(EXAMPLES / "digits.onnx", here.folder.parent / "digits.onnx"))
        measured, before = measure_engines(
            str(here.folder), paths, source, BenchOptions(seconds=1, warmup=0.2), device, said.append
        )
        assert [m.engine for m in measured] == ["tensorrt"] * 2
        # The bundle's own engines serve: one file twice, the other once, and the model before.
        assert sum("--saveEngine" in " ".join(call) for call in here.jetson.calls()) == 4
        assert before is None
        assert "the model before has no time on the GPU" in said[-1]
        (here.jetson.bin / "trtexec").unlink()
        found = build_engines(str(here.folder), FILES, device, lambda text: None)
    assert found.built == ()
    assert found.lines()[0].startswith("nothing on the GPU: no TensorRT here")
    assert Engines().lines() == []


def test_only_bundles_for_such_boards_build_engines(run: Path, made: Path, tmp_path: Path) -> None:
    assert (made / "build.sh").is_file()
    for program in ("sh", "bash", "dash"):
        if shutil.which(program):
            subprocess.run([program, "-n", made / "build.sh"], check=True)
    pi = make_bundle(run, tmp_path / "pi", DeployOptions(artifacts=FILES))
    tflite = make_bundle(
        run, tmp_path / "tflite", DeployOptions(target="jetson-nano", artifacts=("model.tflite",))
    )
    for bundle in (pi, tflite):
        assert bundle.accelerator is None
        assert not (bundle.path / "build.sh").exists()


def test_nothing_is_estimated_for_the_gpu(run: Path) -> None:
    with pytest.raises(UsageError, match="not measured: jetson-orin-nano with tensorrt") as info:
        latency_table(target("jetson-orin-nano"), "tensorrt", "int8")
    assert "--engine tensorrt" in str(info.value.hint)
    report = read(run)
    assert report.latency is not None
    on_jetson = report.model_copy(
        update={"latency": report.latency.model_copy(update={"accelerator": "tensorrt"})}
    )
    (said,) = [text for text in remarks(on_jetson) if "GPU" in text]
    assert "not measured" in said
    assert "edgec deploy RUN" in said
    first, *rest = report.artifacts
    assert first.latency is not None
    time = first.latency.model_copy(update={"measured": True, "runtime": "tensorrt 10.3.0 (GPU, fp16)"})
    timed = on_jetson.model_copy(update={"artifacts": (first.model_copy(update={"others": (time,)}), *rest)})
    assert not [text for text in remarks(timed) if "not measured" in text]
