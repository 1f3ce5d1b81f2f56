"""The command line, one whole run per command, and every kind of bad input with its exit code."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from tests.compiler.conftest import NET, compile_args
from tests.conftest import parse


def contents(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if not path.name.startswith(".")}


def test_compile_leaves_what_the_design_says(edgec, files) -> None:
    code, out, err = edgec(*compile_args(files, "--precision", "int8"))
    assert code == 0, err
    assert contents(files / "out") == {
        "model.onnx", "model.int8.onnx", "recipe.yaml", "report.html", "report.json", "log.jsonl",
    }  # fmt: skip
    assert "report.html" in out
    report = json.loads((files / "out" / "report.json").read_text())
    assert {
        "edgec",
        "model",
        "target",
        "compressed",
        "quality",
        "artifacts",
        "passes",
        "seconds",
        "peak_rss_mb",
    } <= set(report)
    assert {"sha256", "macs", "params", "bytes"} <= set(report["model"])
    assert set(report["quality"]) == {"teacher", "float", "int8"}
    assert {"top1", "agreement", "sqnr_db", "kl", "images"} <= set(report["quality"]["int8"])
    assert [artifact["path"] for artifact in report["artifacts"]] == ["model.onnx", "model.int8.onnx"]
    for artifact in report["artifacts"]:
        assert (files / "out" / artifact["path"]).stat().st_size == artifact["bytes"]
    assert str(files) not in (files / "out" / "report.html").read_text()


def test_compile_json_is_one_object_and_nothing_else(edgec, files) -> None:
    code, out, _ = edgec(*compile_args(files, "--json"))
    assert code == 0
    assert json.loads(out) == json.loads((files / "out" / "report.json").read_text())


def test_the_recipe_reproduces_the_run_bit_for_bit(edgec, files) -> None:
    edgec(*compile_args(files, "--precision", "int8", "--samples", 20))
    code, _, err = edgec(
        "compile", "--recipe", files / "out" / "recipe.yaml", "-o", files / "again", "--no-bench"
    )
    assert code == 0, err
    for name in ("model.onnx", "model.int8.onnx"):
        assert (files / "out" / name).read_bytes() == (files / "again" / name).read_bytes()


def test_a_recipe_that_names_python_code_asks_for_trust(edgec, files) -> None:
    """A recipe is a file from elsewhere too: what its author named is not what the user of it named."""
    (files / "net.py").write_text(f"open({str(files / 'ran')!r}, 'w')\n\ndef make():\n    return None\n")
    (files / "recipe.yaml").write_text("model: {path: 'net.py:make', input_shape: [3, 8, 8]}\n")
    code, _, err = edgec("compile", "--recipe", files / "recipe.yaml", "-o", files / "again")
    assert code == 2
    assert "Python code" in err
    assert "--trust" in err
    assert not (files / "ran").exists()


def test_limits_for_loading_are_checked(edgec, files) -> None:
    for option, value, words in (
        ("--load-timeout", "0", "not a time"),
        ("--load-timeout", "soon", "not a time"),
        ("--load-memory", "10M", "256M"),
        ("--load-memory", "lots", "512M or 2G"),
    ):
        for command in (["inspect"], ["compile", "--dry-run"], ["bench"], ["verify", files / "net.onnx"]):
            code, _, err = edgec(*command, files / "net.onnx", option, value)
            assert code == 2, (command, option, value)
            assert words in err


def test_a_recipe_for_another_model_is_refused(edgec, files) -> None:
    edgec(*compile_args(files))
    onnx.save(parse(NET, seed=5), files / "net.onnx")
    code, _, err = edgec("compile", "--recipe", files / "out" / "recipe.yaml", "-o", files / "again")
    assert code == 3
    assert "not the recipe's model" in err
    assert not (files / "again").exists()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "model: {path: net.onnx}\nprecison: int8\n",
            "recipe.yaml:2: unknown key 'precison'\nDid you mean 'precision'",
        ),
        ("model: {path: net.onnx}\ndata:\n  path: calib.npz\n  samples: many\n", "recipe.yaml:4"),
        ("model: {path: net.onnx}\npasses: [fold, fould]\n", "Did you mean 'fold'"),
        ("- a list\n", "mapping"),
        ("model: [unclosed\n", "not YAML"),
    ],
)
def test_recipe_mistakes_name_file_line_and_key(edgec, files, text, expected) -> None:
    (files / "recipe.yaml").write_text(text)
    code, _, err = edgec("compile", "--recipe", files / "recipe.yaml", "-o", files / "again")
    assert code == 2
    assert expected in err
    assert not (files / "again").exists()


def test_dry_run_writes_nothing(edgec, files) -> None:
    before = contents(files)
    code, out, _ = edgec(*compile_args(files, "--precision", "int8", "--dry-run"))
    assert code == 0
    assert "quantize" in out
    assert "model.int8.onnx" in out
    assert contents(files) == before


def test_a_missed_gate_is_exit_1_with_artifacts(edgec, files) -> None:
    code, _, err = edgec(*compile_args(files, "--budget", "macs=1%"))
    assert code == 1
    assert "gate failed" in err
    assert (files / "out" / "model.onnx").exists()
    report = json.loads((files / "out" / "report.json").read_text())
    assert [gate["passed"] for gate in report["gates"]] == [False]


def test_nothing_to_prune_is_exit_1_and_says_so(edgec, files) -> None:
    alone = parse(
        "net (float[N,3,16,16] x) => (float[N,3,16,16] y) <float[3,1,3,3] w>"
        " { y = Conv<group=3, pads=[1,1,1,1]>(x, w) }"
    )
    onnx.save(alone, files / "net.onnx")
    code, _, err = edgec(
        "compile", files / "net.onnx", "--data", files / "calib.npz", "--budget", "macs=50%", "--no-bench",
        "-o", files / "out",
    )  # fmt: skip
    assert code == 1
    assert "no channel can be removed and no layer cut" in err
    notes = json.loads((files / "out" / "report.json").read_text())["passes"][0]["notes"]
    assert any("not prunable" in note["text"] for note in notes)
    assert any("its channels are in groups" in note["text"] for note in notes)


def test_random_data_is_marked(edgec, files) -> None:
    code, _, _ = edgec(
        "compile",
        files / "net.onnx",
        "--data",
        "random",
        "--precision",
        "int8",
        "-o",
        files / "out",
        "--no-bench",
    )
    assert code == 0
    report = json.loads((files / "out" / "report.json").read_text())
    assert report["data"]["random"] is True
    assert "noise" in (files / "out" / "report.html").read_text()


BAD = {
    "missing file": (["compile", "nothing.onnx", "-o", "out"], 3, "no such file"),
    "not a model": (["compile", "calib.npz", "-o", "out"], 3, "not an ONNX file"),
    "no output": (["compile", "net.onnx"], 2, "no output folder"),
    "no model": (["compile", "-o", "out"], 2, "no model"),
    "int8 without data": (
        ["compile", "net.onnx", "--precision", "int8", "-o", "out"],
        2,
        "needs calibration data",
    ),
    "missing data": (["compile", "net.onnx", "--data", "nothing", "-o", "out"], 3, "no such file or folder"),
    "unknown pass": (["compile", "net.onnx", "--passes", "quantise", "-o", "out"], 2, "quantize"),
    "unknown option": (["compile", "net.onnx", "--passes", "quantize{metod=x}", "-o", "out"], 2, "method"),
    "unknown target": (["compile", "net.onnx", "--target", "rpi44", "-o", "out"], 2, "rpi4"),
    "unknown unit": (["compile", "net.onnx", "--budget", "mcas=50%", "-o", "out"], 2, "macs"),
    "senseless budget": (["compile", "net.onnx", "--budget", "macs=150%", "-o", "out"], 2, "between"),
    "unknown precision": (["compile", "net.onnx", "--precision", "int4", "-o", "out"], 2, "int4"),
    "unknown format": (
        ["compile", "net.onnx", "--format", "onxx", "-o", "out"],
        2,
        "--format: 'onxx' is not one of",
    ),
    "unknown command": (["complie", "net.onnx"], 2, "Did you mean 'compile'"),
    "unknown flag": (["compile", "net.onnx", "--budgett", "x"], 2, "--budget"),
    "samples without data": (["compile", "net.onnx", "--samples", "3", "-o", "out"], 2, "--data"),
    "bad mean": (
        ["compile", "net.onnx", "--data", "calib.npz", "--mean", "a,b", "-o", "out"],
        2,
        "--mean: 'a' is not a number",
    ),
    "labels too short": (["compile", "net.onnx", "--eval", "short.npz", "-o", "out"], 3, "labels do not fit"),
    "labels out of range": (["compile", "net.onnx", "--eval", "range.npz", "-o", "out"], 3, "--label-offset"),
    "labels of other classes": (
        ["compile", "net.onnx", "--eval", "others.npz", "-o", "out"],
        3,
        "They are of other classes.",
    ),
    "wrong data shape": (["compile", "net.onnx", "--data", "shape.npz", "-o", "out"], 3, "does not fit"),
    "nan": (["compile", "net.onnx", "--data", "nan.npz", "-o", "out"], 3, "NaN"),
    "corrupt picture": (["compile", "net.onnx", "--data", "pictures", "-o", "out"], 3, "bad.png"),
    "empty folder": (["compile", "net.onnx", "--data", "empty", "-o", "out"], 3, "empty"),
    "foreign folder": (["compile", "net.onnx", "-o", "pictures"], 2, "not a run"),
    "output is a file": (["compile", "net.onnx", "-o", "net.onnx"], 2, "not a folder"),
    "inspect missing": (["inspect", "nothing.onnx"], 3, "no such file"),
    "verify other inputs": (["verify", "net.onnx", "other.onnx"], 3, ""),
    "bench missing": (["bench", "nothing.onnx"], 3, "no such file"),
    "bench elsewhere": (["bench", "net.onnx", "--target", "rpi4"], 2, "--estimate"),
    "report of no run": (["report", "pictures"], 3, "report"),
    "show unknown pass": (["passes", "show", "prune"], 2, "unknown pass"),
    "show unknown target": (["targets", "show", "rpi"], 2, "rpi"),
}


@pytest.fixture
def bad(files: Path, monkeypatch) -> Path:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((6, 3, 16, 16)).astype(np.float32)
    np.savez(files / "short.npz", x=x, y=np.arange(5))
    np.savez(files / "range.npz", x=x, y=np.arange(6) + 7)
    np.savez(files / "others.npz", x=x, y=np.arange(6) * 100)
    np.savez(files / "shape.npz", x=x[:, :2])
    np.savez(files / "nan.npz", x=np.where(x > 2, np.nan, x).astype(np.float32))
    (files / "pictures").mkdir()
    Image.fromarray(rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)).save(files / "pictures" / "good.png")
    (files / "pictures" / "bad.png").write_bytes(b"no picture")
    (files / "empty").mkdir()
    onnx.save(parse("net (float[N,5] x) => (float[N,5] y) { y = Relu(x) }"), files / "other.onnx")
    monkeypatch.chdir(files)
    return files


@pytest.mark.parametrize(("arguments", "code", "expected"), BAD.values(), ids=BAD.keys())
def test_bad_input_ends_in_one_message(edgec, bad, arguments, code, expected) -> None:
    before = contents(bad)
    got, out, err = edgec(*arguments)
    assert got == code, err
    assert expected in err
    assert out == ""
    assert len(err.strip().splitlines()) <= 4
    assert contents(bad) == before


def test_one_corrupt_picture_can_be_skipped(edgec, bad) -> None:
    code, _, err = edgec(
        "compile",
        "net.onnx",
        "--data",
        "pictures",
        "--skip-bad",
        "--scale",
        "1/255",
        "-o",
        "out",
        "--no-bench",
    )
    assert code == 0, err
    report = json.loads((bad / "out" / "report.json").read_text())
    assert any("bad.png" in warning for warning in report["warnings"])


def test_force_writes_beside_what_is_there(edgec, bad) -> None:
    code, _, _ = edgec("compile", "net.onnx", "-o", "pictures", "--force", "--no-bench")
    assert code == 0
    assert (bad / "pictures" / "good.png").exists()


def test_a_full_disk_keeps_the_old_artifacts(edgec, files, monkeypatch) -> None:
    edgec(*compile_args(files))
    old = (files / "out" / "model.onnx").read_bytes()
    import errno

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("edgec.graph.disk.os.fsync", full)
    code, _, err = edgec(*compile_args(files, "--precision", "int8"))
    assert code == 3
    assert "the disk is full" in err
    assert (files / "out" / "model.onnx").read_bytes() == old
    assert not (files / "out" / "model.int8.onnx").exists()
    assert not (files / "out" / ".part").exists()


def test_inspect_and_its_json(edgec, files) -> None:
    code, out, _ = edgec("inspect", files / "net.onnx", "--layers")
    assert code == 0
    assert "MACs" in out
    code, out, _ = edgec("inspect", files / "net.onnx", "--groups", "--json")
    found = json.loads(out)
    assert found["macs"] == 16 * 16 * 8 * 27 + 8 * 8 * 16 * 72 + 160
    assert {"macs", "params", "layers", "groups"} <= set(found)
    assert any(group["prunable"] for group in found["groups"])


def test_inspect_lists_the_residual_blocks(edgec, files) -> None:
    code, out, _ = edgec("inspect", files / "net.onnx", "--blocks")
    assert code == 0
    assert "none: no sum joins a branch" in out
    from edgec.graph.load import load  # the demonstration network has residual blocks
    from edgec.graph.regions import regions

    digits = Path(__file__).resolve().parents[2] / "examples" / "digits.onnx"
    names = [block.name for block in regions(load(digits))]
    assert names
    _, out, _ = edgec("inspect", digits, "--blocks")
    assert all(name in out for name in names)
    _, out, _ = edgec("inspect", digits, "--blocks", "--json")
    found = json.loads(out)["blocks"]
    assert [one["name"] for one in found] == names
    assert all(0 < one["macs"] < json.loads(out)["macs"] for one in found)


def test_verify_finds_the_first_wrong_layer(edgec, files) -> None:
    from edgec.graph.views import ConvView

    edgec(*compile_args(files))
    code, out, _ = edgec(
        "verify", files / "net.onnx", files / "out" / "model.onnx", "--data", files / "calib.npz", "--bisect"
    )
    assert code == 0, out
    import onnx_ir as ir

    model = ir.load(files / "out" / "model.onnx")
    second = [node for node in model.graph if node.op_type == "Conv"][1]
    ConvView(second).set(weight=ConvView(second).weight * 3)
    ir.save(model, files / "wrong.onnx")
    code, out, _ = edgec(
        "verify", files / "net.onnx", files / "wrong.onnx", "--data", files / "calib.npz", "--bisect"
    )
    assert code == 1
    assert second.outputs[0].name in out


def test_bench_measures_and_compares(edgec, files) -> None:
    edgec(*compile_args(files))
    code, out, _ = edgec("bench", files / "out" / "model.onnx", "--runs", 5, "--seconds", 0.05, "--json")
    assert code == 0
    (measurement,) = json.loads(out)["measurements"]
    assert measurement["median_ms"] > 0
    assert measurement["runs"] >= 5


def test_passes_and_targets(edgec) -> None:
    for arguments in (
        ["passes", "list"],
        ["passes", "show", "quantize"],
        ["targets", "list"],
        ["targets", "show", "rpi4"],
    ):
        code, out, _ = edgec(*arguments)
        assert code == 0
        assert out
    code, out, _ = edgec("passes", "list", "--json")
    assert "fold-pointwise" in {one["name"] for one in json.loads(out)["passes"]}


def test_targets_list_names_all_with_their_chip(edgec) -> None:
    code, out, _ = edgec("targets", "list")
    assert code == 0
    assert "Raspberry Pi 4" in out
    code, out, _ = edgec("targets", "list", "--json")
    found = {one["name"]: one for one in json.loads(out)["targets"]}
    assert {"host", "rpi4", "rpi5", "jetson-nano", "rk3588", "generic-arm64"} <= set(found)
    assert (found["rpi4"]["soc"], found["rpi4"]["cores"]) == ("Broadcom BCM2711", 4)


def test_targets_show_gives_every_number_its_source(edgec) -> None:
    code, out, _ = edgec("targets", "show", "rpi4", "--json")
    shown = json.loads(out)
    assert code == 0
    assert {"channel_multiple", "threads", "memory_mb", "isa", "throttle"} <= set(shown["sources"])
    assert any(system["name"] == "rpi-os-bookworm-64" for system in shown["systems"])
    code, _, err = edgec("targets", "show", "rpi44")
    assert code == 2
    assert "rpi4" in err


def test_targets_check_reads_this_machine(edgec) -> None:
    code, out, _ = edgec("targets", "check", "host", "--json")
    assert (code, json.loads(out)["fits"]) == (0, True)
    code, out, _ = edgec("targets", "check", "rpi3", "--json")
    differences = {one["what"]: one for one in json.loads(out)["differences"]}
    assert differences["board"]["target"].startswith("Raspberry Pi 3")
    assert differences["cores"]["target"] == "4 x Cortex-A53"
    assert ("architecture" in differences) == (platform.machine() != "aarch64")
    if "architecture" in differences:
        assert (code, json.loads(out)["fits"]) == (1, False)


def test_targets_add_keeps_a_valid_file_and_refuses_others(edgec, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    mine = tmp_path / "mine.yaml"
    mine.write_text(
        'extends: rpi4\nname: my-camera\nthreads: 2\nsources: {threads: "two are the encoder\'s"}\n'
    )
    code, out, _ = edgec("targets", "add", mine)
    assert (code, out) == (0, "added: my-camera\n")
    code, out, _ = edgec("targets", "show", "my-camera", "--json")
    assert (json.loads(out)["threads"], json.loads(out)["estimates_from"]) == (2, "rpi4")
    mine.write_text("extends: rpi4\nname: my-camera\nthreds: 2\n")
    code, _, err = edgec("targets", "add", mine)
    assert code == 2
    assert "threds" in err
    assert "threads" in err


def test_report_of_one_and_of_two_runs(edgec, files) -> None:
    edgec(*compile_args(files))
    edgec("compile", "--recipe", files / "out" / "recipe.yaml", "-o", files / "second", "--no-bench")
    code, out, _ = edgec("report", files / "out")
    assert code == 0
    assert "net.onnx" in out
    code, out, _ = edgec("report", files / "out", files / "second", "--md")
    assert code == 0
    assert out.count("|") > 6


def test_starting_is_instant_and_loads_nothing_heavy() -> None:
    program = (
        "import sys, runpy; sys.argv = ['edgec', '--help']\n"
        "try:\n    runpy.run_module('edgec', run_name='__main__')\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'onnxruntime', 'onnx', 'onnx_ir', 'numpy', 'scipy', 'pydantic', 'matplotlib', 'jinja2'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_verify_runs_a_tflite_file(edgec, files) -> None:
    pytest.importorskip("ai_edge_litert")
    edgec(*compile_args(files, "--format", "tflite", "--precision", "int8"))
    for name, floor in (("model.tflite", 80.0), ("model.int8.tflite", 15.0)):
        path = files / "out" / name
        code, out, err = edgec("verify", files / "net.onnx", path, "--data", files / "calib.npz", "--json")
        assert code == 0, err
        (output,) = json.loads(out)["layers"]
        assert output["sqnr_db"] > floor


def test_what_tflite_cannot_take_stops_or_is_split_off(edgec, files) -> None:
    pytest.importorskip("ai_edge_litert")
    text = NET.replace(
        "y = Gemm<transB=1>(f, g, c)", "h = Gemm<transB=1>(f, g, c)  y = LpNormalization<axis=1>(h)"
    )
    onnx.save(parse(text), files / "net.onnx")
    code, _, err = edgec(*compile_args(files, "--format", "tflite"))
    assert code == 3
    assert "LpNormalization" in err
    code, _, err = edgec(*compile_args(files, "--format", "tflite", "--split-unsupported"))
    assert code == 0, err
    report = json.loads((files / "out" / "report.json").read_text())
    assert any("LpNormalization" in warning for warning in report["warnings"])


@pytest.mark.parametrize("io_type", ["float", "int8"])
def test_where_every_layer_stays_float_so_do_the_files_and_are_said_to(edgec, files, io_type: str) -> None:
    """As where each layer alone in int8 loses too much: the TFLite file was a usage error, the ONNX file float without a word."""
    pytest.importorskip("ai_edge_litert")
    passes = ("--passes", "quantize{exclude=*}", "--format", "onnx,tflite", "--io-type", io_type)
    code, _, err = edgec(*compile_args(files, *passes))
    assert code == 0, err
    report = json.loads((files / "out" / "report.json").read_text())
    assert any("the int8 files are float" in warning for warning in report["warnings"])
    assert {"model.int8.onnx", "model.int8.tflite"} <= contents(files / "out")


@pytest.mark.parametrize("command", [["targets", "list"], ["passes", "list"], ["inspect", "net.onnx"]])
def test_a_reader_that_goes_away_is_no_error(files: Path, command: list[str]) -> None:
    """As ``edgec ... | head`` does; whoever meets the broken pipe first, click, a console, or the last flush."""
    command = [str(files / word) if word == "net.onnx" else word for word in command]
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "edgec", *command], stdout=writer, stderr=subprocess.PIPE, check=False
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")
