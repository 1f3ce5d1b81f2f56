"""TensorRT on a board, with stand-ins for trtexec, dpkg and the Python module of every version from JetPack 4 to 7."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnx.parser
import pytest
from click.testing import CliRunner

from edgec.compiler.cli.bench_command import command as bench_command
from edgec.compiler.latency.engine_layers import mapped
from edgec.graph.errors import DeviceError, ModelError
from edgec.runtime.agent import cuda, probe, trt_engines, trt_run, trtexec
from edgec.runtime.agent.base import AgentError
from edgec.runtime.agent.cli import main as agent
from edgec.runtime.bench import Artifact, BenchOptions, bench
from edgec.runtime.devices.ssh import SshDevice
from edgec.runtime.measurement import LayerTime

from .jetson.board import IMPLEMENTATION, VERSIONS, Jetson, set_up
from .standin import ADDRESS, HASTE, StandIn

FLOAT = """<ir_version: 8, opset_import: ["" : 13]> g (float[N, 2, 4, 4] x) => (float[N, 2, 4, 4] y) { y = Relu(x) }"""
INT8 = """<ir_version: 8, opset_import: ["" : 13]> g (float[N, 2, 4, 4] x) => (float[N, 2, 4, 4] y)
<float s = {0.05}, int8 z = {0}> { q = QuantizeLinear(x, s, z)  d = DequantizeLinear(q, s, z)  y = Relu(d) }"""
ORIN = "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super"
COMPATIBLE = {
    "orin": "nvidia,p3768-0000+p3767-0005\0nvidia,tegra234",
    "nano": "nvidia,p3450-0000\0nvidia,tegra210",
}


class Place(NamedTuple):
    """Stand-ins, a made-up / of the board, and a folder with a float and an int8 file."""

    jetson: Jetson
    root: Path
    work: Path

    @property
    def engines(self) -> list[str]:
        return sorted(path.name for path in (self.work / "engines").glob("*.engine"))


def made_up_root(root: Path, model: str, compatible: str, free_mb: int = 6000) -> None:
    (root / "proc/device-tree").mkdir(parents=True, exist_ok=True)
    (root / "proc/device-tree/model").write_text(model + "\0")
    (root / "proc/device-tree/compatible").write_text(compatible + "\0")
    (root / "proc/meminfo").write_text(f"MemTotal: 7900000 kB\nMemAvailable: {free_mb * 1024} kB\n")


def place(folder: Path, monkeypatch: pytest.MonkeyPatch, version: tuple[int, int, int] = (8, 5, 2)) -> Place:
    jetson, work = set_up(folder / "jetson", version), folder / "work"
    work.mkdir(exist_ok=True)
    made_up_root(folder / "root", ORIN, COMPATIBLE["orin"])
    monkeypatch.setenv("PATH", f"{jetson.bin}:{os.environ['PATH']}")
    monkeypatch.setattr(trtexec, "PLACE", str(folder / "no/trtexec"))
    for name, text in (("model.onnx", FLOAT), ("model.int8.onnx", INT8)):
        onnx.save(onnx.parser.parse_model(text), work / name)
    return Place(jetson, folder / "root", work)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    return place(tmp_path, monkeypatch)


def run(capsys: Any, *words: object) -> tuple[int, dict[str, Any], str]:
    """The agent in this process: exit code, answer, and what it said."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        code = agent([str(word) for word in words])
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    out, err = capsys.readouterr()
    return code, json.loads(out.splitlines()[-1]) if out.startswith("{") else {"text": out}, err


def build(capsys: Any, at: Place, *more: object) -> list[dict[str, Any]]:
    files = [at.work / name for name in ("model.int8.onnx", "model.onnx")]
    code, answer, _ = run(capsys, "build", "--root", at.root, *more, *files)
    assert code == 0, answer
    rows: list[dict[str, Any]] = answer["engines"]
    return rows


@pytest.mark.parametrize("version", VERSIONS, ids=lambda v: ".".join(map(str, v)))
def test_from_a_file_to_times_and_outputs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, version: tuple[int, int, int]
) -> None:
    at = place(tmp_path, monkeypatch, version)
    name = ".".join(map(str, version))
    rows = build(capsys, at)
    typed = version >= (11,)
    kinds = ["int8, as typed", "as typed"] if typed else ["int8 + fp16", "fp16"]
    assert [row["kind"] for row in rows] == kinds
    assert all(f".jetson-orin-nano-super.trt{name}." in row["engine"] for row in rows)
    assert len(at.engines) == 2
    given = at.jetson.calls()[0]
    assert [flag for flag in given if flag in ("--int8", "--fp16")] == ([] if typed else ["--int8", "--fp16"])
    assert any(
        flag.startswith("--workspace=" if version < (8, 4) else "--memPoolSize=workspace:") for flag in given
    )
    assert ("--buildOnly" if version < (8, 6) else "--skipInference") in given
    assert [row["kept"] for row in build(capsys, at)] == [True, True]

    files = [f"{at.work / 'model.int8.onnx'}@tensorrt", f"{at.work / 'model.onnx'}@tensorrt"]
    code, answer, _ = run(
        capsys, "bench", "--root", at.root, "--no-pin", "--warmup", "0.2", "--seconds", "1", *files
    )
    assert code == 0
    for record, kind in zip(answer["artifacts"], kinds, strict=True):
        assert (record["engine"], record["engine_version"], record["delegate"]) == (
            "tensorrt",
            name,
            f"GPU, {kind}",
        )
        assert record["median_ms"] == pytest.approx(2.5, rel=0.01)
        assert record["runs"] >= 100
        assert (record["valid"], record["load_ms"]) == (True, 12.3)
    terms = {"--noDataTransfers", "--useSpinWait", "--useCudaGraph"}
    assert terms & set(at.jetson.calls()[-1]) == (set() if typed else terms)

    code, answer, _ = run(capsys, "profile", "--root", at.root, "--no-pin", files[1])
    assert [layer["us"] for layer in answer["layers"]] == [4.0, 31.0, 12.0, 21.0]
    assert "--useCudaGraph" not in at.jetson.calls()[-1]

    monkeypatch.syspath_prepend(str(at.jetson.lib))
    for module in [one for one in sys.modules if one.partition(".")[0] in ("tensorrt", "cuda")]:
        monkeypatch.delitem(sys.modules, module)
    build(capsys, Place(at.jetson, Path("/"), at.work))  # of this machine, which the module looks at
    x = np.random.default_rng(0).normal(size=(3, 2, 4, 4)).astype(np.float32)
    np.savez(tmp_path / "x.npz", x=x)
    code, answer, said = run(
        capsys, "outputs", "--engine", "tensorrt", "--inputs", tmp_path / "x.npz", "--save", tmp_path / "y.npz", at.work / "model.onnx",
    )  # fmt: skip
    assert code == 0, said
    with np.load(tmp_path / "y.npz") as found:
        np.testing.assert_array_equal(found["y"], np.maximum(x, 0))
    assert answer["engine_version"] == name
    for module in [one for one in sys.modules if one.partition(".")[0] in ("tensorrt", "cuda")]:
        monkeypatch.delitem(sys.modules, module)


CHANGES = ("file", "TensorRT", "device", "record", "engine")


@pytest.mark.parametrize("what", CHANGES)
def test_an_engine_is_built_again_when_anything_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, what: str
) -> None:
    at = place(tmp_path, monkeypatch)
    before = build(capsys, at)
    float_engine = at.work / "engines" / before[1]["engine"]
    if what == "file":
        onnx.save(onnx.parser.parse_model(FLOAT.replace("Relu", "Abs")), at.work / "model.onnx")
    elif what == "TensorRT":
        shutil.rmtree(at.jetson.folder)
        at = place(tmp_path, monkeypatch, (8, 6, 2))
    elif what == "device":
        made_up_root(at.root, ORIN, COMPATIBLE["orin"].replace("0005", "0003"))
    elif what == "record":
        (at.work / "engines/model.onnx.json").write_text("{")
    else:
        float_engine.write_bytes(float_engine.read_bytes()[:-1] + b"?")
    after = build(capsys, at)
    assert after[1]["kept"] is False
    assert after[0]["kept"] is (what not in ("TensorRT", "device"))
    assert sorted(row["engine"] for row in after) == at.engines  # the old ones are gone
    assert (after[1]["engine"] == before[1]["engine"]) is (what in ("record", "engine"))


def test_nothing_on_a_board_without_tensorrt(here: Place, capsys: Any) -> None:
    (here.jetson.bin / "trtexec").unlink()
    code, answer, _ = run(capsys, "build", here.work / "model.onnx")
    assert (code, answer["kind"]) == (3, "accelerator")
    assert "no TensorRT here" in answer["error"]
    assert "sudo apt install tensorrt" in answer["error"]
    assert run(capsys, "bench", "--engine", "tensorrt", here.work / "model.onnx")[1]["kind"] == "accelerator"


def test_the_package_says_the_version_where_the_program_does_not(here: Place) -> None:
    program = here.jetson.bin / "trtexec"
    program.write_text(program.read_text().replace("[TensorRT ", "[of "))
    assert probe._tensorrt() == "8.5.2"
    (here.jetson.bin / "dpkg-query").write_text("#!/bin/sh\nexit 1\n")
    assert probe._tensorrt() is None


def test_an_engine_that_does_not_build(here: Place, capsys: Any) -> None:
    here.jetson.behave(unsupported=["int8"], errors=IMPLEMENTATION)
    wrong, right = build(capsys, here)
    assert right["engine"] is not None
    assert "at node depthwise + PWN(PWN(gate), mul): Error[10]" in wrong["why"]
    assert "Engine set up failed" in wrong["why"]
    log = Path(wrong["why"].rpartition("the whole log is ")[2])
    assert "Could not find any implementation" in log.read_text()
    code, answer, _ = run(capsys, "bench", "--root", here.root, f"{here.work / 'model.int8.onnx'}@tensorrt")
    assert (code, answer["kind"]) == (3, "model")


def test_a_build_that_is_killed_or_would_be(
    here: Place, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    here.jetson.behave(killed=True)
    assert all("out of memory" in row["why"] for row in build(capsys, here))
    here.jetson.behave()
    made_up_root(here.root, ORIN, COMPATIBLE["orin"], free_mb=700)
    (row, _) = build(capsys, here)
    assert "700 MB of memory are free, and building takes about 1000 MB" in row["why"]
    made_up_root(here.root, ORIN, COMPATIBLE["orin"])
    usage = shutil.disk_usage(here.work)
    monkeypatch.setattr(trt_engines.shutil, "disk_usage", lambda folder: usage._replace(free=3 * 2**20))
    (row, _) = build(capsys, here)
    assert "no space left on device: 3 MB are free" in row["why"]
    assert here.engines == []
    assert not list((here.work / "engines").glob("*.part"))


def test_a_maxwell_gpu_has_no_int8(here: Place, capsys: Any) -> None:
    made_up_root(here.root, "NVIDIA Jetson Nano Developer Kit", COMPATIBLE["nano"])
    int8, fp16 = build(capsys, here)
    assert "no int8" in int8["why"]
    assert fp16["engine"].startswith("model.jetson-nano.trt8.5.2.")


def bench_of(here: Place, capsys: Any, *more: object) -> dict[str, Any]:
    words = ["bench", "--root", here.root, "--no-pin", "--warmup", "0.2", "--seconds", "1", *more]
    code, answer, said = run(capsys, *words, f"{here.work / 'model.onnx'}@tensorrt")
    assert code == 0, said
    record: dict[str, Any] = answer["artifacts"][0]
    return record


@pytest.mark.parametrize("version", [(8, 2, 1), (10, 3, 0)], ids=["8.2, which does not say so", "10.3"])
def test_unstable_times_are_invalid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, version: tuple[int, int, int]
) -> None:
    at = place(tmp_path, monkeypatch, version)
    at.jetson.behave(spread=4)
    record = bench_of(at, capsys)
    assert record["valid"] is False
    assert "unstable, coefficient of variance" in record["invalid"][0]
    assert "jetson_clocks" in record["invalid"][0]
    at.jetson.behave(spread=0.5)
    assert bench_of(at, capsys)["valid"] is True


def test_an_engine_that_does_not_run(here: Place, capsys: Any) -> None:
    build(capsys, here)
    here.jetson.behave(broken=True)
    code, answer, _ = run(capsys, "bench", "--root", here.root, f"{here.work / 'model.onnx'}@tensorrt")
    assert (code, answer["kind"]) == (3, "accelerator")
    assert "Cuda failure: out of memory" in answer["error"]


def test_the_table_for_people(here: Place, capsys: Any) -> None:
    words = ["--root", here.root, "--no-pin", "--text", f"{here.work / 'model.onnx'}@tensorrt"]
    assert "tensorrt 8.5.2 (GPU, fp16)" in run(capsys, "bench", "--seconds", "1", *words)[1]["text"]
    assert "45.6%  conv1 + relu1" in run(capsys, "profile", *words)[1]["text"]
    code, answer, _ = run(capsys, "bench", "--interleave", *words, here.work / "model.int8.onnx")
    assert (code, answer["kind"]) == (2, "usage")


# The calls as CUDA's headers declare them, on this process's memory.
CUDART = """#include <stdlib.h>
#include <string.h>
int cudaMalloc(void **to, size_t size) { if (size > 1 << 20) return 2; *to = malloc(size); return 0; }
int cudaMemcpyAsync(void *to, const void *from, size_t size, int kind, void *stream)
{ if (stream != (void *)0x7f0000000007 || kind < 1 || kind > 2) return 1; memcpy(to, from, size); return 0; }
int cudaStreamCreate(void **stream) { *stream = (void *)0x7f0000000007; return 0; }
int cudaStreamSynchronize(void *stream) { return stream == (void *)0x7f0000000007 ? 0 : 400; }
"""


def test_cuda_s_own_library_by_ctypes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler")
    (tmp_path / "cudart.c").write_text(CUDART)
    library = tmp_path / "libcudart.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, tmp_path / "cudart.c"], check=True)
    monkeypatch.setattr(cuda, "import_system", lambda name: None)
    monkeypatch.setattr(cuda.ctypes.util, "find_library", lambda name: str(library))
    there = cuda.Cuda()
    source, result = np.arange(100, dtype=np.float32), np.zeros(100, np.float32)
    address = there.take(source.nbytes)
    there.copy(address, source.ctypes.data, source.nbytes, cuda.TO_DEVICE)
    there.copy(result.ctypes.data, address, source.nbytes, cuda.TO_HOST)
    there.wait()
    np.testing.assert_array_equal(result, source)
    with pytest.raises(AgentError, match="cudaMalloc: out of memory"):
        there.take(2**21)
    monkeypatch.setattr(cuda.ctypes.util, "find_library", lambda name: None)
    monkeypatch.setattr(cuda, "_PLACES", ())
    with pytest.raises(AgentError, match="no CUDA runtime here"):
        cuda.Cuda()


# ------------------------------------------------------------------------------------ from the host


def over_ssh(*words: object) -> Any:
    return CliRunner().invoke(
        bench_command, [*map(str, words), "--device", ADDRESS, "--seconds", "1s"], catch_exceptions=True
    )


@pytest.fixture
def linked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: StandIn) -> tuple[Place, StandIn]:
    """The stand-ins on the device behind the program in ssh's place, which keeps this machine's PATH."""
    at = place(tmp_path, monkeypatch)
    program = tmp_path / "ssh"
    program.write_text(
        program.read_text()
        .replace("export HOME=", f"export PATH={at.jetson.bin}:$PATH; export HOME=")
        .replace(" PATH=", f" PATH={at.jetson.bin}:")
    )
    return at, there


@pytest.mark.parametrize("fault", ["reset", "after"])
def test_a_link_that_breaks_while_an_engine_is_built(linked: tuple[Place, StandIn], fault: str) -> None:
    at, there = linked
    at.jetson.behave(seconds=3)  # a build is seen only if it lasts until the next look at it
    said: list[str] = []

    def notify(text: str) -> None:
        said.append(text)
        if "building" in text:
            there.spoil(fault, 2)

    with SshDevice.at(ADDRESS, times=HASTE) as device:
        artifact = Artifact(at.work / "model.int8.onnx", "tensorrt")
        (found,) = bench([artifact], BenchOptions(seconds=1), device, notify)
    assert any("building" in text for text in said)
    assert (found.engine, found.engine_version, found.first_ms) == ("tensorrt", "8.5.2", None)
    assert (found.device, found.runtime) == (ADDRESS, "tensorrt 8.5.2 (GPU, int8 + fp16)")
    # The engine lies beside the file that was sent, and serves the next time.
    assert len(list(there.home.glob(".cache/edgec/files/*/engines/*.engine"))) == 1
    there.clean()


def test_bench_shows_layers_and_nodes(linked: tuple[Place, StandIn]) -> None:
    at, _ = linked
    names = {"conv1": "x", "relu1": "a", "gate_sigmoid": "b", "gate_mul": "c", "flatten": "d", "fc": "e"}
    graph = onnx.parser.parse_model(FLOAT)
    del graph.graph.node[:]
    for (name, source), result in zip(names.items(), "abcdey", strict=True):
        op = {"conv1": "Abs", "relu1": "Relu", "gate_sigmoid": "Sigmoid", "fc": "Neg"}.get(name, "Tanh")
        graph.graph.node.append(onnx.helper.make_node(op, [source], [result], name=name))
    onnx.save(graph, at.work / "model.onnx")
    done = over_ssh(at.work / "model.onnx", "--engine", "tensorrt", "--per-layer", "--json")
    assert done.exit_code == 0, done.output
    (rows,) = json.loads(done.stdout)["layers"].values()
    assert [row["nodes"] for row in rows] == [
        ["conv1", "relu1"], ["conv1", "relu1"], ["gate_sigmoid", "gate_mul"], ["flatten", "fc"],
    ]  # fmt: skip
    assert [row["op"] for row in rows] == [
        "copy between formats",
        "Abs + Relu",
        "Sigmoid + Tanh",
        "Tanh + Neg",
    ]


def test_errors_of_the_board_are_the_command_s(linked: tuple[Place, StandIn]) -> None:
    at, _ = linked
    at.jetson.behave(unsupported=["model.onnx"], errors=IMPLEMENTATION)
    done = over_ssh(at.work / "model.onnx", "--engine", "tensorrt")
    assert isinstance(done.exception, ModelError), (done.output, done.stderr)
    assert "node depthwise" in str(done.exception)
    (at.jetson.bin / "trtexec").unlink()
    done = over_ssh(at.work / "model.onnx", "--engine", "tensorrt")
    assert isinstance(done.exception, DeviceError), (done.output, done.stderr)
    assert "no TensorRT here" in str(done.exception)
    assert "pip install" not in str(done.exception)


@pytest.mark.parametrize("word", [("--threads", "4"), ("--compare", "--json")])
def test_options_that_would_do_nothing(here: Place, word: tuple[str, ...]) -> None:
    files = [here.work / "model.onnx"] * 2
    done = CliRunner().invoke(bench_command, [*map(str, files), "--engine", "tensorrt", *word])
    assert "does nothing with --engine tensorrt" in str(done.exception)


# ------------------------------------------------------------------------------------ names of layers


@pytest.mark.parametrize(
    ("layer", "nodes"),
    [
        ("a/Conv + a/Relu", ["a/Conv", "a/Relu"]),
        ("PWN(PWN(a/Relu), b (2))", ["a/Relu", "b (2)"]),
        ("a/Conv || b (2)", ["a/Conv", "b (2)"]),
        ("{ForeignNode[a/Conv...b (2)]}", ["a/Conv", "b (2)"]),
        ("Reformatting CopyNode for Input Tensor 0 to a/Conv", ["a/Conv"]),
        ("node_of_y", ["y"]),
        ("a/Conv/extra + xa/Relu", []),
        ("(Unnamed Layer* 3) [Shuffle]", []),
        ("0", ["0"]),
    ],
)
def test_layers_are_made_of_nodes(tmp_path: Path, layer: str, nodes: list[str]) -> None:
    graph = onnx.parser.parse_model(FLOAT)
    del graph.graph.node[:]
    for name, source, result in (
        ("a/Conv", "x", "p"),
        ("a/Relu", "p", "q"),
        ("b (2)", "q", "r"),
        ("0", "r", "t"),
        ("", "t", "y"),
    ):
        graph.graph.node.append(onnx.helper.make_node("Relu", [source], [result], name=name))
    onnx.save(graph, tmp_path / "m.onnx")
    (found,) = mapped([LayerTime(layer, "", 1.0, 1.0)], tmp_path / "m.onnx")
    assert list(found.nodes) == nodes
    (found,) = mapped([LayerTime("__myl_3", "", 1.0, 1.0, ("a/Relu", "gone"))], tmp_path / "m.onnx")
    assert found.nodes == ("a/Relu",)


@pytest.mark.parametrize("kind", ["BF16", "FP8", "INT4", "FP4", "E8M0"])
def test_a_type_that_numpy_lacks_is_named(kind: str) -> None:
    """TensorRT's ``DataType`` knows more than an array can hold (8.6 to 10.13)."""
    with pytest.raises(AgentError, match=f"'boxes' of the engine is {kind}"):
        trt_run._type_of("boxes", kind)


@pytest.mark.parametrize("kind", ["FLOAT", "HALF", "INT8", "INT32", "INT64", "BOOL", "UINT8"])
def test_types_that_an_array_can_hold(kind: str) -> None:
    assert np.dtype(trt_run._type_of("x", kind)).itemsize in (1, 2, 4, 8)
