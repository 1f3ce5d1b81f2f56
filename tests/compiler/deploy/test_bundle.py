"""Bundles: what is in them, that they compute on their own what edgec computes, and that they refuse what is wrong."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from edgec.compiler.deploy.bundle import Bundle, DeployOptions, engine_lines, make_bundle, requirements
from edgec.compiler.deploy.device import _add_to_report
from edgec.compiler.deploy.wheels import download, platform_tags
from edgec.graph.errors import DataError, ModelError, UnsupportedError, UsageError
from edgec.graph.preprocess import Preprocess
from edgec.runtime.bench import BenchOptions, bench
from edgec.runtime.devices.local import LocalDevice
from edgec.runtime.report import read
from edgec.runtime.report.facts import changes
from edgec.runtime.report.schema import Latency
from edgec.targets import target

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"


def python(folder: Path, *words: str, code: int | None = 0) -> subprocess.CompletedProcess[str]:
    """Run a program of the bundle, by itself: no edgec on its path."""
    command = [sys.executable, "-I", *words] if words[0] == "-c" else [sys.executable, *words]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=120)
    assert code is None or done.returncode == code, done.stderr
    return done


def test_a_bundle_is_whole_and_says_what_it_is(bundle: Bundle, run: Path) -> None:
    names = {path.name for path in bundle.path.iterdir()}
    programs = {"run.py", "selftest.py", "contents.py", "prepare.py", "service.py", "install.sh", "bench.sh"}
    programs |= {"edgec-agent.pyz", "edgec-model.service"}
    assert names == programs | set(bundle.artifacts) | {
        "README.md", "SHA256SUMS", "bundle.json", "engines.txt", "selftest.npz", "labels.txt",
    }  # fmt: skip
    assert set(bundle.artifacts) == {"model.onnx", "model.int8.onnx", "model.tflite", "model.int8.tflite"}
    assert "int8" in bundle.artifacts[0]
    subprocess.run(["sha256sum", "--quiet", "-c", "SHA256SUMS"], cwd=bundle.path, check=True)
    assert os.access(bundle.path / "install.sh", os.X_OK)
    for path in bundle.path.iterdir():
        if path.suffix not in (".onnx", ".tflite", ".npz", ".pyz", ".png"):
            text = path.read_text(encoding="utf-8")
            assert str(run.parent) not in text
            assert "$" not in text or path.suffix in (".sh", ".py", ".service")
    readme = (bundle.path / "README.md").read_text(encoding="utf-8")
    assert "Raspberry Pi OS Bookworm" in readme
    assert "of the calibration samples" in readme


def test_the_self_test_passes_here_and_catches_a_wrong_device(copy: Path) -> None:
    result = json.loads(python(copy, "selftest.py", "--json").stdout)
    assert result["passed"]
    by_name = {line["artifact"]: line for line in result["artifacts"]}
    assert by_name["model.int8.onnx"]["bit_equal"]
    assert by_name["model.int8.tflite"]["bit_equal"]
    with np.load(copy / "selftest.npz") as archive:
        recorded = dict(archive)
    key = next(name for name in recorded if name.startswith("model.int8.onnx/out/"))
    values = recorded[key].copy()
    values.reshape(-1)[0] = np.nextafter(values.reshape(-1)[0], np.float32(9e9))  # the last bit
    np.savez(copy / "selftest.npz", **recorded | {key: values})
    said = python(copy, "selftest.py", code=1).stdout
    assert "FAILED   model.int8.onnx" in said
    assert said.count("ok ") == 3


def test_run_classifies_files(copy: Path) -> None:
    with np.load(EXAMPLES / "digits" / "eval.npz") as archive:
        x, y = archive["x"], archive["y"]
    np.save(copy / "one.npy", x[0])
    said = python(copy, "run.py", "one.npy", "--top", "1").stdout
    assert f"class {y[0]}  digit {y[0]}" in said
    np.savez(copy / "several.npz", x=x[0])
    for name, there in (
        ("array.npz", "one.npy"),
        ("archive.npy", "several.npz"),
    ):  # misnamed: content decides
        shutil.copy(copy / there, copy / name)
        assert f"class {y[0]}  digit {y[0]}" in python(copy, "run.py", name, "--top", "1").stdout
    folder = copy / "many"
    folder.mkdir()
    for i in range(4):
        np.save(folder / f"{i}.npy", x[i])
    lines = python(copy, "run.py", "many", "--json").stdout.splitlines()
    assert [json.loads(line)["top"][0]["class"] for line in lines] == y[:4].tolist()
    for artifact in ("model.tflite", "model.onnx"):
        line = python(copy, "run.py", "one.npy", "--json", "--artifact", artifact).stdout
        assert json.loads(line)["top"][0]["class"] == y[0]


def test_run_says_what_is_wrong(copy: Path) -> None:
    np.save(copy / "bad.npy", np.zeros((7, 7, 7), np.float32))
    (copy / "bad.png").write_bytes(b"no picture")
    assert "must be" in python(copy, "run.py", "bad.npy", code=3).stderr
    np.save(copy / "four.npy", np.zeros((4, 1, 8, 8), np.float32))
    assert "one sample at a time: the array has 4 of" in python(copy, "run.py", "four.npy", code=3).stderr
    assert "bad.png" in python(copy, "run.py", "bad.png", code=3).stderr
    assert "no such file" in python(copy, "run.py", "none.png", code=3).stderr
    assert "no artifact" in python(copy, "run.py", "bad.npy", "--artifact", "x.onnx", code=3).stderr
    assert "give pictures" in python(copy, "run.py", code=2).stderr
    for name in ("bad.npy", "bad.png"):
        assert "Traceback" not in python(copy, "run.py", name, code=3).stderr


def test_the_class_is_five_lines(copy: Path) -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(copy)!r}); import numpy as np; from run import Model; m = Model(); "
        "out = m(np.zeros(m.engine.inputs[0][1], np.float32)); print(len(m.top(out, 3)))"
    )
    assert python(copy, "-c", code).stdout.strip() == "3"


def test_watch_takes_new_files(copy: Path) -> None:
    with np.load(EXAMPLES / "digits" / "eval.npz") as archive:
        one = archive["x"][0]
    command = [sys.executable, "run.py", "--watch", "inbox", "--json"]
    process = subprocess.Popen(command, cwd=copy, stdout=subprocess.PIPE, text=True)
    try:
        (copy / "inbox").mkdir(exist_ok=True)
        np.save(copy / "inbox" / "new.npy", one)
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["input"] == "inbox/new.npy"
    finally:
        process.terminate()
        process.communicate()


CODE = """
import json, sys
import numpy as np
sys.path.insert(0, {folder!r})
from pathlib import Path
from prepare import Preparation
results = {{}}
for i, steps in enumerate(json.loads(sys.stdin.read())):
    results[str(i)] = Preparation(steps).file(Path({picture!r}))
np.savez({save!r}, **results)
"""


@settings(max_examples=3, deadline=None)
@given(size=st.tuples(st.integers(9, 40), st.integers(9, 40)), seed=st.integers(0, 9))
def test_the_device_preprocesses_as_edgec_does(bundle: Bundle, size: tuple[int, int], seed: int) -> None:
    """Every kind of step, on one random picture, in the bundle's own program: the same bits."""
    rng = np.random.default_rng(seed)
    picture = bundle.path.parent / "picture.png"
    save = bundle.path.parent / "prepared.npz"
    Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)).save(picture)
    recipes = [
        Preprocess(),
        Preprocess(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), scale=1 / 255),
        Preprocess(resize=(8,), crop=(7, 8), channels="bgr"),
        Preprocess(resize=(12, 17), channels="gray", mean=(127.5,), std=(127.5,)),
        Preprocess(resize=(20, 16), letterbox=114),
        Preprocess(resize=(20, 17), letterbox=114, letterbox_at="centre"),
        Preprocess(crop=(9, 9), scale=1 / 127.5, mean=(1.0,)),
    ]
    code = CODE.format(folder=str(bundle.path), picture=str(picture), save=str(save))
    words = json.dumps([recipe.to_dict() for recipe in recipes])
    subprocess.run([sys.executable, "-I", "-c", code], input=words, text=True, check=True, timeout=60)
    with np.load(save) as prepared, Image.open(picture) as image:
        for i, recipe in enumerate(recipes):
            expected = recipe.normalise(recipe.picture(image))
            np.testing.assert_array_equal(prepared[str(i)], expected, err_msg=str(recipe))


def test_the_device_reads_deep_and_transparent_pictures_too(bundle: Bundle, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    made = {
        "deep.png": Image.fromarray(rng.integers(29000, 31000, (20, 30)).astype(np.uint16)),
        "deep.tif": Image.fromarray(rng.integers(0, 65536, (20, 30)).astype(np.uint16)),
        "real.tif": Image.fromarray(rng.random((20, 30), dtype=np.float32)),
        "alpha.png": Image.fromarray(rng.integers(0, 256, (20, 30, 4)).astype(np.uint8)),
    }
    for name, image in made.items():
        image.save(tmp_path / name)
    sizes: list[dict[str, Any]] = [{}, {"resize": (9, 8)}, {"resize": (12,), "crop": (12, 12)}]
    sizes.append({"resize": (16, 20), "letterbox": 114})
    recipes = [
        Preprocess(channels=channels, scale=1 / 255, **size)
        for channels in ("gray", "rgb", "bgr", "rgba")
        for size in sizes
    ]
    words = json.dumps([recipe.to_dict() for recipe in recipes])
    for name in made:
        code = CODE.format(
            folder=str(bundle.path), picture=str(tmp_path / name), save=str(tmp_path / "x.npz")
        )
        subprocess.run([sys.executable, "-I", "-c", code], input=words, text=True, check=True, timeout=60)
        with np.load(tmp_path / "x.npz") as prepared, Image.open(tmp_path / name) as image:
            for i, recipe in enumerate(recipes):
                expected = recipe.normalise(recipe.picture(image))
                np.testing.assert_array_equal(prepared[str(i)], expected, err_msg=f"{name} {recipe}")


@pytest.mark.parametrize(
    ("out", "why"),
    [("made", "the run is in it"), ("made/../made", "the run is in it"), ("", "the run is in it"), ("here", "you are in it"),
     ("here/..", "the run is in it"), ("here/within/..", "you are in it")],
)  # fmt: skip
def test_a_bundle_never_takes_the_place_of_the_run(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str, why: str
) -> None:
    """A folder is replaced as a whole: with --force too, nobody means the run by it, or the folder that they stand in."""
    made = Path(shutil.copytree(run, tmp_path / "made"))
    (tmp_path / "here" / "within").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(UsageError, match=why):
        make_bundle(made, tmp_path / out, DeployOptions(force=True))
    if why.startswith("you"):
        with pytest.raises(UsageError, match=why):
            make_bundle(made, Path(), DeployOptions())
    assert (made / "report.json").exists()


def test_what_is_refused(run: Path, bundle: Bundle, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("precious")
    with pytest.raises(UsageError, match="not a bundle"):
        make_bundle(run, mine, DeployOptions())
    assert (mine / "thesis.txt").read_text() == "precious"
    with pytest.raises(UsageError, match="no artifact") as info:
        make_bundle(run, tmp_path / "b", DeployOptions(artifacts=("model.int8.onx",)))
    assert "model.int8.onnx" in str(info.value)
    with pytest.raises(UsageError, match="no system"):
        make_bundle(run, tmp_path / "b", DeployOptions(artifacts=("model.onnx",), wheels_for=("windows",)))
    with pytest.raises(DataError, match="no report"):
        make_bundle(tmp_path, tmp_path / "b", DeployOptions())
    changed = Path(shutil.copytree(run, tmp_path / "changed"))
    (changed / "model.onnx").write_bytes(b"other")
    with pytest.raises(ModelError, match="not the one of the report"):
        make_bundle(changed, tmp_path / "b", DeployOptions())
    assert not (tmp_path / "b").exists()
    assert not (tmp_path / "b.part").exists()


def test_a_bundle_is_replaced_whole(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    make_bundle(run, out, DeployOptions(artifacts=("model.onnx", "model.int8.onnx")))
    again = make_bundle(run, out, DeployOptions(artifacts=("model.onnx",)))
    assert again.artifacts == ("model.onnx",)
    assert not (out / "model.int8.onnx").exists()


def test_engines_per_system() -> None:
    lines = engine_lines(target("rpi4"))
    assert any(line.startswith("aarch64 3.11 onnxruntime onnxruntime==") for line in lines)
    assert not any(line.startswith("armv7l") and "onnxruntime" in line for line in lines)
    assert any(line.startswith("armv7l 3.11 tflite-runtime") for line in lines)
    jetson = engine_lines(target("jetson-orin-nano"))
    assert not any("tensorrt" in line for line in jetson)
    bookworm = target("rpi4").system("rpi-os-bookworm-64")
    assert bookworm is not None
    wanted = requirements(bookworm, ["onnx", "tflite"])
    assert [w.partition("==")[0] for w in wanted] == [
        "onnxruntime",
        "numpy",
        "ai-edge-litert",
        "pillow",
        "pip",
    ]
    tags = platform_tags(bookworm)
    assert (tags[0], tags[-2]) == ("manylinux_2_36_aarch64", "manylinux2014_aarch64")


def test_no_wheels_for_32_bit(tmp_path: Path) -> None:
    system = target("rpi4").system("rpi-os-bookworm-32")
    assert system is not None
    with pytest.raises(UnsupportedError, match="no wheels") as info:
        download(system, requirements(system, ["tflite"]), tmp_path / "wheels")
    assert "64-bit" in str(info.value)


def test_measured_on_a_real_board_takes_the_place_of_an_estimate(run: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    with LocalDevice() as here:
        (found,) = bench(
            [copy / "model.int8.onnx"], BenchOptions(runs=5, seconds=0.1, warmup=0.1, warmup_most=0.3), here
        )
    real = replace(found, device="ssh://pi@board", emulated=False, valid=True, invalid=(), median_ms=2.0)
    source = replace(real, artifact="digits.onnx", median_ms=8.0)

    def latencies() -> tuple[Latency | None, tuple[Latency, ...]]:
        (one,) = (a for a in read(copy).artifacts if a.path == "model.int8.onnx")
        return one.latency, one.others

    _add_to_report(copy, [replace(real, emulated=True)], (), of_target=True)
    latency, others = latencies()
    assert latency is not None
    assert (latency.measured, [o.emulated for o in others]) == (False, [True])
    _add_to_report(copy, [real], [source], of_target=True)
    _add_to_report(copy, [replace(real, median_ms=2.5)], [source], of_target=True)
    latency, others = latencies()
    assert latency is not None
    assert (latency.measured, latency.median_ms) == (True, 2.5)
    assert [o.measured for o in others] == [False]
    before = read(copy).model.latency
    assert before is not None
    assert before.median_ms == 8.0
    for name, median in (("model.int8.tflite", 0.5), ("model.int8.onnx", 0.25)):
        _add_to_report(copy, [replace(real, artifact=name, median_ms=median)], [source], of_target=True)
        assert read(copy).headline == name
    _add_to_report(copy, [replace(real, median_ms=2.5)], [source], of_target=True)
    assert read(copy).headline == "model.int8.tflite"
    latency, others = latencies()
    assert "ssh://pi@board" in (copy / "report.html").read_text(encoding="utf-8")
    _add_to_report(copy, [replace(real, device="ssh://pi@five", median_ms=1.0)], (), of_target=False)
    latency, others = latencies()
    assert latency is not None
    assert latency.median_ms == 2.5
    assert [o.device for o in others if o.measured] == ["ssh://pi@five"]


@pytest.mark.slow
def test_the_gpu_s_time_stands_first_where_it_is_valid(run: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    with LocalDevice() as here:
        (found,) = bench(
            [copy / "model.int8.onnx"], BenchOptions(runs=5, seconds=0.1, warmup=0.1, warmup_most=0.3), here
        )
    cpu = replace(found, device="ssh://me@jetson", emulated=False, valid=True, invalid=(), median_ms=2.0)
    about = {"engine": "tensorrt", "engine_version": "10.3.0", "delegate": "GPU, int8 + fp16", "threads": 1}
    gpu = replace(cpu, median_ms=0.5, power_w={"VDD_IN": 7.5}, first_ms=None, **about)
    before = replace(cpu, artifact="digits.onnx", median_ms=4.0)
    _add_to_report(copy, [cpu, replace(gpu, valid=False, invalid=("unstable",))], [before], of_target=True)

    def shown() -> tuple[Latency, list[str]]:
        (one,) = (a for a in read(copy).artifacts if a.path == "model.int8.onnx")
        assert one.latency is not None
        return one.latency, sorted(o.runtime for o in one.others if o.measured)

    first, others = shown()
    assert (first.median_ms, others) == (2.0, ["tensorrt 10.3.0 (GPU, int8 + fp16)"])
    for _ in range(2):  # a second visit to the board takes the place of the first, of either engine
        _add_to_report(copy, [cpu, gpu], [before], of_target=True)
        first, others = shown()
        assert (first.median_ms, others) == (0.5, [cpu.runtime])
        assert first.machine["power_w"] == {"VDD_IN": 7.5}
    # The CPU's time of the model before is no measure of what the GPU gained.
    (speed,) = (change for change in changes(read(copy)) if change.label == "Latency")
    assert speed.verdict == ""
    _add_to_report(
        copy, [cpu, gpu], [before, replace(gpu, artifact="digits.onnx", median_ms=1.0)], of_target=True
    )
    (speed,) = (change for change in changes(read(copy)) if change.label == "Latency")
    assert speed.share == 0.5


def test_the_command(run: Path, tmp_path: Path, edgec: Callable[..., tuple[int, str, str]]) -> None:
    code, out, err = edgec("deploy", run, "-o", tmp_path / "out", "--artifact", "model.int8.tflite", "--json")
    assert code == 0, err
    assert json.loads(out)["artifacts"] == ["model.int8.tflite"]


def test_one_artifact_everywhere(run: Path, copy: Path) -> None:
    """What the headline speaks of is what the bundle, its program, and a bench take first."""
    from edgec.compiler.cli.bench_command import _files

    headline = read(run).headline
    assert headline is not None
    assert json.loads((copy / "bundle.json").read_text())["artifacts"][0]["file"] == headline
    assert _files(run)[0] == run / headline
    code = "import sys; sys.path.insert(0, '.'); from run import Model; print(Model().artifact['file'])"
    (copy / "which.py").write_text(code)
    assert python(copy, "which.py").stdout.strip() == headline
